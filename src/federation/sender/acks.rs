//! How far peers are, written down for many at once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::storage::{Db, ServerNid, outbox, outbox::Progress};

/// Pause after the database failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Rows of one statement.
const AT_ONCE: usize = 1_000;

/// What is to be written, the newest of each peer. What a crash loses is sent again, and peers know
/// events by their ids.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: Mutex<HashMap<ServerNid, Progress>>,
    wake: Notify,
}

impl Acks {
    pub(super) fn put(&self, server: ServerNid, progress: Progress) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(server, progress);
        drop(waiting);
        self.wake.notify_one();
    }

    /// Writes what there is, again and again.
    pub(super) async fn run(&self, db: &Db) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                self.wake.notified().await;
                continue;
            }
            if let Err(error) = write(db, &batch).await {
                tracing::warn!(%error, "federation: how far peers are could not be written");
                self.give_back(batch);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn take(&self) -> Vec<(ServerNid, Progress)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let servers: Vec<ServerNid> = waiting.keys().take(AT_ONCE).copied().collect();
        let taken = servers.into_iter();
        taken
            .filter_map(|server| waiting.remove_entry(&server))
            .collect()
    }

    fn give_back(&self, batch: Vec<(ServerNid, Progress)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (server, progress) in batch {
            waiting.entry(server).or_insert(progress);
        }
    }
}

async fn write(db: &Db, batch: &[(ServerNid, Progress)]) -> Result<(), crate::storage::Error> {
    let mut conn = db.conn().await?;
    outbox::update_progress(&mut conn, batch).await
}
