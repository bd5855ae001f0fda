//! Turns: of some questions to a server one at a time, and whoever waited looks whether the answer
//! is there already.

use std::sync::Arc;

use moka::sync::Cache;
use ruma::ServerName;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Servers that are remembered. One that falls out may be asked twice at once, which harms nobody.
const SERVERS_MAX: u64 = 20_000;

/// The right to ask; given back when dropped.
pub type Turn = OwnedMutexGuard<()>;

/// Whose turn it is, by server.
#[derive(Debug)]
pub(super) struct Turns(Cache<String, Arc<Mutex<()>>>);

impl Default for Turns {
    fn default() -> Self {
        Self(Cache::new(SERVERS_MAX))
    }
}

impl Turns {
    /// Waits until nobody else asks this server.
    pub(super) async fn take(&self, server: &ServerName) -> Turn {
        let lock = self.0.get_with(server.to_string(), Arc::default);
        lock.lock_owned().await
    }
}
