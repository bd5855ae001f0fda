//! The event nearest to a time (`timestamp_to_event`).

use std::sync::Arc;

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName, UserId, api::Direction,
    api::federation::event::get_event_by_timestamp,
};

use super::{
    Error, Event, Rooms, backfill,
    resident::Room,
    serve,
    visibility::{self, Access, Viewer},
};
use crate::{
    clock::from_ms,
    storage::{self, holes::Hole},
};

/// Events looked at; the nearest of them that may be seen is the answer.
const CANDIDATES: i64 = 50;
/// Holes looked at for something nearer.
const HOLES_MAX: i64 = 100;

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
    let ours = seen.into_iter().next();
    let found = if matches!(viewer.access, Access::Joined) {
        of_peers(rooms, &room, &viewer, (ts, backwards), ours.as_ref()).await?
    } else {
        None
    };
    found.or(ours).ok_or(Error::EventNotFound)
}

/// An event that is nearer than ours, as peers know, where our copy of the timeline has holes that
/// can hide one; it is stored, with what is before it.
async fn of_peers(
    rooms: &Rooms,
    room: &Arc<Room>,
    viewer: &Viewer,
    (ts, backwards): (i64, bool),
    ours: Option<&Event>,
) -> Result<Option<Event>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let all = (i64::MIN, i64::MAX);
    let mut holes = storage::holes::list(&mut conn, room.nid, all, HOLES_MAX).await?;
    drop(conn);
    let nearest = ours.map(|event| event.pdu.origin_server_ts);
    holes.retain(|hole| can_hide(hole, (ts, backwards), nearest));
    if holes.is_empty() {
        return Ok(None);
    }
    for server in backfill::servers(rooms, room).await? {
        let found = async {
            let id = ask(rooms, room, &server, (ts, backwards)).await?;
            let known = |event: Option<Event>| event.filter(|event| event.stored.seq.is_some());
            if let Some(event) = known(rooms.event_by_id(room, &id).await?) {
                return Ok::<_, Error>(Some(event));
            }
            backfill::jump(rooms, room, &server, &id, &holes).await?;
            Ok(known(rooms.event_by_id(room, &id).await?))
        };
        match found.await {
            Ok(Some(event)) if is_nearer(&event, (ts, backwards), nearest) => {
                let seen = visibility::filter_for(rooms, room, viewer, vec![event]).await?;
                if let Some(event) = seen.into_iter().next() {
                    return Ok(Some(event));
                }
            }
            // What it says is not what was asked for, or no nearer: another may know more.
            Ok(_) => {}
            Err(error) => tracing::info!(%error, %server, "a peer knew no event of that time"),
        }
    }
    Ok(None)
}

/// Whether an event nearer to a time than ours can be in a hole.
fn can_hide(hole: &Hole, (ts, backwards): (i64, bool), nearest: Option<i64>) -> bool {
    // Times are what senders claim; between servers that mean well they rise along the timeline.
    if backwards {
        nearest.is_none_or(|nearest| hole.ts > nearest)
            && hole.below.is_none_or(|below| below.ts <= ts)
    } else {
        hole.ts >= ts
            && hole
                .below
                .is_none_or(|below| nearest.is_none_or(|nearest| below.ts < nearest))
    }
}

fn is_nearer(event: &Event, (ts, backwards): (i64, bool), nearest: Option<i64>) -> bool {
    let found = event.pdu.origin_server_ts;
    let right_way = if backwards { found <= ts } else { found >= ts };
    right_way && nearest.is_none_or(|nearest| (found - ts).abs() < (nearest - ts).abs())
}

async fn ask(
    rooms: &Rooms,
    room: &Room,
    server: &ServerName,
    (ts, backwards): (i64, bool),
) -> Result<OwnedEventId, Error> {
    let direction = if backwards {
        Direction::Backward
    } else {
        Direction::Forward
    };
    let ts = MilliSecondsSinceUnixEpoch(from_ms(ts));
    let request = get_event_by_timestamp::v1::Request::new(room.id.clone(), ts, direction);
    let answer = rooms.ctx().federation.request(server, request).await;
    let answer = answer.map_err(|error| Error::Remote(error.to_string()))?;
    Ok(answer.event_id)
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
