//! matrix-js-sdk, the library of Element Web and its kin.

use std::{path::PathBuf, process::Command};

use super::run;
use crate::rig::server::Server;

/// The folder with its packages.
fn packages() -> PathBuf {
    std::env::var("AMTSBOTE_TEST_NODE")
        .expect("AMTSBOTE_TEST_NODE is not set: run the tests with `./dev test`, which makes it")
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_chats_by_sliding_sync_and_by_classic_sync() {
    let server = Server::start().await;
    // Packages are found from where the script is.
    let script = packages().join(format!("chat-{}.mjs", std::process::id()));
    std::fs::write(&script, include_str!("js_chat.mjs")).unwrap();
    // Its own patience: whatever it waits for in vain ends with this.
    let mut client = Command::new("timeout");
    client.args(["120", "node"]).arg(&script);
    client.arg(server.url(""));
    run(client, "all heard").await;
    std::fs::remove_file(script).unwrap();
}
