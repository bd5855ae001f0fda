//! An event of a peer: the specification's checks on receipt, in their order.
//!
//! 1. Valid form for the room version, else it is dropped.
//! 2. Valid signatures, else it is dropped.
//! 3. Valid hash, else its redacted form is taken.
//! 4. Authorized by its auth events, else it is rejected.
//! 5. Authorized by the state before it, else it is rejected.
//! 6. Authorized by the current state, else it is soft-failed.
//!
//! 1 to 3 are `remote::verify_all`, 5 and 6 are the module [`place`](super::place).

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedEventId, RoomId, ServerName, events::StateEventType};
use serde_json::value::RawValue;

use super::{
    Error, Rooms,
    pdus::Event,
    persist::{Accepted, Plan},
    place::{Incoming, Verdict, place},
    remote::{self, verify_all},
    resident::Room,
    state::{Entries, State},
};
use crate::{
    event::{auth, pdu::Pdu},
    storage::append::flag,
};

/// Events asked for to close a hole behind a new one.
const MISSING_MAX: u32 = 50;
/// Auth events fetched one by one for one event, through all generations.
const AUTH_FETCH_MAX: usize = 500;
/// Events of a state that are fetched one by one; for more the state is asked for whole.
const STATE_FETCH_MAX: usize = 30;

/// Receives events of one room from a peer, in the order given. The result has an entry for each
/// event that could be read: its id, and why it was not taken.
pub async fn receive(
    rooms: &Rooms,
    room_id: &RoomId,
    origin: &ServerName,
    events: &[Box<RawValue>],
) -> Result<Vec<(OwnedEventId, Result<Verdict, Error>)>, Error> {
    let room = rooms.by_id(room_id).await?;
    let pdus = verify_all(rooms, events, &room.version).await;
    let mut results = Vec::with_capacity(pdus.len());
    for pdu in pdus {
        let id = pdu.event_id.clone();
        let result = if pdu.room_id == room_id {
            one(rooms, &room, origin, Arc::new(pdu)).await
        } else {
            Err(Error::Invalid("the event is of another room".to_owned()))
        };
        results.push((id, result));
    }
    Ok(results)
}

/// Receives one verified event, after whatever it leans on.
async fn one(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    pdu: Arc<Pdu>,
) -> Result<Verdict, Error> {
    if let Some(verdict) = known_verdict(rooms, room, &pdu).await? {
        return Ok(verdict);
    }
    let lacking = lacking(rooms, room, &pdu.prev_events).await?;
    if !lacking.is_empty() {
        fill_hole(rooms, room, origin, &pdu).await?;
    }
    settle(rooms, room, origin, pdu).await
}

/// What became of an event that we have; `None`: new, or known as an outlier only.
async fn known_verdict(rooms: &Rooms, room: &Room, pdu: &Pdu) -> Result<Option<Verdict>, Error> {
    let event = rooms.event_by_id(room, &pdu.event_id).await?;
    Ok(event
        .filter(|event| !event.stored.is_outlier())
        .map(|event| {
            if event.stored.is_rejected() {
                Verdict::Rejected
            } else if event.stored.is_soft_failed() {
                Verdict::SoftFailed
            } else {
                Verdict::Accepted
            }
        }))
}

/// Of some ids those that are no part of our graph.
pub(super) async fn lacking(
    rooms: &Rooms,
    room: &Room,
    ids: &[OwnedEventId],
) -> Result<Vec<OwnedEventId>, Error> {
    let have: Vec<OwnedEventId> = rooms
        .events_by_id(room, ids)
        .await?
        .into_iter()
        .filter(|event| !event.stored.is_outlier())
        .map(|event| event.pdu.event_id.clone())
        .collect();
    Ok(ids
        .iter()
        .filter(|id| !have.contains(id))
        .cloned()
        .collect())
}

/// Fetches what lies between our extremities and a new event, and receives it in order.
async fn fill_hole(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    pdu: &Pdu,
) -> Result<(), Error> {
    let earliest = room
        .head()
        .extremities
        .iter()
        .map(|(_, id)| id.clone())
        .collect();
    let latest = vec![pdu.event_id.clone()];
    let fetched =
        remote::fetch::missing(rooms, origin, &room.id, earliest, latest, MISSING_MAX).await;
    let events = match fetched {
        Ok(events) => events,
        Err(error) => {
            tracing::info!(%error, room_id = %room.id, "missing events could not be had");
            return Ok(());
        }
    };
    let mut pdus = verify_all(rooms, &events, &room.version).await;
    pdus.retain(|missing| missing.room_id == room.id && missing.event_id != pdu.event_id);
    pdus.truncate(usize::try_from(MISSING_MAX).unwrap_or(0));
    for missing in in_order(pdus) {
        if known_verdict(rooms, room, &missing).await?.is_none()
            && let Err(error) = settle(rooms, room, origin, missing).await
        {
            tracing::info!(%error, room_id = %room.id, "a missing event was not taken");
        }
    }
    Ok(())
}

