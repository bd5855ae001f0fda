//! Who may enter a room while it is deleted: nobody. And who is about to enter keeps it from being
//! deleted.
//!
//! This orders tasks of one process; between processes the trigger on `room_head` does.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedRoomId, RoomId};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::Instant,
};

use super::{Error, Rooms};
use crate::storage;

/// How long somebody who wants to enter waits for a deletion: longer than that of a usual room
/// takes, and less than clients wait.
const ENTER_WAIT: Duration = Duration::from_secs(30);
/// How long a deletion waits for those who are entering.
const CLOSE_WAIT: Duration = Duration::from_secs(10);
/// How often is looked whether a deletion that another process began has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Doors of the rooms that are being entered or deleted; one entry for each running request.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<HashMap<OwnedRoomId, Arc<RwLock<()>>>>);

impl Doors {
    fn of(&self, room: &RoomId) -> Arc<RwLock<()>> {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|_, door| Arc::strong_count(door) > 1);
        doors.entry(room.to_owned()).or_default().clone()
    }

    /// Keeps everybody out while the guard lives; `None`: somebody is entering, slowly.
    pub(super) async fn close(&self, room: &RoomId) -> Option<OwnedRwLockWriteGuard<()>> {
        let door = self.of(room);
        tokio::time::timeout(CLOSE_WAIT, door.write_owned())
            .await
            .ok()
    }
}

/// Keeps the room from being deleted while the guard lives; waits for a deletion that is under
/// way, for a while.
pub(super) async fn enter(
    rooms: &Rooms,
    room_id: &RoomId,
) -> Result<OwnedRwLockReadGuard<()>, Error> {
    let deadline = Instant::now() + ENTER_WAIT;
    loop {
        let door = rooms.0.doors.of(room_id);
        let guard = tokio::time::timeout_at(deadline, door.read_owned())
            .await
            .map_err(|_| Error::Busy)?;
        if !is_under_way(rooms, room_id).await? {
            return Ok(guard);
        }
        // A deletion that a crash cut off, or one of another process.
        drop(guard);
        rooms.0.purging.notify_one();
        if Instant::now() >= deadline {
            return Err(Error::Busy);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn is_under_way(rooms: &Rooms, room_id: &RoomId) -> Result<bool, Error> {
    let Some(nid) = rooms.ctx().db.ids.find_room(room_id).await? else {
        return Ok(false);
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let purge = storage::purges::find(&mut conn, nid).await?;
    Ok(purge.is_some_and(|purge| purge.stage == storage::purges::Stage::UnderWay))
}
