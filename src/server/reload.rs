//! `SIGHUP`: certificates and parts of the configuration are read again.
//!
//! Anew: certificates and authorities of listeners, `[federation]`, `[outbound]`. What is wrong
//! leaves the old in use.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::tls::Endpoint;
use crate::{config::Config, federation};

/// Reads the configuration.
pub type Read = Box<dyn Fn() -> anyhow::Result<Config> + Send>;

/// Follows `SIGHUP` until `stop`.
pub(super) fn start(
    read: Read,
    federation: federation::Client,
    endpoints: Vec<Arc<Endpoint>>,
    stop: CancellationToken,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::warn!(%error, "nothing can be read again at SIGHUP");
            return;
        }
    };
    tokio::spawn(async move {
        while let Some(Some(())) = stop.run_until_cancelled(hangup.recv()).await {
            for endpoint in &endpoints {
                endpoint.reload();
            }
            let taken = read().and_then(|config| Ok(federation.reload(&config)?));
            match taken {
                Ok(()) => tracing::info!("[federation] and [outbound] read again"),
                Err(error) => tracing::error!("the old configuration stays in use: {error:#}"),
            }
        }
    });
}
