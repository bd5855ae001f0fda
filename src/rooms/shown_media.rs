//! The media that events of a room show, for administrators.

use std::collections::BTreeSet;

use ruma::{OwnedMxcUri, RoomId};
use serde_json::Value;

use super::{Error, Rooms};
use crate::storage;

/// Events that are looked at at once.
const EVENTS_AT_ONCE: i64 = 1_000;
/// Where events say what they show. Files of encrypted rooms are named in what nobody here can read.
const PLACES: [&str; 4] = [
    "/content/url",
    "/content/info/thumbnail_url",
    "/content/file/url",
    "/content/info/thumbnail_file/url",
];

/// A page of a room's events: the media that they show, and where the next page begins.
pub async fn page(
    rooms: &Rooms,
    room_id: &RoomId,
    after: Option<i64>,
) -> Result<(BTreeSet<OwnedMxcUri>, Option<i64>), Error> {
    let room = rooms.ctx().db.ids.find_room(room_id).await?;
    let room = room.ok_or_else(|| Error::RoomNotFound(room_id.to_owned()))?;
    let mut conn = rooms.ctx().db.conn().await?;
    let range = (after.unwrap_or(i64::MIN), i64::MAX);
    let events = storage::events::page(&mut conn, room, range, false, EVENTS_AT_ONCE).await?;
    drop(conn);
    let mut found = BTreeSet::new();
    for event in &events {
        found.extend(shown(&event.json));
    }
    let full = i64::try_from(events.len()).is_ok_and(|count| count >= EVENTS_AT_ONCE);
    let last = events.last().and_then(|event| event.seq);
    Ok((found, last.filter(|_| full)))
}

fn shown(event: &str) -> Vec<OwnedMxcUri> {
    // Most events show nothing, and need not be parsed.
    if !event.contains("mxc:") {
        return Vec::new();
    }
    let event: Value = serde_json::from_str(event).unwrap_or_default();
    let texts = PLACES
        .iter()
        .filter_map(|place| event.pointer(place)?.as_str());
    let addresses = texts.map(OwnedMxcUri::from);
    addresses.filter(|address| address.is_valid()).collect()
}
