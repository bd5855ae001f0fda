//! What pages of several rooms lean on, brought into memory with a few queries for all of them: who goes
//! through the rooms one by one finds it there.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ruma::UserId;

use super::{Error, Rooms, pdus::Event, resident::Room, visibility};
use crate::{
    event::pdu::Pdu,
    storage::{self, UserNid},
};

/// A room and events of it.
pub type Page<'a> = (&'a Room, &'a [Event]);

/// Brings the numbers of users into memory that events of pages name.
pub async fn names(rooms: &Rooms, pages: &[Page<'_>]) -> Result<(), Error> {
    let events = pages.iter().flat_map(|(_, events)| events.iter());
    let named = events.flat_map(|event| [Some(&*event.pdu.sender), event.pdu.target()]);
    let named: HashSet<&UserId> = named.flatten().collect();
    let named: Vec<&UserId> = named.into_iter().collect();
    rooms.ctx().db.ids.users_of(&named).await?;
    Ok(())
}

/// Brings into memory what [`super::render`] and [`visibility`] ask of pages: names, the states before
/// the events, and of those what decides who sees an event and what it replaced.
pub async fn prepare(rooms: &Rooms, viewer: UserNid, pages: &[Page<'_>]) -> Result<(), Error> {
    let ids = &rooms.ctx().db.ids;
    names(rooms, pages).await?;
    let events = pages.iter().flat_map(|(_, events)| events.iter());
    let keys = events.filter_map(|event| {
        let key = event.pdu.state_key.clone()?;
        Some((event.pdu.kind.to_string(), key))
    });
    ids.prepare_skeys(keys.collect()).await?;
    let snaps = |events: &[Event]| {
        events
            .iter()
            .filter_map(|event| event.stored.snap)
            .collect()
    };
    let wanted: Vec<(&Room, BTreeSet<i64>)> = pages
        .iter()
        .map(|(room, events)| (*room, snaps(events)))
        .collect();
    rooms.prepare_states(&wanted).await?;
    let decisive = [
        visibility::visibility_skey(rooms).await?.unwrap_or(0),
        -viewer.0,
    ];
    let mut wanted = Vec::with_capacity(pages.len());
    for (room, events) in pages {
        let head = room.head();
        let current = decisive.iter().filter_map(|skey| head.state.get(*skey));
        let mut nids: BTreeSet<i64> = current.collect();
        // From memory, but where a state was put out of it at once.
        let states = rooms.states_before(room, events).await?;
        for event in *events {
            let Some(state) = event.stored.snap.and_then(|snap| states.get(&snap)) else {
                continue;
            };
            nids.extend(decisive.iter().filter_map(|skey| state.get(*skey)));
            if let Some(key) = &event.pdu.state_key {
                let skey = ids.find_skey(&event.pdu.kind.to_string(), key).await?;
                nids.extend(skey.and_then(|skey| state.get(skey.0)));
            }
        }
        wanted.push((*room, nids.into_iter().collect()));
    }
    rooms.prepare_pdus(&wanted).await
}

/// Redactions in force, by id of the redacted event.
#[derive(Debug, Default)]
pub struct Redactions(HashMap<String, Arc<Pdu>>);

impl Redactions {
    /// Those of some events: two queries where any was redacted, for all rooms together.
    pub async fn load(rooms: &Rooms, pages: &[Page<'_>]) -> Result<Self, Error> {
        let (mut nids, mut targets, mut by_nid) = (Vec::new(), Vec::new(), HashMap::new());
        for (room, events) in pages {
            for event in events.iter().filter(|event| event.stored.is_redacted()) {
                nids.push(room.nid.0);
                targets.push(event.pdu.event_id.to_string());
                by_nid.insert(room.nid.0, *room);
            }
        }
        if targets.is_empty() {
            return Ok(Self::default());
        }
        let mut conn = rooms.ctx().db.conn().await?;
        let found = storage::events::applied_redactions(&mut conn, &nids, &targets).await?;
        drop(conn);
        let mut of_room: HashMap<i64, Vec<(String, i64)>> = HashMap::new();
        for (room, target, redaction) in found {
            of_room.entry(room).or_default().push((target, redaction));
        }
        let wanted: Vec<(&Room, Vec<i64>)> = of_room
            .iter()
            .filter_map(|(nid, found)| {
                let nids = found.iter().map(|(_, redaction)| *redaction);
                Some((*by_nid.get(nid)?, nids.collect()))
            })
            .collect();
        rooms.prepare_pdus(&wanted).await?;
        let mut because = HashMap::with_capacity(targets.len());
        for (room, nids) in wanted {
            let pdus = rooms.pdus(room, &nids).await?;
            let found = of_room.remove(&room.nid.0).unwrap_or_default();
            because.extend(found.into_iter().map(|(target, _)| target).zip(pdus));
        }
        Ok(Self(because))
    }

    /// What an event was redacted by.
    pub(super) fn of(&self, event: &Pdu) -> Option<&Arc<Pdu>> {
        self.0.get(event.event_id.as_str())
    }
}
