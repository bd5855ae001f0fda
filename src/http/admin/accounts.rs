//! What accounts accepted, and until when they are good.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use crate::{
    context::Context,
    http::{App, error::ApiError, path::Path, reply::Object, request::Body},
    users::{terms, validity},
};

pub(super) fn routes() -> Router<App> {
    let router = Router::new().route("/_amtsbote/admin/v1/users/{user_id}/terms", get(list_terms));
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
    let user = UserId::parse(&user).map_err(|_| ApiError::invalid_param("no user id"))?;
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
    State(ctx): State<Context>,
    Body(wanted): Body<Validity>,
) -> Result<Object, ApiError> {
    if ctx.config.account_validity.is_none() {
        return Err(ApiError::unrecognized(StatusCode::NOT_FOUND));
    }
    let is_mailed = wanted.enable_renewal_emails.unwrap_or(true);
    let until = validity::set(&ctx, &wanted.user_id, wanted.expiration_ts, is_mailed).await?;
    Ok(Object(json!({ "expiration_ts": until })))
}
