//! What erased users said, for those who were not in the room when they said it: without its content.
//!
//! Nothing is redacted: who saw it may go on to see it, and no peer is told. What a room is now (its
//! name, who is in it) is not theirs alone, and stays as it is.

use std::{collections::HashSet, sync::Arc};

use ruma::{ServerName, events::TimelineEventType};

use super::{
    Error, Rooms,
    moments::Moments,
    pdus::Event,
    resident::Room,
    visibility::{Viewer, keys_of_server},
};
use crate::event::redact::redact;

/// Prunes, of events that a user may see, those of erased users.
pub(super) async fn prune(
    rooms: &Rooms,
    room: &Room,
    viewer: &Viewer,
    mut events: Vec<Event>,
) -> Result<Vec<Event>, Error> {
    let gone = gone(rooms, room, &[viewer.skey], of_erased(rooms, &events)).await?;
    for event in &mut events {
        if gone.contains(&event.stored.nid.0) {
            event.pdu = Arc::new(redact(&event.pdu, &room.version)?);
        }
    }
    Ok(events)
}

/// Leaves them out.
pub(super) async fn leave_out(
    rooms: &Rooms,
    room: &Room,
    viewer: &Viewer,
    mut events: Vec<Event>,
) -> Result<Vec<Event>, Error> {
    let gone = gone(rooms, room, &[viewer.skey], of_erased(rooms, &events)).await?;
    events.retain(|event| !gone.contains(&event.stored.nid.0));
    Ok(events)
}

/// Those of the events that a server gets pruned: nobody of it was there. Settings of the room go out
/// whole, for its servers have to agree on them.
pub(super) async fn gone_for_server(
    rooms: &Rooms,
    room: &Room,
    server: &ServerName,
    events: &[Event],
) -> Result<HashSet<i64>, Error> {
    let mut said = of_erased(rooms, events);
    said.retain(|event| !event.pdu.is_state() || event.pdu.kind == TimelineEventType::RoomMember);
    if said.is_empty() {
        return Ok(HashSet::new());
    }
    let keys = keys_of_server(rooms, room, server).await?;
    gone(rooms, room, &keys, said).await
}

/// Those of the events that erased users sent.
fn of_erased(rooms: &Rooms, events: &[Event]) -> Vec<Event> {
    // Nearly always, and on the way of every sync.
    if rooms.0.erased.is_empty() {
        return Vec::new();
    }
    let theirs = events
        .iter()
        .filter(|event| rooms.0.erased.contains(&event.pdu.sender));
    theirs.cloned().collect()
}

/// Those of some events at which none of some members (by state key) was in the room.
async fn gone(
    rooms: &Rooms,
    room: &Room,
    members: &[i64],
    events: Vec<Event>,
) -> Result<HashSet<i64>, Error> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let moments = Moments::load(rooms, room, &events, members).await?;
    let unseen = events.iter().filter(|event| {
        let was_there = |skey: &i64| moments.was_joined(event, *skey);
        !members.iter().any(was_there)
    });
    Ok(unseen.map(|event| event.stored.nid.0).collect())
}
