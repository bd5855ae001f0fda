//! What an event leans on and we lack, fetched from a peer: predecessors, auth events, the state
//! where a hole stays.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedEventId, ServerName};

use super::{
    Error, Rooms, outliers,
    receive::{known_verdict, settle},
    remote::{self, verify_all},
    resident::Room,
    state::State,
};
use crate::event::pdu::Pdu;

/// Events asked for to close a hole behind a new one.
const MISSING_MAX: u32 = 50;
/// Auth events fetched one by one for one event, through all generations.
const AUTH_FETCH_MAX: usize = 300;
/// Events of a state that are fetched one by one; for more the state is asked for whole.
const STATE_FETCH_MAX: usize = 30;

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
pub(super) async fn fill_hole(
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
            return Err(error);
        }
    };
    let mut pdus = verify_all(rooms, origin, &events, &room.version).await;
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

/// Fetches auth events that we lack, with theirs, and stores them as outliers.
pub(super) async fn fetch_auth(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    pdu: &Pdu,
) -> Result<(), Error> {
    let ids: Vec<&OwnedEventId> = pdu.auth_events.iter().collect();
    let have = outliers::known(rooms, room, &ids).await?;
    if ids.iter().all(|id| have.contains_key(*id)) {
        return Ok(());
    }
    match remote::fetch::auth_chain(rooms, origin, room, &pdu.event_id).await {
        Ok(chain) => {
            outliers::store(rooms, room, chain).await?;
        }
        Err(error) => {
            tracing::info!(%error, "an auth chain could not be had, its events are asked for");
            let missing = ids
                .into_iter()
                .filter(|id| !have.contains_key(*id))
                .cloned();
            let chain = auth_events(rooms, room, origin, missing.collect()).await?;
            outliers::store(rooms, room, chain).await?;
        }
    }
    Ok(())
}

/// Auth events one by one, with theirs.
async fn auth_events(
    rooms: &Rooms,
    room: &Room,
    origin: &ServerName,
    mut missing: Vec<OwnedEventId>,
) -> Result<Vec<Pdu>, Error> {
    let mut chain: Vec<Pdu> = Vec::new();
    while !missing.is_empty() && chain.len() + missing.len() <= AUTH_FETCH_MAX {
        let ids: Vec<&OwnedEventId> = missing.iter().collect();
        let fetched = remote::fetch::events(rooms, origin, room, &ids).await?;
        let mut named: Vec<OwnedEventId> = fetched
            .iter()
            .flat_map(|pdu| pdu.auth_events.clone())
            .collect();
        chain.extend(fetched);
        named.sort_unstable();
        named.dedup();
        named.retain(|id| !chain.iter().any(|pdu| pdu.event_id == *id) && !missing.contains(id));
        let ids: Vec<&OwnedEventId> = named.iter().collect();
        let have = outliers::known(rooms, room, &ids).await?;
        named.retain(|id| !have.contains_key(id));
        missing = named;
    }
    Ok(chain)
}

/// The states after those predecessors of an event that we lack, as a peer tells; where it cannot
/// tell one of them, the state before the event itself.
pub(super) async fn missing_states(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    (pdu, missing): (&Pdu, &[OwnedEventId]),
) -> Result<Vec<State>, Error> {
    let mut states = Vec::with_capacity(missing.len());
    for id in missing {
        match state_after(rooms, room, server, id).await {
            Ok(state) => states.push(state),
            Err(error @ (Error::Storage(_) | Error::NotWritten(_))) => return Err(error),
            Err(error) => {
                tracing::info!(%error, event_id = %id, "the state after an event could not be had");
                return Ok(vec![
                    state_before(rooms, room, server, &pdu.event_id).await?,
                ]);
            }
        }
    }
    Ok(states)
}

/// The state after an event that we lack.
async fn state_after(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    id: &OwnedEventId,
) -> Result<State, Error> {
    let mut state = state_before(rooms, room, server, id).await?;
    let mut event = rooms.event_by_id(room, id).await?;
    if event.is_none() {
        let raw = remote::fetch::event(rooms, server, id).await?;
        let pdus = verify_all(rooms, server, &[raw], &room.version).await;
        if !pdus.iter().any(|pdu| pdu.event_id == *id) {
            return Err(Error::Remote("the peer gave another event".to_owned()));
        }
        outliers::store(rooms, room, pdus).await?;
        // A message event is not stored, and changes nothing.
        event = rooms.event_by_id(room, id).await?;
    }
    if let Some(event) = event
        && let Some(key) = &event.pdu.state_key
        && !event.stored.is_rejected()
    {
        let kind = event.pdu.kind.to_string();
        let skey = rooms.ctx().db.ids.skey(&kind, key).await?;
        state.entries.insert(skey.0, event.stored.nid.0);
    }
    Ok(state)
}

/// The state before an event, as a peer tells it: what we do not have is fetched, checked, and
/// stored.
async fn state_before(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    id: &ruma::EventId,
) -> Result<State, Error> {
    let (state_ids, auth_ids) = remote::fetch::state_ids(rooms, server, &room.id, id).await?;
    let all: Vec<&OwnedEventId> = state_ids.iter().chain(&auth_ids).collect();
    let mut nids = outliers::known(rooms, room, &all).await?;
    let lacking: Vec<&OwnedEventId> = all
        .into_iter()
        .filter(|id| !nids.contains_key(*id))
        .collect();
    if !lacking.is_empty() {
        let pdus = if lacking.len() > STATE_FETCH_MAX {
            remote::fetch::state(rooms, server, room, id).await?
        } else {
            remote::fetch::events(rooms, server, room, &lacking).await?
        };
        nids.extend(outliers::store(rooms, room, pdus).await?.0);
    }
    let wanted: Vec<i64> = state_ids
        .iter()
        .filter_map(|id| nids.get(id).copied())
        .collect();
    let entries = remote::join::state_map(rooms, room, &wanted).await?;
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
