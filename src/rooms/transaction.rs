//! A transaction of a peer: once, however often it is sent; rooms side by side, each in order.

use std::{collections::BTreeMap, ops::Not};

use futures_util::{StreamExt, stream};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomId, ServerName,
    api::federation::transactions::edu::Edu, serde::Raw,
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Error, Rooms, presence,
    receipts::{RemoteReceipts, set_remote},
    receive, rescind,
    serve::admitted,
    typing,
};
use crate::{
    clock::now_ms,
    devices::{self, lists, to_device},
    event::{pdu::id_of, version::RoomVersion},
    federation::gate::Way,
    storage,
};

/// PDUs in a transaction (specification).
const PDUS_MAX: usize = 50;
/// EDUs in a transaction (specification).
const EDUS_MAX: usize = 100;
/// Rooms of one transaction that are worked on at once.
const ROOMS_AT_ONCE: usize = 8;

/// A transaction as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// Who sends it.
    pub origin: &'a ServerName,
    /// Its id.
    pub id: &'a str,
    /// Events.
    pub pdus: &'a [Box<RawValue>],
    /// Ephemeral data.
    pub edus: &'a [Raw<Edu>],
}

/// Takes a transaction; the answer is JSON.
pub async fn receive(rooms: &Rooms, transaction: Transaction<'_>) -> Result<String, Error> {
    let Transaction {
        origin,
        id,
        pdus,
        edus,
    } = transaction;
    if pdus.len() > PDUS_MAX || edus.len() > EDUS_MAX {
        return Err(Error::Invalid(format!(
            "at most {PDUS_MAX} PDUs and {EDUS_MAX} EDUs"
        )));
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let done = storage::outbox::find_received(&mut conn, origin.as_str(), id).await?;
    drop(conn);
    if let Some(answer) = done {
        return Ok(answer);
    }
    let mut results: Map<String, Value> = Map::new();
    let by_room = sort(pdus);
    let jobs: Vec<_> = by_room
        .iter()
        .map(|(room, events)| of_room(rooms, origin, room, events))
        .collect();
    let all: Vec<Result<Vec<(String, Value)>, Error>> = stream::iter(jobs)
        .buffer_unordered(ROOMS_AT_ONCE)
        .collect()
        .await;
    for of_room in all {
        results.extend(of_room?);
    }
    all_ephemeral(rooms, origin, edus).await?;
    let answer = json!({ "pdus": results }).to_string();
    let mut conn = rooms.ctx().db.conn().await?;
    storage::outbox::insert_received(&mut conn, (origin.as_str(), id), &answer, now_ms()).await?;
    Ok(answer)
}

/// An EDU that cannot be read, or is refused, is nobody's loss. One that could not be written is: the
/// peer has to send it again, and each counts once.
async fn all_ephemeral(rooms: &Rooms, origin: &ServerName, edus: &[Raw<Edu>]) -> Result<(), Error> {
    let missed = |error: Error| tracing::debug!(%error, %origin, "an EDU was not taken");
    let mut presences = Vec::new();
    for edu in edus {
        let kind = edu.get_field::<String>("edu_type").ok().flatten();
        let taken = match (kind.as_deref(), edu) {
            (Some("m.receipt"), edu) => receipts(rooms, origin, edu).await,
            (Some("m.presence"), edu) => {
                presences.push(edu);
                Ok(())
            }
            (_, edu) => match edu.deserialize() {
                Ok(edu) => ephemeral(rooms, origin, edu).await,
                Err(_) => Ok(()),
            },
        };
        match taken {
            Ok(()) => {}
            Err(Error::Storage(error)) => return Err(error.into()),
            Err(error) => missed(error),
        }
    }
    let taken = presence::receive(rooms, origin, &presences).await;
    taken.unwrap_or_else(missed);
    Ok(())
}

/// Events by room, each room in order. What names no room cannot be placed and is left out.
fn sort(pdus: &[Box<RawValue>]) -> BTreeMap<OwnedRoomId, Vec<Box<RawValue>>> {
    #[derive(serde::Deserialize)]
    struct Place {
        room_id: OwnedRoomId,
    }
    let mut rooms: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>> = BTreeMap::new();
    for pdu in pdus {
        if let Ok(place) = serde_json::from_str::<Place>(pdu.get()) {
            rooms.entry(place.room_id).or_default().push(pdu.clone());
        }
    }
    rooms
}

async fn of_room(
    rooms: &Rooms,
    origin: &ServerName,
    room_id: &RoomId,
    events: &[Box<RawValue>],
) -> Result<Vec<(String, Value)>, Error> {
    let room = match admitted(rooms, room_id, origin).await {
        Ok(room) => room,
        Err(error @ Error::RoomNotFound(_)) => {
            rescind::rescind(rooms, origin, room_id, events).await?;
            return Ok(refused(events, &error.to_string()));
        }
        Err(error @ Error::Forbidden(_)) => {
            return Ok(refused(events, &error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let (events, unwanted) = split(rooms, events);
    let mut results: BTreeMap<String, Value> = ids(&unwanted, &room.version)
        .into_iter()
        .map(|id| {
            (
                id,
                json!({ "error": "the server of the sender is refused here" }),
            )
        })
        .collect();
    let read = ids(&events, &room.version)
        .into_iter()
        .map(|id| (id, json!({ "error": "not a valid event" })));
    results.extend(read);
    for (id, result) in receive::receive(rooms, room_id, origin, &events).await? {
        let result = match result {
            // Rejected and soft-failed events are kept, and none of the sender's business.
            Ok(()) => json!({}),
            // Not taken for a reason of ours: the peer has to send it again.
            Err(error @ (Error::Storage(_) | Error::NotWritten(_) | Error::Busy)) => {
                return Err(error);
            }
            Err(error) => json!({ "error": error.to_string() }),
        };
        results.insert(id.to_string(), result);
    }
    Ok(results.into_iter().collect())
}

/// Events, and apart from them those whose senders are users of refused servers.
fn split(rooms: &Rooms, events: &[Box<RawValue>]) -> (Vec<Box<RawValue>>, Vec<Box<RawValue>>) {
    #[derive(serde::Deserialize)]
    struct Sent {
        sender: OwnedUserId,
    }
    let gate = rooms.ctx().federation.gate();
    events.iter().cloned().partition(|event| {
        let sent = serde_json::from_str::<Sent>(event.get());
        // What names no sender is no event, and fails as such.
        sent.is_ok_and(|sent| gate.check(sent.sender.server_name(), Way::Event).is_err())
            .not()
    })
}

fn ids(events: &[Box<RawValue>], version: &RoomVersion) -> Vec<String> {
    let objects = events
        .iter()
        .filter_map(|raw| serde_json::from_str::<CanonicalJsonObject>(raw.get()).ok());
    objects
        .filter_map(|object| id_of(&object, version).ok())
        .map(|id| id.to_string())
        .collect()
}

/// Events of a room that we do not know, or that the peer is shut out of: their ids are made by
/// the rules that hold from room version 4 on.
fn refused(events: &[Box<RawValue>], why: &str) -> Vec<(String, Value)> {
    let Some(version) = RoomVersion::of(&ruma::RoomVersionId::V10) else {
        return Vec::new();
    };
    ids(events, &version)
        .into_iter()
        .map(|id| (id, json!({ "error": why })))
        .collect()
}

/// Receipts of a peer's users. Of private ones there are none between servers.
async fn receipts(rooms: &Rooms, origin: &ServerName, edu: &Raw<Edu>) -> Result<(), Error> {
    let content = edu.get_field::<RemoteReceipts>("content");
    let content = content.map_err(|error| Error::Invalid(error.to_string()))?;
    for (room_id, mut kinds) in content.into_iter().flatten() {
        if admitted(rooms, &room_id, origin).await.is_err() {
            continue;
        }
        for (user, receipt) in kinds.remove("m.read").unwrap_or_default() {
            if user.server_name() == origin {
                set_remote(rooms, &room_id, &user, &receipt).await?;
            }
        }
    }
    Ok(())
}

async fn ephemeral(rooms: &Rooms, origin: &ServerName, edu: Edu) -> Result<(), Error> {
    match edu {
        Edu::Typing(typing) => {
            if typing.user_id.server_name() == origin {
                admitted(rooms, &typing.room_id, origin).await?;
                typing::set_remote(rooms, &typing.room_id, &typing.user_id, typing.typing).await?;
            }
            Ok(())
        }
        Edu::DirectToDevice(content) => {
            let kind = content.ev_type.to_string();
            let about = (kind.as_str(), content.message_id.as_str());
            let messages = serde_json::to_value(&content.messages)
                .and_then(serde_json::from_value)
                .map_err(|error| Error::Invalid(error.to_string()))?;
            let ctx = rooms.ctx();
            let taken = to_device::receive(ctx, origin, &content.sender, about, &messages).await;
            taken.map_err(not_taken)
        }
        Edu::DeviceListUpdate(content) => {
            let taken = lists::device_changed(rooms.ctx(), origin, content).await;
            taken.map_err(not_taken)
        }
        Edu::SigningKeyUpdate(content) => {
            let taken = lists::signing_keys_changed(rooms.ctx(), origin, content).await;
            taken.map_err(not_taken)
        }
        _ => Ok(()),
    }
}

/// What went wrong in the database is no fault of the peer's.
fn not_taken(error: devices::Error) -> Error {
    match error {
        devices::Error::Storage(error) => Error::Storage(error),
        other => Error::Invalid(other.to_string()),
    }
}
