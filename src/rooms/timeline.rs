//! History: pages of it, and what stands around an event.

use std::sync::Arc;

use ruma::{EventId, RoomId, UserId};

use super::{
    Error, Event, Rooms, backfill,
    pdus::hash_of,
    resident::Room,
    visibility::{self, Access, Viewer},
};
use crate::storage::{self, events::split_hash};

/// Events in one page.
pub const PAGE_MAX: i64 = 1_000;
/// Holes looked at for one page.
const HOLES_MAX: i64 = 20;
/// Times that a page is read anew because something was fetched for it.
const FILLS_MAX: usize = 3;

/// A page of history.
#[derive(Debug)]
pub struct Page {
    /// The room.
    pub room: Arc<Room>,
    /// Events, in the order of the direction.
    pub events: Vec<Event>,
    /// Where the page begins, as given or made.
    pub start: String,
    /// Where the next one begins; `None`: there is no more.
    pub end: Option<String>,
}

/// The place that a paging token stands for: events with a smaller `room_seq` are before it.
pub fn token(seq: i64) -> String {
    format!("t{seq}")
}

pub(super) async fn place(rooms: &Rooms, room: &Room, token: &str) -> Result<i64, Error> {
    let bad = || Error::InvalidParam("not a paging token".to_owned());
    if let Some(seq) = token.strip_prefix('t') {
        return seq.parse().map_err(|_| bad());
    }
    // A sync token: right after what that sync told of the room.
    let pos = token
        .strip_prefix("s1_")
        .and_then(|rest| rest.split('_').next()?.parse().ok());
    let mut conn = rooms.ctx().db.conn().await?;
    let seq = storage::sync::seq_at(&mut conn, room.nid, pos.ok_or_else(bad)?).await?;
    Ok(seq.map_or(0, |seq| seq + 1))
}

/// Which way to page, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Paging<'a> {
    /// Token to begin at; `None`: the newest or oldest event.
    pub from: Option<&'a str>,
    /// Token to end at.
    pub to: Option<&'a str>,
    /// Towards the past.
    pub backwards: bool,
    /// Events in the page.
    pub limit: i64,
}

/// Between which numbers (`room_seq`) the events of a page are.
pub(super) async fn range(
    rooms: &Rooms,
    room: &Room,
    paging: Paging<'_>,
) -> Result<(i64, i64), Error> {
    let from = match paging.from {
        Some(from) => place(rooms, room, from).await?,
        None if paging.backwards => i64::MAX,
        None => i64::MIN + 1,
    };
    let to = match paging.to {
        Some(to) => Some(place(rooms, room, to).await?),
        None => None,
    };
    Ok(if paging.backwards {
        (to.map_or(i64::MIN, |to| to.saturating_sub(1)), from)
    } else {
        (from.saturating_sub(1), to.unwrap_or(i64::MAX))
    })
}

/// A page of the history of a room, as far as a user may see it.
pub async fn page(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    paging: Paging<'_>,
) -> Result<Page, Error> {
    let (room, viewer) = visibility::enter(rooms, room_id, user).await?;
    let range = range(rooms, &room, paging).await?;
    let limit = paging.limit.clamp(1, PAGE_MAX);
    let mut found = read(rooms, &room, range, paging.backwards, limit).await?;
    if paging.backwards {
        for _ in 0..FILLS_MAX {
            if !fill_hole_in(rooms, &room, range, limit, &found).await? {
                break;
            }
            found = read(rooms, &room, range, true, limit).await?;
        }
    }
    let end = found
        .last()
        .and_then(|event| event.stored.seq)
        .map(|seq| token(if paging.backwards { seq } else { seq + 1 }));
    let start = paging.from.map_or_else(
        || {
            let first = found.first().and_then(|event| event.stored.seq);
            token(first.map_or(room.head().seq + 1, |seq| seq + i64::from(paging.backwards)))
        },
        ToOwned::to_owned,
    );
    let events = visibility::filter_for(rooms, &room, &viewer, found).await?;
    Ok(Page {
        room,
        events,
        start,
        end,
    })
}

