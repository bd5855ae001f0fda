//! Rooms as administrators see them: a list of all, and what is known of one.

use std::time::Duration;

use ruma::{RoomId, events::StateEventType};
use serde_json::{Map, Value, json};

use super::{Error, Rooms, pdus::StateSlice, resident::Room};
use crate::storage::{
    self, RoomNid,
    room_list::{self, Listed, Query, Summary},
};

/// Rooms whose summaries are made anew together.
const REFRESH_AT_ONCE: i64 = 100;
/// How long summaries are made anew before the list is shown with what is there: of very many
/// rooms the rest follows with the next request.
const REFRESH_TIME: Duration = Duration::from_secs(5);

/// State that summaries and details are made of.
const SHOWN: [StateEventType; 10] = [
    StateEventType::RoomCreate,
    StateEventType::RoomName,
    StateEventType::RoomTopic,
    StateEventType::RoomAvatar,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomEncryption,
    StateEventType::RoomJoinRules,
    StateEventType::RoomGuestAccess,
    StateEventType::RoomHistoryVisibility,
    StateEventType::RoomTombstone,
];

/// A page of the list, and how many rooms there are in all.
pub async fn page(rooms: &Rooms, query: &Query<'_>) -> Result<(Vec<Value>, i64), Error> {
    refresh(rooms).await?;
    let own = rooms.ctx().db.ids.server(rooms.ctx().server_name()).await?;
    let mut conn = rooms.ctx().db.planning().await?;
    let found = room_list::page(&mut conn, own, query).await?;
    let total = room_list::count(&mut conn, query).await?;
    Ok((found.iter().map(entry).collect(), total))
}

fn entry(room: &Listed) -> Value {
    let summary = &room.summary;
    json!({
        "room_id": room.room_id,
        "name": summary.name,
        "canonical_alias": summary.canonical_alias,
        "joined_members": room.joined,
        "joined_local_members": room.joined_local,
        "version": room.version,
        "creator": summary.creator,
        "encryption": summary.encryption,
        "federatable": summary.federatable,
        "public": room.public,
        "join_rules": summary.join_rules,
        "guest_access": summary.guest_access,
        "history_visibility": summary.history_visibility,
        "state_events": summary.state_events,
        "room_type": summary.room_type,
    })
}

/// Makes the summaries of all changed rooms anew; an error where that takes longer.
pub async fn refresh_all(rooms: &Rooms) -> Result<(), Error> {
    refresh(rooms).await?;
    let mut conn = rooms.ctx().db.planning().await?;
    if room_list::list_stale(&mut conn, 1).await?.is_empty() {
        Ok(())
    } else {
        Err(Error::Busy)
    }
}

/// Makes the summaries of changed rooms anew.
async fn refresh(rooms: &Rooms) -> Result<(), Error> {
    let until = tokio::time::Instant::now() + REFRESH_TIME;
    while tokio::time::Instant::now() < until {
        let mut conn = rooms.ctx().db.planning().await?;
        let stale = room_list::list_stale(&mut conn, REFRESH_AT_ONCE).await?;
        drop(conn);
        if stale.is_empty() {
            break;
        }
        let mut done = 0;
        for nid in stale {
            match refresh_one(rooms, nid).await {
                Ok(()) => done += 1,
                // One broken room must not hide the others.
                Err(error) => tracing::warn!(%error, room = nid.0, "a room could not be summed up"),
            }
        }
        if done == 0 {
            break;
        }
    }
    Ok(())
}

async fn refresh_one(rooms: &Rooms, nid: RoomNid) -> Result<(), Error> {
    // Rooms that nobody uses stay out of the memory of those in use.
    let room = match rooms.0.resident.get(&nid).await {
        Some(room) if !room.is_dead() => room,
        _ => match rooms.load(&[nid.0]).await?.pop() {
            Some(room) => room,
            None => return Ok(()),
        },
    };
    let summary = summary(&room, &shown(rooms, &room).await?);
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(room_list::upsert(&mut conn, nid, &summary).await?)
}

async fn shown(rooms: &Rooms, room: &Room) -> Result<StateSlice, Error> {
    let keys: Vec<(StateEventType, String)> = SHOWN
        .into_iter()
        .map(|kind| (kind, String::new()))
        .collect();
    rooms
        .state_events(room, &room.head().state.entries, &keys)
        .await
}

fn field(slice: &StateSlice, kind: &StateEventType, name: &str) -> Option<String> {
    let content: Map<String, Value> = slice.get(kind, "")?.content_as()?;
    // A NUL is no character for PostgreSQL.
    let text = content.get(name)?.as_str()?.replace('\0', "");
    Some(text).filter(|text| !text.is_empty())
}

fn summary(room: &Room, slice: &StateSlice) -> Summary {
    let head = room.head();
    let create = slice.get(&StateEventType::RoomCreate, "");
    let content: Map<String, Value> = create
        .as_ref()
        .and_then(|pdu| pdu.content_as())
        .unwrap_or_default();
    let by_sender = room.version.rules.authorization.use_room_create_sender;
    let named = field(slice, &StateEventType::RoomCreate, "creator").filter(|_| !by_sender);
    let sender = || create.as_ref().map(|pdu| pdu.sender.to_string());
    Summary {
        snap: head.state.snap,
        name: field(slice, &StateEventType::RoomName, "name"),
        canonical_alias: field(slice, &StateEventType::RoomCanonicalAlias, "alias"),
        creator: named.or_else(sender).unwrap_or_default(),
        encryption: field(slice, &StateEventType::RoomEncryption, "algorithm"),
        federatable: content.get("m.federate") != Some(&Value::Bool(false)),
        avatar_url: field(slice, &StateEventType::RoomAvatar, "url"),
        join_rules: field(slice, &StateEventType::RoomJoinRules, "join_rule"),
        guest_access: field(slice, &StateEventType::RoomGuestAccess, "guest_access"),
        history_visibility: field(
            slice,
            &StateEventType::RoomHistoryVisibility,
            "history_visibility",
        ),
        room_type: field(slice, &StateEventType::RoomCreate, "type"),
        state_events: i64::try_from(head.state.entries.len()).unwrap_or(i64::MAX),
    }
}

/// All that is shown of one room.
pub async fn details(rooms: &Rooms, room_id: &RoomId) -> Result<Value, Error> {
    let room = rooms.by_id(room_id).await?;
    let slice = shown(rooms, &room).await?;
    let own = rooms.ctx().db.ids.server(rooms.ctx().server_name()).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let (joined, joined_local) = room_list::count_joined(&mut conn, room.nid, own).await?;
    let mut answer = entry(&Listed {
        room_id: room.id.to_string(),
        version: room.version.id.to_string(),
        public: storage::rooms::is_listed(&mut conn, room.nid).await?,
        joined,
        joined_local,
        summary: summary(&room, &slice),
    });
    let devices = room_list::count_devices(&mut conn, room.nid).await?;
    answer["joined_local_devices"] = json!(devices);
    answer["forgotten"] = json!(storage::purges::is_forgotten(&mut conn, room.nid).await?);
    answer["topic"] = json!(field(&slice, &StateEventType::RoomTopic, "topic"));
    answer["avatar"] = json!(field(&slice, &StateEventType::RoomAvatar, "url"));
    let tombstone = &StateEventType::RoomTombstone;
    answer["tombstoned"] = json!(slice.get(tombstone, "").is_some());
    answer["replacement_room"] = json!(field(&slice, tombstone, "replacement_room"));
    Ok(answer)
}
