//! Rooms that name an upgraded one: spaces it is in, rooms that are in it, rooms whose door it
//! opens. Where the user who upgrades it has the power, they name the new one.

use std::sync::Arc;

use ruma::{OwnedRoomId, RoomId, UserId, events::StateEventType};
use serde_json::{Map, Value, json};

use super::{Error, Rooms, membership, resident::Room, send::send};
use crate::event::build::Draft;

/// Rooms of the user that are looked at.
const ROOMS_MAX: usize = 2_000;

/// Names the new room wherever the old one is named.
pub(super) async fn update(
    rooms: &Rooms,
    user: &UserId,
    (old, new): (&RoomId, &RoomId),
) -> Result<(), Error> {
    let mut mine: Vec<OwnedRoomId> = membership::joined_rooms(rooms, user).await?;
    mine.retain(|id| id != old && id != new);
    for id in mine.into_iter().take(ROOMS_MAX) {
        let done = async {
            let room = rooms.by_id(&id).await?;
            for kind in [StateEventType::SpaceChild, StateEventType::SpaceParent] {
                replace(rooms, &room, user, &kind, (old, new)).await?;
            }
            admit(rooms, &room, user, (old, new)).await
        };
        // The upgrade does not fail for want of power elsewhere.
        if let Err(error) = done.await {
            tracing::info!(%error, room_id = %id, "a room goes on naming an upgraded one");
        }
    }
    Ok(())
}

async fn content(
    rooms: &Rooms,
    room: &Arc<Room>,
    kind: &StateEventType,
    key: &str,
) -> Result<Option<Map<String, Value>>, Error> {
    let head = room.head();
    let event = rooms
        .state_event(room, &head.state.entries, kind, key)
        .await?;
    Ok(event.and_then(|pdu| pdu.content_as()))
}

/// In the order of a space, or as a parent, the new room takes the place of the old one.
async fn replace(
    rooms: &Rooms,
    room: &Arc<Room>,
    user: &UserId,
    kind: &StateEventType,
    (old, new): (&RoomId, &RoomId),
) -> Result<(), Error> {
    let Some(mut named) = content(rooms, room, kind, old.as_str()).await? else {
        return Ok(());
    };
    // Without `via` it is no link.
    if !named.get("via").is_some_and(Value::is_array) {
        return Ok(());
    }
    // Servers in the old room are perhaps not yet in the new one; we are.
    named.insert("via".to_owned(), json!([rooms.ctx().server_name()]));
    let kind = kind.to_string();
    for (key, content) in [(new, named), (old, Map::new())] {
        let draft = Draft::state_of((&*kind).into(), key.as_str(), &content)?;
        send(rooms, &room.id, user, &draft, None).await?;
    }
    Ok(())
}

/// Who is in the new room may enter where those in the old one may.
async fn admit(
    rooms: &Rooms,
    room: &Arc<Room>,
    user: &UserId,
    (old, new): (&RoomId, &RoomId),
) -> Result<(), Error> {
    let kind = StateEventType::RoomJoinRules;
    let Some(mut rules) = content(rooms, room, &kind, "").await? else {
        return Ok(());
    };
    let restricted = rules.get("join_rule").and_then(Value::as_str);
    if !matches!(restricted, Some("restricted" | "knock_restricted")) {
        return Ok(());
    }
    let Some(allow) = rules.get_mut("allow").and_then(Value::as_array_mut) else {
        return Ok(());
    };
    let names = |entry: &Value, id: &RoomId| {
        entry["type"] == "m.room_membership" && entry["room_id"] == id.as_str()
    };
    if !allow.iter().any(|entry| names(entry, old)) || allow.iter().any(|entry| names(entry, new)) {
        return Ok(());
    }
    allow.push(json!({ "type": "m.room_membership", "room_id": new }));
    let draft = Draft::state_of(kind.to_string().into(), "", &rules)?;
    send(rooms, &room.id, user, &draft, None).await?;
    Ok(())
}
