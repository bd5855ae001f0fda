//! What redacted events said, for those who may redact in the room (MSC2815), where the operator has it kept for some
//! days. Nobody else is told, peers neither.

use std::sync::Arc;

use ruma::UserId;

use super::{Error, Event, Rooms, erasure, resident::Room, visibility::Viewer};
use crate::{
    clock::now_ms,
    event::{pdu::Pdu, redact::redact},
    storage,
};

const DAY_MS: i64 = 86_400_000;

/// For how long it is kept, in milliseconds; 0: it is not.
pub fn keep_ms(rooms: &Rooms) -> i64 {
    i64::from(rooms.ctx().config.rooms.keep_redacted_days) * DAY_MS
}

/// Keeps an event as it is, before it is redacted: should that not come to be written after all, the row
/// tells nothing that the event does not.
async fn keep(rooms: &Rooms, room: &Room, event: &Event) -> Result<(), Error> {
    if keep_ms(rooms) == 0 || event.stored.is_redacted() {
        return Ok(());
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let row = (event.stored.nid.0, &*event.pdu.json);
    Ok(storage::unredacted::insert(&mut conn, room.nid, row, now_ms()).await?)
}

/// What a redaction leaves of its target, if that is here, with its number. What it said is kept before, where
/// the operator wants it.
pub(super) async fn prune(
    rooms: &Rooms,
    room: &Room,
    target: Option<&Event>,
) -> Result<Option<(i64, Pdu)>, Error> {
    let Some(target) = target else {
        return Ok(None);
    };
    keep(rooms, room, target).await?;
    let left = redact(&target.pdu, &room.version)?;
    Ok(Some((target.stored.nid.0, left)))
}

/// An event as it was before it was redacted, for a user who may redact; one that was not redacted as it is.
pub async fn find(
    rooms: &Rooms,
    room: &Room,
    viewer: &Viewer,
    event: Event,
) -> Result<Event, Error> {
    check_power(rooms, room, &viewer.user_id).await?;
    if !event.stored.is_redacted() {
        return Ok(event);
    }
    let since = now_ms() - keep_ms(rooms);
    let mut conn = rooms.ctx().db.conn().await?;
    let json = storage::unredacted::find(&mut conn, event.stored.nid.0, since).await?;
    drop(conn);
    let json = json.ok_or_else(|| Error::UnredactedGone(keep_ms(rooms)))?;
    let id = event.pdu.event_id.clone();
    let pdu = Pdu::from_stored(id, json, &room.version, event.stored.is_rejected());
    let pdu = pdu.map_err(|error| storage::Error::Inconsistent {
        table: "event_unredacted",
        what: format!("event {}: {error}", event.stored.nid.0),
    })?;
    let event = Event {
        stored: event.stored,
        pdu: Arc::new(pdu),
    };
    let shown = erasure::prune(rooms, room, viewer, vec![event]).await?;
    shown.into_iter().next().ok_or(Error::EventNotFound)
}

async fn check_power(rooms: &Rooms, room: &Room, user: &UserId) -> Result<(), Error> {
    let power = rooms.power(room).await?;
    if power.of(user) >= power.needed("redact") {
        return Ok(());
    }
    Err(Error::Forbidden(
        "this takes the power to redact what others say".to_owned(),
    ))
}
