//! An event of a peer: the specification's checks on receipt, in their order.
//!
//! 1. Valid form for the room version, else it is dropped.
//! 2. Valid signatures, else it is dropped.
//! 3. Valid hash, else its redacted form is taken.
//! 4. Authorized by its auth events, else it is rejected.
//! 5. Authorized by the state before it, else it is rejected.
//! 6. Authorized by the current state, else it is soft-failed.
//! 7. Signed by the room's policy server, if it has one, else it is soft-failed. Of a server that we
//!    have something to do with, else it is soft-failed as well: it is history that others lean on.
//!
//! 1 to 3 are `remote::verify_all`, 5 to 7 are the module [`place`].
//!
//! Events that lean on nothing we lack are placed at once, all of a transaction together; others go
//! to the [`inbox`], where fetching what they lean on holds up nobody else.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedEventId, RoomId, ServerName, events::StateEventType};
use serde_json::value::RawValue;

use super::{
    Error, Rooms, inbox, missing,
    once::Claim,
    pdus::Event,
    place::{self, Incoming, Placed, Verdict},
    policy_server::{self, Judged},
    remote::verify_all,
    resident::Room,
};
use crate::{
    config::UnlistedInRoom,
    event::{auth, pdu::Pdu},
    storage,
};

/// What became of an event that a peer sent: nothing more to tell, or why it was not taken.
pub type Outcome = Result<(), Error>;

/// Receives events of one room from a peer, in the order given. The result has an entry for each
/// event that could be read.
pub async fn receive(
    rooms: &Rooms,
    room_id: &RoomId,
    origin: &ServerName,
    events: &[Box<RawValue>],
) -> Result<Vec<(OwnedEventId, Outcome)>, Error> {
    let room = rooms.by_id(room_id).await?;
    let pdus = verify_all(rooms, origin, events, &room.version).await;
    let (pdus, strange): (Vec<Pdu>, Vec<Pdu>) =
        pdus.into_iter().partition(|pdu| pdu.room_id == room_id);
    let mut results: Vec<(OwnedEventId, Outcome)> = strange
        .into_iter()
        .map(|pdu| {
            let why = "the event is of another room".to_owned();
            (pdu.event_id, Err(Error::Invalid(why)))
        })
        .collect();
    let pdus: Vec<Arc<Pdu>> = pdus.into_iter().map(Arc::new).collect();
    results.extend(pdus.iter().map(|pdu| (pdu.event_id.clone(), Ok(()))));
    let waiting = if rooms.0.inbox.is_waiting(room.nid, origin) {
        pdus
    } else {
        at_once(rooms, &room, pdus).await?
    };
    if !waiting.is_empty() {
        inbox::put(rooms, &room, origin, &waiting).await?;
    }
    Ok(results)
}

/// Events that were looked up for a transaction, with what was placed meanwhile.
#[derive(Default)]
struct Known {
    /// Number, whether it is part of the graph, event.
    events: HashMap<OwnedEventId, (i64, bool, Arc<Pdu>)>,
    /// Redactions by the id of their target.
    redactions: HashMap<String, Vec<i64>>,
}

impl Known {
    /// What events lean on, and whether we have them: two queries for all.
    async fn load(rooms: &Rooms, room: &Room, pdus: &[Arc<Pdu>]) -> Result<Self, Error> {
        let mut ids: Vec<OwnedEventId> = pdus
            .iter()
            .flat_map(|pdu| pdu.prev_events.iter().chain(&pdu.auth_events))
            .chain(pdus.iter().map(|pdu| &pdu.event_id))
            .cloned()
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let mut known = Self::default();
        for event in rooms.events_by_id(room, &ids).await? {
            let in_graph = !event.stored.is_outlier();
            let id = event.pdu.event_id.clone();
            let entry = (event.stored.nid.0, in_graph, event.pdu);
            known.events.insert(id, entry);
        }
        let targets: Vec<String> = pdus.iter().map(|pdu| pdu.event_id.to_string()).collect();
        let mut conn = rooms.ctx().db.conn().await?;
        let waiting = storage::events::redactions_of(&mut conn, room.nid, &targets).await?;
        for (target, redaction, _) in waiting {
            known.redactions.entry(target).or_default().push(redaction);
        }
        Ok(known)
    }

    fn is_in_graph(&self, id: &OwnedEventId) -> bool {
        self.events
            .get(id)
            .is_some_and(|(_, in_graph, _)| *in_graph)
    }

