//! Dehydrated devices.

use reqwest::Method;
use serde_json::{Value, json};

use super::keys::{claim, send_to};
use crate::rig::{identity::device_keys, server::Server, user::User};

/// Status and body of a request about the dehydrated device.
async fn call(user: &User, method: Method, rest: &str, body: Option<Value>) -> (u16, Value) {
    let base = "/../unstable/org.matrix.msc3814.v1/dehydrated_device";
    user.call(method, &format!("{base}{rest}"), body).await
}

fn upload(user: &User, id: &str, data: &str) -> Value {
    let mut keys = device_keys(&user.id, id);
    keys["dehydrated"] = json!(true);
    json!({
        "device_id": id,
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "pickle": data },
        "initial_device_display_name": "asleep",
        "device_keys": keys,
        "one_time_keys": { "signed_curve25519:A": { "key": id, "signatures": {} } },
        "fallback_keys": { "signed_curve25519:F": { "key": id, "signatures": {}, "fallback": true } },
    })
}

/// Texts of the messages that wait, page by page.
async fn waiting(user: &User, id: &str, by_post: bool) -> Vec<String> {
    let mut texts = Vec::new();
    let mut from: Option<String> = None;
    loop {
        let (status, page) = if by_post {
            let body = json!({ "next_batch": from });
            call(user, Method::POST, &format!("/{id}/events"), Some(body)).await
        } else {
            let from = from.map(|from| format!("?from={from}")).unwrap_or_default();
            call(user, Method::GET, &format!("/{id}/events{from}"), None).await
        };
        assert_eq!(status, 200, "{page}");
        let events = page["events"].as_array().unwrap();
        let of_page = events.iter().map(|event| event["content"]["text"].as_str());
        texts.extend(of_page.map(|text| text.unwrap().to_owned()));
        from = page["next_batch"].as_str().map(ToOwned::to_owned);
        if events.is_empty() || from.is_none() {
            return texts;
        }
    }
}

async fn devices(user: &User) -> Vec<String> {
    let question = json!({ "device_keys": { &user.id: [] } });
    let (_, found) = user.post("/keys/query", question).await;
    let devices = found["device_keys"][&user.id].as_object().unwrap();
    assert!(devices.values().all(|keys| keys["dehydrated"] == true));
    devices.keys().cloned().collect()
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test(flavor = "multi_thread")]
async fn a_dehydrated_device_collects_messages_until_it_is_replaced_or_deleted() {
    let server = Server::start().await;
    let (mut alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.sync(0).await;
    let (status, body) = call(&alice, Method::GET, "", None).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    let (status, answer) = call(
        &alice,
        Method::PUT,
        "",
        Some(upload(&alice, "ASLEEP", "one")),
    )
    .await;
    assert_eq!((status, answer), (200, json!({ "device_id": "ASLEEP" })));
    let sync = bob.sync(0).await;
    assert_eq!(sync["device_lists"]["changed"], json!([alice.id]), "{sync}");
    let (_, found) = call(&alice, Method::GET, "", None).await;
    assert_eq!(found["device_data"]["pickle"], "one", "{found}");
    assert_eq!(devices(&alice).await, ["ASLEEP"]);
    let given = claim(&bob, &alice, "ASLEEP").await;
    assert_eq!(given.as_deref(), Some("signed_curve25519:A"));
    let given = claim(&bob, &alice, "ASLEEP").await;
    assert_eq!(given.as_deref(), Some("signed_curve25519:F"));

    let expected: Vec<String> = (0..150).map(|n| format!("m{n}")).collect();
    for (n, text) in expected.iter().enumerate() {
        send_to(&bob, &alice, "ASLEEP", &format!("t{n}"), text).await;
    }
    assert_eq!(waiting(&alice, "ASLEEP", true).await, expected);
    assert_eq!(
        waiting(&alice, "ASLEEP", false).await,
        expected,
        "they stay"
    );
    alice.sync(0).await;
    let (status, _) = call(&alice, Method::GET, "/OTHER/events", None).await;
    assert_eq!(status, 403);
    let (status, _) = call(&alice, Method::GET, "/ASLEEP/events?from=x", None).await;
    assert_eq!(status, 400);
    let (status, _) = call(&bob, Method::GET, "/ASLEEP/events", None).await;
    assert_eq!(status, 404, "it is not his");

    // Nobody logs in with it, and it outlives the sessions.
    let login = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "password of alice", "device_id": "ASLEEP",
    });
    let (status, answer) = alice.post("/login", login.clone()).await;
    assert_eq!(status, 400, "{answer}");
    let (_, who) = alice.get("/account/whoami").await;
    let awake = upload(&alice, who["device_id"].as_str().unwrap(), "x");
    assert_eq!(call(&alice, Method::PUT, "", Some(awake)).await.0, 400);
    assert_eq!(alice.post("/logout/all", json!({})).await.0, 200);
    let mut login = login;
    login["device_id"] = json!("NEW");
    let (_, answer) = alice.post("/login", login).await;
    alice = User::with_token(
        &server.url(""),
        &alice.id,
        answer["access_token"].as_str().unwrap(),
    );
    assert_eq!(waiting(&alice, "ASLEEP", false).await, expected);

    // Another takes its place, and has nothing of what waited.
    let (status, _) = call(
        &alice,
        Method::PUT,
        "",
        Some(upload(&alice, "SECOND", "two")),
    )
    .await;
    assert_eq!(status, 200);
    assert_eq!(devices(&alice).await, ["SECOND"]);
    assert_eq!(waiting(&alice, "SECOND", true).await, Vec::<String>::new());
    send_to(&bob, &alice, "*", "star", "to all").await;
    assert_eq!(waiting(&alice, "SECOND", true).await, ["to all"]);
    // The same id anew is another device.
    let (status, _) = call(
        &alice,
        Method::PUT,
        "",
        Some(upload(&alice, "SECOND", "three")),
    )
    .await;
    assert_eq!(status, 200);
    assert_eq!(waiting(&alice, "SECOND", true).await, Vec::<String>::new());
    let mut lacking = upload(&alice, "THIRD", "four");
    lacking.as_object_mut().unwrap().remove("device_keys");
    assert_eq!(call(&alice, Method::PUT, "", Some(lacking)).await.0, 400);

    let (status, answer) = call(&alice, Method::DELETE, "", None).await;
    assert_eq!((status, answer), (200, json!({ "device_id": "SECOND" })));
    assert_eq!(devices(&alice).await, Vec::<String>::new());
    assert_eq!(call(&alice, Method::GET, "", None).await.0, 404);
    assert_eq!(call(&alice, Method::DELETE, "", None).await.0, 404);
}
