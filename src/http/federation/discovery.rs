//! Who we are: version and signing keys.

use axum::{Router, extract::State, routing::get};
use serde_json::json;

use crate::{
    context::Context,
    federation::keys::document,
    http::{
        App,
        error::ApiError,
        reply::{Object, RawJson},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_matrix/federation/v1/version", get(get_server_version))
        .route("/_matrix/key/v2/server", get(get_server_keys))
        // Old servers name the key they want; they get them all.
        .route("/_matrix/key/v2/server/{key_id}", get(get_server_keys))
}

/// `GET /_matrix/federation/v1/version`
async fn get_server_version() -> Object {
    Object(json!({
        "server": { "name": "Amtsbote", "version": env!("CARGO_PKG_VERSION") },
    }))
}

/// `GET /_matrix/key/v2/server`
async fn get_server_keys(State(ctx): State<Context>) -> Result<RawJson, ApiError> {
    let document = document(&ctx.keys).map_err(|error| ApiError::internal(&error))?;
    let json = serde_json::to_string(&document).map_err(|error| ApiError::internal(&error))?;
    Ok(RawJson(json))
}
