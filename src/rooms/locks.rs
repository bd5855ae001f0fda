//! Work on a room that one of several nodes does. The locks of a node hang on one connection: where
//! that breaks another node takes over, and since all such work can be done twice, nothing is lost.

use sqlx::PgConnection;
use tokio::sync::Mutex;

use super::{Error, Rooms};
use crate::storage::{self, RoomNid, ServerNid};

/// What is locked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lock {
    /// Completing a partial room.
    Partial(RoomNid),
    /// Placing what a peer sent into a room.
    Inbox(RoomNid, ServerNid),
    /// Sending to an application service.
    Appservice(i32),
    /// Redacting what relates to redacted events.
    Redacting(RoomNid),
}

impl Lock {
    fn key(self) -> (i32, i32) {
        let fold = |number: i64| i32::try_from(number & i64::from(i32::MAX)).unwrap_or_default();
        match self {
            Self::Partial(room) => (7_021_994, fold(room.0)),
            Self::Appservice(service) => (7_021_996, service),
            Self::Redacting(room) => (7_022_001, fold(room.0)),
            Self::Inbox(room, server) => (
                7_021_995,
                fold(room.0.wrapping_mul(7919).wrapping_add(server.0.into())),
            ),
        }
    }
}

/// The locks of this node.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<Option<PgConnection>>);

impl Locks {
    /// Takes a lock; `false`: another node has it.
    pub(super) async fn try_lock(&self, rooms: &Rooms, lock: Lock) -> Result<bool, Error> {
        let mut held = self.0.lock().await;
        let mut conn = match held.take() {
            Some(conn) => conn,
            None => rooms.ctx().db.dedicated().await?,
        };
        let (class, key) = lock.key();
        let locked = storage::locks::try_lock(&mut conn, class, key).await?;
        *held = Some(conn);
        Ok(locked)
    }

    /// Gives a lock back.
    pub(super) async fn unlock(&self, lock: Lock) {
        let mut held = self.0.lock().await;
        let (class, key) = lock.key();
        if let Some(conn) = held.as_mut()
            && let Err(error) = storage::locks::unlock(conn, class, &[key]).await
        {
            // The connection is gone, and its locks with it.
            tracing::warn!(%error, "a lock was not given back");
            *held = None;
        }
    }
}
