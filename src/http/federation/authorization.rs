//! Auth chains.

use axum::{Router, extract::State};
use ruma::api::federation::authorization::get_event_authorization;

use super::raw;
use crate::{
    http::{App, error::ApiError, mount, reply::Reply, request::Signed},
    rooms::{Rooms, serve::history},
};

pub(super) fn routes() -> Router<App> {
    mount::<get_event_authorization::v1::Request, _, _>(Router::new(), get_event_authorization)
}

/// `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`
async fn get_event_authorization(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<get_event_authorization::v1::Request>,
) -> Result<Reply<get_event_authorization::v1::Response>, ApiError> {
    let chain = history::auth_chain(&rooms, &origin, &request.room_id, &request.event_id).await?;
    Ok(Reply(get_event_authorization::v1::Response::new(raw(
        &chain,
    ))))
}
