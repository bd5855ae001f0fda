//! Operators of the agency: Synapse's admin API, as far as operators' tools use it.

mod accounts;
mod destinations;
mod federation;
mod media;
mod media_use;
mod moderation;
mod pushers;
mod register;
mod registration_tokens;
mod room_deletion;
mod rooms;
mod server_notices;
mod users;

use std::sync::Arc;

use axum::{Router, extract::FromRequestParts, routing::get};
use http::request::Parts;
use ruma::{OwnedUserId, UserId};
use serde_json::json;

pub(super) use self::federation::client_routes;
pub use self::register::Nonces;
use super::{App, error::ApiError, reply::Object, request::session};
use crate::users::tokens::Session;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/server_version", get(version))
        .merge(accounts::routes())
        .merge(destinations::routes())
        .merge(federation::routes())
        .merge(media::routes())
        .merge(media_use::routes())
        .merge(moderation::routes())
        .merge(pushers::routes())
        .merge(register::routes())
        .merge(registration_tokens::routes())
        .merge(rooms::routes())
        .merge(room_deletion::routes())
        .merge(server_notices::routes())
        .merge(users::routes())
}

/// Whether a list is wanted backwards (`dir`), where that is said.
fn is_backwards(dir: Option<&str>) -> Result<Option<bool>, ApiError> {
    match dir {
        None => Ok(None),
        Some("f") => Ok(Some(false)),
        Some("b") => Ok(Some(true)),
        Some(_) => Err(ApiError::invalid_param("dir is f or b")),
    }
}

/// The user that a path names.
fn user_id(text: &str) -> Result<OwnedUserId, ApiError> {
    UserId::parse(text).map_err(|_| ApiError::invalid_param("no user id"))
}

/// `GET /_synapse/admin/v1/server_version`
async fn version() -> Object {
    Object(json!({ "server_version": concat!("Amtsbote ", env!("CARGO_PKG_VERSION")) }))
}

/// A server administrator asks.
#[derive(Clone, Debug)]
pub struct Admin(pub Arc<Session>);

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let session = session(parts, app).await?;
        require_admin(&session)?;
        Ok(Self(session))
    }
}

/// Who is no administrator learns nothing of who exists.
pub(super) fn require_admin(session: &Session) -> Result<(), ApiError> {
    if session.admin {
        Ok(())
    } else {
        Err(ApiError::forbidden("you are not a server administrator"))
    }
}
