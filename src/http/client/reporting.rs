//! Reporting content to administrators.

use axum::{Router, extract::State};
use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};
use serde_json::json;

use crate::{
    http::{App, error::ApiError, limits::Kind, mount, reply::Object, request::Authenticated},
    rooms::reports,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<report_content::v3::Request, _, _>(Router::new(), report_content);
    let router = mount::<report_room::v3::Request, _, _>(router, report_room);
    mount::<report_user::v3::Request, _, _>(router, report_user)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}`
async fn report_content(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<report_content::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Report, &session)?;
    let event = (&*request.room_id, &*request.event_id);
    let reason = request.reason.as_deref().unwrap_or_default();
    reports::event(&app.rooms, &session, event, reason).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report`
async fn report_room(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<report_room::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Report, &session)?;
    reports::room(&app.rooms, &session, &request.room_id, &request.reason).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/users/{userId}/report`
async fn report_user(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<report_user::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Report, &session)?;
    reports::user(&app.rooms, &session, &request.user_id, &request.reason).await?;
    Ok(Object(json!({})))
}
