//! The keeper of the private PostgreSQL: a process of its own, under the database's account.
//!
//! It holds a lock, so that there is never a second one on the same files; it stops what an
//! earlier one left behind; and it stops PostgreSQL when its standard input ends, which happens
//! when the server ends, however that comes about.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::NAME;

/// How long to wait for another keeper to end.
const LOCK_WAIT: Duration = Duration::from_secs(15);
/// How long PostgreSQL may take to recover from a crash and answer.
const START_WAIT: Duration = Duration::from_mins(5);
/// How long it may take to stop before it is asked less politely.
const STOP_WAIT: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(50);

/// Arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    folder: PathBuf,
    programs: PathBuf,
    socket: PathBuf,
}

/// Runs until standard input ends.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments {
        folder,
        programs,
        socket,
    } = arguments;
    std::env::set_current_dir(folder)?;
    match keep(folder, programs, socket) {
        Ok(()) => Ok(()),
        Err(error) => {
            // The server shows this as its reason.
            println!("{error:#}");
            Err(error)
        }
    }
}

fn keep(folder: &Path, programs: &Path, socket: &Path) -> anyhow::Result<()> {
    let _lock = lock(&folder.join("lock"))?;
    let data = folder.join("data");
    stop_leftovers(&data)?;
    let mut postgres = start(folder, programs, socket)?;
    let ready = wait_until_ready(&mut postgres, socket);
    if let Err(error) = ready {
        stop(&mut postgres);
        return Err(error);
    }
    println!("ready");
    std::io::stdout().flush()?;
    let mut postgres_ended = false;
    wait_for_end(&mut postgres, &mut postgres_ended);
    if postgres_ended {
        bail!("PostgreSQL ended by itself; see {}/log", folder.display());
    }
    stop(&mut postgres);
    Ok(())
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .open(path)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(STEP);
            }
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(path).unwrap_or_default();
                bail!(
                    "another server uses this data folder (keeper process {})",
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    fs::write(path, format!("{}\n", std::process::id()))?;
    Ok(file)
}

/// A PostgreSQL whose keeper was killed still runs; pid files lie, working folders do not.
fn stop_leftovers(data: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + STOP_WAIT;
    let mut signal = Signal::SIGINT;
    loop {
        let left = processes_in(data);
        let Some(oldest) = left.iter().min() else {
            return Ok(());
        };
        if Instant::now() > deadline {
            signal = Signal::SIGQUIT;
        }
        if Instant::now() > deadline + STOP_WAIT {
            bail!("process {oldest} of an earlier PostgreSQL does not end");
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        std::thread::sleep(STEP * 2);
    }
}

fn processes_in(data: &Path) -> Vec<i32> {
    let Ok(data) = data.canonicalize() else {
        return Vec::new();
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data))
        .collect()
}

fn start(folder: &Path, programs: &Path, socket: &Path) -> anyhow::Result<Child> {
    let log = File::create(folder.join("log"))?;
    // Of an earlier one that is gone for certain.
    let _ = fs::remove_file(folder.join("data/postmaster.pid"));
    Command::new(programs.join("postgres"))
        .arg("-D")
        .arg(folder.join("data"))
        .arg("-k")
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in a terminal is for the server, which ends us in order.
        .process_group(0)
        .spawn()
        .context("cannot start PostgreSQL")
}

fn wait_until_ready(postgres: &mut Child, socket: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_WAIT;
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .socket(socket)
        .username(NAME)
        .database("postgres");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    loop {
        if let Some(status) = postgres.try_wait()? {
            bail!("PostgreSQL ended at once ({status})");
        }
        match runtime.block_on(crate::storage::create_database(&options, NAME)) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("PostgreSQL does not answer");
            }
            Err(_) => std::thread::sleep(STEP),
        }
    }
}

/// Returns when standard input ends, or PostgreSQL.
fn wait_for_end(postgres: &mut Child, postgres_ended: &mut bool) {
    let (said, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        let _ = said.send(());
    });
    loop {
        if end.recv_timeout(STEP * 4).is_ok() {
            return;
        }
        if !matches!(postgres.try_wait(), Ok(None)) {
            *postgres_ended = true;
            return;
        }
    }
}

/// Politely first; a crash recovery at the next start is the worst that follows.
fn stop(postgres: &mut Child) {
    let Ok(pid) = i32::try_from(postgres.id()) else {
        return;
    };
    let started = Instant::now();
    let mut last: Option<Instant> = None;
    while matches!(postgres.try_wait(), Ok(None)) {
        if last.is_none_or(|last| last.elapsed() > STEP * 40) {
            last = Some(Instant::now());
            let signal = if started.elapsed() < STOP_WAIT {
                Signal::SIGINT
            } else {
                Signal::SIGQUIT
            };
            let _ = kill(Pid::from_raw(pid), signal);
        }
        std::thread::sleep(STEP);
    }
}
