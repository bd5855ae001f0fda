//! Receipts.

use axum::{Router, extract::State};
use ruma::api::client::receipt::create_receipt::v3::{ReceiptType, Request};
use serde_json::json;

use super::read_marker::set_fully_read;
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    rooms::receipts::{self, Kind},
};

pub(super) fn routes() -> Router<App> {
    mount::<Request, _, _>(Router::new(), create_receipt)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
async fn create_receipt(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<Request>,
) -> Result<Object, ApiError> {
    let (room, user) = (&request.room_id, &session.user_id);
    let thread = request.thread.as_str().unwrap_or_default();
    let kind = match request.receipt_type {
        ReceiptType::Read => Kind::Read,
        ReceiptType::ReadPrivate => Kind::Private,
        ReceiptType::FullyRead => {
            set_fully_read(&app, &session, room, &request.event_id).await?;
            return Ok(Object(json!({})));
        }
        _ => return Err(ApiError::invalid_param("unknown receipt type")),
    };
    receipts::set(&app.rooms, room, user, kind, (&request.event_id, thread)).await?;
    Ok(Object(json!({})))
}
