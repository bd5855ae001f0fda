//! Client transactions under way, and events: of two equal ones at once, the second waits for the
//! first.
//!
//! The table `client_txn` is what makes a transaction happen once, also between nodes. This only
//! keeps two copies of a request out of one batch, where the second would spoil the first.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ruma::OwnedEventId;
use tokio::sync::watch;
use uuid::Uuid;

use super::pdus::hash_of;
use crate::storage::events::split_hash;

/// Transactions under way, by their hash; one entry for each running request.
#[derive(Debug, Default)]
pub(super) struct Underway(Mutex<HashMap<Uuid, watch::Receiver<()>>>);

/// The right to do a transaction; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    underway: &'a Underway,
    hash: Uuid,
    /// Another request with the same transaction was waited for: look for what it did.
    pub(super) is_second: bool,
    /// Who waits sees it dropped.
    _done: watch::Sender<()>,
}

impl Underway {
    /// Waits until nobody else does this transaction.
    pub(super) async fn claim(&self, hash: Uuid) -> Claim<'_> {
        let (done, waiting) = watch::channel(());
        let mut is_second = false;
        loop {
            let mut other = {
                let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(other) = map.get(&hash) {
                    other.clone()
                } else {
                    map.insert(hash, waiting);
                    break;
                }
            };
            is_second = true;
            // Fails when the other is done, which is what we wait for.
            let _ = other.changed().await;
        }
        Claim {
            underway: self,
            hash,
            is_second,
            _done: done,
        }
    }
}

impl Underway {
    /// The right to store events: of an event that comes twice at once, the second waits. Always in
    /// the same order, so that two who store several do not wait for each other; who has such a
    /// right must not ask for another.
    pub(super) async fn claim_events<'a>(
        &self,
        ids: impl Iterator<Item = &'a OwnedEventId>,
    ) -> Vec<Claim<'_>> {
        let mut keys: Vec<Uuid> = ids
            .filter_map(|id| hash_of(id))
            .map(|hash| split_hash(&hash).0)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut claims = Vec::with_capacity(keys.len());
        for key in keys {
            claims.push(self.claim(key).await);
        }
        claims
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut map = self
            .underway
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        map.remove(&self.hash);
    }
}
