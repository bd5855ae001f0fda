//! Whether the history of a room was ever less than shared: where it was not, who is joined may see
//! all of it, and no event has to be looked at by itself.

use std::sync::Arc;

use ruma::events::room::history_visibility::HistoryVisibility;

use super::{Error, Rooms, resident::Room, visibility};
use crate::storage::events::Stored;

/// Changes of the history visibility looked back at.
const CHANGES_MAX: usize = 16;

/// Finds out for many rooms at once what [`visibility::filter_for`] asks of each, with one query
/// where none of them is in memory.
pub async fn prepare(rooms: &Rooms, of: &[Arc<Room>]) -> Result<(), Error> {
    let skey = visibility::visibility_skey(rooms).await?.unwrap_or(0);
    let newest = of.iter().filter_map(|room| {
        let newest = room.head().state.get(skey)?;
        (!rooms.0.open.contains_key(&newest)).then_some((room.nid.0, newest))
    });
    let newest: Vec<(i64, i64)> = newest.collect();
    if newest.is_empty() {
        return Ok(());
    }
    for (room, events) in rooms.events_of(&newest).await? {
        for event in events {
            let nid = event.stored.nid.0;
            rooms.remember(nid, &event.pdu);
            let open = was_open(rooms, &room, skey, (nid, Some(&event.stored))).await?;
            rooms.0.open.insert(nid, open);
        }
    }
    Ok(())
}

/// Whether everybody in a room may see all of its history.
pub async fn of_room(rooms: &Rooms, room: &Room) -> Result<bool, Error> {
    let skey = visibility::visibility_skey(rooms).await?.unwrap_or(0);
    always(rooms, room, skey).await
}

/// Whether the history of a room was never less than shared: then who is joined may see all.
pub(super) async fn always(rooms: &Rooms, room: &Room, skey: i64) -> Result<bool, Error> {
    let Some(newest) = room.head().state.get(skey) else {
        return Ok(true);
    };
    if let Some(open) = rooms.0.open.get(&newest) {
        return Ok(open);
    }
    let open = was_open(rooms, room, skey, (newest, None)).await?;
    rooms.0.open.insert(newest, open);
    Ok(open)
}

/// The same, from the newest change of the visibility on; with its row, where that was read.
async fn was_open(
    rooms: &Rooms,
    room: &Room,
    skey: i64,
    (mut nid, mut row): (i64, Option<&Stored>),
) -> Result<bool, Error> {
    for _ in 0..CHANGES_MAX {
        match visibility::of(rooms.pdus(room, &[nid]).await?.first()) {
            HistoryVisibility::Invited | HistoryVisibility::Joined => return Ok(false),
            _ => {}
        }
        // Before the first one, and before what we hold, `shared` is assumed.
        let before = match row.take() {
            Some(row) => visibility::state_before(rooms, Some(row)).await?,
            None => visibility::before(rooms, room, nid).await?,
        };
        let Some((_, before)) = before else {
            return Ok(true);
        };
        match before.get(skey) {
            Some(earlier) => nid = earlier,
            None => return Ok(true),
        }
    }
    Ok(false)
}
