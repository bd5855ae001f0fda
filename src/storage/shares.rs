//! Shares of work that the nodes on a database divide among them: a fair part each, by locks.
//!
//! What there is to do falls into shares by a number, and a node holds the locks of its shares on
//! one connection: where the node or the connection dies, the others take them over.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sqlx::PgConnection;

use super::{Db, Error, locks};

/// Shares that there are: bits of a number.
pub const COUNT: i32 = 64;
/// How often a node looks whether there are more or fewer of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without an answer of the database for so long, its locks are taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// The shares of this node in one kind of work.
#[derive(Debug)]
pub struct Shares {
    /// What it is called in logs and metrics.
    name: &'static str,
    /// Class of the lock that each living node has.
    nodes: i32,
    /// Class of the locks of the shares.
    locks: i32,
    bits: AtomicU64,
}

/// The share of what has a number.
pub fn share_of(number: i64) -> i32 {
    // Less than 64.
    i32::try_from(number.rem_euclid(i64::from(COUNT))).unwrap_or_default()
}

/// Whether a share is among some.
pub fn contain(bits: u64, share: i32) -> bool {
    bits & bit(share) != 0
}

fn bit(share: i32) -> u64 {
    1 << share
}

/// The shares whose bits are set. Neighbours are far apart, so that few things with small numbers
/// do not all fall to one node.
pub fn list(bits: u64) -> Vec<i32> {
    let spread = (0..COUNT.unsigned_abs()).map(|place| place.reverse_bits() >> (u32::BITS - 6));
    let shares = spread.filter_map(|share| i32::try_from(share).ok());
    shares.filter(|share| bits & bit(*share) != 0).collect()
}

impl Shares {
    /// None yet.
    pub const fn new(name: &'static str, nodes: i32, locks: i32) -> Self {
        Self {
            name,
            nodes,
            locks,
            bits: AtomicU64::new(0),
        }
    }

    /// Whether a share is this node's.
    pub fn has(&self, share: i32) -> bool {
        contain(self.bits(), share)
    }

    /// All of them.
    pub fn bits(&self) -> u64 {
        self.bits.load(Ordering::Acquire)
    }

    /// These are this node's from now on. Their locks are held.
    pub fn gain(&self, bits: u64) {
        self.bits.fetch_or(bits, Ordering::AcqRel);
    }

    /// These are not.
    fn lose(&self, bits: u64) {
        self.bits.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Keeps a fair part of the shares, until the server stops. `take` prepares for those that were
    /// free, and [`gain`](Self::gain)s them.
    pub async fn keep<F>(&self, db: &Db, take: impl Fn(u64) -> F)
    where
        F: Future<Output = Result<(), Error>>,
    {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut conn = None;
        let stopping = db.stream.stopping();
        while stopping.run_until_cancelled(clock.tick()).await.is_some() {
            let look = tokio::time::timeout(LOST_AFTER, self.look(db, &mut conn, &take));
            let problem = match look.await {
                Ok(Ok(())) => continue,
                // The database may be gone before us, and nothing is wrong with that then.
                Ok(Err(_)) | Err(_) if stopping.is_cancelled() => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            // Whatever this connection held, others may hold by now.
            conn = None;
            self.lose(u64::MAX);
            let what = self.name;
            tracing::warn!(problem, what, "this node does nothing of it for now");
        }
    }

    /// Gives up shares that are too many, takes free ones where they are too few.
    async fn look<F>(
        &self,
        db: &Db,
        held: &mut Option<PgConnection>,
        take: impl Fn(u64) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let conn = match held {
            Some(conn) => conn,
            None => held.insert(self.connect(db).await?),
        };
        let nodes = locks::count_shared(conn, self.nodes).await?.max(1);
        let fair = u32::try_from(i64::from(COUNT).div_euclid(nodes)).unwrap_or(0);
        // Some node has one more where the shares do not come out even.
        let most = fair + u32::from(i64::from(COUNT) % nodes != 0);
        let own = self.bits();
        metrics::gauge!(format!("{}_shares", self.name)).set(own.count_ones());
        let count = own.count_ones();
        if count > most {
            let surplus: u64 = list(own)
                .into_iter()
                .skip(usize::try_from(most).unwrap_or(usize::MAX))
                .map(bit)
                .sum();
            self.lose(surplus);
            locks::unlock(conn, self.locks, &list(surplus)).await?;
        } else if count < most {
            let gained = locks::try_lock_some(conn, self.locks, &list(!own), most - count).await?;
            let gained = gained.into_iter().map(bit).sum();
            if gained != 0 {
                take(gained).await?;
            }
        }
        Ok(())
    }

    async fn connect(&self, db: &Db) -> Result<PgConnection, Error> {
        let mut conn = db.dedicated().await?;
        locks::lock_shared(&mut conn, self.nodes).await?;
        Ok(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNT, list, share_of};

    #[test]
    fn every_share_is_listed_and_half_of_them_are_even() {
        let all = list(u64::MAX);
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..COUNT).collect::<Vec<i32>>());
        assert!(all[..32].iter().all(|share| share % 2 == 0));
        assert_eq!(list(0b101), [0, 2]);
        assert_eq!((share_of(130), share_of(-1)), (2, 63));
    }
}
