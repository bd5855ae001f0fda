//! Rooms: the list of all, and one of them.

use axum::{
    Router,
    extract::{Query, State},
    routing::get,
};
use ruma::{OwnedRoomId, RoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{Admin, is_backwards};
use crate::{
    event::client::{Shape, to_client},
    http::{App, error::ApiError, path::Path, reply::Object, request::Body},
    rooms::{Rooms, blocks, listing},
    storage::{self, room_list},
};

/// Rooms in one page.
const PAGE_MAX: i64 = 1_000;
/// Events loaded at once.
const LOAD_AT_ONCE: usize = 2_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/rooms", get(list))
        .route("/_synapse/admin/v1/rooms/{roomId}/members", get(members))
        .route("/_synapse/admin/v1/rooms/{roomId}/state", get(state))
        .route(
            "/_synapse/admin/v1/rooms/{roomId}/block",
            get(block).put(set_block),
        )
}

/// The room id of a path.
pub(super) fn room_id(text: &str) -> Result<OwnedRoomId, ApiError> {
    RoomId::parse(text)
        .map_err(|_| ApiError::invalid_param(&format!("{text} is not a legal room ID")))
}

#[derive(Deserialize)]
struct Wanted {
    from: Option<i64>,
    limit: Option<i64>,
    order_by: Option<String>,
    dir: Option<String>,
    search_term: Option<String>,
    public_rooms: Option<bool>,
    empty_rooms: Option<bool>,
}

type Given<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

/// `GET /_synapse/admin/v1/rooms`
async fn list(
    Admin(_): Admin,
    State(rooms): State<Rooms>,
    wanted: Given<Wanted>,
) -> Result<Object, ApiError> {
    let Query(wanted) = wanted.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let (offset, limit) = (wanted.from.unwrap_or(0), wanted.limit.unwrap_or(100));
    if offset < 0 || limit < 0 {
        return Err(ApiError::invalid_param("from and limit are not negative"));
    }
    if wanted.search_term.as_deref() == Some("") {
        return Err(ApiError::invalid_param(
            "search_term cannot be an empty string",
        ));
    }
    let (order_by, ascending) = order(wanted.order_by.as_deref().unwrap_or("name"))?;
    let reversed = is_backwards(wanted.dir.as_deref())?.unwrap_or(false);
    let limit = limit.min(PAGE_MAX);
    let query = room_list::Query {
        order_by,
        ascending: ascending != reversed,
        search: wanted.search_term.as_deref(),
        public: wanted.public_rooms,
        empty: wanted.empty_rooms,
        offset,
        limit,
    };
    let (found, total) = listing::page(&rooms, &query).await?;
    let mut answer = json!({ "rooms": found, "offset": offset, "total_rooms": total });
    if offset.saturating_add(limit) < total {
        answer["next_batch"] = json!(offset + limit);
    }
    if offset > 0 {
        answer["prev_batch"] = json!((offset - limit).max(0));
    }
    Ok(Object(answer))
}

/// What a name of an order means, and whether it is from small to large.
fn order(name: &str) -> Result<(&str, bool), ApiError> {
    match name {
        "alphabetical" => Ok(("name", true)),
        "size" => Ok(("joined_members", false)),
        "joined_members" | "joined_local_members" | "version" | "state_events" => Ok((name, false)),
        "name" | "canonical_alias" | "creator" | "encryption" | "federatable" | "public"
        | "join_rules" | "guest_access" | "history_visibility" => Ok((name, true)),
        _ => Err(ApiError::invalid_param("rooms have no such order")),
    }
}

/// `GET /_synapse/admin/v1/rooms/{roomId}`
pub(super) async fn details(
    Admin(_): Admin,
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
) -> Result<Object, ApiError> {
    Ok(Object(listing::details(&rooms, &room_id(&room)?).await?))
}

/// `GET /_synapse/admin/v1/rooms/{roomId}/members`
async fn members(
    Admin(_): Admin,
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
) -> Result<Object, ApiError> {
    let room = rooms.by_id(&room_id(&room)?).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let members = storage::memberships::list_in_room(&mut conn, room.nid, &[1]).await?;
    drop(conn);
    let members: Vec<_> = members.into_iter().map(|(user, ..)| user).collect();
    let members = rooms.ctx().db.ids.user_ids_of(&members).await?;
    Ok(Object(
        json!({ "total": members.len(), "members": members }),
    ))
}

#[derive(Deserialize)]
struct OfType {
    r#type: Option<String>,
}

/// `GET /_synapse/admin/v1/rooms/{roomId}/state`
async fn state(
    Admin(_): Admin,
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
    wanted: Given<OfType>,
) -> Result<Object, ApiError> {
    let Query(wanted) = wanted.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let room = rooms.by_id(&room_id(&room)?).await?;
    let mut nids: Vec<i64> = room.head().state.entries.values().copied().collect();
    nids.sort_unstable();
    let mut state: Vec<Box<RawValue>> = Vec::with_capacity(nids.len());
    for chunk in nids.chunks(LOAD_AT_ONCE) {
        let events = rooms.pdus(&room, chunk).await?;
        let fitting = events.iter().filter(|pdu| {
            let kind = wanted.r#type.as_deref();
            kind.is_none_or(|kind| kind == pdu.kind.to_string())
        });
        state.extend(fitting.map(|pdu| to_client(pdu, Shape::Timeline, Map::new())));
    }
    Ok(Object(json!({ "state": state })))
}

/// `GET /_synapse/admin/v1/rooms/{roomId}/block`
async fn block(
    Admin(_): Admin,
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
) -> Result<Object, ApiError> {
    Ok(Object(
        match blocks::blocked_by(&rooms, &room_id(&room)?).await? {
            Some(user) => json!({ "block": true, "user_id": user }),
            None => json!({ "block": false }),
        },
    ))
}

#[derive(Deserialize)]
struct Block {
    block: bool,
}

/// `PUT /_synapse/admin/v1/rooms/{roomId}/block`
async fn set_block(
    Admin(admin): Admin,
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
    Body(Block { block }): Body<Block>,
) -> Result<Object, ApiError> {
    blocks::set(&rooms, &room_id(&room)?, &admin.user_id, block).await?;
    let answer: Value = json!({ "block": block });
    Ok(Object(answer))
}
