//! Keys and messages to devices between servers.

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::rooms::two_servers;
use crate::{
    client::keys::{claim, send_to, texts, upload},
    rig::{enc, eventually, server::Server, user::User},
};

/// Syncs until a user stands in that list of device lists.
async fn told(user: &mut User, list: &str, other: &str) {
    let user = tokio::sync::Mutex::new(user);
    eventually(&format!("{other} in {list}"), async || {
        let mut user = user.lock().await;
        let from = user.since.clone()?;
        let sync = user.sync(1_000).await;
        let to = user.since.clone()?;
        let named = |lists: &Value| {
            let users = lists[list].as_array();
            users.is_some_and(|users| users.contains(&json!(other)))
        };
        let (_, changes) = user
            .get(&format!("/keys/changes?from={from}&to={to}"))
            .await;
        let found = named(&sync["device_lists"]);
        let lists = &sync["device_lists"];
        assert!(!found || named(&changes), "{lists} and {changes}");
        found.then_some(())
    })
    .await;
}

async fn query(asking: &User, user: &User) -> Value {
    let question = json!({ "device_keys": { &user.id: [] } });
    let (status, found) = asking.post("/keys/query", question).await;
    assert_eq!(status, 200, "{found}");
    found
}

/// Name of a device as another user sees it.
async fn seen_name(asking: &User, user: &User, device: &str) -> Value {
    let found = query(asking, user).await;
    found["device_keys"][&user.id][device]["unsigned"]["device_display_name"].clone()
}

async fn rename(user: &User, device: &str, name: &str) {
    let body = json!({ "display_name": name });
    let (status, answer) = user.put(&format!("/devices/{}", enc(device)), body).await;
    assert_eq!(status, 200, "{answer}");
}

/// (`stream_id`, fresh) of the copy of a user's list.
async fn copy(database: &mut PgConnection, user: &User) -> Option<(i64, bool)> {
    sqlx::query_as(
        "SELECT COALESCE(stream_id, -1), fresh FROM device_list
         JOIN mx_user USING (user_nid) WHERE mxid = $1",
    )
    .bind(&user.id)
    .fetch_optional(database)
    .await
    .unwrap()
}

/// Two users of two servers in a room, the second with a device that the first knows of.
async fn acquainted(one: &Server, other: &Server) -> (User, User, String, String) {
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "keys" }))
        .await;
    alice.sync(0).await;
    bob.join(&format!("#keys:{}", one.name)).await;
    told(&mut alice, "changed", &bob.id).await;
    alice.say(&room, "hello").await;
    bob.hears("hello").await;
    let device = upload(&bob, 3).await;
    told(&mut alice, "changed", &bob.id).await;
    (alice, bob, room, device)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_two_servers_find_and_reach_each_other_also_after_an_outage() {
    let (_folder, one, mut other) = two_servers().await;
    let (alice, mut bob, room, device) = acquainted(&one, &other).await;
    let found = query(&alice, &bob).await;
    assert_eq!(
        found["device_keys"][&bob.id][&device]["device_id"],
        device.as_str(),
        "{found}"
    );
    let first = claim(&alice, &bob, &device).await;
    assert_eq!(first.as_deref(), Some("signed_curve25519:K0000"));
    let stranger = other.user("stranger").await;

    other.kill();
    for i in 0..5 {
        send_to(&alice, &bob, &device, &format!("t{i}"), &format!("m{i}")).await;
    }
    let found = query(&alice, &bob).await;
    assert!(
        found["device_keys"][&bob.id][&device].is_object(),
        "{found}"
    );
    assert_eq!(found["failures"], json!({}), "a copy is kept: {found}");
    let found = query(&alice, &stranger).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_device_lists_follow_the_changes_and_go_with_the_last_shared_room() {
    let (_folder, one, mut other) = two_servers().await;
    let (mut alice, bob, room, device) = acquainted(&one, &other).await;
    let mut copies = one.database().await;
    assert_eq!(copy(&mut copies, &bob).await, None, "nobody asked yet");
    query(&alice, &bob).await;
    let (at, fresh) = copy(&mut copies, &bob).await.unwrap();
    assert!(fresh);

    rename(&bob, &device, "phone").await;
    told(&mut alice, "changed", &bob.id).await;
    assert_eq!(copy(&mut copies, &bob).await, Some((at + 1, true)));
    assert_eq!(seen_name(&alice, &bob, &device).await, "phone");

    // An update is lost.
    sqlx::query("UPDATE device_stream SET stream_id = stream_id + 1")
        .execute(&mut other.database().await)
        .await
        .unwrap();
    rename(&bob, &device, "tablet").await;
    told(&mut alice, "changed", &bob.id).await;
    assert_eq!(seen_name(&alice, &bob, &device).await, "tablet");
    let (now, fresh) = copy(&mut copies, &bob).await.unwrap();
    assert!(now == at + 3 && fresh, "fetched anew");

    let key = |kind: &str| {
        json!({
            "user_id": bob.id, "usage": [kind], "keys": { format!("ed25519:{kind}"): kind },
        })
    };
    let keys = json!({ "master_key": key("master"), "self_signing_key": key("self_signing") });
    let (status, answer) = bob.post("/keys/device_signing/upload", keys).await;
    assert_eq!(status, 200, "{answer}");
    told(&mut alice, "changed", &bob.id).await;
    let mut signed = key("master");
    signed["signatures"] = json!({ &alice.id: { "ed25519:ALICE": "of alice" } });
    let body = json!({ &bob.id: { "master": signed } });
    let (_, answer) = alice.post("/keys/signatures/upload", body).await;
    assert_eq!(answer["failures"], json!({}), "{answer}");

    other.kill();
    let found = query(&alice, &bob).await;
    assert_eq!(found["failures"], json!({}), "{found}");
    let own = &found["self_signing_keys"][&bob.id];
    assert_eq!(own["usage"], json!(["self_signing"]), "{found}");
    let master = &found["master_keys"][&bob.id];
    assert_eq!(master["signatures"][&alice.id]["ed25519:ALICE"], "of alice");
    other.restart().await;

    let path = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(bob.post(&path, json!({})).await.0, 200);
    told(&mut alice, "left", &bob.id).await;
    assert_eq!(copy(&mut copies, &bob).await, None);
    rename(&bob, &device, "watch").await;
    assert_eq!(seen_name(&alice, &bob, &device).await, "watch");
    assert_eq!(copy(&mut copies, &bob).await, None, "not kept");

    bob.join(&format!("#keys:{}", one.name)).await;
    told(&mut alice, "changed", &bob.id).await;
    assert_eq!(seen_name(&alice, &bob, &device).await, "watch");
    assert!(copy(&mut copies, &bob).await.is_some());
    let path = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(alice.post(&path, json!({})).await.0, 200);
    assert_eq!(copy(&mut copies, &bob).await, None, "none of us is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_ends_ends_for_peers() {
    let (_folder, one, other) = two_servers().await;
    let (mut alice, bob, _, device) = acquainted(&one, &other).await;
    assert!(query(&alice, &bob).await["device_keys"][&bob.id][&device].is_object());
    assert_eq!(bob.post("/logout", json!({})).await.0, 200);
    told(&mut alice, "changed", &bob.id).await;
    assert_eq!(query(&alice, &bob).await["device_keys"][&bob.id], json!({}));
}
