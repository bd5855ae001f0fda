//! `serve`, `migrate`, and what they share.

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use super::ConfigFile;
use crate::{config::Config, federation, postgres::Private, server, storage, telemetry};

/// Runs the server until it is told to stop.
pub(super) fn serve(file: &ConfigFile, config: &Config) -> anyhow::Result<()> {
    telemetry::start_logging(&config.log)?;
    install_cryptography();
    allow_many_files();
    let metrics = telemetry::start_metrics()?;
    with_database(config, async |options, gone| {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone()));
        let stop_without_database = stop.clone();
        let lost = gone.clone();
        tokio::spawn(async move {
            // After a stop it is meant to end.
            let lost = stop_without_database.run_until_cancelled(lost.cancelled());
            if lost.await.is_some() {
                tracing::error!("the private PostgreSQL has ended");
                stop_without_database.cancel();
            }
        });
        for listener in &config.listeners {
            let scheme = if listener.tls.is_some() {
                "https"
            } else {
                "http"
            };
            eprintln!(
                "amtsbote: {} on {scheme}://{}",
                config.server_name, listener.bind
            );
        }
        if !config.registration.open {
            eprintln!("amtsbote: make an account with `amtsbote user create NAME --admin`");
        }
        let file = file.clone();
        let reread = Box::new(move || file.load());
        server::run(config.clone(), options, Some(metrics.clone()), reread, stop).await?;
        anyhow::ensure!(!gone.is_cancelled(), "the private PostgreSQL has ended");
        Ok(())
    })
}

/// Every client and every peer is an open file: as many as the system lets us have.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
}

/// Brings the database up to date.
pub(super) fn migrate(config: &Config) -> anyhow::Result<()> {
    with_database(config, async |options, _| {
        storage::migrate(options).await?;
        println!("the database is up to date");
        Ok(())
    })
}

/// Tells what a good configuration means.
pub(super) fn explain(config: &Config) {
    println!("server name: {}", config.server_name);
    println!("data folder: {}", config.data_dir.display());
    let database = if config.database_url.is_some() {
        "[database] url"
    } else {
        "private"
    };
    println!("database: {database}");
    for listener in &config.listeners {
        let scheme = if listener.tls.is_some() {
            "https"
        } else {
            "http"
        };
        println!(
            "listener: {scheme}://{} serves {:?}",
            listener.bind, listener.serve
        );
    }
    let suites: Vec<String> = federation::tls::provider()
        .cipher_suites
        .iter()
        .map(|suite| format!("{:?}", suite.suite()))
        .collect();
    println!("TLS: {}", suites.join(", "));
    println!("the configuration is good");
}

/// Runs something with the configured database, or with the private one, which runs meanwhile.
pub(super) fn with_database(
    config: &Config,
    run: impl AsyncFnOnce(PgConnectOptions, CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    install_cryptography();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        if let Some(url) = &config.database_url {
            let options = url.0.parse().context("[database] url")?;
            run(options, CancellationToken::new()).await
        } else {
            let private = Private::start(config).await?;
            let done = run(private.options(), private.gone()).await;
            private.stop().await;
            done
        }
    })
}

/// One cryptography for the process.
fn install_cryptography() {
    // A second call changes nothing.
    let _ = rustls::crypto::CryptoProvider::install_default(std::sync::Arc::unwrap_or_clone(
        federation::tls::provider(),
    ));
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be received");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    stop.cancel();
}
