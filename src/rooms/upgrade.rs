//! Upgrade of a room: a new one of another version takes its place (specification, "Room
//! upgrades").

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::{StateEventType, TimelineEventType},
    serde::Raw,
};
use serde_json::{Map, Value, json};

use super::{Error, Rooms, create, pdus::StateSlice, raw, resident::Room, send, visibility};
use crate::{
    event::{auth::Power, build::Draft, version::RoomVersion},
    storage,
};

/// State that moves to the new room as it is.
const COPIED: [StateEventType; 9] = [
    StateEventType::RoomName,
    StateEventType::RoomTopic,
    StateEventType::RoomAvatar,
    StateEventType::RoomEncryption,
    StateEventType::RoomServerAcl,
    StateEventType::RoomJoinRules,
    StateEventType::RoomGuestAccess,
    StateEventType::RoomHistoryVisibility,
    StateEventType::RoomPinnedEvents,
];

/// Upgrades a room (`POST /rooms/{roomId}/upgrade`); returns the id of the new one.
pub async fn upgrade(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    version: &RoomVersionId,
    additional_creators: &[OwnedUserId],
) -> Result<OwnedRoomId, Error> {
    let target = RoomVersion::supported(version)
        .ok_or_else(|| Error::UnsupportedVersion(version.to_string()))?;
    if !additional_creators.is_empty() && !target.rules.authorization.additional_room_creators {
        return Err(Error::InvalidParam(
            "rooms of this version have one creator only".to_owned(),
        ));
    }
    let room = visibility::joined(rooms, room_id, user).await?;
    let old = state(rooms, &room).await?;
    let create = old
        .get(&StateEventType::RoomCreate, "")
        .ok_or(Error::StateNotFound)?;
    let levels = old.get(&StateEventType::RoomPowerLevels, "");
    let power = Power::new(&room.version, &create, levels.as_ref());
    if power.of(user) < power.needed_for_state("m.room.tombstone") {
        return Err(Error::Forbidden(
            "this takes the power to send m.room.tombstone".to_owned(),
        ));
    }
    let request = successor(&room, &old, &target, additional_creators)?;
    let new_id = create::create(rooms, user, &request).await?;

    // From here on the new room stands; each step is good without the next.
    let creators: Vec<&UserId> = additional_creators
        .iter()
        .map(|creator| &**creator)
        .chain([user])
        .collect();
    let levels: Option<Map<String, Value>> = levels.as_ref().and_then(|pdu| pdu.content_as());
    if let Some(levels) = &levels {
        let moved = moved_levels(levels.clone(), &target, &creators);
        set(rooms, &new_id, user, "m.room.power_levels", &moved).await;
    }
    move_aliases(rooms, &room, &new_id, user, &old).await?;
    let tombstone = json!({ "body": "This room has been replaced", "replacement_room": new_id });
    let draft = Draft::state_of(TimelineEventType::RoomTombstone, "", &tombstone)?;
    send::send(rooms, room_id, user, &draft, None).await?;
    if let Some(levels) = levels {
        let closed = closed_levels(levels);
        set(rooms, room_id, user, "m.room.power_levels", &closed).await;
    }
    Ok(new_id)
}

async fn state(rooms: &Rooms, room: &Room) -> Result<StateSlice, Error> {
    let more = [
        StateEventType::RoomCreate,
        StateEventType::RoomPowerLevels,
        StateEventType::RoomCanonicalAlias,
    ];
    let keys: Vec<(StateEventType, String)> = COPIED
        .into_iter()
        .chain(more)
        .map(|kind| (kind, String::new()))
        .collect();
    rooms
        .state_events(room, &room.head().state.entries, &keys)
        .await
}

/// What the new room is made of.
fn successor(
    room: &Room,
    old: &StateSlice,
    target: &RoomVersion,
    additional_creators: &[OwnedUserId],
) -> Result<Request, Error> {
    let content = |kind: &StateEventType| -> Option<Map<String, Value>> {
        old.get(kind, "").and_then(|pdu| pdu.content_as())
    };
    let mut creation = content(&StateEventType::RoomCreate).unwrap_or_default();
    for key in ["creator", "room_version", "additional_creators"] {
        creation.remove(key);
    }
    let mut predecessor = json!({ "room_id": room.id });
    if let Some((_, last)) = room.head().extremities.last() {
        predecessor["event_id"] = json!(last);
    }
    creation.insert("predecessor".to_owned(), predecessor);
    if !additional_creators.is_empty() {
        creation.insert("additional_creators".to_owned(), json!(additional_creators));
    }
    let mut request = Request::new();
    request.room_version = Some(target.id.clone());
    request.preset = Some(RoomPreset::PrivateChat);
    request.creation_content = Some(Raw::from_json(raw(&Value::Object(creation))?));
    for kind in COPIED {
        if let Some(content) = content(&kind) {
            let event = json!({ "type": kind.to_string(), "state_key": "", "content": content });
            request.initial_state.push(Raw::from_json(raw(&event)?));
        }
    }
    Ok(request)
}

/// Power levels for the new room: creators of v12 rooms stand above all and may not be listed.
fn moved_levels(
    mut levels: Map<String, Value>,
    target: &RoomVersion,
    creators: &[&UserId],
) -> Value {
    if target
        .rules
        .authorization
        .explicitly_privilege_room_creators
    {
        if let Some(Value::Object(users)) = levels.get_mut("users") {
            users.retain(|user, _| !creators.iter().any(|creator| creator.as_str() == user));
        }
        if let Value::Object(events) = levels.entry("events").or_insert(json!({})) {
            events.insert("m.room.tombstone".to_owned(), json!(150));
        }
    }
    Value::Object(levels)
}

/// Power levels that let nobody but moderators speak in the old room.
fn closed_levels(mut levels: Map<String, Value>) -> Value {
    let default = levels.get("users_default").and_then(Value::as_i64);
    let closed = (default.unwrap_or(0) + 1).max(50);
    for key in ["events_default", "invite"] {
        let now = levels.get(key).and_then(Value::as_i64).unwrap_or(0);
        levels.insert(key.to_owned(), json!(now.max(closed)));
    }
    Value::Object(levels)
}

/// Sets state where the user has the power to; an upgrade does not fail for want of it.
async fn set(rooms: &Rooms, room_id: &RoomId, user: &UserId, kind: &str, content: &Value) {
    let sent = async {
        let draft = Draft::state_of(kind.into(), "", content)?;
        send::send(rooms, room_id, user, &draft, None).await
    };
    if let Err(error) = sent.await {
        tracing::info!(%error, %room_id, kind, "a step of the upgrade of a room was left out");
    }
}

/// Our aliases and the place in the directory go with the people.
async fn move_aliases(
    rooms: &Rooms,
    room: &Room,
    new_id: &RoomId,
    user: &UserId,
    old: &StateSlice,
) -> Result<(), Error> {
    let new = rooms.by_id(new_id).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    storage::aliases::move_all(&mut conn, room.nid, new.nid).await?;
    if storage::rooms::is_listed(&mut conn, room.nid).await? {
        storage::rooms::update_listed(&mut conn, new.nid, true).await?;
        storage::rooms::update_listed(&mut conn, room.nid, false).await?;
    }
    drop(conn);
    let canonical: Option<Value> = old
        .get(&StateEventType::RoomCanonicalAlias, "")
        .and_then(|pdu| pdu.content_as());
    if let Some(canonical) = canonical {
        set(rooms, &room.id, user, "m.room.canonical_alias", &json!({})).await;
        set(rooms, new_id, user, "m.room.canonical_alias", &canonical).await;
    }
    Ok(())
}
