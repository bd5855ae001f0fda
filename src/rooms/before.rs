//! The states before and after events: read where they are stored, merged where branches meet.

use std::sync::Arc;

use ruma::OwnedEventId;

use super::{
    Error, Rooms,
    pdus::Event,
    place::Incoming,
    resident::{Head, Room},
    resolve::resolve,
    state::State,
};
use crate::event::pdu::Pdu;

/// What comes before an event.
#[derive(Debug)]
pub(super) struct Before {
    /// State; a merged one comes without a snapshot.
    pub(super) state: State,
    /// Its known predecessors.
    pub(super) prev: Vec<i64>,
    /// Whether the state lacks members.
    pub(super) partial: bool,
}

/// State before an event on a tip: at most two queries, and what of the states is not in memory.
pub(super) async fn state_before(
    rooms: &Rooms,
    room: &Arc<Room>,
    tip: &Head,
    event: &Incoming,
) -> Result<Before, Error> {
    let wanted = &event.pdu.prev_events;
    let on_tip = wanted.len() == tip.extremities.len()
        && tip.extremities.iter().all(|(_, id)| wanted.contains(id));
    if on_tip && !room.partial {
        return Ok(Before {
            state: tip.state.clone(),
            prev: tip.extremities.iter().map(|(nid, _)| *nid).collect(),
            partial: false,
        });
    }
    // From here on the database is asked: what is queued must be there.
    room.committed(tip.rev).await;
    let prev = rooms.events_by_id(room, wanted).await?;
    // Without them the state would seem to be empty, and nothing is allowed there.
    let is_here = |id: &OwnedEventId| prev.iter().any(|event| event.pdu.event_id == *id);
    if !wanted
        .iter()
        .all(|id| is_here(id) || event.missing.contains(id))
    {
        return Err(Error::Busy);
    }
    let mut states: Vec<State> = Vec::new();
    for event in &prev {
        if let Some(state) = state_after(rooms, room, event).await? {
            states.push(state);
        }
    }
    states.extend(event.states.iter().cloned());
    Ok(Before {
        state: merge(rooms, room, states, &[]).await?,
        prev: prev.iter().map(|event| event.stored.nid.0).collect(),
        partial: room.partial && prev.iter().any(|event| event.stored.is_partial()),
    })
}

/// A state that lacks members, with those that an event names as its authorization: as far as the
/// state says nothing else of them, they are believed until it is whole (MSC3902).
pub(super) async fn widened(
    rooms: &Rooms,
    room: &Room,
    before: &State,
    pdu: &Pdu,
) -> Result<State, Error> {
    let named = rooms.events_by_id(room, &pdu.auth_events).await?;
    let mut claimed = before.clone();
    claimed.snap = 0;
    for event in named.iter().filter(|event| !event.stored.is_rejected()) {
        if let Some(key) = &event.pdu.state_key {
            let kind = event.pdu.kind.to_string();
            let skey = rooms.ctx().db.ids.skey(&kind, key).await?;
            claimed.entries.insert(skey.0, event.stored.nid.0);
        }
    }
    if claimed.entries == before.entries {
        return Ok(before.clone());
    }
    merge(rooms, room, vec![before.clone(), claimed], &[]).await
}

/// State after a stored event; `None`: not known. Snapshot 0 where it has none of its own.
pub(super) async fn state_after(
    rooms: &Rooms,
    room: &Room,
    event: &Event,
) -> Result<Option<State>, Error> {
    let Some(snap) = event.stored.snap else {
        return Ok(None);
    };
    let state = rooms.state_of(room.nid, snap).await?;
    let rejected = event.stored.is_rejected();
    Ok(Some(with_event(rooms, state, (event, rejected)).await?))
}

/// State after an event, of the state before it and whether the event is rejected.
pub(super) async fn with_event(
    rooms: &Rooms,
    mut state: State,
    (event, rejected): (&Event, bool),
) -> Result<State, Error> {
    if let Some(key) = &event.pdu.state_key
        && !rejected
    {
        let kind = event.pdu.kind.to_string();
        let skey = rooms.ctx().db.ids.skey(&kind, key).await?;
        if state.get(skey.0) != Some(event.stored.nid.0) {
            state.entries.insert(skey.0, event.stored.nid.0);
            state.snap = 0;
        }
    }
    Ok(state)
}

/// One state out of several; snapshot 0 where it is a new one.
/// `fresh` are auth edges that are not stored yet.
pub(super) async fn merge(
    rooms: &Rooms,
    room: &Room,
    mut states: Vec<State>,
    fresh: &[(i64, Vec<i64>)],
) -> Result<State, Error> {
    // Message events on one branch share a snapshot.
    states.sort_by_key(|state| state.snap);
    states.dedup_by(|a, b| a.snap != 0 && a.snap == b.snap);
    if states.len() < 2 {
        return Ok(states.pop().unwrap_or_default());
    }
    let entries = resolve(rooms, room, &states, fresh).await?;
    let same = states
        .iter()
        .find(|state| state.snap != 0 && state.entries == entries);
    Ok(same.cloned().unwrap_or(State {
        snap: 0,
        generation: 0,
        since: 0,
        entries,
    }))
}
