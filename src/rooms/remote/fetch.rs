//! Events we lack, asked of a peer.

use ruma::{
    EventId, OwnedEventId, RoomId, ServerName,
    api::federation::{
        authorization::get_event_authorization,
        event::{get_event, get_missing_events, get_room_state, get_room_state_ids},
    },
};
use serde_json::value::RawValue;

use super::refused;
use crate::rooms::{Error, Rooms};

/// Events before `latest` that are not before `earliest`, oldest first.
pub async fn missing(
    rooms: &Rooms,
    server: &ServerName,
    room_id: &RoomId,
    earliest: Vec<OwnedEventId>,
    latest: Vec<OwnedEventId>,
    limit: u32,
) -> Result<Vec<Box<RawValue>>, Error> {
    let mut request = get_missing_events::v1::Request::new(room_id.to_owned(), earliest, latest);
    request.limit = limit.into();
    Ok(rooms
        .ctx()
        .federation
        .request(server, request)
        .await
        .map_err(refused)?
        .events)
}

/// Ids of the state before an event, and of its auth chain.
pub async fn state_ids(
    rooms: &Rooms,
    server: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<(Vec<OwnedEventId>, Vec<OwnedEventId>), Error> {
    let request = get_room_state_ids::v1::Request::new(event_id.to_owned(), room_id.to_owned());
    let answer = rooms
        .ctx()
        .federation
        .request(server, request)
        .await
        .map_err(refused)?;
    Ok((answer.pdu_ids, answer.auth_chain_ids))
}

/// The state before an event, whole, and its auth chain.
pub async fn state(
    rooms: &Rooms,
    server: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<(Vec<Box<RawValue>>, Vec<Box<RawValue>>), Error> {
    let request = get_room_state::v1::Request::new(event_id.to_owned(), room_id.to_owned());
    let answer = rooms
        .ctx()
        .federation
        .request_large(server, request)
        .await
        .map_err(refused)?;
    Ok((answer.pdus, answer.auth_chain))
}

/// The auth chain of an event.
pub async fn auth_chain(
    rooms: &Rooms,
    server: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<Vec<Box<RawValue>>, Error> {
    let request =
        get_event_authorization::v1::Request::new(room_id.to_owned(), event_id.to_owned());
    let answer = rooms
        .ctx()
        .federation
        .request_large(server, request)
        .await
        .map_err(refused)?;
    Ok(answer.auth_chain)
}

/// One event.
pub async fn event(
    rooms: &Rooms,
    server: &ServerName,
    event_id: &EventId,
) -> Result<Box<RawValue>, Error> {
    let request = get_event::v1::Request::new(event_id.to_owned());
    Ok(rooms
        .ctx()
        .federation
        .request(server, request)
        .await
        .map_err(refused)?
        .pdu)
}
