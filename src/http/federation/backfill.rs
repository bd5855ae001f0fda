//! History.

use axum::{Router, extract::State};
use ruma::api::federation::backfill::get_backfill;

use super::raw;
use crate::{
    clock::now,
    http::{App, error::ApiError, mount, reply::Reply, request::Signed},
    rooms::{Rooms, serve::history},
};

pub(super) fn routes() -> Router<App> {
    mount::<get_backfill::v1::Request, _, _>(Router::new(), get_backfill)
}

/// `GET /_matrix/federation/v1/backfill/{roomId}`
async fn get_backfill(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<get_backfill::v1::Request>,
) -> Result<Reply<get_backfill::v1::Response>, ApiError> {
    let limit = request.limit.into();
    let events = history::backfill(&rooms, &origin, &request.room_id, &request.v, limit).await?;
    let own = rooms.ctx().server_name().to_owned();
    Ok(Reply(get_backfill::v1::Response::new(
        own,
        now(),
        raw(&events),
    )))
}
