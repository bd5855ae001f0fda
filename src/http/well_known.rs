//! `/.well-known/matrix/…`, for installations that serve their own domain.

use axum::{Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::{App, error::ApiError, oauth, reply::Object};
use crate::{config::Encryption, context::Context};

pub(super) fn client_routes() -> Router<App> {
    Router::new()
        .route("/.well-known/matrix/client", get(client))
        .route("/.well-known/matrix/support", get(support))
}

pub(super) fn server_routes() -> Router<App> {
    Router::new().route("/.well-known/matrix/server", get(server))
}

async fn client(State(ctx): State<Context>) -> Result<Object, ApiError> {
    let url = ctx.config.well_known.client.as_ref();
    let url = url.ok_or_else(|| ApiError::not_found("not configured"))?;
    let mut body = json!({ "m.homeserver": { "base_url": url } });
    if ctx.config.rooms.encryption != Encryption::Off {
        // Element encrypts what it makes by this, before it asks us.
        body["io.element.e2ee"] = json!({ "default": true });
    }
    if let Some(config) = &ctx.config.oauth {
        body["org.matrix.msc2965.authentication"] = oauth::well_known(config);
    }
    if let Some(transports) = transports(&ctx) {
        body["org.matrix.msc4143.rtc_foci"] = transports;
    }
    Ok(Object(body))
}

/// What calls of many go through (MSC4143); `None`: there are no such calls.
pub(super) fn transports(ctx: &Context) -> Option<Value> {
    let urls = &ctx.config.rtc.livekit_service_urls;
    let transports = urls
        .iter()
        .map(|url| json!({ "type": "livekit", "livekit_service_url": url }));
    (!urls.is_empty()).then(|| transports.collect())
}

async fn server(State(ctx): State<Context>) -> Result<Object, ApiError> {
    let name = ctx.config.well_known.server.as_ref();
    let name = name.ok_or_else(|| ApiError::not_found("not configured"))?;
    Ok(Object(json!({ "m.server": name })))
}

async fn support(State(ctx): State<Context>) -> Result<Object, ApiError> {
    let document = ctx.config.well_known.support.as_ref();
    document
        .cloned()
        .map(Object)
        .ok_or_else(|| ApiError::not_found("not configured"))
}
