//! matrix-js-sdk, the library of Element Web and its kin.

use std::{path::PathBuf, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::{
    federation::rooms::two_servers,
    rig::{
        peer::Synapse,
        server::{Folder, Server},
        tls::Tls,
    },
};

/// The folder with its packages.
fn packages() -> PathBuf {
    std::env::var("AMTSBOTE_TEST_NODE")
        .expect("AMTSBOTE_TEST_NODE is not set: run the tests with `./dev test`, which makes it")
        .into()
}

/// A script under way.
struct Script {
    process: Child,
    path: PathBuf,
}

impl Script {
    /// Starts a script with addresses of servers.
    fn start(name: &str, text: &str, servers: &[String]) -> Self {
        // Packages are found from where the script is.
        let path = packages().join(format!("{name}-{}.mjs", std::process::id()));
        std::fs::write(&path, text).unwrap();
        // Its own patience: whatever it waits for in vain ends with this.
        let mut client = Command::new("timeout");
        client.args(["240", "node"]).arg(&path).args(servers);
        client.stdin(Stdio::piped()).stdout(Stdio::piped());
        client.stderr(Stdio::piped()).kill_on_drop(true);
        Self {
            process: client.spawn().unwrap(),
            path,
        }
    }

    /// Waits for its last word; before, `answer` does what it asks for.
    async fn ends(mut self, last_word: &str, mut answer: impl AsyncFnMut(&str)) {
        let mut complaints = self.process.stderr.take().unwrap();
        let complained = tokio::spawn(async move {
            let mut text = String::new();
            let _ = complaints.read_to_string(&mut text).await;
            text
        });
        let mut words = self.process.stdin.take().unwrap();
        let said = BufReader::new(self.process.stdout.take().unwrap());
        let mut lines = said.lines();
        let mut last = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line != last_word {
                answer(&line).await;
                words.write_all(b"\n").await.unwrap();
            }
            last = line;
        }
        let status = self.process.wait().await.unwrap();
        std::fs::remove_file(&self.path).unwrap();
        let complained = complained.await.unwrap();
        assert!(
            status.success() && last == last_word,
            "{last}\n{complained}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_chats_by_sliding_sync_and_by_classic_sync() {
    let server = Server::start().await;
    let script = Script::start("chat", include_str!("js_chat.mjs"), &[server.url("")]);
    script.ends("all heard", async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_two_servers_encrypt_verify_and_restore_what_they_said() {
    let (_folder, mut one, other) = two_servers().await;
    let bases = [one.url(""), other.url("")];
    let script = Script::start("crypto", include_str!("js_crypto.mjs"), &bases);
    let restart = async |_: &str| {
        one.kill();
        one.restart().await;
    };
    script.ends("all decrypted", restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_synapse_encrypts_with_users_of_ours() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let (mut one, other, synapse) = tokio::join!(
        Server::with_tls(&tls),
        Server::with_tls(&tls),
        Synapse::start(&tls)
    );
    let bases = [one.url(""), other.url(""), synapse.url()];
    let script = Script::start("crypto-three", include_str!("js_crypto.mjs"), &bases);
    let restart = async |_: &str| {
        one.kill();
        one.restart().await;
    };
    script.ends("all decrypted", restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_client_logs_in_by_oauth() {
    let config = "[registration]\nopen = true\n[well_known]\nclient = \"{url}\"\n\
                  [oauth]\nenabled = true\n";
    let server = Server::with(config, None).await;
    let script = Script::start("oauth", include_str!("js_oauth.mjs"), &[server.url("")]);
    script.ends("logged in", async |_| {}).await;
}
