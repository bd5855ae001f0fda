//! Commands.

mod keys;
mod serve;
mod user;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::config::{self, Config};

/// A Matrix homeserver for public administration.
#[derive(Debug, Parser)]
#[command(name = "amtsbote", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(ConfigFile),
    /// Bring the database up to date and end.
    Migrate(ConfigFile),
    /// Check the configuration and tell what it means.
    CheckConfig(ConfigFile),
    /// Accounts.
    #[command(subcommand)]
    User(user::Command),
    /// Make a new signing key.
    GenerateSigningKey(keys::Arguments),
    /// Put a new signing key in the place of the one in use, which still counts for a while.
    RotateSigningKey(keys::Rotation),
    /// The private PostgreSQL's keeper; started by `serve`.
    #[command(hide = true)]
    PostgresLeash(crate::postgres::leash::Arguments),
}

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConfigFile {
    /// Configuration file; without one the defaults hold, and the environment.
    #[arg(long, short, env = "AMTSBOTE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> anyhow::Result<Config> {
        let loaded = config::load(self.config.as_deref())?;
        for warning in &loaded.warnings {
            eprintln!("note: {warning}");
        }
        Ok(loaded.config)
    }
}

/// Runs the command of the command line.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(file) => file.load().and_then(|config| serve::serve(&file, &config)),
        Command::Migrate(file) => file.load().and_then(|config| serve::migrate(&config)),
        Command::CheckConfig(file) => file.load().map(|config| serve::explain(&config)),
        Command::User(command) => user::run(command),
        Command::GenerateSigningKey(arguments) => keys::generate(&arguments),
        Command::RotateSigningKey(arguments) => keys::rotate(&arguments),
        Command::PostgresLeash(arguments) => crate::postgres::leash::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("amtsbote: {error:#}");
            ExitCode::FAILURE
        }
    }
}
