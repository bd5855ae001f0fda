//! matrix-nio, a client library that nobody here wrote.

use std::process::Command;

use super::run;
use crate::rig::{peer::python, server::Server};

#[tokio::test(flavor = "multi_thread")]
async fn matrix_nio_registers_chats_pages_back_and_syncs() {
    let server = Server::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/flows/nio_chat.py");
    let mut client = Command::new(python());
    client.arg(script).arg(server.url(""));
    run(client, "done").await;
}
