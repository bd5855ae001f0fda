//! What users report to administrators (specification, "Reporting content").

use ruma::{EventId, RoomId, UserId};
use serde_json::Value;

use super::{Error, Rooms, visibility};
use crate::{
    clock::now_ms,
    storage::{
        self,
        moderation::{Kind, Report},
    },
    users::tokens::Session,
};

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 10_000;

/// Reports an event in a room that the user is in.
pub async fn event(
    rooms: &Rooms,
    session: &Session,
    (room_id, event_id): (&RoomId, &EventId),
    reason: &str,
) -> Result<(), Error> {
    let room = match visibility::joined(rooms, room_id, &session.user_id).await {
        Err(Error::NotJoined { .. }) => return Err(Error::EventNotFound),
        other => other?,
    };
    let found = rooms.events_by_id(&room, &[event_id.to_owned()]).await?;
    let seen = visibility::filter(rooms, &room, &session.user_id, found).await?;
    let event = seen.first().ok_or(Error::EventNotFound)?;
    let ids = (Some(room_id), Some(event_id), Some(&*event.pdu.sender));
    store(rooms, session, Kind::Event, ids, reason).await
}

/// Reports a room, which the user need not be in.
pub async fn room(
    rooms: &Rooms,
    session: &Session,
    room_id: &RoomId,
    reason: &str,
) -> Result<(), Error> {
    if rooms.ctx().db.ids.find_room(room_id).await?.is_none() {
        return Err(Error::RoomNotFound(room_id.to_owned()));
    }
    let ids = (Some(room_id), None, None);
    store(rooms, session, Kind::Room, ids, reason).await
}

/// Reports a user, of whatever server. Whether there is one is not told (specification, v1.18).
pub async fn user(
    rooms: &Rooms,
    session: &Session,
    user: &UserId,
    reason: &str,
) -> Result<(), Error> {
    if rooms.ctx().db.ids.find_user(user).await?.is_none() {
        return Ok(());
    }
    let ids = (None, None, Some(user));
    store(rooms, session, Kind::User, ids, reason).await
}

async fn store(
    rooms: &Rooms,
    session: &Session,
    kind: Kind,
    (room, event, user): (Option<&RoomId>, Option<&EventId>, Option<&UserId>),
    reason: &str,
) -> Result<(), Error> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(Error::InvalidParam(
            "a reason has at most 10000 bytes".to_owned(),
        ));
    }
    let report = Report {
        id: 0,
        reporter: session.user_nid,
        room_id: room.map(ToString::to_string),
        event_id: event.map(ToString::to_string),
        user_id: user.map(ToString::to_string),
        // PostgreSQL has no room for it in a text.
        reason: reason.replace('\0', ""),
        received_ts: now_ms(),
    };
    let mut conn = rooms.ctx().db.conn().await?;
    storage::moderation::insert_report(&mut conn, kind, &report).await?;
    drop(conn);
    tracing::info!(reporter = %session.user_id, ?kind, room = ?room, user = ?user, "something was reported");
    Ok(())
}

/// The reported event as its server sent it; nothing where we do not hold it any more.
pub async fn reported(rooms: &Rooms, report: &Report) -> Result<Value, Error> {
    let (Some(room), Some(event)) = (&report.room_id, &report.event_id) else {
        return Ok(Value::Null);
    };
    let ids = (RoomId::parse(room), EventId::parse(event));
    let (Ok(room), Ok(event)) = ids else {
        return Ok(Value::Null);
    };
    let room = match rooms.by_id(&room).await {
        Err(Error::RoomNotFound(_)) => return Ok(Value::Null),
        other => other?,
    };
    let found = rooms.events_by_id(&room, &[event]).await?;
    let json = found.first().map(|event| event.pdu.raw());
    let json = json.and_then(|json| serde_json::from_str(json.get()).ok());
    Ok(json.unwrap_or_default())
}
