//! Many clients that wait for news. `AMTSBOTE_CLIENTS` says how many.

use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::rig::{appservice::Appservice, enc, eventually, server::Server, user::User};

/// Clients that are made at the same time.
const AT_ONCE: usize = 32;
/// Clients that begin to wait at the same time.
const COMING: usize = 500;
/// Memory of the server in KiB while all of them wait.
const MEMORY_MAX: u64 = 1 << 20;

fn count() -> usize {
    let said = std::env::var("AMTSBOTE_CLIENTS").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(200)
}

/// A client that waits for news after what it has seen.
fn wait(user: &User) -> tokio::task::JoinHandle<(u16, serde_json::Value)> {
    let since = user.since.clone().unwrap();
    let user = user.again();
    let path = format!("/sync?timeout=600000&since={since}");
    tokio::spawn(async move { user.get(&path).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_woken_by_what_concerns_them_and_by_nothing_else() {
    let service = Appservice::new("crowd", "");
    let server = Server::with(&Appservice::config(&[&service]), None).await;
    let (service, server_ref) = (&service, &server);
    let mut users: Vec<User> = stream::iter(0..count())
        .map(async |n| {
            let mut user = service.ghost(server_ref, &n.to_string()).await;
            user.sync(0).await;
            user
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    // Two of them share a room.
    let room = users[0]
        .create_room(json!({ "preset": "public_chat" }))
        .await;
    users[1].join(&room).await;
    for user in users.iter_mut().take(2) {
        user.wait_for("the room", |event| event["type"] == "m.room.member")
            .await;
        while !user.sync(0).await["rooms"].as_object().unwrap().is_empty() {}
    }

    let (two, others) = users.split_at(2);
    let mut waiting = Vec::with_capacity(users.len());
    for some in users.chunks(COMING) {
        waiting.extend(some.iter().map(wait));
        eventually("all to wait", async || {
            let count = server.figure("sync_waiting").await;
            (count == u64::try_from(waiting.len()).unwrap()).then_some(())
        })
        .await;
    }
    let memory = server.memory("VmRSS");
    println!("{} clients wait: {memory} KiB", users.len());
    assert!(memory < MEMORY_MAX, "{memory} KiB");

    let before = server.figure("sync_woken_total").await;
    let rounds: u64 = 5;
    for n in 0..rounds {
        two[0].say(&room, &n.to_string()).await;
        let path = format!("/rooms/{}/typing/{}", enc(&room), enc(&two[1].id));
        let typing = json!({ "typing": true, "timeout": 30_000 });
        assert_eq!(two[1].put(&path, typing).await.0, 200);
    }
    let mut waiting = waiting.into_iter();
    for task in waiting.by_ref().take(2) {
        let (status, answer) = task.await.unwrap();
        assert_eq!(
            (status, answer["rooms"]["join"][&room].is_object()),
            (200, true)
        );
    }
    // Each message and each typing wakes the two in the room at most.
    let woken = server.figure("sync_woken_total").await - before;
    assert!((1..=4 * rounds).contains(&woken), "{woken}");
    let left = server.figure("sync_waiting").await;
    assert_eq!(left, u64::try_from(others.len()).unwrap());
    waiting.for_each(|task| task.abort());
}
