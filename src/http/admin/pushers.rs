//! Where users are notified.

use axum::{Router, extract::State, routing::get};
use serde_json::json;

use super::{Admin, user_id};
use crate::{
    context::Context,
    http::{App, error::ApiError, path::Path, reply::Object},
    users::{pushers, registration},
};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/_synapse/admin/v1/users/{user_id}/pushers", get(list))
}

/// `GET /_synapse/admin/v1/users/{user_id}/pushers`
async fn list(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(user): Path<String>,
) -> Result<Object, ApiError> {
    let user = user_id(&user)?;
    let unknown = || ApiError::not_found("no such user");
    if user.server_name() != ctx.server_name() || !registration::exists(&ctx, &user).await? {
        return Err(unknown());
    }
    let nid = ctx.db.ids.find_user(&user).await?.ok_or_else(unknown)?;
    let pushers = pushers::list(&ctx, nid).await?;
    Ok(Object(
        json!({ "total": pushers.len(), "pushers": pushers }),
    ))
}
