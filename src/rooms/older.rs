//! Older events that peers gave: which of them are taken, and the states before them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedEventId, ServerName};

use super::{
    Error, Rooms,
    before::{merge, state_after},
    missing::{self, lacking},
    open_history,
    persist::Plan,
    receive,
    resident::Room,
    state::State,
};
use crate::event::pdu::Pdu;

/// Number of an event that is taken, and whether it is stored already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh {
    /// Number.
    pub(super) nid: i64,
    /// Stored as an outlier.
    pub(super) known: bool,
}

/// Events that are taken, by id.
pub(super) type Numbers = HashMap<OwnedEventId, Fresh>;

/// Those events that lead to `from`, are new to the graph and authorized by their auth events,
/// newest first.
pub(super) async fn fresh(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    (from, pdus): (&[OwnedEventId], &[Arc<Pdu>]),
) -> Result<(Vec<Arc<Pdu>>, Numbers), Error> {
    let mut pdus = pdus.to_vec();
    pdus.sort_by(|a, b| (b.depth, &b.event_id).cmp(&(a.depth, &a.event_id)));
    pdus.dedup_by(|a, b| a.event_id == b.event_id);
    let ids: Vec<OwnedEventId> = pdus.iter().map(|pdu| pdu.event_id.clone()).collect();
    let stored: HashMap<OwnedEventId, (i64, bool)> = rooms
        .events_by_id(room, &ids)
        .await?
        .into_iter()
        .map(|event| {
            let at = (event.stored.nid.0, event.stored.is_outlier());
            (event.pdu.event_id.clone(), at)
        })
        .collect();
    let is_known = |id: &OwnedEventId| stored.get(id).is_some_and(|(_, outlier)| !outlier);
    let leading = leading(from, &pdus, is_known);
    pdus.retain(|pdu| leading.contains(&pdu.event_id));
    let mut taken = Vec::with_capacity(pdus.len());
    let mut numbers = Numbers::new();
    for pdu in pdus {
        let at = stored.get(&pdu.event_id);
        missing::fetch_auth(rooms, room, server, &pdu).await?;
        if !receive::authorized_by_its_events(rooms, room, &pdu).await? {
            continue;
        }
        let nid = match at {
            Some((nid, _)) => *nid,
            None => rooms.take_nids(1).await?.start,
        };
        let known = at.is_some();
        numbers.insert(pdu.event_id.clone(), Fresh { nid, known });
        taken.push(pdu);
    }
    Ok((taken, numbers))
}

/// Of some events those that lead to `from` without going through what is in the timeline: what is
/// only to be reached that way lies below it, in another hole.
fn leading(
    from: &[OwnedEventId],
    pdus: &[Arc<Pdu>],
    is_known: impl Fn(&OwnedEventId) -> bool,
) -> HashSet<OwnedEventId> {
    let by_id: HashMap<&OwnedEventId, &Arc<Pdu>> =
        pdus.iter().map(|pdu| (&pdu.event_id, pdu)).collect();
    let mut queue: Vec<&OwnedEventId> = from.iter().collect();
    let mut found = HashSet::new();
    while let Some(id) = queue.pop() {
        if let Some(pdu) = by_id.get(id)
            && !is_known(id)
            && found.insert(id.clone())
        {
            queue.extend(&pdu.prev_events);
        }
    }
    found
}

/// Snapshots of the states before events, by number. They are worked out only where not everybody
/// in the room may see all of its history: nothing else asks for them.
pub(super) async fn states(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    (pdus, numbers): (&[Arc<Pdu>], &Numbers),
    plan: &mut Plan,
) -> Result<HashMap<i64, i64>, Error> {
    let mut snaps = HashMap::new();
    if open_history::of_room(rooms, room).await? {
        return Ok(snaps);
    }
    let mut after: HashMap<&OwnedEventId, State> = HashMap::new();
    let mut asked = false;
    let mut base = State::default();
    for pdu in pdus.iter().rev() {
        let (mut states, others): (Vec<State>, Vec<OwnedEventId>) = (
            pdu.prev_events
                .iter()
                .filter_map(|id| after.get(id).cloned())
                .collect(),
            pdu.prev_events
                .iter()
                .filter(|id| !after.contains_key(id))
                .cloned()
                .collect(),
        );
        for event in rooms.events_by_id(room, &others).await? {
            states.extend(state_after(rooms, room, &event).await?);
        }
        let lacking = lacking(rooms, room, &others).await?;
        if !lacking.is_empty() {
            // The end of a page is asked for; a second hole in it is judged by what is known.
            if std::mem::replace(&mut asked, true) {
                continue;
            }
            match missing::missing_states(rooms, room, server, (pdu, &lacking)).await {
                Ok(told) => states.extend(told),
                Err(error) => {
                    tracing::info!(%error, "the state before older events could not be had");
                    return Ok(snaps);
                }
            }
        }
        let mut before = merge(rooms, room, states, &[]).await?;
        if before.entries == base.entries {
            before = base.clone();
        } else if before.snap == 0 {
            let snap = rooms.take_nids(1).await?.start;
            let (stored, rows) = base.replace(room.nid.0, snap, before.entries);
            plan.store_state(rows);
            before = stored;
        }
        base = before.clone();
        let Fresh { nid, .. } = numbers[&pdu.event_id];
        if before.snap != 0 {
            snaps.insert(nid, before.snap);
        }
        if let Some(key) = &pdu.state_key {
            let kind = pdu.kind.to_string();
            let skey = rooms.ctx().db.ids.skey(&kind, key).await?;
            before.entries.insert(skey.0, nid);
            before.snap = 0;
        }
        after.insert(&pdu.event_id, before);
    }
    Ok(snaps)
}