    /// The event as it goes to its place; `None`: it leans on what we lack.
    async fn incoming(
        &self,
        rooms: &Rooms,
        room: &Room,
        pdu: &Arc<Pdu>,
    ) -> Result<Option<Incoming>, Error> {
        let has_all = pdu.prev_events.iter().all(|id| self.is_in_graph(id))
            && pdu
                .auth_events
                .iter()
                .all(|id| self.events.contains_key(id));
        if !has_all || pdu.prev_events.is_empty() {
            return Ok(None);
        }
        let mut named = Vec::with_capacity(pdu.auth_events.len() + 1);
        for id in &pdu.auth_events {
            named.extend(self.events.get(id).map(|(_, _, pdu)| pdu.clone()));
        }
        let auth = pdu.auth_events.iter().filter_map(|id| self.events.get(id));
        let target = pdu.event_id.as_str();
        Ok(Some(Incoming {
            pdu: pdu.clone(),
            known: self.events.get(&pdu.event_id).map(|(nid, ..)| *nid),
            rejected: !is_authorized_by(rooms, room, pdu, named).await?,
            set_aside: false,
            missing: Vec::new(),
            states: Vec::new(),
            auth: auth.map(|(nid, ..)| *nid).collect(),
            redactions: self.redactions.get(target).cloned().unwrap_or_default(),
            out: None,
            txn: None,
        }))
    }

    fn add(&mut self, pdu: &Arc<Pdu>, placed: &Placed) {
        let mut pdu = pdu.clone();
        if placed.verdict == Verdict::Rejected {
            Arc::make_mut(&mut pdu).rejected = true;
        }
        let id = pdu.event_id.clone();
        self.events.insert(id, (placed.nid, true, pdu));
    }
}

/// Places events as long as they lean on nothing we lack, and returns the rest. They are written
/// behind each other without waiting for each; where the room changes under our feet, those that
/// were not written are among the rest, since they may lean on each other by numbers that are void.
async fn at_once(
    rooms: &Rooms,
    room: &Arc<Room>,
    pdus: Vec<Arc<Pdu>>,
) -> Result<Vec<Arc<Pdu>>, Error> {
    let _claims = claims(rooms, &pdus).await;
    let mut known = Known::load(rooms, room, &pdus).await?;
    let policy = policy_server::of(rooms, room).await?;
    let mut queued: Vec<(Arc<Pdu>, Placed)> = Vec::new();
    let mut on: Option<Arc<Room>> = None;
    let mut rest = pdus.into_iter();
    let mut waiting = Vec::new();
    for pdu in rest.by_ref() {
        if known.is_in_graph(&pdu.event_id) {
            continue;
        }
        let is_judged = policy
            .as_ref()
            .is_none_or(|policy| policy_server::is_signed(policy, room, &pdu));
        let incoming = known.incoming(rooms, room, &pdu).await?;
        let Some(incoming) = incoming.filter(|_| is_judged) else {
            waiting.push(pdu);
            break;
        };
        let Some(placed) = place::begin(rooms, room.nid, &incoming, on.as_ref()).await? else {
            waiting.push(pdu);
            break;
        };
        on = Some(placed.room());
        known.add(&pdu, &placed);
        queued.push((pdu, placed));
    }
    let mut left = Vec::new();
    for (pdu, placed) in queued {
        if !placed.written(rooms).await? {
            left.push(pdu);
        }
    }
    left.append(&mut waiting);
    left.extend(rest);
    Ok(left)
}

/// The right to place events.
pub(super) async fn claims<'a>(rooms: &'a Rooms, pdus: &[Arc<Pdu>]) -> Vec<Claim<'a>> {
    let ids = pdus.iter().map(|pdu| &pdu.event_id);
    rooms.0.underway.claim_events(ids).await
}

/// Receives one verified event, after whatever it leans on.
pub(super) async fn one(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    pdu: Arc<Pdu>,
) -> Result<Verdict, Error> {
    if let Some(verdict) = known_verdict(rooms, room, &pdu).await? {
        return Ok(verdict);
    }
    let lacking = missing::lacking(rooms, room, &pdu.prev_events).await?;
    if !lacking.is_empty() {
        missing::fill_hole(rooms, room, origin, &pdu).await?;
        // Who sends an event knows what came before it. Without that it could become the only
        // extremity, with a state that its sender alone tells.
        if !missing::lacking(rooms, room, &pdu.prev_events)
            .await?
            .is_empty()
        {
            return Err(Error::Withheld);
        }
    }
    settle(rooms, room, origin, pdu).await
}

/// What became of an event that we have; `None`: new, or known as an outlier only.
pub(super) async fn known_verdict(
    rooms: &Rooms,
    room: &Room,
    pdu: &Pdu,
) -> Result<Option<Verdict>, Error> {
    let event = rooms.event_by_id(room, &pdu.event_id).await?;
    Ok(event.as_ref().and_then(verdict_of))
}

