//! Sticky events (MSC4354) that a client is told of beside timelines.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::value::RawValue;

use super::Error;
use crate::{
    clock::now_ms,
    event::client::Shape,
    rooms::{Rooms, render::Extras},
    storage::{self, Pos, RoomNid},
    users::tokens::Session,
};

/// Who is told, and whose messages they do not want.
pub(super) type Reader<'a> = (&'a Session, &'a HashSet<OwnedUserId>);

/// Which rooms: those that are new to the client, of which all is told, and others.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) fresh: Vec<i64>,
    pub(super) known: Vec<i64>,
}

/// What is told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// By room, in the order in which it came; without what a timeline of the answer shows.
    pub(super) by_room: HashMap<RoomNid, Vec<Box<RawValue>>>,
    /// There may be more after this position; `None`: that is all.
    pub(super) more: Option<Pos>,
    /// Whether there was anything, shown or not.
    pub(super) any: bool,
}

/// Reads what came in `(since, upto]` and is still sticky, the oldest first. History visibility does not
/// matter (MSC4354): whoever is in the room is told. `shown`: events of timelines.
pub(super) async fn read(
    rooms: &Rooms,
    (session, ignored): Reader<'_>,
    wanted: &Wanted,
    (since, upto): (Pos, Pos),
    (shown, limit): (&HashSet<OwnedEventId>, i64),
) -> Result<Told, Error> {
    let mut told = Told::default();
    if wanted.fresh.is_empty() && wanted.known.is_empty() {
        return Ok(told);
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let of = (&*wanted.fresh, &*wanted.known);
    let found = storage::sticky::list(&mut conn, of, (since, upto), now_ms(), limit).await?;
    drop(conn);
    if found.is_empty() {
        return Ok(told);
    }
    told.any = true;
    let known: HashSet<i64> = wanted.known.iter().copied().collect();
    let mut older = found.iter().filter(|it| known.contains(&it.room.0));
    let full = usize::try_from(limit).unwrap_or(usize::MAX);
    if older.clone().count() >= full {
        told.more = older.next_back().map(|it| it.pos);
    }
    let pairs: Vec<(i64, i64)> = found.iter().map(|it| (it.room.0, it.event)).collect();
    for (room, mut events) in rooms.events_of(&pairs).await? {
        events.retain(|event| {
            !ignored.contains(&event.pdu.sender) && !shown.contains(&event.pdu.event_id)
        });
        if events.is_empty() {
            continue;
        }
        events.sort_by_key(|event| event.stored.pos);
        let extras = Extras::load(rooms, &room, &events, Some(session)).await?;
        let events = events.iter();
        let events = events.map(|event| extras.render(rooms, session, event, Shape::Sync));
        told.by_room.insert(room.nid, events.collect());
    }
    Ok(told)
}
