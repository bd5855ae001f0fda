//! Account data.

use std::sync::Arc;

use axum::{Router, extract::State, routing::delete};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::config::{
        get_global_account_data, get_room_account_data, set_global_account_data,
        set_room_account_data,
    },
};
use serde_json::{Value, json};

use crate::{
    http::{
        App,
        error::ApiError,
        mount,
        path::Path,
        reply::Object,
        request::{Asking, Authenticated},
    },
    users::{account_data, push_rules, tokens::Session},
};

/// Deletion of account data (MSC3391).
const DELETION: &str = "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}";

pub(super) fn routes() -> Router<App> {
    let router =
        mount::<get_global_account_data::v3::Request, _, _>(Router::new(), get_global_account_data);
    let router =
        mount::<set_global_account_data::v3::Request, _, _>(router, set_global_account_data);
    let router = mount::<get_room_account_data::v3::Request, _, _>(router, get_room_account_data);
    mount::<set_room_account_data::v3::Request, _, _>(router, set_room_account_data)
        .route(
            &format!("{DELETION}/account_data/{{type}}"),
            delete(delete_global_account_data),
        )
        .route(
            &format!("{DELETION}/rooms/{{room_id}}/account_data/{{type}}"),
            delete(delete_room_account_data),
        )
}

/// Account data is its owner's alone.
pub(super) fn require_own(session: &Arc<Session>, user: &UserId) -> Result<(), ApiError> {
    if session.user_id == user {
        Ok(())
    } else {
        Err(ApiError::forbidden("this is another user's"))
    }
}

/// The number of a room; a room that nobody here knows has no account data.
pub(super) async fn room_nid(app: &App, room: &RoomId) -> Result<i64, ApiError> {
    let nid = app.ctx.db.ids.find_room(room).await?;
    nid.map(|nid| nid.0)
        .ok_or_else(|| ApiError::not_found("room not found"))
}

/// `GET /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn get_global_account_data(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_global_account_data::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let kind = request.event_type.to_string();
    let content = if kind == "m.push_rules" {
        push_rules::list(&app.ctx, &session).await?
    } else {
        Value::Object(account_data::get(&app.ctx, &session, 0, &kind).await?)
    };
    Ok(Object(content))
}

/// `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn set_global_account_data(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<set_global_account_data::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let kind = request.event_type.to_string();
    account_data::set(&app.ctx, &session, 0, &kind, request.data.json().get()).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn get_room_account_data(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_room_account_data::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let room = room_nid(&app, &request.room_id).await?;
    let kind = request.event_type.to_string();
    let content = account_data::get(&app.ctx, &session, room, &kind).await?;
    Ok(Object(Value::Object(content)))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn set_room_account_data(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<set_room_account_data::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let room = room_nid(&app, &request.room_id).await?;
    let kind = request.event_type.to_string();
    account_data::set(&app.ctx, &session, room, &kind, request.data.json().get()).await?;
    Ok(Object(json!({})))
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/account_data/{type}`
async fn delete_global_account_data(
    Asking(session): Asking,
    State(app): State<App>,
    Path((user, kind)): Path<(OwnedUserId, String)>,
) -> Result<Object, ApiError> {
    require_own(&session, &user)?;
    account_data::delete(&app.ctx, &session, 0, &kind).await?;
    Ok(Object(json!({})))
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn delete_room_account_data(
    Asking(session): Asking,
    State(app): State<App>,
    Path((user, room, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Object, ApiError> {
    require_own(&session, &user)?;
    let room = room_nid(&app, &room).await?;
    account_data::delete(&app.ctx, &session, room, &kind).await?;
    Ok(Object(json!({})))
}
