//! Profiles and aliases of ours.

use axum::{Router, extract::State};
use ruma::api::federation::query::{get_profile_information, get_room_information};
use serde_json::{Value, json};

use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Signed},
    rooms::aliases,
    users::profile,
};

pub(super) fn routes() -> Router<App> {
    let router =
        mount::<get_profile_information::v1::Request, _, _>(Router::new(), get_profile_information);
    mount::<get_room_information::v1::Request, _, _>(router, get_room_information)
}

/// `GET /_matrix/federation/v1/query/profile`
async fn get_profile_information(
    State(app): State<App>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<get_profile_information::v1::Request>,
) -> Result<Object, ApiError> {
    if request.user_id.server_name() != app.ctx.server_name() {
        return Err(ApiError::not_found("not a user of ours"));
    }
    let mut fields = profile::get_or_ask(&app.ctx, &request.user_id).await?;
    if let Some(field) = request.field {
        fields.retain(|key, _| key == field.as_str());
    }
    Ok(Object(Value::Object(fields)))
}

/// `GET /_matrix/federation/v1/query/directory`
async fn get_room_information(
    State(app): State<App>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<get_room_information::v1::Request>,
) -> Result<Object, ApiError> {
    if request.room_alias.server_name() != app.ctx.server_name() {
        return Err(ApiError::not_found("not an alias of ours"));
    }
    let (room_id, servers) = aliases::resolve_local(&app.rooms, &request.room_alias).await?;
    Ok(Object(json!({ "room_id": room_id, "servers": servers })))
}
