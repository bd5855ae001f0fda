//! Whether the history of a room was ever less than shared: where it was not, who is joined may see
//! all of it, and no event has to be looked at by itself.

use std::{collections::HashMap, sync::Arc};

use ruma::events::room::history_visibility::HistoryVisibility;

use super::{Error, Rooms, pdus::Event, resident::Room, visibility};
use crate::storage;

/// Changes of the history visibility looked back at.
const CHANGES_MAX: usize = 16;

/// Finds out for many rooms at once what [`visibility::filter_for`] asks of each, with one query
/// where none of them is in memory.
pub async fn prepare(rooms: &Rooms, of: &[Arc<Room>]) -> Result<(), Error> {
    let skey = visibility::visibility_skey(rooms).await?.unwrap_or(0);
    let newest = of.iter().filter_map(|room| {
        let newest = room.head().state.get(skey)?;
        (!rooms.0.open.contains_key(&newest)).then_some((room, newest))
    });
    let newest: Vec<(&Arc<Room>, i64)> = newest.collect();
    if newest.is_empty() {
        return Ok(());
    }
    let pairs: Vec<(i64, i64)> = newest
        .iter()
        .map(|(room, nid)| (room.nid.0, *nid))
        .collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let stored = storage::events::list_pairs(&mut conn, &pairs).await?;
    drop(conn);
    let stored = stored.into_iter().map(|stored| (stored.nid.0, stored));
    let mut stored: HashMap<i64, storage::events::Stored> = stored.collect();
    for (room, newest) in newest {
        let Some(event) = stored.remove(&newest) else {
            continue;
        };
        let before = visibility::state_before(rooms, Some(&event)).await?;
        let pdu = Event::parse(&room.version, event)?.pdu;
        let is_first = before.is_none_or(|(_, before)| before.get(skey).is_none());
        // Where it was changed in between, that is looked at when it is asked for.
        if is_first {
            let open = !matches!(
                visibility::of(Some(&pdu)),
                HistoryVisibility::Invited | HistoryVisibility::Joined
            );
            rooms.0.open.insert(newest, open);
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
    let open = was_open(rooms, room, skey, newest).await?;
    rooms.0.open.insert(newest, open);
    Ok(open)
}

async fn was_open(rooms: &Rooms, room: &Room, skey: i64, newest: i64) -> Result<bool, Error> {
    let mut nid = newest;
    for _ in 0..CHANGES_MAX {
        match visibility::of(rooms.pdus(room, &[nid]).await?.first()) {
            HistoryVisibility::Invited | HistoryVisibility::Joined => return Ok(false),
            _ => {}
        }
        // Before the first one, and before what we hold, `shared` is assumed.
        let Some((_, before)) = visibility::before(rooms, room, nid).await? else {
            return Ok(true);
        };
        match before.get(skey) {
            Some(earlier) => nid = earlier,
            None => return Ok(true),
        }
    }
    Ok(false)
}
