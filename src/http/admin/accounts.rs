//! What accounts accepted, until when they are good, and how much they may send.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, user_id};
use crate::{
    context::Context,
    http::{App, error::ApiError, path::Path, reply::Object, request::Body},
    users::{moderation, terms, validity},
};

pub(super) fn routes() -> Router<App> {
    let router = Router::new()
        .route("/_amtsbote/admin/v1/users/{user_id}/terms", get(list_terms))
        .route(
            "/_synapse/admin/v1/users/{user_id}/override_ratelimit",
            get(show_limit).post(set_limit).delete(unset_limit),
        );
    [
        "/_synapse/admin/v1/account_validity/validity",
        "/_synapse/client/email_account_validity/admin",
    ]
    .into_iter()
    .fold(router, |router, path| {
        router.route(path, post(set_validity))
    })
}

/// `GET /_amtsbote/admin/v1/users/{user_id}/terms`
///
/// `version`: the current one, if the user has accepted it.
async fn list_terms(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(user): Path<String>,
) -> Result<Object, ApiError> {
    let user = user_id(&user)?;
    let nid = ctx.db.ids.find_user(&user).await?;
    let nid = nid.ok_or_else(|| ApiError::not_found("no such user"))?;
    let accepted = terms::accepted(&ctx, nid).await?;
    let accepted: Vec<Value> = accepted
        .into_iter()
        .map(|it| {
            json!({
                "policy": it.policy, "version": it.version, "accepted_ts": it.accepted_ts,
            })
        })
        .collect();
    let version = match &ctx.config.terms {
        Some(current) if terms::has_accepted(&ctx, nid).await? => Some(terms::version(current)),
        Some(_) | None => None,
    };
    Ok(Object(
        json!({ "consent_version": version, "accepted": accepted }),
    ))
}

#[derive(Deserialize)]
struct Validity {
    user_id: OwnedUserId,
    /// When the account ends, in milliseconds; left out: a period from now.
    expiration_ts: Option<i64>,
    /// Whether it is mailed when that comes near.
    enable_renewal_emails: Option<bool>,
}

/// `POST /_synapse/admin/v1/account_validity/validity`
///
/// Also at `/_synapse/client/email_account_validity/admin`.
async fn set_validity(
    Admin(_): Admin,
    State(app): State<App>,
    Body(wanted): Body<Validity>,
) -> Result<Object, ApiError> {
    if app.ctx.config.account_validity.is_none() {
        return Err(ApiError::unrecognized(StatusCode::NOT_FOUND));
    }
    let is_mailed = wanted.enable_renewal_emails.unwrap_or(true);
    let (user, end) = (&wanted.user_id, wanted.expiration_ts);
    let (user, until) = validity::set(&app.ctx, user, end, is_mailed).await?;
    app.tokens.forget(user);
    Ok(Object(json!({ "expiration_ts": until })))
}

/// What of an account is not as of everybody.
fn limit_body(limit: Option<(i32, i32)>) -> Object {
    Object(match limit {
        Some((per_second, burst)) => {
            json!({ "messages_per_second": per_second, "burst_count": burst })
        }
        None => json!({}),
    })
}

/// `GET /_synapse/admin/v1/users/{user_id}/override_ratelimit`
async fn show_limit(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(user): Path<String>,
) -> Result<Object, ApiError> {
    let limit = moderation::limit(&ctx, &user_id(&user)?).await?;
    Ok(limit_body(limit))
}

#[derive(Deserialize)]
struct Limit {
    #[serde(default)]
    messages_per_second: i32,
    #[serde(default)]
    burst_count: i32,
}

/// `POST /_synapse/admin/v1/users/{user_id}/override_ratelimit`
async fn set_limit(
    Admin(_): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
    Body(wanted): Body<Limit>,
) -> Result<Object, ApiError> {
    let limit = (wanted.messages_per_second, wanted.burst_count);
    if limit.0 < 0 || limit.1 < 0 {
        let why = "messages_per_second and burst_count must not be negative";
        return Err(ApiError::invalid_param(why));
    }
    let user = moderation::set_limit(&app.ctx, &user_id(&user)?, Some(limit)).await?;
    app.tokens.forget(user);
    Ok(limit_body(Some(limit)))
}

/// `DELETE /_synapse/admin/v1/users/{user_id}/override_ratelimit`
async fn unset_limit(
    Admin(_): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
) -> Result<Object, ApiError> {
    let user = moderation::set_limit(&app.ctx, &user_id(&user)?, None).await?;
    app.tokens.forget(user);
    Ok(limit_body(None))
}
