//! A private PostgreSQL, for installations that configure no other: found on the machine, kept in
//! the data folder, reachable by a Unix socket only (docs/adr/0006).

pub mod account;
pub mod cluster;
pub mod leash;
pub mod programs;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The name of the database and of the role that owns it.
const NAME: &str = "amtsbote";

/// A running private PostgreSQL. It stops when this process ends, however it ends.
#[derive(Debug)]
pub struct Private {
    keeper: Child,
    socket: PathBuf,
    role: String,
    gone: CancellationToken,
}

impl Private {
    /// Finds PostgreSQL, makes its files where there are none, and starts it.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let config = config.clone();
        tokio::task::spawn_blocking(move || start(&config)).await?
    }

    /// How to connect.
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .username(&self.role)
            .database(NAME)
    }

    /// Fires when it has ended by itself: nothing can be served any more.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Stops it in good order.
    pub async fn stop(mut self) {
        // The end of this pipe is the word to stop.
        drop(self.keeper.stdin.take());
        let ended = tokio::task::spawn_blocking(move || self.keeper.wait()).await;
        if !matches!(ended, Ok(Ok(_))) {
            tracing::warn!("the private PostgreSQL's keeper could not be waited for");
        }
    }
}

fn start(config: &Config) -> anyhow::Result<Private> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot make {}", config.data_dir.display()))?;
    let folder = std::path::absolute(config.data_dir.join("postgres"))?;
    let account = account::choose(&folder, config.private_database.account.as_deref())?;
    let programs = programs::find(&folder, config.private_database.programs.as_deref())?;
    cluster::prepare(&folder, &programs, &account)?;
    let gone = CancellationToken::new();
    let (keeper, socket) = run_keeper(&folder, &programs, &account, &gone)?;
    Ok(Private {
        keeper,
        socket,
        role: NAME.to_owned(),
        gone,
    })
}

/// Starts the keeper and waits for its word that the database answers.
fn run_keeper(
    folder: &Path,
    programs: &Path,
    account: &account::Account,
    gone: &CancellationToken,
) -> anyhow::Result<(Child, PathBuf)> {
    let socket = cluster::socket_folder(folder, account)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("postgres-leash")
        .args([folder, programs, &socket])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    account.apply(&mut command);
    let mut keeper = command
        .spawn()
        .context("cannot start the keeper of PostgreSQL")?;
    let output = keeper.stdout.take().context("the keeper has no output")?;
    let mut said = String::new();
    let mut output = BufReader::new(output);
    output.read_line(&mut said)?;
    match said.trim_end() {
        "ready" => {
            let gone = gone.clone();
            std::thread::spawn(move || {
                // It says no more: this returns when it ends.
                let _ = output.read_line(&mut String::new());
                gone.cancel();
            });
            Ok((keeper, socket))
        }
        why => {
            let _ = keeper.wait();
            if why.is_empty() {
                bail!(
                    "the private PostgreSQL did not start; see {}/log",
                    folder.display()
                );
            }
            bail!("the private PostgreSQL did not start: {why}");
        }
    }
}
