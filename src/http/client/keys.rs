//! Keys of devices and cross-signing keys.

use axum::{
    Router,
    extract::{Query, State},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::account::reauthenticate;
use crate::{
    context::Context,
    devices::{cross_signing, keys, signatures, upload},
    http::{
        App,
        error::ApiError,
        reply::Object,
        request::{Asking, Body},
    },
    sync::encryption,
    users::uia,
};

pub(super) fn routes() -> Router<App> {
    ["r0", "v3"]
        .into_iter()
        .fold(Router::new(), |router, version| {
            let path = |rest: &str| format!("/_matrix/client/{version}/keys/{rest}");
            router
                .route(&path("upload"), post(upload_keys))
                .route(&path("query"), post(get_keys))
                .route(&path("claim"), post(claim_keys))
                .route(&path("changes"), get(get_key_changes))
                .route(&path("device_signing/upload"), post(upload_signing_keys))
                .route(&path("signatures/upload"), post(upload_signatures))
        })
        // What clients sent before cross-signing was merged.
        .route(
            "/_matrix/client/unstable/keys/device_signing/upload",
            post(upload_signing_keys),
        )
        .route(
            "/_matrix/client/unstable/keys/signatures/upload",
            post(upload_signatures),
        )
}

/// `POST /_matrix/client/v3/keys/upload`
async fn upload_keys(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Body(body): Body<Value>,
) -> Result<Object, ApiError> {
    let counts = upload::upload(&ctx, &session, &body).await?;
    Ok(Object(json!({ "one_time_key_counts": counts })))
}

#[derive(Deserialize)]
struct Question {
    device_keys: keys::Question,
}

/// `POST /_matrix/client/v3/keys/query`
async fn get_keys(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Body(question): Body<Question>,
) -> Result<Object, ApiError> {
    let found = keys::query(&ctx, &session, question.device_keys).await?;
    Ok(Object(found.body(true)))
}

#[derive(Deserialize)]
struct Claim {
    one_time_keys: keys::Wishes,
}

/// `POST /_matrix/client/v3/keys/claim`
async fn claim_keys(
    Asking(_): Asking,
    State(ctx): State<Context>,
    Body(claim): Body<Claim>,
) -> Result<Object, ApiError> {
    Ok(Object(keys::claim(&ctx, claim.one_time_keys).await?))
}

#[derive(Deserialize)]
struct Span {
    from: String,
    to: String,
}

/// `GET /_matrix/client/v3/keys/changes`
async fn get_key_changes(
    Asking(session): Asking,
    State(app): State<App>,
    span: Result<Query<Span>, axum::extract::rejection::QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(span) = span.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let found = encryption::between(&app.rooms, &session, &span.from, &span.to).await?;
    Ok(Object(
        json!({ "changed": found.changed, "left": found.left }),
    ))
}

/// `POST /_matrix/client/v3/keys/device_signing/upload`
async fn upload_signing_keys(
    Asking(session): Asking,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<Object, ApiError> {
    if cross_signing::needs_authentication(&app.ctx, &session, &body).await? {
        reauthenticate(&app, &session, uia::CROSS_SIGNING, body.get("auth")).await?;
    }
    cross_signing::upload(&app.ctx, &session, &body).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/keys/signatures/upload`
async fn upload_signatures(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Body(body): Body<Value>,
) -> Result<Object, ApiError> {
    Ok(Object(signatures::add(&ctx, &session, &body).await?))
}
