//! Under which account PostgreSQL runs: it refuses to be root.

use std::{
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, bail};
use nix::unistd::{Gid, Uid, User};

/// An account; our own, unless we are root.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Its name.
    pub(super) name: String,
    /// User and group to change to; `None`: it is us.
    change: Option<(Uid, Gid)>,
}

impl Account {
    /// Makes a command run under the account.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.change {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
    }

    /// Gives a file or folder to the account.
    pub(super) fn own(&self, path: &Path) -> anyhow::Result<()> {
        if let Some((uid, gid)) = self.change {
            nix::unistd::chown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to {}", path.display(), self.name))?;
        }
        Ok(())
    }
}

/// Ours; for root the owner of the folder, the one configured, `postgres`, or `nobody`.
pub(super) fn choose(folder: &Path, configured: Option<&str>) -> anyhow::Result<Account> {
    let uid = Uid::effective();
    if !uid.is_root() {
        let user = User::from_uid(uid)?.map_or_else(|| uid.to_string(), |user| user.name);
        return Ok(Account {
            name: user,
            change: None,
        });
    }
    let of = |user: User| Account {
        name: user.name,
        change: Some((user.uid, user.gid)),
    };
    if let Ok(metadata) = std::fs::metadata(folder)
        && metadata.uid() != 0
        && let Some(owner) = User::from_uid(Uid::from_raw(metadata.uid()))?
    {
        return Ok(of(owner));
    }
    if let Some(name) = configured {
        let user = User::from_name(name)?;
        return user
            .map(of)
            .with_context(|| format!("[database] account: no account {name}"));
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(of(user));
        }
    }
    bail!("PostgreSQL does not run as root: name an account with [database] account");
}
