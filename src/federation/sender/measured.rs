//! Which peers have metrics of their own.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::storage::ServerNid;

/// Peers with metrics of their own: every label takes memory, here and in whatever collects them.
const MEASURED_MAX: usize = 1_000;

/// The first peers that were sent something since the start. The admin API shows all.
#[derive(Debug, Default)]
pub(super) struct Measured(Mutex<HashSet<ServerNid>>);

impl Measured {
    /// Whether a peer is one of them.
    pub(super) fn admits(&self, server: ServerNid) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MEASURED_MAX {
            known.insert(server);
        }
        known.contains(&server)
    }
}
