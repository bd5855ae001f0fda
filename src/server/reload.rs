//! `SIGHUP`: certificates and parts of the configuration are read again.
//!
//! Anew: certificates and authorities of listeners, the signing keys, `[federation]`, `[outbound]`. What is wrong
//! leaves the old in use.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::tls::Endpoint;
use crate::{config::Config, context::Context};

/// Reads the configuration.
pub type Read = Box<dyn Fn() -> anyhow::Result<Config> + Send>;

/// Follows `SIGHUP` until `stop`.
pub(super) fn start(
    read: Read,
    ctx: Context,
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
            let taken = read().and_then(|config| reload(&ctx, &config));
            match taken {
                Ok(()) => tracing::info!("signing keys, [federation] and [outbound] read again"),
                Err(error) => tracing::error!("the old configuration stays in use: {error:#}"),
            }
        }
    });
}

fn reload(ctx: &Context, config: &Config) -> anyhow::Result<()> {
    let file = &config.signing_key_file;
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let replaced = ctx.keys.replace(&text);
    replaced.with_context(|| file.display().to_string())?;
    ctx.appservices.reload(&config.outbound)?;
    Ok(ctx.federation.reload(config)?)
}
