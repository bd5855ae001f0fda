//! Who we are.

use axum::{Router, routing::get};
use serde_json::json;

use crate::http::{App, reply::Object};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/_matrix/federation/v1/version", get(get_server_version))
}

/// `GET /_matrix/federation/v1/version`
async fn get_server_version() -> Object {
    Object(json!({
        "server": { "name": "Amtsbote", "version": env!("CARGO_PKG_VERSION") },
    }))
}
