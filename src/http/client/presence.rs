//! Presence.

use axum::{Router, extract::State};
use ruma::api::client::presence::{get_presence, set_presence};
use serde_json::json;

use super::config::require_own;
use crate::{
    http::{App, error::ApiError, limits::Kind, mount, reply::Object, request::Authenticated},
    rooms::presence::{self, content},
    storage::presence::State as Availability,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_presence::v3::Request, _, _>(Router::new(), get_presence);
    mount::<set_presence::v3::Request, _, _>(router, set_presence)
}

/// A state by its name.
pub(super) fn parse_state(name: &str) -> Result<Availability, ApiError> {
    Availability::of(name)
        .ok_or_else(|| ApiError::invalid_param("presence is online, unavailable or offline"))
}

/// `GET /_matrix/client/v3/presence/{userId}/status`
async fn get_presence(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_presence::v3::Request>,
) -> Result<Object, ApiError> {
    let found = presence::get(&app.rooms, session.user_nid, &request.user_id).await?;
    Ok(Object(content(&found)))
}

/// `PUT /_matrix/client/v3/presence/{userId}/status`
async fn set_presence(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<set_presence::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    app.limits.check_user(Kind::Presence, &session)?;
    let state = parse_state(request.presence.as_str())?;
    presence::set(&app.rooms, &session, state, request.status_msg).await?;
    Ok(Object(json!({})))
}
