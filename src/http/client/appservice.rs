//! What application services alone ask for.

use axum::{Router, extract::State};
use ruma::api::client::{
    appservice::{request_ping, set_room_visibility},
    room::Visibility,
};
use serde_json::json;

use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Served},
    rooms::{Rooms, directory},
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<request_ping::v1::Request, _, _>(Router::new(), request_ping);
    mount::<set_room_visibility::v3::Request, _, _>(router, set_room_visibility)
}

/// `POST /_matrix/client/v1/appservice/{appserviceId}/ping`
async fn request_ping(
    State(app): State<App>,
    Served {
        appservice,
        request,
    }: Served<request_ping::v1::Request>,
) -> Result<Object, ApiError> {
    if request.appservice_id != appservice.id {
        return Err(ApiError::forbidden("this is another application service"));
    }
    let id = request.transaction_id.as_deref().map(AsRef::as_ref);
    let took = app.ctx.appservices.ping(&appservice, id).await?;
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Ok(Object(json!({ "duration_ms": ms })))
}

/// `PUT /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}`
async fn set_room_visibility(
    State(rooms): State<Rooms>,
    Served {
        appservice,
        request,
    }: Served<set_room_visibility::v3::Request>,
) -> Result<Object, ApiError> {
    let listed = request.visibility == Visibility::Public;
    let list = (appservice.id.as_str(), request.network_id.as_str());
    directory::set_network_visibility(&rooms, &request.room_id, list, listed).await?;
    Ok(Object(json!({})))
}
