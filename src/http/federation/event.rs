//! Single events, missing events, state.

use axum::{Router, body::Body, extract::State};
use ruma::api::federation::event::{
    get_event, get_event_by_timestamp, get_missing_events, get_room_state, get_room_state_ids,
};
use serde_json::{Map, json};

use super::raw;
use crate::{
    clock::now,
    http::{
        App,
        error::ApiError,
        mount,
        reply::{Object, Reply, Streamed},
        request::Signed,
    },
    rooms::{
        Rooms, at_time,
        serve::{history, stream::Answer},
    },
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_event::v1::Request, _, _>(Router::new(), get_event);
    let router = mount::<get_event_by_timestamp::v1::Request, _, _>(router, get_event_by_timestamp);
    let router = mount::<get_missing_events::v1::Request, _, _>(router, get_missing_events);
    let router = mount::<get_room_state::v1::Request, _, _>(router, get_room_state);
    mount::<get_room_state_ids::v1::Request, _, _>(router, get_room_state_ids)
}

/// `GET /_matrix/federation/v1/event/{eventId}`
async fn get_event(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<get_event::v1::Request>,
) -> Result<Reply<get_event::v1::Response>, ApiError> {
    let (event, _) = history::event(&rooms, &origin, &request.event_id).await?;
    let own = rooms.ctx().server_name().to_owned();
    Ok(Reply(get_event::v1::Response::new(own, now(), event.raw())))
}

/// `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`
async fn get_event_by_timestamp(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<get_event_by_timestamp::v1::Request>,
) -> Result<Object, ApiError> {
    let ts = i64::from(request.ts.get());
    let near = (ts, request.dir == ruma::api::Direction::Backward);
    let event = at_time::nearest_for_peer(&rooms, &request.room_id, &origin, near).await?;
    Ok(Object(json!({
        "event_id": event.pdu.event_id,
        "origin_server_ts": event.pdu.origin_server_ts,
    })))
}

/// `POST /_matrix/federation/v1/get_missing_events/{roomId}`
async fn get_missing_events(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<get_missing_events::v1::Request>,
) -> Result<Reply<get_missing_events::v1::Response>, ApiError> {
    let ends = (&*request.earliest_events, &*request.latest_events);
    let limit = request.limit.into();
    let events = history::missing(&rooms, &origin, &request.room_id, ends, limit).await?;
    Ok(Reply(get_missing_events::v1::Response::new(raw(&events))))
}

/// `GET /_matrix/federation/v1/state/{roomId}`
async fn get_room_state(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<get_room_state::v1::Request>,
) -> Result<Streamed, ApiError> {
    let before = history::state(&rooms, &origin, &request.room_id, &request.event_id).await?;
    let answer = Answer {
        fields: Map::new(),
        lists: vec![("auth_chain", before.chain), ("pdus", before.state)],
    };
    Ok(Streamed(Body::from_stream(answer.stream(&rooms))))
}

/// `GET /_matrix/federation/v1/state_ids/{roomId}`
async fn get_room_state_ids(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<get_room_state_ids::v1::Request>,
) -> Result<Reply<get_room_state_ids::v1::Response>, ApiError> {
    let before = history::state(&rooms, &origin, &request.room_id, &request.event_id).await?;
    let chain = history::ids(&rooms, &before.room, &before.chain).await?;
    let state = history::ids(&rooms, &before.room, &before.state).await?;
    Ok(Reply(get_room_state_ids::v1::Response::new(chain, state)))
}
