//! Read markers.

use axum::{Router, extract::State};
use ruma::{EventId, RoomId, api::client::read_marker::set_read_marker::v3::Request};
use serde_json::json;

use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    rooms::{
        membership::require_joined,
        receipts::{self, Kind},
    },
    users::{account_data, tokens::Session},
};

pub(super) fn routes() -> Router<App> {
    mount::<Request, _, _>(Router::new(), set_read_marker)
}

/// Up to where the user has read, as its clients show it.
pub(super) async fn set_fully_read(
    app: &App,
    session: &Session,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<(), ApiError> {
    require_joined(&app.rooms, room_id, &session.user_id).await?;
    let room = super::config::room_nid(app, room_id).await?;
    let content = json!({ "event_id": event_id }).to_string();
    account_data::put(&app.ctx, session, room, "m.fully_read", &content).await?;
    Ok(())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
async fn set_read_marker(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<Request>,
) -> Result<Object, ApiError> {
    let (room, user) = (&request.room_id, &session.user_id);
    if let Some(event_id) = &request.fully_read {
        set_fully_read(&app, &session, room, event_id).await?;
    }
    let given = [
        (request.read_receipt, Kind::Read),
        (request.private_read_receipt, Kind::Private),
    ];
    for (event_id, kind) in given {
        if let Some(event_id) = event_id {
            receipts::set(&app.rooms, room, user, kind, (&event_id, "")).await?;
        }
    }
    Ok(Object(json!({})))
}
