//! Which peers this node sends to, where several nodes share a database.
//!
//! Peers fall into shares by their number (`storage::shares`). Where a node takes over those of
//! another a transaction may be sent twice, and peers know events by their ids. What is said for the
//! moment only (typing, presence) goes out from whichever node it came to.

use std::collections::HashMap;

use super::{Place, Sender};
use crate::storage::{
    self, LogEntry, LogKind, LogRow, ServerNid,
    outbox::{self, Progress},
    shares::{Shares, contain, share_of},
};

/// Class of the lock that each living node has, and of the locks of the shares.
const NODES: i32 = 7_021_996;
const SHARES: i32 = 7_021_997;

/// None yet.
pub(super) fn none() -> Shares {
    Shares::new("federation", NODES, SHARES)
}

/// The share of a peer.
fn of(server: ServerNid) -> i32 {
    share_of(server.0.into())
}

impl Sender {
    /// Whether another node, or for a moment none, sends to a peer.
    pub(super) fn is_elsewhere(&self, server: ServerNid) -> bool {
        !self.0.shares.has(of(server))
    }

    /// Sends from now on to the peers of some shares: what they are owed is on disk, and how far
    /// they are. The locks are held.
    async fn gain(&self, bits: u64) -> Result<(), storage::Error> {
        let mut conn = self.0.db.conn().await?;
        let known = outbox::list_progress(&mut conn).await?;
        drop(conn);
        let known = known
            .into_iter()
            .filter(|(server, _)| contain(bits, of(*server)));
        // Under the lock of the table: nobody is handed an event before it is marked as behind.
        let mut peers = self.peers();
        self.0.shares.gain(bits);
        let known: HashMap<ServerNid, Progress> = known.collect();
        for (server, place) in peers
            .iter_mut()
            .filter(|(server, _)| contain(bits, of(**server)))
        {
            let written = known.get(server).copied();
            match place {
                Place::Active(queue) => queue.take_over(),
                Place::Idle(progress) | Place::Resting(progress) => {
                    *place = Place::Resting(written.unwrap_or(*progress));
                }
                Place::Refused(progress) => *progress = written.unwrap_or(*progress),
            }
        }
        for (server, progress) in known {
            peers.entry(server).or_insert(Place::Resting(progress));
        }
        Ok(())
    }

    /// Tells the node that sends to a peer that it lives, where it fails; not again and again.
    pub(super) async fn tell_other(&self, server: ServerNid) -> Result<(), storage::Error> {
        if self.0.told.contains_key(&server) {
            return Ok(());
        }
        self.0.told.insert(server, ());
        let mut conn = self.0.db.conn().await?;
        let progress = outbox::find_progress(&mut conn, server).await?;
        drop(conn);
        match progress {
            Some((_, true)) => self.tell(server).await,
            _ => Ok(()),
        }
    }

    /// Tells the node that sends to a peer to try it now.
    pub(super) async fn tell(&self, server: ServerNid) -> Result<(), storage::Error> {
        let mut tx = self.0.db.begin().await?;
        tx.log(LogEntry {
            kind: LogKind::PeerAlive,
            room: 0,
            user: 0,
            reference: server.0.into(),
        })
        .await?;
        tx.commit().await
    }

    /// Tries peers of ours that other nodes heard.
    pub(super) fn heed_the_living(&self, batch: &[LogRow]) {
        let told = batch.iter().filter(|row| row.kind == LogKind::PeerAlive);
        for server in told.filter_map(|row| i32::try_from(row.reference).ok()) {
            if !self.is_elsewhere(ServerNid(server)) {
                self.try_now(ServerNid(server));
            }
        }
    }
}

/// Keeps a fair part of the shares, until the process ends. Tasks notice that one is gone before
/// their next transaction.
pub(super) async fn run(sender: Sender) {
    let take = |bits| sender.gain(bits);
    sender.0.shares.keep(&sender.0.db, take).await;
}