/// What became of a stored event; `None`: it is an outlier.
fn verdict_of(event: &Event) -> Option<Verdict> {
    if event.stored.is_outlier() {
        None
    } else if event.stored.is_rejected() {
        Some(Verdict::Rejected)
    } else if event.stored.is_soft_failed() {
        Some(Verdict::SoftFailed)
    } else {
        Some(Verdict::Accepted)
    }
}

/// Checks 4 to 6 for an event whose predecessors are here or cannot be had.
pub(super) async fn settle(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    pdu: Arc<Pdu>,
) -> Result<Verdict, Error> {
    // The state first: it brings most of what authorizes the event.
    let missing = missing::lacking(rooms, room, &pdu.prev_events).await?;
    let states = missing::missing_states(rooms, room, origin, (&*pdu, &*missing)).await?;
    missing::fetch_auth(rooms, room, origin, &pdu).await?;
    let (pdu, unsigned) = judged(rooms, room, pdu).await?;
    let mut incoming = Incoming::new(rooms, room, pdu.clone()).await?;
    incoming.set_aside = unsigned || is_refused(rooms, &pdu);
    incoming.rejected = !authorized_by_its_events(rooms, room, &pdu).await?;
    incoming.missing = missing;
    incoming.states = states;
    let _claims = claims(rooms, std::slice::from_ref(&pdu)).await;
    let stored = rooms.event_by_id(room, &pdu.event_id).await?;
    if let Some(verdict) = stored.as_ref().and_then(verdict_of) {
        return Ok(verdict);
    }
    incoming.known = stored.map(|event| event.stored.nid.0);
    place::place(rooms, room.nid, incoming).await
}

/// Whether we have nothing to do with the server of the sender. In a room that may have such users
/// their events are history that others lean on, and no more.
fn is_refused(rooms: &Rooms, pdu: &Pdu) -> bool {
    let gate = rooms.ctx().federation.gate();
    gate.unlisted_in_room() != UnlistedInRoom::Allow && !gate.allows(pdu.sender.server_name())
}

/// Check 7: the event, with the signature of the room's policy server where that could be had, and
/// whether it lacks it.
async fn judged(rooms: &Rooms, room: &Room, pdu: Arc<Pdu>) -> Result<(Arc<Pdu>, bool), Error> {
    let Some(policy) = policy_server::of(rooms, room).await? else {
        return Ok((pdu, false));
    };
    if policy_server::is_signed(&policy, room, &pdu) {
        return Ok((pdu, false));
    }
    match policy_server::judge(rooms, room, &policy, &pdu).await {
        Ok(Judged::Signed(signed)) => Ok((signed, false)),
        Ok(Judged::Refused(why)) => {
            tracing::info!(%why, event_id = %pdu.event_id, "a policy server refused an event");
            Ok((pdu, true))
        }
        Err(error) => {
            tracing::info!(%error, event_id = %pdu.event_id, "a policy server could not be asked");
            Ok((pdu, true))
        }
    }
}

/// Check 4.
pub(super) async fn authorized_by_its_events(
    rooms: &Rooms,
    room: &Room,
    pdu: &Arc<Pdu>,
) -> Result<bool, Error> {
    let events = rooms.events_by_id(room, &pdu.auth_events).await?;
    let has = |id: &OwnedEventId| events.iter().any(|event| event.pdu.event_id == *id);
    if !pdu.auth_events.iter().all(has) {
        return Ok(false);
    }
    let events = events.into_iter().map(|event| event.pdu).collect();
    is_authorized_by(rooms, room, pdu, events).await
}

/// The same with its auth events, all of them.
async fn is_authorized_by(
    rooms: &Rooms,
    room: &Room,
    pdu: &Arc<Pdu>,
    mut events: Vec<Arc<Pdu>>,
) -> Result<bool, Error> {
    // From v12 on the create event is implied.
    let format = &room.version.rules.event_format;
    if !format.allow_room_create_in_auth_events {
        let head = room.head();
        let state = &head.state.entries;
        events.extend(
            rooms
                .state_event(room, state, &StateEventType::RoomCreate, "")
                .await?,
        );
    }
    let fetch = |id: &ruma::EventId| events.iter().find(|event| event.event_id == id).cloned();
    let state = |kind: &StateEventType, key: &str| {
        let at = |event: &&Arc<Pdu>| {
            event.state_key.as_deref() == Some(key) && event.kind.to_string() == kind.to_string()
        };
        events.iter().find(at).cloned()
    };
    let checked = auth::check_independent(&room.version, pdu, fetch)
        .and_then(|()| auth::check(&room.version, pdu, state));
    if let Err(why) = &checked {
        tracing::info!(event_id = %pdu.event_id, why, "an event fails against its auth events");
    }
    Ok(checked.is_ok())
}
