//! Which peers this node sends to, where several nodes share a database.
//!
//! Peers fall into shares by their number, and a node holds the locks of its shares on one
//! connection: where the node or the connection dies, the others take them over. A transaction may
//! be sent twice then, and peers know events by their ids. What is said for the moment only (typing,
//! presence) goes out from whichever node it came to.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sqlx::PgConnection;

use super::{Place, Sender};
use crate::storage::{
    self, Db, LogEntry, LogKind, LogRow, ServerNid, locks,
    outbox::{self, Progress},
};

/// Shares that there are: bits of a number.
const COUNT: i32 = 64;
/// Class of the lock that each living node has, and of the locks of the shares.
const NODES: i32 = 7_021_996;
const SHARES: i32 = 7_021_997;
/// How often a node looks whether there are more or fewer of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without an answer of the database for so long, its locks are taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// The shares of this node.
#[derive(Debug, Default)]
pub(super) struct Shares(AtomicU64);

impl Shares {
    /// Whether this node sends to a peer.
    pub(super) fn has(&self, server: ServerNid) -> bool {
        contain(self.bits(), server)
    }

    fn bits(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, bits: u64) {
        self.0.store(bits, Ordering::Release);
    }
}

/// Whether a peer is in one of some shares.
fn contain(bits: u64, server: ServerNid) -> bool {
    bits & bit(server.0.rem_euclid(COUNT)) != 0
}

fn bit(share: i32) -> u64 {
    1 << share
}

/// The shares whose bits are set. Neighbours are far apart, so that few peers with small numbers
/// do not all fall to one node.
fn list(bits: u64) -> Vec<i32> {
    let spread = (0..COUNT.unsigned_abs()).map(|place| place.reverse_bits() >> (u32::BITS - 6));
    let shares = spread.filter_map(|share| i32::try_from(share).ok());
    shares.filter(|share| bits & bit(*share) != 0).collect()
}

impl Sender {
    /// Whether another node, or for a moment none, sends to a peer.
    pub(super) fn is_elsewhere(&self, server: ServerNid) -> bool {
        !self.0.shares.has(server)
    }

    /// Sends from now on to the peers of some shares: what they are owed is on disk, and how far
    /// they are. The locks are held.
    async fn gain(&self, bits: u64) -> Result<(), storage::Error> {
        let mut conn = self.0.db.conn().await?;
        let known = outbox::list_progress(&mut conn).await?;
        drop(conn);
        let known = known
            .into_iter()
            .filter(|(server, _)| contain(bits, *server));
        // Under the lock of the table: nobody is handed an event before it is marked as behind.
        let mut peers = self.peers();
        self.0.shares.set(self.0.shares.bits() | bits);
        let known: HashMap<ServerNid, Progress> = known.collect();
        for (server, place) in peers
            .iter_mut()
            .filter(|(server, _)| contain(bits, **server))
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

    /// Sends no more to the peers of some shares. Tasks notice before their next transaction.
    fn lose(&self, bits: u64) {
        self.0.shares.set(self.0.shares.bits() & !bits);
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

/// Keeps a fair part of the shares, until the process ends.
pub(super) async fn run(sender: Sender) {
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut conn = None;
    loop {
        clock.tick().await;
        let look = tokio::time::timeout(LOST_AFTER, look(&sender, &mut conn));
        let problem = match look.await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        // Whatever this connection held, others may hold by now.
        conn = None;
        sender.lose(u64::MAX);
        tracing::warn!(problem, "federation: this node sends to nobody for now");
    }
}

/// Gives up shares that are too many, takes free ones where they are too few.
async fn look(sender: &Sender, held: &mut Option<PgConnection>) -> Result<(), storage::Error> {
    let conn = match held {
        Some(conn) => conn,
        None => held.insert(connect(&sender.0.db).await?),
    };
    let nodes = locks::count_shared(conn, NODES).await?.max(1);
    let fair = u32::try_from(i64::from(COUNT).div_euclid(nodes)).unwrap_or(0);
    // Some node has one more where the shares do not come out even.
    let most = fair + u32::from(i64::from(COUNT) % nodes != 0);
    let own = sender.0.shares.bits();
    metrics::gauge!("federation_shares").set(own.count_ones());
    let count = own.count_ones();
    if count > most {
        let surplus: u64 = list(own)
            .into_iter()
            .skip(usize::try_from(most).unwrap_or(usize::MAX))
            .map(bit)
            .sum();
        sender.lose(surplus);
        locks::unlock(conn, SHARES, &list(surplus)).await?;
    } else if count < most {
        let gained = locks::try_lock_some(conn, SHARES, &list(!own), most - count).await?;
        let gained = gained.into_iter().map(bit).sum();
        if gained != 0 {
            sender.gain(gained).await?;
        }
    }
    Ok(())
}

async fn connect(db: &Db) -> Result<PgConnection, storage::Error> {
    let mut conn = db.dedicated().await?;
    locks::lock_shared(&mut conn, NODES).await?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use super::{COUNT, list};

    #[test]
    fn every_share_is_listed_and_half_of_them_are_even() {
        let all = list(u64::MAX);
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..COUNT).collect::<Vec<i32>>());
        assert!(all[..32].iter().all(|share| share % 2 == 0));
        assert_eq!(list(0b101), [0, 2]);
    }
}