/// Where a page towards the past goes over a hole in our copy of the timeline: asks peers for what
/// is missing; whether any came.
async fn fill_hole_in(
    rooms: &Rooms,
    room: &Arc<Room>,
    (after, before): (i64, i64),
    limit: i64,
    page: &[Event],
) -> Result<bool, Error> {
    let full = i64::try_from(page.len()).unwrap_or(limit) >= limit;
    let last = page.last().and_then(|event| event.stored.seq);
    // A hole below the last event of a full page is for the next page.
    let lowest = match last {
        Some(last) if full => last + 1,
        _ => after.saturating_add(1),
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let range = (lowest, before);
    let holes = storage::holes::list(&mut conn, room.nid, range, HOLES_MAX).await?;
    drop(conn);
    for hole in &holes {
        if backfill::fill(rooms, room, hole).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn read(
    rooms: &Rooms,
    room: &Room,
    range: (i64, i64),
    backwards: bool,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let stored = storage::events::page(&mut conn, room.nid, range, backwards, limit).await?;
    drop(conn);
    rooms.parse(room, stored)
}

/// An event that a user may see.
pub async fn event(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    event_id: &EventId,
) -> Result<(Arc<Room>, Viewer, Event), Error> {
    let (room, viewer) = visibility::enter(rooms, room_id, user).await?;
    let event = rooms
        .event_by_id(&room, event_id)
        .await?
        .ok_or(Error::EventNotFound)?;
    let mut seen = visibility::filter_for(rooms, &room, &viewer, vec![event]).await?;
    let event = seen.pop().ok_or(Error::EventNotFound)?;
    Ok((room, viewer, event))
}

/// In which of some rooms an event is.
pub async fn room_of(
    rooms: &Rooms,
    of: &[i64],
    event_id: &EventId,
) -> Result<ruma::OwnedRoomId, Error> {
    let hash = hash_of(event_id).ok_or(Error::EventNotFound)?;
    let mut conn = rooms.ctx().db.conn().await?;
    let found = storage::events::find_in_rooms(&mut conn, of, split_hash(&hash).0).await?;
    drop(conn);
    let found = found.filter(|found| found.hash == hash);
    let found = found.ok_or(Error::EventNotFound)?;
    Ok(rooms.ctx().db.ids.room_id(found.room).await?)
}

/// What stands around an event.
#[derive(Debug)]
pub struct Around {
    /// The room.
    pub room: Arc<Room>,
    /// The event.
    pub event: Event,
    /// Before it, newest first.
    pub before: Vec<Event>,
    /// After it, oldest first.
    pub after: Vec<Event>,
}

/// An event and its neighbours (`GET /context`).
pub async fn around(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    event_id: &EventId,
    limit: i64,
) -> Result<Around, Error> {
    let (room, viewer, event) = event(rooms, room_id, user, event_id).await?;
    let seq = event.stored.seq.ok_or(Error::EventNotFound)?;
    let limit = limit.clamp(0, PAGE_MAX);
    let mut before = read(rooms, &room, (i64::MIN, seq), true, limit / 2).await?;
    let mut after = read(rooms, &room, (seq, i64::MAX), false, limit - limit / 2).await?;
    // What is beyond a hole does not stand around the event.
    let seq_of = |event: Option<&Event>| event.and_then(|event| event.stored.seq).unwrap_or(seq);
    let range = (seq_of(before.last()), seq_of(after.last()));
    let mut conn = rooms.ctx().db.conn().await?;
    let holes = storage::holes::list(&mut conn, room.nid, range, 2 * PAGE_MAX).await?;
    drop(conn);
    let below = holes.iter().map(|hole| hole.seq).find(|hole| *hole <= seq);
    let above = holes
        .iter()
        .rev()
        .map(|hole| hole.seq)
        .find(|hole| *hole > seq);
    before.retain(|event| event.stored.seq >= below);
    after.retain(|event| above.is_none_or(|above| event.stored.seq < Some(above)));
    Ok(Around {
        before: visibility::filter_for(rooms, &room, &viewer, before).await?,
        after: visibility::filter_for(rooms, &room, &viewer, after).await?,
        room,
        event,
    })
}

/// The state of a room at a paging or sync token, as far as a user may know it: whoever left knows
/// nothing of what came after. Before the room's first event it is what the room began with, its
/// creation and the entry of who made it: a client asks so with the token of where its timeline begins.
pub async fn state_at(
    rooms: &Rooms,
    room: &Room,
    viewer: &Viewer,
    at: &str,
) -> Result<super::state::Entries, Error> {
    let seq = place(rooms, room, at).await?;
    if let Access::Left(left) = &viewer.access
        && left.seq < seq
    {
        return Ok(left.entries.clone());
    }
    let mut last = read(rooms, room, (i64::MIN, seq), true, 1).await?.pop();
    if last.is_none() {
        last = read(rooms, room, (seq, i64::MAX), false, 2).await?.pop();
    }
    let Some(event) = last else {
        return Ok(room.head().state.entries.clone());
    };
    match super::before::state_after(rooms, room, &event).await? {
        Some(state) => Ok(state.entries),
        None => Ok(room.head().state.entries.clone()),
    }
}
