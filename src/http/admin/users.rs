//! Accounts, and who they are at identity providers.

use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use serde::Deserialize;

use super::{Admin, user_id};
use crate::{
    context::Context,
    http::{App, error::ApiError, path::Path, reply::Object, request::Body},
    rooms::membership,
    storage,
    users::administration::{self, Wanted},
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v2/users/{user_id}", get(show).put(put))
        .route(
            "/_synapse/admin/v1/auth_providers/{provider}/users/{external_id}",
            get(find_external),
        )
}

/// `GET /_synapse/admin/v2/users/{user_id}`
async fn show(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(user): Path<String>,
) -> Result<Object, ApiError> {
    Ok(Object(administration::show(&ctx, &user_id(&user)?).await?))
}

/// What is wanted of an account and of its sessions.
#[derive(Deserialize)]
struct Put {
    #[serde(flatten)]
    wanted: Wanted,
    /// Whether a new password ends all sessions.
    #[serde(default = "yes")]
    logout_devices: bool,
}

fn yes() -> bool {
    true
}

/// `PUT /_synapse/admin/v2/users/{user_id}`
async fn put(
    Admin(session): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
    Body(put): Body<Put>,
) -> Result<(StatusCode, Object), ApiError> {
    let user = user_id(&user)?;
    if put.wanted.admin == Some(false) && user == session.user_id {
        return Err(ApiError::forbidden(
            "nobody stops being an administrator by themselves",
        ));
    }
    let is_new = administration::put(&app.ctx, &user, &put.wanted).await?;
    if is_new {
        let shown = administration::show(&app.ctx, &user).await?;
        return Ok((StatusCode::CREATED, Object(shown)));
    }
    if put.wanted.displayname.is_some() || put.wanted.avatar_url.is_some() {
        membership::spread_profile(&app.rooms, &user).await?;
    }
    if put.wanted.password.is_some() && put.logout_devices {
        let nid = app.ctx.db.ids.user(&user).await?;
        let mut conn = app.ctx.db.conn().await?;
        let devices = storage::devices::list_awake(&mut conn, nid).await?;
        drop(conn);
        app.tokens.end(nid, &devices).await?;
    }
    let shown = administration::show(&app.ctx, &user).await?;
    Ok((StatusCode::OK, Object(shown)))
}

/// `GET /_synapse/admin/v1/auth_providers/{provider}/users/{external_id}`
async fn find_external(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path((provider, id)): Path<(String, String)>,
) -> Result<Object, ApiError> {
    let found = administration::find_external(&ctx, &provider, &id).await?;
    Ok(Object(found))
}
