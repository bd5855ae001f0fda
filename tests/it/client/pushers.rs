//! Pushers, and what push gateways are told.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    gateway::{self, Gateway, set},
    operator::Operator,
    server::{Folder, Server},
    tls::Tls,
    user::User,
};

/// Push keys of a user, as clients are shown them.
async fn keys(user: &User) -> Vec<String> {
    let (status, body) = user.get("/pushers").await;
    assert_eq!(status, 200, "{body}");
    let pushers = body["pushers"].as_array().unwrap();
    let keys = pushers
        .iter()
        .map(|pusher| pusher["pushkey"].as_str().unwrap());
    keys.map(ToOwned::to_owned).collect()
}

/// Another session of a user.
pub(super) async fn login(server: &Server, user: &User, name: &str) -> (User, String) {
    let body = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": name },
        "password": format!("password of {name}"),
    });
    let (status, body) = user.post("/login", body).await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap();
    let device = body["device_id"].as_str().unwrap().to_owned();
    (User::with_token(&server.url(""), &user.id, token), device)
}

async fn read(user: &User, room: &str, event: &str) {
    let path = format!("/rooms/{}/receipt/m.read/{}", enc(room), enc(event));
    let (status, body) = user.post(&path, json!({})).await;
    assert_eq!(status, 200, "{body}");
}

/// A room of two.
async fn room_of(alice: &User, bob: &User) -> String {
    let options = json!({ "preset": "private_chat", "invite": [bob.id], "name": "Secret" });
    let room = alice.create_room(options).await;
    bob.join(&room).await;
    room
}

/// Pushers that cannot be, made of one that can, and the error that says so.
fn wrong(good: &Value) -> Vec<(Value, &'static str)> {
    let mut wrong = Vec::new();
    for missing in [
        "kind",
        "app_id",
        "pushkey",
        "lang",
        "data",
        "app_display_name",
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(missing);
        wrong.push((body, "M_MISSING_PARAM"));
    }
    let mut with = |place: &str, value: Value, code: &'static str| {
        let mut body = good.clone();
        *body.pointer_mut(place).unwrap() = value;
        wrong.push((body, code));
    };
    with("/data", json!({}), "M_MISSING_PARAM");
    with("/data/url", json!(7), "M_INVALID_PARAM");
    for url in [
        "ftp://push.example/_matrix/push/v1/notify",
        "https://push.example/notify",
        "https://push.example/_matrix/push/v1/notify?to=me",
        "https://me:secret@push.example/_matrix/push/v1/notify",
        "https://10.0.0.1/_matrix/push/v1/notify",
    ] {
        with("/data/url", json!(url), "M_INVALID_PARAM");
    }
    with("/app_id", json!("x".repeat(65)), "M_INVALID_PARAM");
    with("/pushkey", json!("ü".repeat(257)), "M_INVALID_PARAM");
    with("/kind", json!("smoke"), "M_INVALID_PARAM");
    with("/kind", json!("email"), "M_THREEPID_NOT_FOUND");
    with("/lang", json!(["de"]), "M_INVALID_PARAM");
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn pushers_are_checked_and_belong_to_who_set_them_last() {
    let server = Server::with(gateway::CONFIG, None).await;
    let gateway = Gateway::start().await;
    let alice = server.user("alice").await;
    let good = gateway.pusher("key");
    for (body, code) in wrong(&good) {
        let (status, answer) = alice.post("/pushers/set", body.clone()).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!(code)), "{body}");
    }
    assert!(keys(&alice).await.is_empty());

    let mut given = good.clone();
    given["profile_tag"] = json!("tag");
    given["data"]["colour"] = json!("red");
    set(&alice, given.clone()).await;
    let (_, body) = alice.get("/pushers").await;
    let mut shown = body["pushers"][0].clone();
    let (_, who) = alice.get("/account/whoami").await;
    let more = shown.as_object_mut().unwrap();
    assert_eq!(more.remove("org.matrix.msc3881.enabled"), Some(json!(true)));
    assert_eq!(
        more.remove("org.matrix.msc3881.device_id").as_ref(),
        Some(&who["device_id"])
    );
    assert_eq!(shown, given);
    let operator = Operator::of(&server).await;
    let path = format!("/v1/users/{}/pushers", enc(&alice.id));
    let seen = operator.get(&path).await;
    assert_eq!(
        (&seen["total"], &seen["pushers"]),
        (&json!(1), &body["pushers"])
    );

    // Added beside it, and then taken away by somebody else.
    let bob = server.user("bob").await;
    let mut added = good.clone();
    added["append"] = json!(true);
    set(&bob, added).await;
    assert_eq!((keys(&alice).await.len(), keys(&bob).await.len()), (1, 1));
    set(&bob, good.clone()).await;
    assert_eq!((keys(&alice).await.len(), keys(&bob).await.len()), (0, 1));
    set(
        &bob,
        json!({ "kind": null, "app_id": "de.amt.bote", "pushkey": "key" }),
    )
    .await;
    assert!(keys(&bob).await.is_empty());

    pushers_end(&server, &gateway, &alice).await;
}

