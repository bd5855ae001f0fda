//! Events we lack, asked of a peer.

use std::time::Duration;

use futures_util::StreamExt;
use ruma::{
    EventId, OwnedEventId, RoomId, ServerName,
    api::federation::{
        authorization::get_event_authorization,
        event::{get_event, get_missing_events, get_room_state, get_room_state_ids},
    },
};
use serde_json::value::RawValue;

use super::{
    refused,
    stream::{self, List},
    verify_all,
};
use crate::{
    event::pdu::Pdu,
    rooms::{Error, Rooms, resident::Room},
};

/// Time for the state of a large room to come.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Events asked for at the same time.
const AT_ONCE: usize = 8;

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

/// The events of the state before an event and of its auth chain, verified.
pub async fn state(
    rooms: &Rooms,
    server: &ServerName,
    room: &Room,
    event_id: &EventId,
) -> Result<Vec<Pdu>, Error> {
    let request = get_room_state::v1::Request::new(event_id.to_owned(), room.id.clone());
    let response = rooms
        .ctx()
        .federation
        .open(server, request, TIMEOUT)
        .await
        .map_err(refused)?;
    let mut answer = stream::read((rooms, server), response, &room.version).await?;
    let mut pdus = answer.take(List::State);
    pdus.extend(answer.take(List::AuthChain));
    Ok(pdus)
}

/// The auth chain of an event, verified.
pub async fn auth_chain(
    rooms: &Rooms,
    server: &ServerName,
    room: &Room,
    event_id: &EventId,
) -> Result<Vec<Pdu>, Error> {
    let request = get_event_authorization::v1::Request::new(room.id.clone(), event_id.to_owned());
    let response = rooms
        .ctx()
        .federation
        .open(server, request, TIMEOUT)
        .await
        .map_err(refused)?;
    let mut answer = stream::read((rooms, server), response, &room.version).await?;
    Ok(answer.take(List::AuthChain))
}

/// Several events one by one, verified; those that cannot be had are left out.
pub async fn events(
    rooms: &Rooms,
    server: &ServerName,
    room: &Room,
    ids: &[&OwnedEventId],
) -> Result<Vec<Pdu>, Error> {
    let jobs: Vec<_> = ids.iter().map(|id| event(rooms, server, id)).collect();
    let fetched: Vec<Result<Box<RawValue>, Error>> = futures_util::stream::iter(jobs)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let raw: Vec<Box<RawValue>> = fetched.into_iter().filter_map(Result::ok).collect();
    Ok(verify_all(rooms, server, &raw, &room.version).await)
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
