//! The composition root: configuration in, running server out, and an orderly end.

mod listen;
pub mod reload;
mod tls;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::postgres::PgConnectOptions;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    context::Context,
    event::keys::SigningKeys,
    federation::{self, sender::Sender},
    http::{App, admin::Nonces, fair::Fair, limits::Limits},
    jobs,
    media::Media,
    rooms::Rooms,
    storage::{self, Db},
    users::{erased::Erased, seen::Seen, tokens::Tokens},
};

/// How long requests may go on after the word to stop.
const GRACE: Duration = Duration::from_secs(20);

/// Runs the server until `stop` fires. The database is migrated first. `reread` reads the
/// configuration again at `SIGHUP`.
pub async fn run(
    config: Config,
    database: PgConnectOptions,
    metrics: Option<PrometheusHandle>,
    reread: reload::Read,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    storage::migrate(database.clone())
        .await
        .context("the database could not be migrated")?;
    let db = Db::connect(database)
        .await
        .context("no connection to the database")?;
    let keys = Arc::new(signing_keys(&config)?);
    let federation = federation::Client::new(&config, db.clone(), keys.clone())?;
    let read = federation.gate().start().await;
    read.context("the rules about other servers could not be read")?;
    let listeners = config.listeners.clone();
    let limited = config.rate_limits.clone();
    let ctx = Context::new(config, db, keys, federation)?;
    let made = crate::users::registration::create_senders(&ctx).await;
    made.context("the users of application services could not be made")?;
    let made = crate::rooms::server_notices::prepare(&ctx).await;
    made.context("the user of the server's notices could not be made")?;
    let rooms = Rooms::start(ctx.clone(), Erased::start(&ctx.db).await?);
    let app = App {
        media: Media::open(ctx.clone()).context("the folder for media")?,
        tokens: Tokens::start(ctx.clone()),
        seen: Seen::default(),
        sender: Sender::start(
            ctx.db.clone(),
            ctx.federation.clone(),
            ctx.server_name().to_owned(),
        ),
        hub: crate::sync::Hub::start(rooms.clone()),
        connections: crate::sync::sliding::Connections::default(),
        limits: Limits::new(limited),
        fair: Fair::default(),
        nonces: Nonces::default(),
        metrics,
        stopping: CancellationToken::new(),
        rooms,
        ctx: ctx.clone(),
    };
    jobs::start((&app.rooms, &app.media), &app.sender, &app.seen, &stop);

    let requests = TaskTracker::new();
    let mut endpoints = Vec::new();
    for listener in &listeners {
        let router = crate::http::router(app.clone(), &listener.serve);
        let tls = listener.tls.as_ref();
        let tls = tls.map(tls::Endpoint::open).transpose()?.map(Arc::new);
        endpoints.extend(tls.clone());
        let socket = tokio::net::TcpListener::bind(listener.bind)
            .await
            .with_context(|| format!("cannot listen on {}", listener.bind))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{}", socket.local_addr()?);
        listen::serve(socket, tls, router, stop.clone(), requests.clone());
    }
    reload::start(reread, ctx.clone(), endpoints, stop.clone());
    stop.cancelled().await;

    tracing::info!("stopping");
    app.stopping.cancel();
    requests.close();
    if tokio::time::timeout(GRACE, requests.wait()).await.is_err() {
        tracing::warn!("requests were still under way and are cut off");
    }
    if let Err(error) = app.seen.write(&ctx).await {
        tracing::warn!(%error, "when devices were last used was not written");
    }
    if tokio::time::timeout(GRACE, ctx.db.close()).await.is_err() {
        tracing::warn!("connections to the database did not close");
    }
    Ok(())
}

/// Our signing key, made at the first start.
fn signing_keys(config: &Config) -> anyhow::Result<SigningKeys> {
    let file = &config.signing_key_file;
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = SigningKeys::generate(&format!("a{:06x}", rand::random::<u32>() >> 8));
            write_secret(file, &text)
                .with_context(|| format!("cannot write {}", file.display()))?;
            text
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    SigningKeys::parse(&config.server_name, &text).with_context(|| file.display().to_string())
}

/// Writes a file that its owner alone may read, and that is whole or not there.
pub fn write_secret(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension("new");
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(draft, file)
}
