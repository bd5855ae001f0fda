//! Users who wanted to be erased when they closed their account: who comes to a room later does not
//! learn from us what they said there (`POST /account/deactivate` with `erase`; the specification
//! leaves what others saw before with them).

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ruma::{OwnedUserId, UserId};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::storage::{self, Db, LogEntry, LogKind, LogRow, UserNid};

/// Users that are read at once.
const AT_ONCE: i64 = 5_000;
/// Pause after the database failed.
const PAUSE: Duration = Duration::from_secs(1);

/// All of them, on whatever node they were erased.
#[derive(Debug, Default)]
pub struct Erased(RwLock<HashSet<OwnedUserId>>);

impl Erased {
    /// Reads who they are, and follows the log.
    pub async fn start(db: &Db) -> Result<Arc<Self>, storage::Error> {
        let rows = db.stream.subscribe();
        let erased = Arc::new(Self::default());
        erased.load(db).await?;
        tokio::spawn(follow(erased.clone(), db.clone(), rows));
        Ok(erased)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Whether a user is one of them.
    pub fn contains(&self, user: &UserId) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(user)
    }

    async fn load(&self, db: &Db) -> Result<(), storage::Error> {
        let mut all = HashSet::new();
        let mut after = UserNid(0);
        loop {
            let mut conn = db.conn().await?;
            let page = storage::users::list_erased(&mut conn, after, AT_ONCE).await?;
            drop(conn);
            let Some((last, _)) = page.last() else { break };
            after = *last;
            let ids = page.into_iter().map(|(_, id)| OwnedUserId::try_from(id));
            all.extend(ids.flatten());
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }
}

/// Says that a user was erased, or is back.
pub(super) fn entry(user: UserNid) -> LogEntry {
    LogEntry {
        kind: LogKind::Erased,
        room: 0,
        user: user.0,
        reference: 0,
    }
}

/// Reads all of them when one of them changes: that is rare.
async fn follow(erased: Arc<Erased>, db: Db, mut rows: Receiver<Arc<[LogRow]>>) {
    loop {
        match rows.recv().await {
            Ok(batch) if batch.iter().all(|row| row.kind != LogKind::Erased) => continue,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        while let Err(error) = erased.load(&db).await {
            tracing::warn!(%error, "who was erased could not be read");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
