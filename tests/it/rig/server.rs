//! Our server as a process of its own, with its private PostgreSQL.

use std::{
    fmt::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};

use super::{
    eventually, free_port,
    http::{self, Ask as _},
    template,
    tls::Tls,
    user::User,
};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A folder that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("amtsbote-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a server is like, beyond the usual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Like<'a> {
    /// Host of its name, a name or an address of this machine.
    pub(crate) host: &'a str,
    /// More configuration.
    pub(crate) more: &'a str,
    /// More of `[outbound]`.
    pub(crate) outbound: &'a str,
    /// More of the TLS of the listener for peers.
    pub(crate) tls: &'a str,
    /// Port of its name, where it listens on another.
    pub(crate) outside: Option<u16>,
}

impl Default for Like<'_> {
    fn default() -> Self {
        Self {
            host: "localhost",
            more: REGISTRATION,
            outbound: "",
            tls: "",
            outside: None,
        }
    }
}

/// A running server.
pub(crate) struct Server {
    process: Option<Child>,
    folder: Folder,
    pub(crate) port: u16,
    /// Port of the listener for peers.
    pub(crate) inside: u16,
    pub(crate) name: String,
    http: reqwest::Client,
}

/// Open, and to administrators with a secret.
const REGISTRATION: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n";

impl Server {
    /// A server that federates under `localhost:PORT`, with open registration.
    pub(crate) async fn start() -> Self {
        Self::with(REGISTRATION, None).await
    }

    /// The same with a certificate of a given authority.
    pub(crate) async fn with_tls(tls: &Tls) -> Self {
        Self::with(REGISTRATION, Some(tls)).await
    }

    /// The same, reached by peers through a proxy: its name carries the port `outside`, and it
    /// listens on the port `inside`.
    pub(crate) async fn behind(tls: &Tls, outside: u16, inside: u16) -> Self {
        let like = Like {
            outside: Some(outside),
            ..Like::default()
        };
        Self::at(like, Some(tls), inside).await
    }

    /// A server with more configuration, in which `{url}` stands for where clients reach it.
    pub(crate) async fn with(more: &str, tls: Option<&Tls>) -> Self {
        let like = Like {
            more,
            ..Like::default()
        };
        Self::at(like, tls, free_port()).await
    }

    /// A server that is like that.
    pub(crate) async fn like(like: Like<'_>, tls: &Tls) -> Self {
        Self::at(like, Some(tls), free_port()).await
    }

    async fn at(like: Like<'_>, tls: Option<&Tls>, inside: u16) -> Self {
        let mut server = Self::configured(like, tls, inside);
        if !like.more.contains("[database]\nurl") {
            template::fill(&server.data()).await;
        }
        server.restart().await;
        server
    }

    /// A server that makes everything itself at its first start.
    pub(super) fn unfilled() -> Self {
        Self::configured(Like::default(), None, free_port())
    }

    /// A server that was never started.
    fn configured(like: Like<'_>, tls: Option<&Tls>, inside: u16) -> Self {
        let folder = Folder::new();
        let port = free_port();
        let outside = like.outside.unwrap_or(inside);
        let name = format!("{}:{outside}", like.host);
        for port in [port, inside, outside] {
            http::is_ours(port);
        }
        let address = like.host.replace("localhost", "127.0.0.1");
        let mut config = format!(
            "server_name = \"{name}\"\n\
             data_dir = \"{data}\"\n\
             [[listener]]\n\
             bind = \"127.0.0.1:{port}\"\n\
             serve = [\"client\", \"federation\", \"admin\", \"metrics\"]\n",
            data = folder.0.join("data").display(),
        );
        let mut outbound = "allow_ip_ranges = [\"127.0.0.0/8\", \"::1/128\"]\n".to_owned();
        if let Some(tls) = tls {
            write!(
                config,
                "[[listener]]\n\
                 bind = \"{address}:{inside}\"\n\
                 serve = [\"federation\"]\n\
                 tls = {{ certificate = \"{}\", key = \"{}\"{} }}\n",
                tls.certificate.display(),
                tls.key.display(),
                like.tls
            )
            .unwrap();
            writeln!(outbound, "extra_ca = [\"{}\"]", tls.ca.display()).unwrap();
        }
        write!(
            config,
            "[outbound]\n{outbound}{}[rate_limits]\nenabled = false\n[log]\nlevel = \"warn\"\n{}",
            like.outbound,
            like.more
                .replace("{url}", &format!("http://127.0.0.1:{port}"))
        )
        .unwrap();
        std::fs::write(folder.0.join("amtsbote.toml"), config).unwrap();
        Self {
            process: None,
            folder,
            port,
            inside,
            name,
            http: http::client(),
        }
    }

