//! Profiles of others in syncs (MSC4262, MSC4429).

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{enc, eventually, server::Server, user::User};

const SLIDE: &str = "/../unstable/org.matrix.simplified_msc3575/sync";
const EXTENSION: &str = "org.matrix.msc4262.profiles";
const STATUS: &str = "org.example.status";

async fn set(user: &User, field: &str, value: Option<Value>) {
    let path = format!("/profile/{}/{field}", enc(&user.id));
    let (method, body) = match value {
        Some(value) => (Method::PUT, Some(json!({ field: value }))),
        None => (Method::DELETE, None),
    };
    let (status, body) = user.call(method, &path, body).await;
    assert_eq!(status, 200, "{body}");
}

/// A classic sync that asks for a field; the next token, and what is told of users.
async fn sync(user: &User, since: Option<&str>, timeout_ms: u32) -> (String, Value) {
    let filter = json!({ "org.matrix.msc4429.profile_fields": { "ids": [STATUS] } });
    let since = since.map_or_else(String::new, |since| format!("&since={since}"));
    let filter = enc(&filter.to_string());
    let path = format!("/sync?timeout={timeout_ms}&filter={filter}{since}");
    let (status, mut body) = user.get(&path).await;
    assert_eq!(status, 200, "{body}");
    let next = body["next_batch"].as_str().unwrap().to_owned();
    (next, body["org.matrix.msc4429.users"].take())
}

async fn slide(user: &User, pos: Option<&str>, timeout_ms: u32) -> (String, Value) {
    let body = json!({
        "lists": { "all": { "ranges": [[0, 9]], "timeline_limit": 1, "required_state": [] } },
        "extensions": { EXTENSION: { "enabled": true, "fields": [STATUS, "displayname"] } },
    });
    let pos = pos.map_or_else(String::new, |pos| format!("&pos={pos}"));
    let path = format!("{SLIDE}?timeout={timeout_ms}{pos}");
    let (status, mut answer) = user.call(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    let users = answer["extensions"][EXTENSION]["users"].take();
    (answer["pos"].as_str().unwrap().to_owned(), users)
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_profiles_are_told_to_who_shares_a_room_and_asks() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let stranger = server.user("stranger").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    set(&alice, STATUS, Some(json!("here"))).await;
    set(&stranger, STATUS, Some(json!("elsewhere"))).await;

    // At the beginning all there is.
    let (since, users) = sync(&bob, None, 0).await;
    let expected = json!({ &alice.id: { "profile_updates": { STATUS: "here" } } });
    assert_eq!(users, expected);
    let (pos, users) = slide(&bob, None, 0).await;
    let expected = json!({ STATUS: "here", "displayname": "alice" });
    assert_eq!(users[&alice.id]["updated"], expected);
    assert_eq!(users.get(&stranger.id), None);

    // Who waits is woken by what shows in no room.
    let waiting = tokio::spawn({
        let (bob, since, pos) = (bob.again(), since.clone(), pos.clone());
        async move {
            tokio::join!(
                sync(&bob, Some(&since), 60_000),
                slide(&bob, Some(&pos), 60_000)
            )
        }
    });
    eventually("two waiting clients", async || {
        (server.figure("sync_waiting").await == 2).then_some(())
    })
    .await;
    set(&stranger, STATUS, Some(json!("still elsewhere"))).await;
    set(&alice, STATUS, Some(json!({ "text": "away" }))).await;
    let ((since, told), (pos, slid)) = waiting.await.unwrap();
    let away = json!({ "text": "away" });
    assert_eq!(
        told,
        json!({ &alice.id: { "profile_updates": { STATUS: away } } })
    );
    assert_eq!(slid, json!({ &alice.id: { "updated": { STATUS: away } } }));

    // What is gone, and the user's own.
    set(&alice, STATUS, None).await;
    set(&bob, STATUS, Some(json!("bob"))).await;
    let (since, told) = sync(&bob, Some(&since), 0).await;
    let expected = json!({
        &alice.id: { "profile_updates": { STATUS: null } },
        &bob.id: { "profile_updates": { STATUS: "bob" } },
    });
    assert_eq!(told, expected);
    let (_, slid) = slide(&bob, Some(&pos), 0).await;
    assert_eq!(slid[&alice.id], json!({ "removed": [STATUS] }));
    assert_eq!(sync(&bob, Some(&since), 0).await.1, Value::Null);
    // Who does not ask is not told.
    let (_, body) = bob.get("/sync").await;
    assert!(body.get("org.matrix.msc4429.users").is_none());
}
