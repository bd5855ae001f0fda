//! Spaces.

use axum::{Router, extract::State};
use ruma::api::federation::space::get_hierarchy;

use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Signed},
    rooms::{Rooms, spaces::serve},
};

pub(super) fn routes() -> Router<App> {
    mount::<get_hierarchy::v1::Request, _, _>(Router::new(), get_hierarchy)
}

/// `GET /_matrix/federation/v1/hierarchy/{roomId}`
async fn get_hierarchy(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<get_hierarchy::v1::Request>,
) -> Result<Object, ApiError> {
    let (room, suggested_only) = (&request.room_id, request.suggested_only);
    let answer = serve::answer(&rooms, &origin, room, suggested_only).await?;
    Ok(Object(answer))
}
