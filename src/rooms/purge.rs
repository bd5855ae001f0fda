//! Freeing rooms: the rows of a room that nobody here remembers go, in the background and in small
//! steps.
//!
//! A row of `room_purge` says how far it is, so that it goes on after a crash. First the head of
//! the room goes: from then on nobody finds the room, and changes that are under way lose their
//! compare-and-set. Then everything else goes, as often as it takes; the row in `room` stays, as
//! the number of the id. Events that peers are still owed (that our users left, say) stay in the
//! outbox until they have them. The log names rooms and events by number only, and is swept after
//! two days; it is left alone, since who follows it must not miss a row.

use std::time::Duration;

use super::{Error, Rooms};
use crate::{
    clock::now_ms,
    storage::{
        self, LogEntry, LogKind, RoomNid, UserNid,
        purges::{self, Purge, Stage},
    },
};

/// Rows deleted in one statement: some ten milliseconds.
const BATCH: i64 = 1_000;
/// Batches of one table after which the others have their turn.
const BATCHES_MAX: usize = 1_000;
/// Times that all tables are gone through; the second time finds what was written during the first.
const PASSES_MAX: usize = 20;
/// Rooms looked at together.
const PAGE: i64 = 100;
/// How often is looked whether peers have what they are owed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Rooms that wait from which on they are looked at less often.
const WAITING_MANY: usize = 100;
/// How often is looked for work that nobody announced.
const IDLE: Duration = Duration::from_mins(1);
/// How long events of a deleted room are kept for a peer that is away.
const OWED_MS: i64 = 7 * 24 * 3_600_000;

/// What became of the wish to delete a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// Its rows are gone, but for what peers are owed.
    Gone,
    /// A local user is in the room.
    Refused,
}

/// A user has forgotten a room; when everybody has, it is to be deleted. `false`: the user is
/// still in it.
pub async fn forget(rooms: &Rooms, room: RoomNid, user: UserNid) -> Result<bool, Error> {
    let mut tx = rooms.ctx().db.begin().await?;
    // Of two who forget at the same time the second sees what the first did.
    purges::lock_room(&mut tx, room).await?;
    if !storage::memberships::forget(&mut tx, user, room).await? {
        return Ok(false);
    }
    let wanted = purges::is_forgotten(&mut tx, room).await?;
    if wanted {
        purges::want(&mut tx, room, false, now_ms()).await?;
    }
    tx.log(storage::memberships::standing(user, room)).await?;
    tx.commit().await?;
    if wanted {
        rooms.0.purging.notify_one();
    }
    Ok(true)
}

/// Deletes a room now; `forced`: although local users are in it.
pub async fn purge(rooms: &Rooms, room: RoomNid, forced: bool) -> Result<Purged, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    purges::want(&mut conn, room, forced, now_ms()).await?;
    drop(conn);
    let purged = go_on(rooms, room).await;
    // What peers are still owed, or what failed, is the job's from here on.
    rooms.0.purging.notify_one();
    purged
}

/// The job: deletes what is to be deleted, one room after the other.
pub async fn run(rooms: &Rooms) {
    loop {
        let pause = match round(rooms).await {
            Ok(1..=WAITING_MANY) => LOOK_AGAIN,
            Ok(_) => IDLE,
            Err(error) => {
                tracing::warn!(%error, "rooms could not be freed");
                LOOK_AGAIN
            }
        };
        let _ = tokio::time::timeout(pause, rooms.0.purging.notified()).await;
    }
}

/// How many rooms are left to look at again.
async fn round(rooms: &Rooms) -> Result<usize, Error> {
    let mut after = RoomNid(0);
    let mut waiting = 0;
    loop {
        let mut conn = rooms.ctx().db.conn().await?;
        let page = purges::list(&mut conn, after, PAGE).await?;
        drop(conn);
        let Some(last) = page.last() else {
            return Ok(waiting);
        };
        after = last.room;
        for purge in page {
            match go_on(rooms, purge.room).await {
                Ok(_) => {}
                Err(error) => tracing::info!(%error, room = purge.room.0, "a room was not freed"),
            }
            let mut conn = rooms.ctx().db.conn().await?;
            waiting += usize::from(purges::find(&mut conn, purge.room).await?.is_some());
        }
    }
}