    /// Another node of the same server, on the same database, for clients and for peers that ask
    /// it in plain text. This one keeps the database: it has to be the last to end.
    pub(crate) async fn node(&self) -> Self {
        let folder = Folder::new();
        let port = free_port();
        http::is_ours(port);
        let config = std::fs::read_to_string(self.folder.0.join("amtsbote.toml")).unwrap();
        let (head, rest) = config.split_once("[[listener]]\n").unwrap();
        // Only the first listener: peers find the other port taken.
        let (listener, rest) = match rest.split_once("[[listener]]\n") {
            Some((listener, more)) => (listener, more.split_once("[outbound]").unwrap().1),
            None => rest.split_once("[outbound]").unwrap(),
        };
        let listener = listener.replace(&self.port.to_string(), &port.to_string());
        let head = head.replace(
            &format!("data_dir = \"{}", self.folder.0.display()),
            &format!("data_dir = \"{}", folder.0.display()),
        );
        let config = format!(
            "{head}signing_key_file = \"{key}\"\n\
             [[listener]]\n{listener}\
             [database]\nurl = \"postgres://amtsbote@localhost/amtsbote?host={socket}\"\n\
             [outbound]{rest}",
            key = self.folder.0.join("data/signing.key").display(),
            socket = self.socket_folder().display(),
        );
        std::fs::write(folder.0.join("amtsbote.toml"), config).unwrap();
        let mut node = Self {
            process: None,
            folder,
            port,
            inside: self.inside,
            name: self.name.clone(),
            http: self.http.clone(),
        };
        node.restart().await;
        node
    }

    /// Starts the process and waits until it serves.
    pub(crate) async fn restart(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.0.join("log"))
            .unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_amtsbote"))
            .arg("serve")
            .arg("--config")
            .arg(self.folder.0.join("amtsbote.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let url = self.url("/health");
        eventually("the server to serve", async || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {}", self.log());
            let answer = self.http.get(&url).ask().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Changes the configuration and has the process read it again.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let file = self.folder.0.join("amtsbote.toml");
        let config = std::fs::read_to_string(&file).unwrap();
        assert!(config.contains(from), "{from} in {config}");
        std::fs::write(&file, config.replacen(from, to, 1)).unwrap();
        self.hang_up();
    }

    /// Has the process read again what it reads at SIGHUP.
    pub(crate) fn hang_up(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGHUP).unwrap();
    }

    /// A connection to the private PostgreSQL.
    pub(crate) async fn database(&self) -> PgConnection {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(self.socket_folder())
            .username("amtsbote")
            .database("amtsbote");
        options.connect().await.unwrap()
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.0.join("data")
    }

    /// Where the private PostgreSQL listens.
    pub(crate) fn socket_folder(&self) -> PathBuf {
        self.folder.0.join("data/postgres/run")
    }

    /// How many files the media repository has.
    pub(crate) fn media_files(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let counts = entries.map(|entry| match entry.path() {
                path if path.is_dir() => count(&path),
                _ => 1,
            });
            counts.sum()
        }
        count(&self.folder.0.join("data/media"))
    }

    /// Process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.as_ref().unwrap().id()).unwrap()
    }

    /// Memory in KiB as the kernel counts it: `VmRSS` now, `VmHWM` at most so far.
    pub(crate) fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        let number = line.split_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    }

    /// Whether it says that it is well.
    pub(crate) async fn is_well(&self) -> bool {
        let answer = self.http.get(self.url("/health")).ask().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Runs the program once more with the same configuration, to its end.
    pub(crate) fn run_again(&self, words: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_amtsbote"))
            .args(words)
            .arg("--config")
            .arg(self.folder.0.join("amtsbote.toml"))
            .output()
            .unwrap()
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }

    /// Starts again, and logs each statement with the route of the request that it is for.
    pub(crate) async fn log_statements(&mut self) {
        let level = "level = \"warn,sqlx::query=debug,amtsbote::http=info\"";
        self.reconfigure("level = \"warn\"", level);
        self.kill();
        self.restart().await;
    }

    /// Logged statements so far that have these words in them, or in their route.
    pub(crate) fn statements(&self, words: &str) -> usize {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains("sqlx::query"));
        lines.filter(|line| line.contains(words)).count()
    }

    /// A JSON document that anybody may read.
    pub(crate) async fn document(&self, path: &str) -> serde_json::Value {
        let answer = self.http.get(self.url(path)).ask().await.unwrap();
        answer.json().await.unwrap()
    }

    /// A figure from the metrics; 0 where there is none yet.
    pub(crate) async fn figure(&self, name: &str) -> u64 {
        let answer = self.http.get(self.url("/metrics")).ask().await.unwrap();
        let text = answer.text().await.unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let value = line.and_then(|line| line.split(' ').nth(1));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Ends the process at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Kills the private PostgreSQL, all of it.
    pub(crate) fn kill_database(&self) {
        for pid in self.database_processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Processes of the private PostgreSQL.
    fn database_processes(&self) -> Vec<Pid> {
        let data = self.folder.0.join("data/postgres/data");
        let Ok(data) = data.canonicalize() else {
            return Vec::new();
        };
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let cwd = std::fs::read_link(entry.path().join("cwd")).ok()?;
            (cwd == data).then(|| Pid::from_raw(pid))
        });
        pids.collect()
    }

    /// Asks the process to end, and waits for it.
    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(process.wait().unwrap().success(), "{}", self.log());
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) {
        eventually("the server to end", async || {
            self.process
                .as_mut()
                .unwrap()
                .try_wait()
                .unwrap()
                .map(|_| ())
        })
        .await;
        self.process = None;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Registers a user.
    pub(crate) async fn user(&self, name: &str) -> User {
        User::register(&self.url(""), name).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        // Killed, it would leave shared memory behind, of which a machine has only so much.
        for pid in self.database_processes() {
            let _ = kill(pid, Signal::SIGQUIT);
        }
        for _ in 0..500 {
            if self.database_processes().is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.kill_database();
    }
}
