//! Synapse, as a homeserver that nobody here wrote.

use std::process::{Child, Command, Stdio};

use super::{
    eventually, free_port,
    http::{self, Ask as _},
    server::Folder,
    tls::Tls,
    user::User,
};

/// Folder of the Python environment with `matrix-synapse` and `matrix-nio`.
pub(crate) fn python() -> std::path::PathBuf {
    let venv = std::env::var("AMTSBOTE_TEST_VENV")
        .expect("AMTSBOTE_TEST_VENV is not set: run the tests with `./dev test`, which makes it");
    std::path::Path::new(&venv).join("bin/python")
}

/// A running Synapse.
pub(crate) struct Synapse {
    process: Option<Child>,
    folder: Folder,
    port: u16,
    pub(crate) name: String,
}

impl Synapse {
    pub(crate) async fn start(tls: &Tls) -> Self {
        let folder = Folder::new();
        let (port, federation_port) = (free_port(), free_port());
        let name = format!("localhost:{federation_port}");
        let path = folder.0.display();
        let free = "{per_second: 1000, burst_count: 1000}";
        let config = format!(
            "server_name: '{name}'\n\
             pid_file: {path}/pid\n\
             listeners:\n\
             - {{port: {federation_port}, tls: true, type: http, bind_addresses: ['127.0.0.1'], \
                resources: [{{names: [federation]}}]}}\n\
             - {{port: {port}, tls: false, type: http, bind_addresses: ['127.0.0.1'], \
                resources: [{{names: [client]}}]}}\n\
             tls_certificate_path: {certificate}\n\
             tls_private_key_path: {key}\n\
             federation_custom_ca_list: ['{ca}']\n\
             database: {{name: sqlite3, args: {{database: {path}/db}}}}\n\
             media_store_path: {path}/media\n\
             signing_key_path: {path}/signing.key\n\
             log_config: {path}/log.yaml\n\
             report_stats: false\n\
             enable_registration: true\n\
             enable_registration_without_verification: true\n\
             macaroon_secret_key: test\n\
             form_secret: test\n\
             trusted_key_servers: []\n\
             suppress_key_server_warning: true\n\
             ip_range_blacklist: []\n\
             rc_message: {free}\n\
             rc_registration: {free}\n\
             rc_room_creation: {free}\n\
             rc_login: {{address: {free}, account: {free}, failed_attempts: {free}}}\n\
             rc_joins: {{local: {free}, remote: {free}}}\n\
             rc_invites: {{per_room: {free}, per_user: {free}}}\n",
            certificate = tls.certificate.display(),
            key = tls.key.display(),
            ca = tls.ca.display(),
        );
        let log = format!(
            "version: 1\n\
             handlers: {{f: {{class: logging.FileHandler, filename: {path}/log}}}}\n\
             root: {{level: WARNING, handlers: [f]}}\n"
        );
        std::fs::write(folder.0.join("hs.yaml"), config).unwrap();
        std::fs::write(folder.0.join("log.yaml"), log).unwrap();
        let mut synapse = Self {
            process: None,
            folder,
            port,
            name,
        };
        let made = synapse.command().arg("--generate-keys").status().unwrap();
        assert!(made.success());
        synapse.restart().await;
        synapse
    }

    fn command(&self) -> Command {
        let mut command = Command::new(python());
        command
            .args(["-m", "synapse.app.homeserver", "-c"])
            .arg(self.folder.0.join("hs.yaml"))
            .current_dir(&self.folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    pub(crate) async fn restart(&mut self) {
        self.process = Some(self.command().spawn().unwrap());
        let url = format!("http://127.0.0.1:{}/health", self.port);
        let http = http::client();
        eventually("Synapse to serve", async || {
            http.get(&url)
                .ask()
                .await
                .ok()
                .filter(|answer| answer.status().is_success())
        })
        .await;
    }

    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn user(&self, name: &str) -> User {
        User::register(&self.url(), name).await
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A peer that answers whatever it is asked with the same bytes, and hangs up; returns its port.
pub(crate) fn answer_always(tls: &Tls, answer: Vec<u8>) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let acceptor = tls.acceptor();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    let socket = tokio::net::TcpListener::from_std(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                // Whoever calls may hang up at any point.
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut asked = [0; 4096];
                    let _ = stream.read(&mut asked).await;
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    port
}