/// Goes on where the row says that a deletion is.
async fn go_on(rooms: &Rooms, room: RoomNid) -> Result<Purged, Error> {
    let id = rooms.ctx().db.ids.room_id(room).await?;
    let _closed = rooms.0.doors.close(&id).await.ok_or(Error::Busy)?;
    let mut conn = rooms.ctx().db.conn().await?;
    let found = purges::find(&mut conn, room).await?;
    drop(conn);
    match found {
        // Somebody else has done it.
        None => return Ok(Purged::Gone),
        Some(purge) if purge.stage == Stage::Owed => {
            delete_delivered(rooms, room, purge.since_ts).await?;
            return Ok(Purged::Gone);
        }
        Some(purge) if purge.stage == Stage::Wanted && !begin(rooms, &purge).await? => {
            return Ok(Purged::Refused);
        }
        Some(_) => {}
    }
    // Readers first: what they hold is good for nothing any more.
    rooms.evict_deleted(room).await;
    settle(rooms).await?;
    address_outbox(rooms, room).await?;
    for pass in 0..PASSES_MAX {
        let deleted = delete_all(rooms, room).await?;
        // Who loaded the room just before its head went may have kept it.
        rooms.evict_deleted(room).await;
        settle(rooms).await?;
        if pass > 0 && deleted == 0 {
            break;
        }
    }
    finish(rooms, room).await?;
    delete_delivered(rooms, room, now_ms()).await?;
    tracing::info!(room_id = %id, "a room was freed");
    Ok(Purged::Gone)
}

/// Takes the head of the room away, unless a local user is in it.
async fn begin(rooms: &Rooms, purge: &Purge) -> Result<bool, Error> {
    let mut tx = rooms.ctx().db.begin().await?;
    purges::lock_room(&mut tx, purge.room).await?;
    if !purge.forced && purges::has_local_users(&mut tx, purge.room).await? {
        purges::finish(&mut tx, purge.room).await?;
        tx.commit().await?;
        return Ok(false);
    }
    purges::begin(&mut tx, purge.room).await?;
    // Other nodes have the room in memory, too.
    let entry = LogEntry {
        kind: LogKind::Invalidate,
        room: purge.room.0,
        user: 0,
        reference: 0,
    };
    tx.log(entry).await?;
    tx.commit().await?;
    Ok(true)
}

async fn settle(rooms: &Rooms) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::stream::running_ended(&mut conn).await?)
}

/// While it is known who was in the room: who is owed what of it.
async fn address_outbox(rooms: &Rooms, room: RoomNid) -> Result<(), Error> {
    let own = rooms.ctx().db.ids.server(rooms.ctx().server_name()).await?;
    let mut after = 0;
    loop {
        let mut conn = rooms.ctx().db.conn().await?;
        match purges::address_outbox(&mut conn, room, own, after, BATCH).await? {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

/// Goes through all tables once; how many rows went.
async fn delete_all(rooms: &Rooms, room: RoomNid) -> Result<u64, Error> {
    let db = &rooms.ctx().db;
    let mut deleted = 0;
    for _ in 0..BATCHES_MAX {
        let gone = purges::delete_events(&mut *db.conn().await?, room, BATCH).await?;
        for nid in &gone {
            rooms.forget_pdu(*nid);
            rooms.0.open.invalidate(nid);
        }
        deleted += gone.len() as u64;
        if gone.is_empty() {
            break;
        }
    }
    for _ in 0..BATCHES_MAX {
        let gone = purges::delete_snaps(&mut *db.conn().await?, room, BATCH).await?;
        for nid in &gone {
            rooms.0.states.invalidate(nid);
        }
        deleted += gone.len() as u64;
        if gone.is_empty() {
            break;
        }
    }
    for _ in 0..BATCHES_MAX {
        let gone = purges::delete_rest(&mut *db.conn().await?, room, BATCH).await?;
        deleted += gone;
        if gone == 0 {
            break;
        }
    }
    Ok(deleted)
}

async fn finish(rooms: &Rooms, room: RoomNid) -> Result<(), Error> {
    let mut tx = rooms.ctx().db.begin().await?;
    purges::lock_room(&mut tx, room).await?;
    purges::delete_txns(&mut tx, room).await?;
    let inside = purges::detach_users(&mut tx, room).await?;
    purges::finish(&mut tx, room).await?;
    let entries: Vec<LogEntry> = inside
        .iter()
        .map(|user| LogEntry {
            kind: LogKind::OutOfBand,
            room: room.0,
            user: user.0,
            reference: 0,
        })
        .collect();
    let positions = tx.log_all(&entries).await?;
    purges::update_positions(&mut tx, room, &inside, &positions).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes what every peer has by now, or has not fetched for too long.
async fn delete_delivered(rooms: &Rooms, room: RoomNid, since_ts: i64) -> Result<(), Error> {
    let late = since_ts < now_ms() - OWED_MS;
    let mut conn = rooms.ctx().db.conn().await?;
    while purges::delete_delivered(&mut conn, room, late, BATCH).await? > 0 {}
    Ok(purges::finish(&mut conn, room).await?)
}
