//! Profiles.

use axum::{Router, extract::State, routing::get};
use ruma::{OwnedUserId, UserId, api::federation::query::get_profile_information};
use serde_json::{Map, Value, json};

use crate::{
    http::{App, error::ApiError, path::Path, reply::Object, request},
    rooms::membership,
    users::{self, profile},
};

/// Fields whose name the specification fixes are served here as all others: v1.16 made one
/// endpoint of them, which ruma's types for the older ones do not cover.
pub(super) fn routes() -> Router<App> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/client/{version}/profile/{{user_id}}");
        router = router.route(&base, get(get_profile)).route(
            &format!("{base}/{{field}}"),
            get(get_profile_field)
                .put(set_profile_field)
                .delete(delete_profile_field),
        );
    }
    router
}

fn parse_user(id: &str) -> Result<OwnedUserId, ApiError> {
    UserId::parse(id).map_err(|_| ApiError::invalid_param("not a user id"))
}

/// A profile of ours, or a peer's as far as it tells.
async fn find(app: &App, user: &UserId) -> Result<Map<String, Value>, ApiError> {
    if user.server_name() == app.ctx.server_name() {
        return Ok(profile::get_or_ask(&app.ctx, user).await?);
    }
    let request = get_profile_information::v1::Request::new(user.to_owned());
    let answer = app
        .ctx
        .federation
        .request(user.server_name(), request)
        .await?;
    match serde_json::to_value(answer_fields(&answer)) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(ApiError::not_found("profile not found")),
    }
}

fn answer_fields(answer: &get_profile_information::v1::Response) -> Map<String, Value> {
    answer
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// `GET /_matrix/client/v3/profile/{userId}`
async fn get_profile(State(app): State<App>, Path(user): Path<String>) -> Result<Object, ApiError> {
    let user = parse_user(&user)?;
    Ok(Object(Value::Object(find(&app, &user).await?)))
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`
async fn get_profile_field(
    State(app): State<App>,
    Path((user, field)): Path<(String, String)>,
) -> Result<Object, ApiError> {
    let user = parse_user(&user)?;
    let mut profile = find(&app, &user).await?;
    match profile.remove(&field) {
        Some(value) => Ok(Object(json!({ field: value }))),
        // Clients know these as always there, and empty.
        None if matches!(field.as_str(), "displayname" | "avatar_url") => Ok(Object(json!({}))),
        None => Err(ApiError::not_found("no such field")),
    }
}

/// `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
async fn set_profile_field(
    State(app): State<App>,
    Path((user, field)): Path<(String, String)>,
    parts: http::request::Parts,
    body: axum::body::Bytes,
) -> Result<Object, ApiError> {
    // Who may not ask is told so first, whatever else is wrong.
    request::session(&parts, &app).await?;
    let body: Value = serde_json::from_slice(&body).map_err(|_| ApiError::not_json("not JSON"))?;
    let value = body.get(&field).cloned();
    let value = value.ok_or_else(|| ApiError::missing_param(&field))?;
    change(
        &app,
        &parts,
        &user,
        &field,
        Some(value).filter(|value| !value.is_null()),
    )
    .await
}

/// `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
async fn delete_profile_field(
    State(app): State<App>,
    Path((user, field)): Path<(String, String)>,
    parts: http::request::Parts,
) -> Result<Object, ApiError> {
    change(&app, &parts, &user, &field, None).await
}

async fn change(
    app: &App,
    parts: &http::request::Parts,
    user: &str,
    field: &str,
    value: Option<Value>,
) -> Result<Object, ApiError> {
    let session = request::session(parts, app).await?;
    let user = parse_user(user)?;
    if session.user_id != user {
        return Err(users::Error::Forbidden("this is another user's profile").into());
    }
    profile::set(&app.ctx, &user, field, value).await?;
    if matches!(field, "displayname" | "avatar_url") {
        membership::spread_profile(&app.rooms, &user).await?;
    }
    Ok(Object(json!({})))
}