/// Events after their predecessors, as far as these are among them.
fn in_order(pdus: Vec<Pdu>) -> Vec<Arc<Pdu>> {
    let mut rest: HashMap<OwnedEventId, Arc<Pdu>> = pdus
        .into_iter()
        .map(|pdu| (pdu.event_id.clone(), Arc::new(pdu)))
        .collect();
    let mut ordered = Vec::with_capacity(rest.len());
    // Each round takes what leans on nothing that is left; a circle takes none and ends it.
    loop {
        let mut ready: Vec<Arc<Pdu>> = rest
            .values()
            .filter(|pdu| pdu.prev_events.iter().all(|id| !rest.contains_key(id)))
            .cloned()
            .collect();
        if ready.is_empty() {
            return ordered;
        }
        ready.sort_by(|a, b| (a.depth, &a.event_id).cmp(&(b.depth, &b.event_id)));
        for pdu in ready {
            rest.remove(&pdu.event_id);
            ordered.push(pdu);
        }
    }
}

/// Checks 4 to 6 for an event whose predecessors are here or cannot be had.
async fn settle(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    pdu: Arc<Pdu>,
) -> Result<Verdict, Error> {
    fetch_auth(rooms, room, origin, &pdu).await?;
    let rejected = !authorized_by_its_events(rooms, room, &pdu).await?;
    let missing = lacking(rooms, room, &pdu.prev_events).await?;
    let state_before = if missing.is_empty() {
        None
    } else {
        Some(remote_state(rooms, room, origin, &pdu).await?)
    };
    let known = rooms
        .event_by_id(room, &pdu.event_id)
        .await?
        .map(|event| event.stored.nid.0);
    let incoming = Incoming {
        pdu,
        known,
        rejected,
        missing,
        state_before,
        out: None,
    };
    place(rooms, room.nid, incoming).await
}

/// Check 4.
pub(super) async fn authorized_by_its_events(
    rooms: &Rooms,
    room: &Room,
    pdu: &Arc<Pdu>,
) -> Result<bool, Error> {
    let mut wanted = pdu.auth_events.clone();
    // From v12 on the create event is implied.
    if !room
        .version
        .rules
        .event_format
        .allow_room_create_in_auth_events
        && let Some(create) = create_of(rooms, room).await?
    {
        wanted.push(create.event_id.clone());
    }
    let events = rooms.events_by_id(room, &wanted).await?;
    let by_id: HashMap<&OwnedEventId, &Event> = events
        .iter()
        .map(|event| (&event.pdu.event_id, event))
        .collect();
    if pdu.auth_events.iter().any(|id| !by_id.contains_key(id)) {
        return Ok(false);
    }
    let fetch = |id: &ruma::EventId| by_id.get(&id.to_owned()).map(|event| event.pdu.clone());
    let state = |kind: &StateEventType, key: &str| {
        events
            .iter()
            .find(|event| {
                event.pdu.kind.to_string() == kind.to_string()
                    && event.pdu.state_key.as_deref() == Some(key)
            })
            .map(|event| event.pdu.clone())
    };
    let checked = auth::check_independent(&room.version, pdu, fetch)
        .and_then(|()| auth::check(&room.version, pdu, state));
    if let Err(why) = &checked {
        tracing::info!(event_id = %pdu.event_id, why, "an event fails against its auth events");
    }
    Ok(checked.is_ok())
}

async fn create_of(rooms: &Rooms, room: &Room) -> Result<Option<Arc<Pdu>>, Error> {
    let head = room.head();
    rooms
        .state_event(room, &head.state.entries, &StateEventType::RoomCreate, "")
        .await
}

