//! Our public room directory, for peers.

use axum::{Router, extract::State};
use ruma::api::federation::directory::{get_public_rooms, get_public_rooms_filtered};

use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Signed},
    rooms::{Rooms, directory},
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_public_rooms::v1::Request, _, _>(Router::new(), get_public_rooms);
    mount::<get_public_rooms_filtered::v1::Request, _, _>(router, get_public_rooms_filtered)
}

/// `GET /_matrix/federation/v1/publicRooms`
async fn get_public_rooms(
    State(rooms): State<Rooms>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<get_public_rooms::v1::Request>,
) -> Result<Object, ApiError> {
    let limit = request.limit.map(i64::from);
    let since = request.since.as_deref();
    Ok(Object(
        directory::list(&rooms, limit, since, None, &request.room_network).await?,
    ))
}

/// `POST /_matrix/federation/v1/publicRooms`
async fn get_public_rooms_filtered(
    State(rooms): State<Rooms>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<get_public_rooms_filtered::v1::Request>,
) -> Result<Object, ApiError> {
    let limit = request.limit.map(i64::from);
    let search = request.filter.generic_search_term.as_deref();
    let since = request.since.as_deref();
    Ok(Object(
        directory::list(&rooms, limit, since, search, &request.room_network).await?,
    ))
}
