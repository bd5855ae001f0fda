//! matrix-nio, a client library that nobody here wrote.

use std::process::Command;

use crate::rig::{peer::python, server::Server};

#[tokio::test(flavor = "multi_thread")]
async fn matrix_nio_registers_chats_pages_back_and_syncs() {
    let server = Server::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/flows/nio_chat.py");
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python())
            .arg(script)
            .arg(server.url(""))
            .output()
            .map(|o| (o, server))
    });
    let (output, _server) = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.trim_end().ends_with("done"),
        "{said}\n{complained}"
    );
}
