//! Room tags.

use axum::{Router, extract::State};
use ruma::api::client::tag::{create_tag, delete_tag, get_tags};
use serde_json::json;

use super::config::{require_own, room_nid};
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    users::account_data,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_tags::v3::Request, _, _>(Router::new(), get_tags);
    let router = mount::<create_tag::v3::Request, _, _>(router, create_tag);
    mount::<delete_tag::v3::Request, _, _>(router, delete_tag)
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
async fn get_tags(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_tags::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let room = room_nid(&app, &request.room_id).await?;
    let tags = account_data::tags(&app.ctx, &session, room).await?;
    Ok(Object(json!({ "tags": tags })))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn create_tag(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<create_tag::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let room = room_nid(&app, &request.room_id).await?;
    let info = serde_json::to_value(&request.tag_info)
        .map_err(|error| ApiError::bad_json(&error.to_string()))?;
    account_data::set_tag(&app.ctx, &session, room, &request.tag, Some(info)).await?;
    Ok(Object(json!({})))
}

/// `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn delete_tag(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<delete_tag::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let room = room_nid(&app, &request.room_id).await?;
    account_data::set_tag(&app.ctx, &session, room, &request.tag, None).await?;
    Ok(Object(json!({})))
}
