//! The event nearest to a time (`timestamp_to_event`).

use ruma::{RoomId, ServerName, UserId};

use super::{Error, Event, Rooms, resident::Room, serve, visibility};
use crate::storage;

/// Events looked at; the nearest of them that may be seen is the answer.
const CANDIDATES: i64 = 50;

/// For one of our users.
pub async fn nearest(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    (ts, backwards): (i64, bool),
) -> Result<Event, Error> {
    let (room, viewer) = visibility::enter(rooms, room_id, user).await?;
    let events = candidates(rooms, &room, ts, backwards).await?;
    let seen = visibility::filter_for(rooms, &room, &viewer, events).await?;
    seen.into_iter().next().ok_or(Error::EventNotFound)
}

/// For a peer that is in the room.
pub async fn nearest_for_peer(
    rooms: &Rooms,
    room_id: &RoomId,
    origin: &ServerName,
    (ts, backwards): (i64, bool),
) -> Result<Event, Error> {
    let room = serve::inside(rooms, room_id, origin).await?;
    let events = candidates(rooms, &room, ts, backwards).await?;
    let seen = visibility::server_may_see(rooms, &room, origin, &events).await?;
    let mut seen = events.into_iter().zip(seen);
    let found = seen.find(|(_, may_see)| *may_see);
    found.map(|(event, _)| event).ok_or(Error::EventNotFound)
}

/// Nearest first.
async fn candidates(
    rooms: &Rooms,
    room: &Room,
    ts: i64,
    backwards: bool,
) -> Result<Vec<Event>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let near = (ts, backwards);
    let nids = storage::event_times::list_near(&mut conn, room.nid, near, CANDIDATES).await?;
    drop(conn);
    let mut events = rooms.events_by_nid(room, &nids).await?;
    let place = |event: &Event| nids.iter().position(|nid| *nid == event.stored.nid.0);
    events.sort_by_key(place);
    Ok(events)
}
