//! Stories with clients and servers that nobody here wrote, and with power cuts.

mod crash;
pub(crate) mod freeing;
mod js_sdk;
mod nio;
mod nodes;
mod operating;
mod statements;
mod synapse;
mod waiting;

use std::process::Command;

/// Runs a client against a server to its end, and expects its last words.
async fn run(mut client: Command, last_words: &str) {
    let output = tokio::task::spawn_blocking(move || client.output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.trim_end().ends_with(last_words),
        "{said}\n{complained}"
    );
}
