//! What peers may have under way at once: each a few requests and a queue, so that one of them
//! cannot take the place of all others.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ruma::OwnedServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Requests of one peer that are worked on at once.
const RUNNING_MAX: usize = 8;
/// Requests of one peer that wait for that.
const WAITING_MAX: usize = 100;
/// How long a request waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// When a peer that asks too much may come back.
const COME_BACK_MS: u64 = 2_000;
/// Bytes of bodies that are read and not yet verified, of all peers.
const UNVERIFIED_BYTES: usize = 128 << 20;
/// The semaphore counts these.
const UNIT: usize = 1 << 10;

/// The places. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fair(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// While the signature is not checked a name proves nothing: who only pretends to be a peer
    /// takes places of its own address.
    claimed: Slots<(Option<IpAddr>, OwnedServerName)>,
    verified: Slots<OwnedServerName>,
    unverified: Arc<Semaphore>,
}

/// A request's place; it is free again when this is dropped.
#[derive(Debug)]
pub struct Turn {
    /// Freed before the slot's entry may go.
    _running: OwnedSemaphorePermit,
    _slot: Arc<Slot>,
}

/// A place for a body that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    _turn: Turn,
    _bytes: OwnedSemaphorePermit,
}

impl Default for Fair {
    fn default() -> Self {
        Self(Arc::new(Inner {
            claimed: Slots::default(),
            verified: Slots::default(),
            unverified: Arc::new(Semaphore::new(UNVERIFIED_BYTES / UNIT)),
        }))
    }
}

impl Fair {
    /// Waits for a place to read a body of so many bytes at most, and to check who sent it.
    pub(super) async fn read(
        &self,
        address: Option<IpAddr>,
        claimed: &OwnedServerName,
        bytes: usize,
    ) -> Result<Reading, ApiError> {
        let turn = self.0.claimed.enter((address, claimed.clone())).await?;
        let units = u32::try_from(bytes.min(UNVERIFIED_BYTES).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let bytes = self.0.unverified.clone().acquire_many_owned(units);
        let bytes = tokio::time::timeout(PATIENCE, bytes).await;
        match bytes {
            Ok(Ok(bytes)) => Ok(Reading {
                _turn: turn,
                _bytes: bytes,
            }),
            Ok(Err(_)) | Err(_) => Err(refused("bytes")),
        }
    }

    /// Waits for the turn of a peer's request.
    pub(super) async fn turn(&self, origin: &OwnedServerName) -> Result<Turn, ApiError> {
        self.0.verified.enter(origin.clone()).await
    }
}

fn refused(what: &'static str) -> ApiError {
    metrics::counter!("federation_requests_refused_total", "for" => what).increment(1);
    ApiError::limited(COME_BACK_MS)
}

#[derive(Debug)]
struct Slot {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Places by who asks. Who has nothing under way takes no memory.
#[derive(Debug)]
struct Slots<K>(Mutex<HashMap<K, Arc<Slot>>>);

impl<K> Default for Slots<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K: Hash + Eq> Slots<K> {
    fn table(&self) -> MutexGuard<'_, HashMap<K, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: K) -> Arc<Slot> {
        let mut table = self.table();
        // Room for one more is a good time to forget those who have left.
        if table.len() == table.capacity() {
            table.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        let slot = table.entry(key).or_insert_with(|| {
            Arc::new(Slot {
                running: Arc::new(Semaphore::new(RUNNING_MAX)),
                waiting: AtomicUsize::new(0),
            })
        });
        slot.clone()
    }

    async fn enter(&self, key: K) -> Result<Turn, ApiError> {
        let slot = self.slot(key);
        if let Ok(running) = slot.running.clone().try_acquire_owned() {
            return Ok(Turn {
                _running: running,
                _slot: slot,
            });
        }
        let before = slot.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&slot.waiting);
        if before >= WAITING_MAX {
            return Err(refused("requests"));
        }
        let running = slot.running.clone().acquire_owned();
        let running = tokio::time::timeout(PATIENCE, running).await;
        drop(waiting);
        match running {
            Ok(Ok(running)) => Ok(Turn {
                _running: running,
                _slot: slot,
            }),
            Ok(Err(_)) | Err(_) => Err(refused("requests")),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_server_name;

    use super::{Fair, RUNNING_MAX, WAITING_MAX};

    #[tokio::test]
    async fn one_peer_fills_its_own_places_only() {
        let fair = Fair::default();
        let (flood, other) = (
            owned_server_name!("flood.example"),
            owned_server_name!("b.example"),
        );
        let mut held = Vec::new();
        for _ in 0..RUNNING_MAX {
            held.push(fair.turn(&flood).await.unwrap());
        }
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let (fair, flood) = (fair.clone(), flood.clone());
                tokio::spawn(async move { fair.turn(&flood).await.map(drop) })
            })
            .collect();
        while fair
            .0
            .verified
            .slot(flood.clone())
            .waiting
            .load(std::sync::atomic::Ordering::Relaxed)
            < WAITING_MAX
        {
            tokio::task::yield_now().await;
        }
        assert!(fair.turn(&flood).await.is_err());
        assert!(fair.turn(&other).await.is_ok());
        drop(held);
        for task in waiting {
            assert!(task.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn who_has_left_is_forgotten() {
        let fair = Fair::default();
        for n in 0..10_000 {
            let name = ruma::ServerName::parse(format!("s{n}.example")).unwrap();
            drop(fair.turn(&name).await.unwrap());
        }
        assert!(fair.0.verified.table().len() < 1_000);
    }
}
