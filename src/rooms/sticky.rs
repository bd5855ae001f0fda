//! Sticky events (MSC4354): servers that come into a room are sent ours, and what the state of a room
//! did not allow when it came is looked at again when the membership of its sender changes.

use std::sync::Arc;

use super::{
    Error, Event, Rooms,
    persist::{Accepted, Plan},
    place::{known_nids, passes},
    resident::Room,
};
use crate::{
    clock::now_ms,
    storage::{self, LogEntry, LogKind, append::flag},
};

/// The membership of users in a room has changed: what they sent that is sticky may be allowed now.
pub(super) fn members_changed(rooms: &Rooms, room: Arc<Room>, users: Vec<i64>) {
    let is_over = |until| until <= now_ms();
    if users.is_empty() || room.refused_until().is_some_and(is_over) {
        return;
    }
    let rooms = rooms.clone();
    tokio::spawn(async move {
        if let Err(error) = reconsider(&rooms, &room, &users).await {
            tracing::warn!(%error, "sticky events were not looked at again");
        }
    });
}

async fn reconsider(rooms: &Rooms, room: &Room, users: &[i64]) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    if room.refused_until().is_none() {
        let ends = storage::sticky::find_soft_failed_end(&mut conn, room.nid).await?;
        room.knows_refused(ends);
        if ends <= now_ms() {
            return Ok(());
        }
    }
    let nids = storage::sticky::list_soft_failed(&mut conn, room.nid, users, now_ms()).await?;
    drop(conn);
    if nids.is_empty() {
        return Ok(());
    }
    let Some(room) = rooms.find(room.nid).await? else {
        return Ok(());
    };
    for event in rooms.events_by_nid(&room, &nids).await? {
        let mut tip = room.tip.lock().await;
        // Who changes the room meanwhile looks again.
        if room.is_dead() {
            return Ok(());
        }
        if event.pdu.is_state() || !passes(rooms, &room, &tip.state, &event.pdu).await? {
            continue;
        }
        let mut plan = Plan::new(&room, &tip);
        plan.add(rooms, shown(rooms, &room, &event).await?).await?;
        let (head, pending) = plan.commit(rooms).await?;
        *tip = head;
        drop(tip);
        pending.written(rooms).await?;
    }
    Ok(())
}

/// An event that gets a place in the timeline after all. It is no extremity: others have gone on
/// without it.
async fn shown(rooms: &Rooms, room: &Arc<Room>, event: &Event) -> Result<Accepted, Error> {
    Ok(Accepted {
        pdu: event.pdu.clone(),
        nid: event.stored.nid.0,
        known: true,
        flags: event.stored.flags & !flag::SOFT_FAILED,
        snap: event.stored.snap,
        prev: known_nids(rooms, room, &event.pdu.prev_events).await?,
        auth: known_nids(rooms, room, &event.pdu.auth_events).await?,
        out: None,
        seq: None,
        sticks: true,
    })
}

/// Owes servers that have come into rooms what of ours is sticky there. The sender takes it from the
/// outbox.
pub async fn owe(rooms: &Rooms) -> Result<(), Error> {
    let mut tx = rooms.ctx().db.begin().await?;
    let owed = storage::sticky::take_due(&mut tx, now_ms()).await?;
    let entries: Vec<LogEntry> = owed
        .iter()
        .map(|(room, event, _)| LogEntry {
            kind: LogKind::Owed,
            room: room.0,
            user: 0,
            reference: *event,
        })
        .collect();
    if !entries.is_empty() {
        let positions = tx.log_all(&entries).await?;
        storage::sticky::insert_owed(&mut tx, &owed, &positions).await?;
    }
    Ok(tx.commit().await?)
}
