//! Who is there.

use serde_json::{Value, json};

use crate::rig::{enc, eventually, server::Server, user::User};

fn path(user: &str) -> String {
    format!("/presence/{}/status", enc(user))
}

pub(crate) async fn set(user: &User, state: &str, text: &str) {
    let body = json!({ "presence": state, "status_msg": text });
    let (status, answer) = user.put(&path(&user.id), body).await;
    assert_eq!(status, 200, "{answer}");
}

pub(crate) async fn get(asking: &User, user: &str) -> (u16, Value) {
    asking.get(&path(user)).await
}

/// What a sync tells of a user.
pub(crate) fn told(sync: &Value, user: &str) -> Option<Value> {
    let events = sync["presence"]["events"].as_array().unwrap();
    let event = events.iter().find(|event| event["sender"] == user)?;
    assert_eq!(event["type"], "m.presence");
    Some(event["content"].clone())
}

/// Syncs, without being there, until a user is told of as that.
pub(crate) async fn is_seen(viewer: &mut User, user: &str, state: &str) -> Value {
    let viewer = tokio::sync::Mutex::new(viewer);
    eventually(&format!("{user} to be {state}"), async || {
        let mut viewer = viewer.lock().await;
        let since = viewer.since.clone().unwrap_or_default();
        let since = if since.is_empty() {
            since
        } else {
            format!("&since={since}")
        };
        let path = format!("/sync?set_presence=offline&timeout=1000{since}");
        let (status, sync) = viewer.get(&path).await;
        assert_eq!(status, 200, "{sync}");
        viewer.since = Some(sync["next_batch"].as_str().unwrap().to_owned());
        told(&sync, user).filter(|content| content["presence"] == state)
    })
    .await
}

/// What filters let through of a change of the second of two others.
async fn filters_hold(bob: &User, since: &str, (alice, carol): (&User, &User)) {
    let filters = [
        (json!({}), true),
        (json!({ "types": ["m.*"] }), true),
        (json!({ "types": [] }), false),
        (json!({ "not_senders": [carol.id] }), false),
        (json!({ "senders": [alice.id] }), false),
        (json!({ "limit": 1 }), true),
    ];
    for (filter, shown) in filters {
        let filter = enc(&json!({ "presence": filter }).to_string());
        let path = format!("/sync?set_presence=offline&since={since}&filter={filter}");
        let (status, sync) = bob.get(&path).await;
        assert_eq!(status, 200, "{sync}");
        assert_eq!(told(&sync, &carol.id).is_some(), shown, "{filter}: {sync}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_room_sees_who_is_there_and_strangers_do_not() {
    let server = Server::start().await;
    let (alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let (carol, mut eve) = (server.user("carol").await, server.user("eve").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    carol.join(&room).await;
    eve.sync(0).await;
    assert_eq!(get(&bob, &alice.id).await.1["presence"], "offline");

    set(&alice, "online", "in the office").await;
    let content = is_seen(&mut bob, &alice.id, "online").await;
    assert_eq!(content["status_msg"], "in the office");
    assert_eq!(content["currently_active"], true);
    assert!(content["last_active_ago"].is_u64(), "{content}");
    let (status, content) = get(&bob, &alice.id).await;
    assert_eq!((status, &content["presence"]), (200, &json!("online")));
    assert_eq!(content["status_msg"], "in the office");
    let (_, sync) = bob.get("/sync?set_presence=offline").await;
    assert!(told(&sync, &bob.id).is_none(), "bob hides: {sync}");

    let sync = eve.sync(0).await;
    assert!(told(&sync, &alice.id).is_none(), "{sync}");
    for (user, whose) in [(&eve, alice.id.as_str()), (&alice, "@nobody:localhost")] {
        let (status, answer) = get(user, whose).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
    }
    let online = json!({ "presence": "online" });
    assert_eq!(bob.put(&path(&alice.id), online).await.0, 403);
    for bad in [
        json!({ "presence": "dancing" }),
        json!({ "presence": "online", "status_msg": "x".repeat(1_025) }),
        json!({ "presence": "online", "status_msg": "\0" }),
        json!({ "status_msg": "x" }),
    ] {
        assert_eq!(
            alice.put(&path(&alice.id), bad.clone()).await.0,
            400,
            "{bad}"
        );
    }
    assert_eq!(carol.get("/sync?set_presence=dancing").await.0, 400);

    // By syncing: not at all, as idle, and as there.
    carol.get("/sync?set_presence=offline").await;
    assert_eq!(get(&bob, &carol.id).await.1["presence"], "offline");
    let (_, sync) = carol.get("/sync?set_presence=unavailable").await;
    let all = sync["next_batch"].as_str().unwrap().to_owned();
    let content = is_seen(&mut bob, &carol.id, "unavailable").await;
    assert_eq!(content["currently_active"], false);
    let before = bob.since.clone().unwrap();
    carol.get("/sync").await;
    assert_eq!(get(&bob, &carol.id).await.1["presence"], "online");

    filters_hold(&bob, &before, (&alice, &carol)).await;
    // Who comes in sees who is there, and is seen.
    let mut dave = server.user("dave").await;
    dave.sync(0).await;
    dave.join(&room).await;
    is_seen(&mut dave, &alice.id, "online").await;
    let (_, sync) = carol.get(&format!("/sync?since={all}")).await;
    assert!(told(&sync, &dave.id).is_some(), "{sync}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_nothing_is_idle_and_who_is_not_heard_of_is_gone_also_after_a_restart() {
    let mut server = Server::start().await;
    let (mut alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    alice.sync(0).await;
    set(&alice, "online", "here").await;
    is_seen(&mut bob, &alice.id, "online").await;
    let mut database = server.database().await;
    let hour = 3_600_000_i64;
    // An hour goes by.
    sqlx::query("UPDATE presence SET last_active_ts = last_active_ts - $1")
        .bind(hour)
        .execute(&mut database)
        .await
        .unwrap();
    let content = is_seen(&mut bob, &alice.id, "unavailable").await;
    assert_eq!(content["status_msg"], "here");
    assert!(content["last_active_ago"].as_i64().unwrap() >= hour);
    // A client that goes on is no sign of life, what its user writes is.
    alice.sync(0).await;
    assert_eq!(get(&bob, &alice.id).await.1["presence"], "unavailable");
    alice.say(&room, "back").await;
    is_seen(&mut bob, &alice.id, "online").await;

    server.kill();
    server.restart().await;
    let (_, content) = get(&bob, &alice.id).await;
    assert_eq!(content["presence"], "online", "{content}");
    assert_eq!(content["status_msg"], "here");
    drop(database);
    let mut database = server.database().await;
    sqlx::query("UPDATE presence SET seen_ts = seen_ts - $1")
        .bind(hour)
        .execute(&mut database)
        .await
        .unwrap();
    is_seen(&mut bob, &alice.id, "offline").await;
    alice.sync(0).await;
    is_seen(&mut bob, &alice.id, "online").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_presence_everybody_seems_offline() {
    let more = "[registration]\nopen = true\n[presence]\nenabled = false\n";
    let server = Server::with(more, None).await;
    let mut alice = server.user("alice").await;
    set(&alice, "online", "here").await;
    assert_eq!(
        get(&alice, &alice.id).await,
        (
            200,
            json!({ "presence": "offline", "currently_active": false })
        )
    );
    let sync = alice.sync(0).await;
    assert_eq!(sync["presence"], json!({ "events": [] }));
}
