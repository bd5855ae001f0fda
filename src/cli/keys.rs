//! `generate-signing-key` and `rotate-signing-key`

use std::path::PathBuf;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::ConfigFile;
use crate::{clock::now_ms, event::keys::SigningKeys, server::write_secret};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File to write; standard output without it. An existing file is not touched.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Arguments of `rotate-signing-key`.
#[derive(Debug, clap::Args)]
pub(super) struct Rotation {
    #[command(flatten)]
    config: ConfigFile,
    /// Hours for which the key so far still counts: until then every node must know the new one.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(0..=720))]
    overlap: u16,
}

/// Puts a new key in the place of the one in use.
pub(super) fn rotate(arguments: &Rotation) -> anyhow::Result<()> {
    let file = arguments.config.load()?.signing_key_file;
    let text = std::fs::read_to_string(&file).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let until = now_ms() + i64::from(arguments.overlap) * 3_600_000;
    let rotated = SigningKeys::rotate(&text, &name(), until);
    let rotated = rotated.with_context(|| file.display().to_string())?;
    write_secret(&file, &rotated)?;
    println!(
        "{} has a new key; the one so far counts for {} hours more.\n\
         Give the file to every node and send SIGHUP to each.",
        file.display(),
        arguments.overlap
    );
    Ok(())
}

fn name() -> String {
    format!("a{:06x}", rand::random::<u32>() >> 8)
}

pub(super) fn generate(arguments: &Arguments) -> anyhow::Result<()> {
    let text = SigningKeys::generate(&name());
    match &arguments.output {
        None => print!("{text}"),
        Some(file) => {
            anyhow::ensure!(!file.exists(), "{} exists already", file.display());
            write_secret(file, &text)?;
        }
    }
    Ok(())
}
