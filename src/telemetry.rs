//! Logs and figures.

use anyhow::Context as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::Log;

/// Starts logging to standard error: text for people, or a JSON object a line.
pub fn start_logging(log: &Log) -> anyhow::Result<()> {
    // A plain level is about us: libraries tell every step of theirs at `info`.
    let plain = ["error", "warn", "info", "debug", "trace"].contains(&log.level.as_str());
    let filter = if plain {
        format!("warn,amtsbote={0},ruma_state_res=error", log.level)
    } else {
        log.level.clone()
    };
    let filter = EnvFilter::try_new(filter).context("[log] level")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    let started = if log.json {
        builder.json().with_span_list(false).try_init()
    } else {
        builder.try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging: {error}"))
}

/// Starts gathering figures for `/metrics`.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    const BUCKETS: [f64; 11] = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
    ];
    let recorder = PrometheusBuilder::new()
        .set_buckets(&BUCKETS)
        .context("metrics: buckets")?
        .install_recorder()
        .context("metrics")?;
    Ok(recorder)
}
