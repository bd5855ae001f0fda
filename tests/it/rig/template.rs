//! What a server has made at its first start, kept for all the others: making a database takes
//! longer than most of what is tested with it.

use std::{fs, io::Write as _, os::unix::fs::MetadataExt as _, path::Path, path::PathBuf};

use tokio::{process::Command, sync::OnceCell};

use super::server::Server;

/// Fills the data folder of a server that was never started.
pub(super) async fn fill(data: &Path) {
    static MADE: OnceCell<PathBuf> = OnceCell::const_new();
    copy(MADE.get_or_init(made).await, data).await;
}

/// The folder that is copied: of this very program, whichever process of tests made it.
async fn made() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = fs::metadata(env!("CARGO_BIN_EXE_amtsbote")).unwrap();
    let name = format!(
        "first-start-{}-{}.{}",
        program.len(),
        program.mtime(),
        program.mtime_nsec()
    );
    let path = kept.join(name);
    if path.exists() {
        return path;
    }
    for old in fs::read_dir(kept).unwrap().flatten() {
        if old
            .file_name()
            .to_string_lossy()
            .starts_with("first-start-")
        {
            let _ = fs::remove_dir_all(old.path());
        }
    }
    let mut server = Server::unfilled();
    server.restart().await;
    server.stop();
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    copy(&server.data(), &draft).await;
    // Each server has a key of its own.
    fs::remove_file(draft.join("signing.key")).unwrap();
    // Tests kill processes, they do not cut the power: what the kernel has is safe.
    let settings = draft.join("postgres/data/postgresql.conf");
    let settings = fs::OpenOptions::new().append(true).open(settings);
    writeln!(settings.unwrap(), "fsync = off").unwrap();
    // Another process may have been faster, with the same.
    let _ = fs::rename(&draft, &path);
    path
}

/// A copy with owners and rights: PostgreSQL may run under an account of its own.
async fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.args(["--archive", "--reflink=auto"]);
    command.arg(from).arg(to);
    assert!(command.status().await.unwrap().success());
}
