//! Where PostgreSQL's programs are.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// The oldest major version that we know how to use.
const MAJOR_MIN: u32 = 15;

/// The folder with `initdb` and `postgres`: as configured, or the newest on this machine; files
/// that exist are only ever opened by the version that made them.
pub(super) fn find(folder: &Path, configured: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(configured) = configured {
        if is_complete(configured) {
            return Ok(configured.to_owned());
        }
        bail!(
            "[database] programs: no initdb and postgres in {}",
            configured.display()
        );
    }
    let mut found: Vec<(u32, PathBuf)> = candidates()
        .into_iter()
        .filter(|candidate| is_complete(candidate))
        .filter_map(|candidate| Some((major_of(&candidate)?, candidate)))
        .filter(|(major, _)| *major >= MAJOR_MIN)
        .collect();
    found.sort();
    match on_disk(folder) {
        Some(major) => match found.into_iter().find(|(of, _)| *of == major) {
            Some((_, programs)) => Ok(programs),
            None => bail!(
                "the database in {} was made by PostgreSQL {major}, which is not installed; \
                 install package postgresql-{major}",
                folder.display()
            ),
        },
        None => match found.pop() {
            Some((_, programs)) => Ok(programs),
            None => bail!(
                "PostgreSQL {MAJOR_MIN} or newer is not installed: install package postgresql, \
                 or name a server with [database] url"
            ),
        },
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, suffix) in [("/usr/lib/postgresql", "bin"), ("/usr", "bin")] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(
            entries
                .filter(|entry| {
                    parent != "/usr" || entry.file_name().to_string_lossy().starts_with("pgsql-")
                })
                .map(|entry| entry.path().join(suffix)),
        );
    }
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    folders
}

fn is_complete(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

/// `postgres (PostgreSQL) 15.18 (…)`
fn major_of(folder: &Path) -> Option<u32> {
    let output = std::process::Command::new(folder.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().nth(2)?;
    version
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn on_disk(folder: &Path) -> Option<u32> {
    std::fs::read_to_string(folder.join("data/PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}