/// Pushers go with their session, and with the account.
async fn pushers_end(server: &Server, gateway: &Gateway, alice: &User) {
    let (phone, device) = login(server, alice, "alice").await;
    gateway.serve(alice, "own").await;
    gateway.serve(&phone, "phone").await;
    let (tablet, _) = login(server, alice, "alice").await;
    gateway.serve(&tablet, "tablet").await;
    // Turned off from elsewhere, it stays with its device.
    let mut off = gateway.pusher("phone");
    off["org.matrix.msc3881.enabled"] = json!(false);
    set(alice, off).await;
    let (_, body) = alice.get("/pushers").await;
    let of_phone = &body["pushers"][1];
    assert_eq!(of_phone["org.matrix.msc3881.enabled"], false);
    assert_eq!(of_phone["org.matrix.msc3881.device_id"], device);

    assert_eq!(tablet.post("/logout", json!({})).await.0, 200);
    assert_eq!(keys(alice).await, ["own", "phone"]);
    let mut change = json!({
        "new_password": "another password",
        "auth": {
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": "alice" },
            "password": "password of alice",
        },
    });
    let (status, body) = alice.post("/account/password", change.clone()).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(keys(alice).await, ["own"]);
    change["auth"]["password"] = json!("another password");
    let (status, body) = alice.post("/account/deactivate", change).await;
    assert_eq!(status, 200, "{body}");
    let mut conn = server.database().await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pusher")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_hears_where_something_is_and_nothing_of_what_it_is() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with(gateway::CONFIG, Some(&tls)).await;
    let gateway = Gateway::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = room_of(&alice, &bob).await;
    let mut pusher = gateway.pusher("bob");
    pusher["data"]["colour"] = json!("red");
    set(&bob, pusher).await;
    gateway.serve(&alice, "alice").await;
    let first = alice.say(&room, "hello").await;
    let mut notice = gateway.hears("bob", &first).await;
    let device = notice["devices"][0].as_object_mut().unwrap();
    assert!(device.remove("pushkey_ts").unwrap().as_i64().unwrap() > 1_700_000_000);
    let expected = json!({
        "event_id": first,
        "room_id": room,
        "prio": "high",
        "counts": { "unread": 1 },
        "devices": [{
            "app_id": "de.amt.bote",
            "pushkey": "bob",
            "data": { "colour": "red" },
            "tweaks": { "sound": "default" },
        }],
    });
    assert_eq!(notice, expected);

    // What was read takes the number away; a room that is silenced says nothing.
    let second = alice.say(&room, "and again").await;
    gateway.hears("bob", &second).await;
    read(&bob, &room, &second).await;
    gateway.counts("bob", 0).await;
    let rule = format!("/pushrules/global/room/{}", enc(&room));
    bob.put(&rule, json!({ "actions": [] })).await;
    let silent = alice.say(&room, "silence").await;

    // Invitations, into rooms that are here and into others.
    let other = alice
        .create_room(json!({ "preset": "private_chat", "invite": [bob.id] }))
        .await;
    let (_, state) = alice.get(&format!("/rooms/{}/state", enc(&other))).await;
    let events = state.as_array().unwrap().iter();
    let mut invitation = events.filter(|event| event["state_key"] == bob.id.as_str());
    let invitation = invitation.next().unwrap()["event_id"].as_str().unwrap();
    gateway.hears("bob", invitation).await;
    let peer = Server::with(gateway::CONFIG, Some(&tls)).await;
    let carol = peer.user("carol").await;
    let abroad = carol
        .create_room(json!({ "preset": "private_chat", "invite": [bob.id] }))
        .await;
    let last = eventually("the invitation from elsewhere", async || {
        let notices = gateway.notices("bob").into_iter();
        let mut its = notices.filter(|notice| notice["room_id"] == abroad.as_str());
        its.next()
    })
    .await;
    assert!(last["event_id"].is_string(), "{last}");
    assert_eq!(last["counts"]["unread"], 2, "{last}");
    assert!(!gateway.events("bob").contains(&silent));
    // Nobody is told of what they said themselves.
    assert!(gateway.notices("alice").is_empty());

    // Who has no device any more is not told.
    assert_eq!(bob.call(Method::DELETE, &rule, None).await.0, 200);
    gateway.reject("bob");
    alice.say(&room, "are you there?").await;
    eventually("the pusher to go", async || {
        keys(&bob).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_is_is_told_where_the_operator_and_the_client_want_it() {
    let more = format!(
        "{}include_content = true\ngroup_unread_count_by_room = false\n",
        gateway::CONFIG
    );
    let server = Server::with(&more, None).await;
    let gateway = Gateway::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = room_of(&alice, &bob).await;
    let mut terse = gateway.pusher("terse");
    terse["data"]["format"] = json!("event_id_only");
    set(&bob, terse).await;
    gateway.serve(&bob, "bob").await;
    for text in ["one", "two"] {
        let event = alice.say(&room, text).await;
        gateway.hears("bob", &event).await;
    }
    let notice = gateway.notices("bob").pop().unwrap();
    assert_eq!(notice["counts"]["unread"], 2);
    assert_eq!(
        notice["content"],
        json!({ "msgtype": "m.text", "body": "two" })
    );
    let named = ["type", "sender", "room_name", "sender_display_name"];
    assert_eq!(
        named.map(|name| notice[name].as_str().unwrap()),
        ["m.room.message", &alice.id, "Secret", "alice"]
    );
    let event = notice["event_id"].as_str().unwrap();
    let notice = gateway.hears("terse", event).await;
    let fields: BTreeSet<&str> = notice
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        fields,
        ["counts", "devices", "event_id", "prio", "room_id"].into()
    );
    assert_eq!(
        notice["devices"][0]["data"],
        json!({ "format": "event_id_only" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_outlives_crashes_and_outages_and_is_told_in_few_statements() {
    let mut server = Server::with(gateway::CONFIG, None).await;
    let gateway = Gateway::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = room_of(&alice, &bob).await;
    gateway.serve(&bob, "bob").await;
    gateway.refuse(Some(500));
    let mut said = Vec::new();
    for n in 0..200 {
        said.push(alice.say(&room, &format!("burst {n}")).await);
    }
    let read_already = said[9].clone();
    server.log_statements().await;
    said.push(alice.say(&room, "after the crash").await);
    eventually("two tries", async || (gateway.refused() >= 2).then_some(())).await;
    read(&bob, &room, &read_already).await;
    // What has rest from a gateway that fails is tried at once when the client comes back.
    gateway.refuse(None);
    let before = server.statements("push_queue");
    gateway.serve(&bob, "bob").await;
    let last = said.last().unwrap();
    gateway.hears("bob", last).await;
    let after = server.statements("push_queue");
    let told = gateway.events("bob");
    assert_eq!(told, said[10..]);
    let taken = after - before;
    assert!(taken < told.len() / 2, "{taken} for {}", told.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_the_users_and_take_them_over() {
    let server = Server::with(gateway::CONFIG, None).await;
    let mut node = server.node().await;
    for node in [&server, &node] {
        eventually("half of the users", async || {
            (node.figure("push_shares").await == 32).then_some(())
        })
        .await;
    }
    let gateway = Gateway::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let names: Vec<String> = (0..8).map(|n| format!("user{n}")).collect();
    for name in &names {
        let user = server.user(name).await;
        user.join(&room).await;
        gateway.serve(&user, name).await;
    }
    let mut said = Vec::new();
    for n in 0..10 {
        said.push(alice.say(&room, &format!("here {n}")).await);
        said.push(alice.at(&node).say(&room, &format!("there {n}")).await);
    }
    for name in &names {
        gateway.hears(name, said.last().unwrap()).await;
        assert_eq!(gateway.events(name), said, "{name}");
    }
    node.kill();
    said.push(alice.say(&room, "alone").await);
    for name in &names {
        gateway.hears(name, said.last().unwrap()).await;
        // What was told just before the end may not have been noted.
        let mut told = gateway.events(name);
        told.dedup();
        assert_eq!(told, said, "{name}");
    }
}
