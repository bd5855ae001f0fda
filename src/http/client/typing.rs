//! Typing.

use axum::{Router, extract::State};
use ruma::api::client::typing::create_typing_event::v3::{Request, Typing};
use serde_json::json;

use super::config::require_own;
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    rooms::typing,
};

pub(super) fn routes() -> Router<App> {
    mount::<Request, _, _>(Router::new(), create_typing_event)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn create_typing_event(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let timeout = match request.state {
        Typing::Yes(info) => Some(i64::try_from(info.timeout.as_millis()).unwrap_or(i64::MAX)),
        Typing::No => None,
    };
    typing::set(&app.rooms, &request.room_id, &session.user_id, timeout).await?;
    Ok(Object(json!({})))
}
