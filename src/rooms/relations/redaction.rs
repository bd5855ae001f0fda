//! What relates to an event is redacted with it, where the user asks for that (MSC3912): in the
//! background, so that it goes on after a restart. What comes later stays.

use ruma::{EventId, OwnedUserId, RoomId};

use super::key_of;
use crate::{
    clock::now_ms,
    event::build::Draft,
    rooms::{
        Error, Event, Rooms,
        locks::Lock,
        send::{self, Txn},
    },
    storage::redact_todo::{self, Todo},
    users::tokens::Session,
};

/// Relation types in one request, and bytes of one: as many as an event type may have.
const RELS_MAX: usize = 50;
const REL_BYTES_MAX: usize = 255;
/// Requests that are looked at in one go, and events of one that are redacted meanwhile.
const TODO_MAX: i64 = 20;
const EVENTS_AT_ONCE: i64 = 50;

/// Notes that what relates to an event by some types (`*`: by any) is to be redacted as well. Call it when
/// the event is redacted.
pub async fn begin(
    rooms: &Rooms,
    session: &Session,
    (room_id, target): (&RoomId, &EventId),
    rels: Vec<String>,
    reason: Option<&str>,
) -> Result<(), Error> {
    let Some(target) = key_of(target).filter(|_| !rels.is_empty()) else {
        return Ok(());
    };
    let todo = Todo {
        room: rooms.by_id(room_id).await?.nid,
        target,
        user: session.user_nid,
        rels,
        reason: reason.map(ToOwned::to_owned),
    };
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(redact_todo::insert(&mut conn, &todo, now_ms()).await?)
}

/// Relation types as a client names them.
pub fn check(rels: &[String]) -> Result<(), Error> {
    if rels.len() > RELS_MAX || rels.iter().any(|rel| rel.len() > REL_BYTES_MAX) {
        return Err(Error::InvalidParam("too many relation types".to_owned()));
    }
    Ok(())
}

/// Redacts some events; whether there may be more.
pub async fn advance(rooms: &Rooms) -> Result<bool, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let todos = redact_todo::list(&mut conn, TODO_MAX).await?;
    drop(conn);
    let mut more = false;
    for todo in todos {
        let lock = Lock::Redacting(todo.room);
        if !rooms.0.locks.try_lock(rooms, lock).await? {
            continue;
        }
        let done = step(rooms, &todo).await;
        rooms.0.locks.unlock(lock).await;
        match done {
            Ok(is_more) => more |= is_more,
            // The others need not wait for it.
            Err(error) => tracing::warn!(%error, "what relates to an event is not redacted yet"),
        }
    }
    Ok(more)
}

/// Some events of one request; whether there may be more.
async fn step(rooms: &Rooms, todo: &Todo) -> Result<bool, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let next = redact_todo::next(&mut conn, todo, EVENTS_AT_ONCE).await?;
    drop(conn);
    let Some(room) = rooms.find(todo.room).await? else {
        return Ok(false);
    };
    let user = rooms.ctx().db.ids.user_id(todo.user).await?;
    let nids: Vec<i64> = next.iter().map(|(_, nid)| *nid).collect();
    for event in rooms.events_by_nid(&room, &nids).await? {
        if !event.stored.is_redacted() {
            redact(rooms, (&room.id, &user), &event, todo.reason.as_deref()).await?;
        }
    }
    let full = i64::try_from(next.len()).unwrap_or(EVENTS_AT_ONCE) >= EVENTS_AT_ONCE;
    let last = next.last().map(|(seq, _)| *seq).filter(|_| full);
    let mut conn = rooms.ctx().db.conn().await?;
    redact_todo::advance(&mut conn, todo, last).await?;
    Ok(full)
}

/// Redacts one event. What the user may not redact is left as it is.
async fn redact(
    rooms: &Rooms,
    (room, user): (&RoomId, &OwnedUserId),
    event: &Event,
    reason: Option<&str>,
) -> Result<(), Error> {
    let draft = Draft::redaction(event.pdu.event_id.clone(), reason)?;
    // Once, also where this stops in between.
    let txn = Txn::new(
        user,
        "relations",
        room.as_str(),
        event.pdu.event_id.as_str(),
    );
    match send::send(rooms, room, user, &draft, Some(txn)).await {
        Err(error @ (Error::Busy | Error::Incomplete(_) | Error::NotWritten(_))) => Err(error),
        Err(Error::Storage(error)) => Err(error.into()),
        Err(error) => {
            tracing::debug!(%error, "what relates to a redacted event stays");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
