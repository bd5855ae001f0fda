//! Deleting rooms.

use axum::{
    Router,
    extract::State,
    routing::{delete, get},
};
use serde_json::{Value, json};

use super::{
    Admin,
    rooms::{details, room_id},
};
use crate::{
    http::{App, error::ApiError, path::Path, reply::Object, request::Body},
    rooms::{
        Rooms,
        deletion::{self, Order},
    },
    storage::room_deletions::Deletion,
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(
            "/_synapse/admin/v1/rooms/{roomId}",
            get(details).delete(delete_and_wait),
        )
        .route("/_synapse/admin/v2/rooms/{roomId}", delete(delete_room))
        .route(
            "/_synapse/admin/v2/rooms/{roomId}/delete_status",
            get(statuses),
        )
        .route(
            "/_synapse/admin/v2/rooms/delete_status/{deleteId}",
            get(status),
        )
}

/// `DELETE /_synapse/admin/v1/rooms/{roomId}`
async fn delete_and_wait(
    Admin(admin): Admin,
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
    Body(order): Body<Order>,
) -> Result<Object, ApiError> {
    let room = room_id(&room)?;
    let outcome = deletion::delete(&rooms, &room, &admin.user_id, &order).await?;
    Ok(Object(json!(outcome)))
}

/// `DELETE /_synapse/admin/v2/rooms/{roomId}`
async fn delete_room(
    Admin(admin): Admin,
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
    Body(order): Body<Order>,
) -> Result<Object, ApiError> {
    let room = room_id(&room)?;
    let id = deletion::order(&rooms, &room, &admin.user_id, &order).await?;
    Ok(Object(json!({ "delete_id": id })))
}

fn body(deletion: &Deletion) -> Value {
    let outcome: Value = serde_json::from_str(&deletion.result_json).unwrap_or_default();
    let mut body = json!({
        "delete_id": deletion.delete_id,
        "room_id": deletion.room_id,
        "status": deletion.status,
        "shutdown_room": outcome,
    });
    if let Some(error) = &deletion.error {
        body["error"] = json!(error);
    }
    body
}

/// `GET /_synapse/admin/v2/rooms/{roomId}/delete_status`
async fn statuses(
    Admin(_): Admin,
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
) -> Result<Object, ApiError> {
    let room = room_id(&room)?;
    let found = deletion::list(&rooms, &room).await?;
    if found.is_empty() {
        return Err(ApiError::not_found("this room was not deleted of late"));
    }
    let results: Vec<Value> = found.iter().map(body).collect();
    Ok(Object(json!({ "results": results })))
}

/// `GET /_synapse/admin/v2/rooms/delete_status/{deleteId}`
async fn status(
    Admin(_): Admin,
    State(rooms): State<Rooms>,
    Path(id): Path<String>,
) -> Result<Object, ApiError> {
    let found = deletion::find(&rooms, &id).await?;
    let found = found.ok_or_else(|| ApiError::not_found("no such deletion"))?;
    Ok(Object(body(&found)))
}
