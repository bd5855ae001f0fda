//! `user create`

use std::path::PathBuf;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::{ConfigFile, serve};
use crate::{
    context::Context, event::keys::SigningKeys, federation, storage::Db, users::registration,
};

/// What can be done with accounts.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make an account.
    Create(Create),
}

/// Arguments of `user create`.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Name: a-z, 0-9 and . _ = - / +
    name: String,
    /// Make it a server administrator.
    #[arg(long)]
    admin: bool,
    /// File with the password on its first line; asked for without it.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    let Command::Create(create) = command;
    let password = match &create.password_file {
        Some(file) => Zeroizing::new(
            std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?,
        ),
        None => ask()?,
    };
    let password = Zeroizing::new(password.lines().next().unwrap_or_default().to_owned());
    let config = create.config.load()?;
    serve::with_database(&config, async |options, _| {
        crate::storage::migrate(options.clone()).await?;
        let user = registration::user_id(&config.server_name, &create.name)?;
        let db = Db::connect(options).await?;
        // Making an account signs nothing: any key does.
        let keys = SigningKeys::parse(&config.server_name, &SigningKeys::generate("none"))?;
        let keys = std::sync::Arc::new(keys);
        let federation = federation::Client::new(&config, db.clone(), keys.clone())?;
        let ctx = Context::new(config.clone(), db, keys, federation)?;
        registration::create_account(&ctx, &user, Some(&password), (create.admin, None), None)
            .await?;
        println!("{user} created");
        ctx.db.close().await;
        Ok(())
    })
}

/// Asks on the terminal, without echo where `stty` can switch it off.
fn ask() -> anyhow::Result<Zeroizing<String>> {
    let echo = |mode: &str| {
        let _ = std::process::Command::new("stty").arg(mode).status();
    };
    eprint!("Password: ");
    echo("-echo");
    let mut line = Zeroizing::new(String::new());
    let read = std::io::stdin().read_line(&mut line);
    echo("echo");
    eprintln!();
    read?;
    Ok(line)
}
