//! Guests: they come into rooms that admit them (`m.room.guest_access`), and go when a room does so no more
//! (specification, "Guest access").

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use super::{Error, Rooms, membership, resident::Room};
use crate::{
    event::build::Draft,
    storage::{self, LogKind, LogRow, RoomNid, UserNid},
};

/// Guests that are looked at in one go.
const PAGE_MAX: i64 = 500;
/// Pause after the database failed.
const PAUSE: Duration = Duration::from_secs(5);
/// What guests are told who have to go.
const REASON: &str = "the room does not admit guests any more";

/// Refuses the join of a guest into a room that does not admit guests.
pub(super) async fn check_draft(
    rooms: &Rooms,
    room: &Room,
    (sender, draft): (&UserId, &Draft),
) -> Result<(), Error> {
    let is_own = draft.kind == TimelineEventType::RoomMember
        && draft.state_key.as_deref() == Some(sender.as_str());
    if !is_own || !is_guest(rooms, sender).await? {
        return Ok(());
    }
    let content: Value = serde_json::from_str(draft.content.get()).unwrap_or_default();
    if content["membership"] == "join" && !admits(rooms, room).await? {
        return Err(Error::Forbidden("the room admits no guests".to_owned()));
    }
    Ok(())
}

/// Refuses the join of a guest into a room that is elsewhere: whether it admits guests is known once
/// one is in it.
pub(super) async fn check_remote(rooms: &Rooms, user: &UserId) -> Result<(), Error> {
    if is_guest(rooms, user).await? {
        let why = "guests may join rooms of this server only";
        return Err(Error::Forbidden(why.to_owned()));
    }
    Ok(())
}

async fn is_guest(rooms: &Rooms, user: &UserId) -> Result<bool, Error> {
    let ctx = rooms.ctx();
    // Where guests are not admitted they do nothing at all.
    if !ctx.config.registration.guests {
        return Ok(false);
    }
    let Some(nid) = ctx.db.ids.find_user(user).await? else {
        return Ok(false);
    };
    let mut conn = ctx.db.conn().await?;
    Ok(storage::guests::is_guest(&mut conn, nid).await?)
}

/// Whether a room admits guests now.
async fn admits(rooms: &Rooms, room: &Room) -> Result<bool, Error> {
    let head = room.head();
    let kind = StateEventType::RoomGuestAccess;
    let event = rooms.state_event(room, &head.state.entries, &kind, "");
    let content: Option<Value> = event.await?.and_then(|event| event.content_as());
    Ok(content.is_some_and(|content| content["guest_access"] == "can_join"))
}

/// Has guests leave rooms that admit them no more, for ever.
pub async fn run(rooms: Rooms) {
    if !rooms.ctx().config.registration.guests {
        return;
    }
    let mut log = rooms.ctx().db.stream.subscribe();
    let mut all = true;
    let mut changed: Vec<i64> = Vec::new();
    loop {
        let which = (!all).then_some(changed.as_slice());
        if let Err(error) = put_out(&rooms, which).await {
            tracing::warn!(%error, "guests could not be put out of rooms");
            tokio::time::sleep(PAUSE).await;
            all = true;
            continue;
        }
        all = false;
        changed.clear();
        while changed.is_empty() && !all {
            match log.recv().await {
                Ok(batch) => match closed(&rooms, &batch).await {
                    Ok(found) => changed = found,
                    Err(error) => {
                        tracing::warn!(%error, "which rooms admit guests could not be read");
                        all = true;
                    }
                },
                Err(RecvError::Lagged(_)) => all = true,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// Rooms that may have changed whether they admit guests.
async fn closed(rooms: &Rooms, batch: &[LogRow]) -> Result<Vec<i64>, Error> {
    let events = batch.iter().filter(|row| row.kind == LogKind::Event);
    let (places, events): (Vec<i64>, Vec<i64>) =
        events.map(|row| (row.room, row.reference)).unzip();
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let db = &rooms.ctx().db;
    let Some(kind) = db.ids.find_event_type("m.room.guest_access").await? else {
        return Ok(Vec::new());
    };
    let mut conn = db.conn().await?;
    Ok(storage::guests::list_rooms_with(&mut conn, (&places, &events), kind).await?)
}

/// Has guests leave rooms, all or some, that do not admit them.
async fn put_out(rooms: &Rooms, which: Option<&[i64]>) -> Result<(), Error> {
    let db = &rooms.ctx().db;
    let mut after = (0, 0);
    loop {
        let mut conn = db.conn().await?;
        let page = storage::guests::list_inside(&mut conn, which, after, PAGE_MAX).await?;
        drop(conn);
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = *last;
        let mut by_room: BTreeMap<i64, Vec<UserNid>> = BTreeMap::new();
        for (room, user) in page {
            by_room.entry(room).or_default().push(UserNid(user));
        }
        for (room, guests) in by_room {
            let Some(room) = rooms.find(RoomNid(room)).await? else {
                continue;
            };
            if admits(rooms, &room).await? {
                continue;
            }
            for guest in db.ids.user_ids_of(&guests).await? {
                let gone = membership::leave::leave(rooms, &room.id, &guest, Some(REASON));
                // Others go all the same.
                if let Err(error) = gone.await {
                    tracing::warn!(%error, %guest, room = %room.id, "a guest could not be put out");
                }
            }
        }
    }
}
