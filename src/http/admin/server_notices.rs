//! Notices to users.

use axum::{
    Router,
    extract::{OriginalUri, State},
    routing::{post, put},
};
use serde_json::json;

use super::Admin;
use crate::{
    http::{App, error::ApiError, path::Path, reply::Object, request::Body},
    rooms::{
        Rooms,
        send::Txn,
        server_notices::{self, Notice},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/send_server_notice", post(send))
        .route(
            "/_synapse/admin/v1/send_server_notice/{txnId}",
            put(send_once),
        )
}

/// `POST /_synapse/admin/v1/send_server_notice`
async fn send(
    Admin(_): Admin,
    State(rooms): State<Rooms>,
    Body(notice): Body<Notice>,
) -> Result<Object, ApiError> {
    let event_id = server_notices::send(&rooms, &notice, None).await?;
    Ok(Object(json!({ "event_id": event_id })))
}

/// `PUT /_synapse/admin/v1/send_server_notice/{txnId}`
async fn send_once(
    Admin(admin): Admin,
    State(rooms): State<Rooms>,
    Path(txn_id): Path<String>,
    OriginalUri(uri): OriginalUri,
    Body(notice): Body<Notice>,
) -> Result<Object, ApiError> {
    let device = admin.device_id.as_str();
    let txn = Txn::new(&admin.user_id, device, uri.path(), &txn_id);
    let event_id = server_notices::send(&rooms, &notice, Some(txn)).await?;
    Ok(Object(json!({ "event_id": event_id })))
}
