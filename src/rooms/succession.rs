//! What goes along when a user enters the room that takes the place of an older one: tags and
//! other data of the room, push rules for it, its mark as a direct chat, our aliases.

use std::sync::Arc;

use ruma::{
    OwnedRoomId, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, json};

use super::{Error, Rooms, membership, resident::Room};
use crate::{
    event::build::Draft,
    storage::{self, UserNid},
    users::{account_data, push_rules},
};

/// Data of a room that names events of it, and means nothing in another.
const LEFT_BEHIND: [&str; 1] = ["m.fully_read"];
const TAGS: &str = "m.tag";
const DIRECT: &str = "m.direct";

#[derive(serde::Deserialize)]
struct Tombstone {
    replacement_room: OwnedRoomId,
}

/// Called when a user has closed a room for another. Who makes an upgrade by hand is in the new room
/// before the two name each other.
pub(super) async fn replaced(rooms: &Rooms, user: &UserId, tombstone: &Draft) {
    let Ok(Tombstone { replacement_room }) = serde_json::from_str(tombstone.content.get()) else {
        return;
    };
    let now = membership::current(rooms, &replacement_room, user).await;
    if now.is_ok_and(|now| now == Some(MembershipState::Join)) {
        follow(rooms, &replacement_room, user).await;
    }
}

/// Called when a user has entered a room. What fails is logged: the user is in the room.
pub(super) async fn follow(rooms: &Rooms, room_id: &RoomId, user: &UserId) {
    let followed = async {
        let room = rooms.by_id(room_id).await?;
        let Some(old) = predecessor(rooms, &room).await? else {
            return Ok::<_, Error>(());
        };
        let user_id = user;
        let user = rooms.ctx().db.ids.user(user).await?;
        let (from, to) = (old.id.as_str(), room.id.as_str());
        if let Err(error) = push_rules::copy_room(rooms.ctx(), (user_id, user), from, to).await {
            tracing::warn!(%error, %room_id, "push rules did not follow to a new room");
        }
        move_room_data(rooms, &old, &room, user).await?;
        move_direct(rooms, &old, &room, user).await?;
        move_aliases(rooms, &old, &room).await
    };
    if let Err(error) = followed.await {
        tracing::warn!(%error, %room_id, "what belongs to a user did not follow to a new room");
    }
}

/// The room that this one takes the place of; only where both say so, or anybody could make a room
/// that inherits from another.
async fn predecessor(rooms: &Rooms, room: &Room) -> Result<Option<Arc<Room>>, Error> {
    #[derive(serde::Deserialize)]
    struct Create {
        predecessor: Option<Predecessor>,
    }
    #[derive(serde::Deserialize)]
    struct Predecessor {
        room_id: OwnedRoomId,
    }
    let head = room.head();
    let create = StateEventType::RoomCreate;
    let create = rooms
        .state_event(room, &head.state.entries, &create, "")
        .await?
        .and_then(|pdu| pdu.content_as::<Create>());
    let Some(predecessor) = create.and_then(|create| create.predecessor) else {
        return Ok(None);
    };
    let old = match rooms.by_id(&predecessor.room_id).await {
        Ok(old) => old,
        Err(Error::RoomNotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let head = old.head();
    let tombstone = StateEventType::RoomTombstone;
    let tombstone = rooms
        .state_event(&old, &head.state.entries, &tombstone, "")
        .await?
        .and_then(|pdu| pdu.content_as::<Tombstone>());
    let agreed = tombstone.is_some_and(|tombstone| tombstone.replacement_room == room.id);
    Ok(Some(old).filter(|_| agreed))
}

async fn move_room_data(rooms: &Rooms, old: &Room, new: &Room, user: UserNid) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let theirs = storage::account_data::list_of_room(&mut conn, user, old.nid.0).await?;
    let have = storage::account_data::list_of_room(&mut conn, user, new.nid.0).await?;
    drop(conn);
    for (kind, content) in theirs {
        if LEFT_BEHIND.contains(&&*kind) {
            continue;
        }
        let present = have.iter().find(|(other, _)| *other == kind);
        let content = match present {
            None => content,
            Some((_, present)) if kind == TAGS => merged_tags(&content, present),
            // What the user has set in the new room stands.
            Some(_) => continue,
        };
        account_data::store(rooms.ctx(), user, new.nid.0, (&kind, &content)).await?;
    }
    Ok(())
}

/// Tags of both; of equal ones that of the new room.
pub(super) fn merged_tags(old: &str, new: &str) -> String {
    let tags = |text: &str| -> Map<String, Value> {
        let content: Value = serde_json::from_str(text).unwrap_or_default();
        content["tags"].as_object().cloned().unwrap_or_default()
    };
    let mut merged = tags(old);
    merged.extend(tags(new));
    json!({ "tags": merged }).to_string()
}

async fn move_direct(rooms: &Rooms, old: &Room, new: &Room, user: UserNid) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let content = storage::account_data::find(&mut conn, user, 0, DIRECT).await?;
    drop(conn);
    let Some(mut direct) =
        content.and_then(|content| serde_json::from_str::<Map<String, Value>>(&content).ok())
    else {
        return Ok(());
    };
    let mut changed = false;
    for list in direct.values_mut().filter_map(Value::as_array_mut) {
        if list.contains(&json!(old.id)) && !list.contains(&json!(new.id)) {
            list.push(json!(new.id));
            changed = true;
        }
    }
    if changed {
        let content = Value::Object(direct).to_string();
        account_data::store(rooms.ctx(), user, 0, (DIRECT, &content)).await?;
    }
    Ok(())
}

/// Our aliases name the new room, and it takes the place of the old one in our directory.
pub(super) async fn move_aliases(rooms: &Rooms, old: &Room, new: &Room) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    storage::aliases::move_all(&mut conn, old.nid, new.nid).await?;
    if storage::rooms::is_listed(&mut conn, old.nid).await? {
        storage::rooms::update_listed(&mut conn, new.nid, true).await?;
        storage::rooms::update_listed(&mut conn, old.nid, false).await?;
    }
    Ok(())
}
