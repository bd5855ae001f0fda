//! Upgrade of a room: a new one of another version takes its place (specification, "Room
//! upgrades").

mod levels;

use std::sync::Arc;

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::{StateEventType, TimelineEventType},
    serde::Raw,
};
use serde_json::{Map, Value, json};

use super::{
    Error, Rooms, create, pdus::StateSlice, raw, references, resident::Room, send, succession,
    visibility,
};
use crate::{
    event::{auth::Power, build::Draft, version::RoomVersion},
    storage::{self, SKeyNid},
};

/// State that moves to the new room as it is, but for power levels, links of spaces and bans.
const COPIED: [StateEventType; 8] = [
    StateEventType::RoomName,
    StateEventType::RoomTopic,
    StateEventType::RoomAvatar,
    StateEventType::RoomEncryption,
    StateEventType::RoomServerAcl,
    StateEventType::RoomJoinRules,
    StateEventType::RoomGuestAccess,
    StateEventType::RoomHistoryVisibility,
];
/// Bans that move: each is an event, and all are written together.
const BANS_MAX: usize = 5_000;
/// Links of a space that move.
const LINKS_MAX: usize = 5_000;

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
    let power = old.get(&StateEventType::RoomPowerLevels, "");
    let power = Power::new(&room.version, &create, power.as_ref());
    if power.of(user) < power.needed_for_state("m.room.tombstone") {
        return Err(Error::Forbidden(
            "this takes the power to send m.room.tombstone".to_owned(),
        ));
    }
    let creators: Vec<&UserId> = additional_creators
        .iter()
        .map(|creator| &**creator)
        .chain([user])
        .collect();
    let old_levels: Option<Map<String, Value>> = old
        .get(&StateEventType::RoomPowerLevels, "")
        .and_then(|pdu| pdu.content_as());
    let levels = old_levels
        .clone()
        .map(|levels| levels::moved(levels, (&room.version, &create), &target, &creators));
    let mut request = successor(&room, &old, &target, additional_creators)?;
    let mut raised = None;
    if let Some(levels) = &levels {
        raised = levels::raised(levels, &target, user);
        let first = Value::Object(raised.as_ref().unwrap_or(levels).clone());
        request.power_level_content_override = Some(Raw::from_json(raw(&first)?));
    }
    let more = links_and_bans(rooms, &room, &old, &creators).await?;
    let new_id = create::create_with(rooms, user, &request, more).await?;

    // From here on the new room stands; each step is good without the next.
    let new = rooms.by_id(&new_id).await?;
    succession::move_aliases(rooms, &room, &new).await?;
    move_main_alias(rooms, (room_id, &new_id), user, &old).await;
    let tombstone = json!({ "body": "This room has been replaced", "replacement_room": new_id });
    let draft = Draft::state_of(TimelineEventType::RoomTombstone, "", &tombstone)?;
    send::send(rooms, room_id, user, &draft, None).await?;
    if let (Some(levels), true) = (levels, raised.is_some()) {
        let levels = Value::Object(levels);
        set(rooms, &new_id, user, "m.room.power_levels", &levels).await;
    }
    if let Some(closed) = old_levels.and_then(levels::closed) {
        let closed = Value::Object(closed);
        set(rooms, room_id, user, "m.room.power_levels", &closed).await;
    }
    references::update(rooms, user, (room_id, &new_id)).await?;
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
    // From v12 on the create event makes the room id, and names no event of the old room.
    if !target.has_hashed_room_id()
        && let Some((_, last)) = room.head().extremities.last()
    {
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

/// Rooms in a space, spaces that a room says to be in, and bans.
async fn links_and_bans(
    rooms: &Rooms,
    room: &Arc<Room>,
    old: &StateSlice,
    creators: &[&UserId],
) -> Result<Vec<Draft>, Error> {
    let create: Map<String, Value> = old
        .get(&StateEventType::RoomCreate, "")
        .and_then(|pdu| pdu.content_as())
        .unwrap_or_default();
    let is_space = create.get("type").and_then(Value::as_str) == Some("m.space");
    let mut drafts = links(rooms, room, is_space).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let mut bans = storage::memberships::list_in_room(&mut conn, room.nid, &[4]).await?;
    drop(conn);
    if bans.len() > BANS_MAX {
        tracing::warn!(room_id = %room.id, bans = bans.len(), "not all bans move to the new room");
        bans.truncate(BANS_MAX);
    }
    let nids: Vec<i64> = bans.iter().map(|(_, _, event)| *event).collect();
    for ban in rooms.pdus(room, &nids).await? {
        // A creator of the new room cannot be banned there.
        if let Some(target) = ban.target().filter(|target| !creators.contains(target)) {
            let (kind, key) = (TimelineEventType::RoomMember, target.to_string());
            drafts.push(Draft::state(kind, key, ban.content.clone()));
        }
    }
    Ok(drafts)
}

/// Links as they are: their `via` are servers in the rooms that they name, which stay.
async fn links(rooms: &Rooms, room: &Room, is_space: bool) -> Result<Vec<Draft>, Error> {
    let entries = room.head().state.entries.clone();
    let keys: Vec<SKeyNid> = entries
        .keys()
        .filter(|skey| **skey > 0)
        .map(|skey| SKeyNid(*skey))
        .collect();
    let pairs = rooms.ctx().db.ids.skey_pairs_of(&keys).await?;
    let mut nids: Vec<i64> = keys
        .iter()
        .zip(pairs)
        .filter(|(_, (kind, _))| kind == "m.space.parent" || (is_space && kind == "m.space.child"))
        .filter_map(|(skey, _)| entries.get(&skey.0).copied())
        .collect();
    nids.sort_unstable();
    nids.truncate(LINKS_MAX);
    let mut drafts = Vec::with_capacity(nids.len());
    for pdu in rooms.pdus(room, &nids).await? {
        let content: Map<String, Value> = pdu.content_as().unwrap_or_default();
        // An empty one is a link that was removed.
        if let (false, Some(key)) = (content.is_empty(), &pdu.state_key) {
            let kind = pdu.kind.clone();
            drafts.push(Draft::state(kind, key.clone(), pdu.content.clone()));
        }
    }
    Ok(drafts)
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

/// The main alias and its alternatives go along where they are ours; those of others name the old
/// room still.
async fn move_main_alias(
    rooms: &Rooms,
    (old_id, new_id): (&RoomId, &RoomId),
    user: &UserId,
    old: &StateSlice,
) {
    let canonical = StateEventType::RoomCanonicalAlias;
    let Some(mut stays) = old
        .get(&canonical, "")
        .and_then(|pdu| pdu.content_as::<Map<String, Value>>())
    else {
        return;
    };
    let own = rooms.ctx().server_name().as_str();
    let is_ours = |alias: &Value| {
        let server = alias.as_str().and_then(|alias| alias.split_once(':'));
        server.is_some_and(|(_, server)| server == own)
    };
    let mut goes = Map::new();
    if stays.get("alias").is_some_and(is_ours) {
        goes.extend(stays.remove_entry("alias"));
    }
    if let Some(Value::Array(others)) = stays.remove("alt_aliases") {
        let (ours, theirs): (Vec<Value>, Vec<Value>) = others.into_iter().partition(is_ours);
        for (content, aliases) in [(&mut goes, ours), (&mut stays, theirs)] {
            if !aliases.is_empty() {
                content.insert("alt_aliases".to_owned(), Value::Array(aliases));
            }
        }
    }
    let kind = canonical.to_string();
    set(rooms, old_id, user, &kind, &Value::Object(stays)).await;
    if !goes.is_empty() {
        set(rooms, new_id, user, &kind, &Value::Object(goes)).await;
    }
}
