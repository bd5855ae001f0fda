//! The files of the private PostgreSQL.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest, Sha256};

use super::{NAME, account::Account};

/// Longest path of a socket folder: the address of a Unix socket has room for little more.
const SOCKET_PATH_MAX: usize = 80;

/// Folders with the right owner and rights; `initdb` where there is no database yet.
pub(super) fn prepare(folder: &Path, programs: &Path, account: &Account) -> anyhow::Result<()> {
    private_folder(folder, account)?;
    reachable(folder, account)?;
    let data = folder.join("data");
    if !data.join("PG_VERSION").exists() {
        eprintln!("amtsbote: making a database in {} …", folder.display());
        // A start that was broken off leaves an incomplete one.
        let draft = folder.join("data.new");
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        let mut command = Command::new(programs.join("initdb"));
        command
            .args([
                "--encoding=UTF8",
                "--locale=C",
                "--data-checksums",
                "--auth=peer",
            ])
            .arg(format!("--username={NAME}"))
            .arg("--pgdata")
            .arg(&draft)
            .current_dir(folder);
        account.apply(&mut command);
        let output = command.output().context("cannot run initdb")?;
        if !output.status.success() {
            bail!(
                "initdb failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        fs::rename(&draft, &data)?;
    }
    configure(&data, account)
}

/// Settings and who may connect; written at each start, so that a new version can change them.
fn configure(data: &Path, account: &Account) -> anyhow::Result<()> {
    let memory = shared_buffers();
    let settings = format!(
        "# Written by Amtsbote at each start; what you change in postgresql.conf stands.\n\
         listen_addresses = ''\n\
         unix_socket_permissions = 0700\n\
         max_connections = 100\n\
         shared_buffers = {memory}MB\n\
         wal_compression = on\n\
         max_wal_size = 4GB\n\
         checkpoint_timeout = 30min\n\
         fsync = on\n\
         synchronous_commit = on\n\
         full_page_writes = on\n\
         jit = off\n\
         logging_collector = off\n"
    );
    // Both accounts may use the role: the one it runs under, and ours (root, perhaps).
    let us = nix::unistd::User::from_uid(nix::unistd::Uid::effective())?
        .map_or_else(|| "root".to_owned(), |user| user.name);
    let map = format!("amtsbote {us} {NAME}\namtsbote {} {NAME}\n", account.name);
    let hba = format!("local all {NAME} peer map=amtsbote\n");
    for (name, text) in [
        ("amtsbote.conf", settings),
        ("pg_ident.conf", map),
        ("pg_hba.conf", hba),
    ] {
        let file = data.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        account.own(&file)?;
    }
    let main = data.join("postgresql.conf");
    let text = fs::read_to_string(&main)?;
    if !text.contains("include_if_exists = 'amtsbote.conf'") {
        fs::write(
            &main,
            format!("include_if_exists = 'amtsbote.conf'\n{text}"),
        )?;
        account.own(&main)?;
    }
    Ok(())
}

/// An eighth of the memory, between 64 and 512 MB.
fn shared_buffers() -> u64 {
    let total_kb = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            text.lines()
                .next()?
                .split_whitespace()
                .nth(1)?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(1 << 20);
    (total_kb / 1024 / 8).clamp(64, 512)
}

fn private_folder(folder: &Path, account: &Account) -> anyhow::Result<()> {
    if !folder.exists() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        account.own(folder)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

/// The account has to be able to reach its folder.
fn reachable(folder: &Path, account: &Account) -> anyhow::Result<()> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "cd \"$1\" && test -w .", "sh"])
        .arg(folder);
    account.apply(&mut command);
    let output = command.output().context("cannot run a shell")?;
    ensure!(
        output.status.success(),
        "account {} cannot reach {}: choose another data_dir, or let it through",
        account.name,
        folder.display()
    );
    Ok(())
}

/// Where the socket goes: in the folder, or, where that path is too long, in a private one in /tmp.
pub(super) fn socket_folder(folder: &Path, account: &Account) -> anyhow::Result<PathBuf> {
    let own = folder.join("run");
    let chosen = if own.as_os_str().len() <= SOCKET_PATH_MAX {
        own
    } else {
        let hash = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        let name = u64::from_be_bytes(std::array::from_fn(|at| hash[at]));
        std::env::temp_dir().join(format!("amtsbote-{name:016x}"))
    };
    private_folder(&chosen, account)?;
    Ok(chosen)
}
