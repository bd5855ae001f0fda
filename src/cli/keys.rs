//! `generate-signing-key`

use std::path::PathBuf;

use crate::{event::keys::SigningKeys, server::write_secret};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File to write; standard output without it. An existing file is not touched.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn generate(arguments: &Arguments) -> anyhow::Result<()> {
    let text = SigningKeys::generate(&format!("a{:06x}", rand::random::<u32>() >> 8));
    match &arguments.output {
        None => print!("{text}"),
        Some(file) => {
            anyhow::ensure!(!file.exists(), "{} exists already", file.display());
            write_secret(file, &text)?;
        }
    }
    Ok(())
}
