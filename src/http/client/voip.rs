//! Voice over IP.

use axum::{Router, extract::State, routing::get};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use ruma::api::client::voip::get_turn_server_info;
use serde_json::json;
use sha1::Sha1;

use crate::{
    clock::now_ms,
    context::Context,
    http::{
        App,
        error::ApiError,
        mount,
        reply::Object,
        request::{Asking, Authenticated},
        well_known,
    },
};

pub(super) fn routes() -> Router<App> {
    mount::<get_turn_server_info::v3::Request, _, _>(Router::new(), get_turn_server_info).route(
        "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
        get(get_rtc_transports),
    )
}

/// `GET /_matrix/client/v3/voip/turnServer`: credentials that TURN servers make out by the shared secret
/// alone (draft-uberti-behave-turn-rest-00). Nothing where there is no TURN server, as clients expect.
async fn get_turn_server_info(
    State(ctx): State<Context>,
    Authenticated { session, .. }: Authenticated<get_turn_server_info::v3::Request>,
) -> Result<Object, ApiError> {
    let turn = &ctx.config.turn;
    let Some(secret) = turn.shared_secret.as_ref() else {
        return Ok(Object(json!({})));
    };
    let expires = now_ms() / 1_000 + i64::from(turn.lifetime_seconds);
    let username = format!("{expires}:{}", session.user_id);
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.0.as_bytes())
        .map_err(|error| ApiError::internal(&error))?;
    mac.update(username.as_bytes());
    Ok(Object(json!({
        "username": username,
        "password": STANDARD.encode(mac.finalize().into_bytes()),
        "uris": turn.uris,
        "ttl": turn.lifetime_seconds,
    })))
}

/// `GET /_matrix/client/unstable/org.matrix.msc4143/rtc/transports`: what calls of many go through.
async fn get_rtc_transports(
    Asking(_): Asking,
    State(ctx): State<Context>,
) -> Result<Object, ApiError> {
    let transports = well_known::transports(&ctx);
    let transports =
        transports.ok_or_else(|| ApiError::unrecognized(http::StatusCode::NOT_FOUND))?;
    Ok(Object(json!({ "rtc_transports": transports })))
}
