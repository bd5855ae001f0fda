//! Users of peers in the user directory.

use serde_json::json;

use super::rooms::two_servers;
use crate::{
    client::user_directory::{search, set_name},
    rig::{enc, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn users_of_peers_are_found_while_they_share_a_room() {
    let (_folder, one, other) = two_servers().await;
    let (alice, eve) = (one.user("alice").await, one.user("eve").await);
    let mut bob = other.user("bob").await;
    set_name(&bob, "Robert Maier").await;
    let clara = other.user("clara").await;
    let room = bob
        .create_room(json!({ "preset": "private_chat", "invite": [alice.id, clara.id] }))
        .await;
    clara.join(&room).await;
    // Before alice comes: her server hears of them in bulk.
    let mut alice = alice;
    alice.is_invited(&room).await;
    alice.join(&room).await;
    for (term, user, name) in [("maier", &bob, "Robert Maier"), ("clara", &clara, "clara")] {
        let found = vec![(user.id.clone(), json!(name))];
        eventually(term, async || {
            (search(&alice, term).await == found).then_some(())
        })
        .await;
    }
    assert_eq!(search(&eve, "maier").await, [], "shares no room");

    set_name(&bob, "Robert Huber").await;
    let found = vec![(bob.id.clone(), json!("Robert Huber"))];
    eventually("the new name", async || {
        (search(&alice, "huber").await == found).then_some(())
    })
    .await;
    assert_eq!(search(&alice, "maier").await, []);
    alice.say(&room, "hello").await;
    bob.hears("hello").await;

    let path = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(bob.post(&path, json!({})).await.0, 200);
    eventually("the end", async || {
        search(&alice, "huber").await.is_empty().then_some(())
    })
    .await;
    assert_eq!(search(&alice, "clara").await.len(), 1);
    assert_eq!(alice.post(&path, json!({})).await.0, 200);
    assert_eq!(search(&alice, "clara").await, []);
}
