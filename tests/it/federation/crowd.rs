//! Many peers at once, half of them dead. `AMTSBOTE_PEERS` says how many.

use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::rig::{
    scripted::{Held, Scripted},
    server::{Folder, Server},
    tls::Tls,
};

/// Peers that join at the same time.
const AT_ONCE: usize = 8;
/// What the server may take more for messages that the dead do not take, in KiB. Kept for each of
/// five hundred, they would take 150 MB.
const MEMORY_MAX: u64 = 100 << 10;

fn count() -> usize {
    let said = std::env::var("AMTSBOTE_PEERS").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(24)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_do_not_hold_up_the_living() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with_tls(&tls).await;
    let alice = server.user("alice").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_version": "11" }))
        .await;
    let peers: Vec<Scripted> = stream::iter(0..count())
        .map(|_| async {
            let peer = Scripted::start(&tls).await;
            peer.enter(&server, &room, &peer.user("bob")).await;
            peer
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    // A quarter refuses connections, a quarter takes them and says nothing.
    let (living, dead) = peers.split_at(peers.len() / 2);
    let (gone, silent) = dead.split_at(dead.len() / 2);
    gone.iter().for_each(Scripted::die);
    let held: Vec<Held> = silent.iter().map(|peer| peer.hold("send")).collect();

    // The first makes the connections, the second finds them.
    for text in ["the first word", "the second word"] {
        let started = std::time::Instant::now();
        alice.say(&room, text).await;
        for peer in living {
            peer.hears(text).await;
        }
        let (count, passed) = (living.len(), started.elapsed());
        println!("{count} living peers heard {text} after {passed:?}");
    }
    let before = server.memory("VmRSS");
    for n in 0..30 {
        let text = format!("{n} {}", "x".repeat(10_000));
        alice.say(&room, &text).await;
    }
    alice.say(&room, "the last word").await;
    for peer in living {
        peer.hears("the last word").await;
    }
    let after = server.memory("VmRSS");
    println!("{before} KiB of memory before, {after} after");
    assert!(after < before + MEMORY_MAX, "{before} KiB, then {after}");
    // Who comes to life again has missed nothing.
    drop(held);
    for peer in silent {
        peer.honest("send");
        peer.hears("the last word").await;
    }
}
