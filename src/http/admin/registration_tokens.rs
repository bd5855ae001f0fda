//! Registration tokens.

use axum::{
    Router,
    extract::{Query, State},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use crate::{
    clock::now_ms,
    context::Context,
    http::{App, error::ApiError, path::Path, reply::Object, request::Body},
    storage::registration_tokens::{self, RegistrationToken},
    users::registration,
};

/// Characters of a token that an operator did not name.
const LENGTH: usize = 16;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/registration_tokens", get(list))
        .route("/_synapse/admin/v1/registration_tokens/new", post(create))
        .route(
            "/_synapse/admin/v1/registration_tokens/{token}",
            get(show).put(update).delete(delete),
        )
}

fn body(token: &RegistrationToken) -> Value {
    json!({
        "token": token.token,
        "uses_allowed": token.uses_allowed,
        "pending": 0,
        "completed": token.completed,
        "expiry_time": token.expires_ts,
    })
}

#[derive(Deserialize)]
struct Filter {
    valid: Option<bool>,
}

/// `GET /_synapse/admin/v1/registration_tokens`
async fn list(
    Admin(_): Admin,
    State(ctx): State<Context>,
    filter: Result<Query<Filter>, axum::extract::rejection::QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(filter) = filter.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let mut conn = ctx.db.conn().await?;
    let tokens = registration_tokens::list(&mut conn, filter.valid, now_ms()).await?;
    let tokens: Vec<Value> = tokens.iter().map(body).collect();
    Ok(Object(json!({ "registration_tokens": tokens })))
}

#[derive(Deserialize)]
struct Wanted {
    token: Option<String>,
    length: Option<usize>,
    uses_allowed: Option<i32>,
    expiry_time: Option<i64>,
}

/// `POST /_synapse/admin/v1/registration_tokens/new`
async fn create(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Body(wanted): Body<Wanted>,
) -> Result<Object, ApiError> {
    let limits = (wanted.uses_allowed, wanted.expiry_time);
    let length = wanted.length.unwrap_or(LENGTH);
    let token = registration::create_token(&ctx, wanted.token, length, limits).await?;
    Ok(Object(body(&token)))
}

fn unknown() -> ApiError {
    ApiError::not_found("no such registration token")
}

/// `GET /_synapse/admin/v1/registration_tokens/{token}`
async fn show(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(token): Path<String>,
) -> Result<Object, ApiError> {
    let mut conn = ctx.db.conn().await?;
    let token = registration_tokens::find(&mut conn, &token).await?;
    Ok(Object(body(&token.ok_or_else(unknown)?)))
}

/// `PUT /_synapse/admin/v1/registration_tokens/{token}`
///
/// A limit that is not named stays; one that is null goes.
async fn update(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(token): Path<String>,
    Body(change): Body<Value>,
) -> Result<Object, ApiError> {
    let mut conn = ctx.db.conn().await?;
    let old = registration_tokens::find(&mut conn, &token)
        .await?
        .ok_or_else(unknown)?;
    let uses = match change.get("uses_allowed") {
        None => old.uses_allowed,
        Some(Value::Null) => None,
        Some(uses) => Some(
            uses.as_i64()
                .and_then(|uses| i32::try_from(uses).ok())
                .ok_or_else(|| ApiError::invalid_param("uses_allowed must be a number or null"))?,
        ),
    };
    let expires = match change.get("expiry_time") {
        None => old.expires_ts,
        Some(Value::Null) => None,
        Some(end) => Some(
            end.as_i64()
                .ok_or_else(|| ApiError::invalid_param("expiry_time must be a number or null"))?,
        ),
    };
    registration::check_limits(
        uses,
        expires.filter(|_| change.get("expiry_time").is_some()),
    )?;
    let token = registration_tokens::update(&mut conn, &token, uses, expires).await?;
    Ok(Object(body(&token.ok_or_else(unknown)?)))
}

/// `DELETE /_synapse/admin/v1/registration_tokens/{token}`
async fn delete(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(token): Path<String>,
) -> Result<Object, ApiError> {
    let mut conn = ctx.db.conn().await?;
    if registration_tokens::delete(&mut conn, &token).await? {
        return Ok(Object(json!({})));
    }
    Err(unknown())
}
