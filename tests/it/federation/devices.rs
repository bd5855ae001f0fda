//! Keys and messages to devices between servers.

use serde_json::json;

use super::rooms::two_servers;
use crate::{
    client::keys::{claim, send_to, texts, upload},
    rig::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_two_servers_find_and_reach_each_other_also_after_an_outage() {
    let (_folder, one, mut other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "keys" }))
        .await;
    bob.join(&format!("#keys:{}", one.name)).await;
    alice.say(&room, "hello").await;
    bob.hears("hello").await;
    alice.sync(0).await;
    let device = upload(&bob, 3).await;
    let bob_id = json!(bob.id);
    eventually("the change to be told", async || {
        let sync = alice.sync(0).await;
        let changed = sync["device_lists"]["changed"].as_array()?;
        changed.contains(&bob_id).then_some(())
    })
    .await;
    let query = json!({ "device_keys": { &bob.id: [] } });
    let (_, found) = alice.post("/keys/query", query.clone()).await;
    assert_eq!(
        found["device_keys"][&bob.id][&device]["device_id"],
        device.as_str(),
        "{found}"
    );
    let first = claim(&alice, &bob, &device).await;
    assert_eq!(first.as_deref(), Some("signed_curve25519:K0000"));

    other.kill();
    for i in 0..5 {
        send_to(&alice, &bob, &device, &format!("t{i}"), &format!("m{i}")).await;
    }
    let (status, found) = alice.post("/keys/query", query).await;
    assert_eq!(status, 200);
    assert!(found["failures"][&other.name].is_object(), "{found}");
    other.restart().await;
    bob.say(&room, "back").await;
    let mut heard = Vec::new();
    eventually("the messages", async || {
        heard.extend(texts(&bob.sync(0).await));
        (heard.len() >= 5).then_some(())
    })
    .await;
    assert_eq!(heard, ["m0", "m1", "m2", "m3", "m4"]);
}
