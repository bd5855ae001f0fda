//! What server administrators do in their client.

use axum::{Router, extract::State};
use ruma::{
    UserId,
    api::client::admin::{
        get_user_info, is_user_locked, is_user_suspended, lock_user, suspend_user,
    },
};
use serde_json::json;

use crate::{
    context::Context,
    http::{
        App, admin::require_admin, error::ApiError, mount, reply::Object, request::Authenticated,
    },
    users::{
        moderation::{self, Measure},
        tokens::Session,
    },
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_user_info::v3::Request, _, _>(Router::new(), get_user_info);
    let router = mount::<is_user_locked::v1::Request, _, _>(router, is_user_locked);
    let router = mount::<lock_user::v1::Request, _, _>(router, lock_user);
    let router = mount::<is_user_suspended::v1::Request, _, _>(router, is_user_suspended);
    mount::<suspend_user::v1::Request, _, _>(router, suspend_user)
}

/// `GET /_matrix/client/v3/admin/whois/{userId}`
async fn get_user_info(
    State(ctx): State<Context>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_user_info::v3::Request>,
) -> Result<Object, ApiError> {
    if request.user_id != session.user_id {
        require_admin(&session)?;
    }
    Ok(Object(moderation::whois(&ctx, &request.user_id).await?))
}

async fn find(
    ctx: &Context,
    session: &Session,
    user: &UserId,
    measure: Measure,
) -> Result<bool, ApiError> {
    require_admin(session)?;
    Ok(moderation::find(ctx, session, user, measure).await?)
}

async fn set(
    app: &App,
    session: &Session,
    user: &UserId,
    measure: (Measure, bool),
) -> Result<(), ApiError> {
    require_admin(session)?;
    let user = moderation::set(&app.ctx, session, user, measure).await?;
    app.tokens.forget(user);
    Ok(())
}

/// `GET /_matrix/client/v1/admin/lock/{userId}`
async fn is_user_locked(
    State(ctx): State<Context>,
    Authenticated {
        session, request, ..
    }: Authenticated<is_user_locked::v1::Request>,
) -> Result<Object, ApiError> {
    let locked = find(&ctx, &session, &request.user_id, Measure::Lock).await?;
    Ok(Object(json!({ "locked": locked })))
}

/// `PUT /_matrix/client/v1/admin/lock/{userId}`
async fn lock_user(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<lock_user::v1::Request>,
) -> Result<Object, ApiError> {
    let measure = (Measure::Lock, request.locked);
    set(&app, &session, &request.user_id, measure).await?;
    Ok(Object(json!({ "locked": request.locked })))
}

/// `GET /_matrix/client/v1/admin/suspend/{userId}`
async fn is_user_suspended(
    State(ctx): State<Context>,
    Authenticated {
        session, request, ..
    }: Authenticated<is_user_suspended::v1::Request>,
) -> Result<Object, ApiError> {
    let suspended = find(&ctx, &session, &request.user_id, Measure::Suspend).await?;
    Ok(Object(json!({ "suspended": suspended })))
}

/// `PUT /_matrix/client/v1/admin/suspend/{userId}`
async fn suspend_user(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<suspend_user::v1::Request>,
) -> Result<Object, ApiError> {
    let measure = (Measure::Suspend, request.suspended);
    set(&app, &session, &request.user_id, measure).await?;
    Ok(Object(json!({ "suspended": request.suspended })))
}