/// Fetches auth events that we lack, with theirs, and stores them as outliers.
pub(super) async fn fetch_auth(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    pdu: &Pdu,
) -> Result<(), Error> {
    let have = rooms.events_by_id(room, &pdu.auth_events).await?;
    if have.len() >= pdu.auth_events.len() {
        return Ok(());
    }
    let chain = match remote::fetch::auth_chain(rooms, origin, &room.id, &pdu.event_id).await {
        Ok(chain) => chain,
        Err(error) => {
            tracing::info!(%error, "auth events could not be had");
            return Ok(());
        }
    };
    if chain.len() > AUTH_FETCH_MAX * 20 {
        return Err(Error::Remote(
            "the peer's auth chain is too long".to_owned(),
        ));
    }
    let pdus = verify_all(rooms, &chain, &room.version).await;
    store_outliers(rooms, room, pdus).await
}

/// Stores events that are known but no part of the graph, each after its auth events.
async fn store_outliers(rooms: &Rooms, room: &Arc<Room>, pdus: Vec<Pdu>) -> Result<(), Error> {
    let pdus: Vec<Pdu> = pdus
        .into_iter()
        .filter(|pdu| pdu.room_id == room.id && pdu.is_state())
        .collect();
    for pdu in by_auth(pdus) {
        if rooms.event_by_id(room, &pdu.event_id).await?.is_some() {
            continue;
        }
        let auth_events = rooms.events_by_id(room, &pdu.auth_events).await?;
        let mut pdu = pdu;
        let rejected = !authorized_by_its_events(rooms, room, &pdu).await?;
        Arc::make_mut(&mut pdu).rejected = rejected;
        let nid = rooms.take_nids(1).await?.start;
        let mut plan = Plan::outliers(room);
        plan.add(
            rooms,
            Accepted {
                pdu,
                nid,
                known: false,
                flags: flag::OUTLIER | if rejected { flag::REJECTED } else { 0 },
                snap: None,
                prev: Vec::new(),
                auth: auth_events.iter().map(|event| event.stored.nid.0).collect(),
                out: None,
                seq: None,
            },
        )
        .await?;
        plan.write_outliers(rooms).await?;
    }
    Ok(())
}

/// Events after their auth events, as far as these are among them.
fn by_auth(pdus: Vec<Pdu>) -> Vec<Arc<Pdu>> {
    let mut rest: HashMap<OwnedEventId, Arc<Pdu>> = pdus
        .into_iter()
        .map(|pdu| (pdu.event_id.clone(), Arc::new(pdu)))
        .collect();
    let mut ordered = Vec::with_capacity(rest.len());
    loop {
        let ready: Vec<Arc<Pdu>> = rest
            .values()
            .filter(|pdu| pdu.auth_events.iter().all(|id| !rest.contains_key(id)))
            .cloned()
            .collect();
        if ready.is_empty() {
            return ordered;
        }
        for pdu in ready {
            rest.remove(&pdu.event_id);
            ordered.push(pdu);
        }
    }
}

/// The state before an event whose predecessors we lack, as the peer tells it: what we do not have
/// is fetched, checked, and stored.
async fn remote_state(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    pdu: &Pdu,
) -> Result<State, Error> {
    let (state_ids, auth_ids) =
        remote::fetch::state_ids(rooms, origin, &room.id, &pdu.event_id).await?;
    let mut all = state_ids.clone();
    all.extend(auth_ids);
    let have: std::collections::HashSet<OwnedEventId> = rooms
        .events_by_id(room, &all)
        .await?
        .into_iter()
        .map(|event| event.pdu.event_id.clone())
        .collect();
    let lacking: Vec<&OwnedEventId> = all.iter().filter(|id| !have.contains(*id)).collect();
    let mut raw = Vec::new();
    if lacking.len() > STATE_FETCH_MAX {
        let (state, auth) = remote::fetch::state(rooms, origin, &room.id, &pdu.event_id).await?;
        raw.extend(state);
        raw.extend(auth);
    } else {
        for id in lacking {
            raw.push(remote::fetch::event(rooms, origin, id).await?);
        }
    }
    let pdus = verify_all(rooms, &raw, &room.version).await;
    store_outliers(rooms, room, pdus).await?;

    let ids = &rooms.ctx().db.ids;
    let mut entries = Entries::new();
    for event in rooms.events_by_id(room, &state_ids).await? {
        if event.stored.is_rejected() {
            continue;
        }
        if let Some(key) = &event.pdu.state_key {
            let skey = ids.skey(&event.pdu.kind.to_string(), key).await?;
            entries.insert(skey.0, event.stored.nid.0);
        }
    }
    if entries.is_empty() {
        return Err(Error::Remote("the peer gave no state".to_owned()));
    }
    Ok(State {
        snap: 0,
        generation: 0,
        since: 0,
        entries,
    })
}
