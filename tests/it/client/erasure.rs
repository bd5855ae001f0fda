//! Accounts that are closed with the wish to be erased: who comes later does not learn what they said.

use reqwest::Method;
use serde_json::{Value, json};

use super::unredacted;
use crate::rig::{
    enc, eventually,
    operator::Operator,
    scripted::{Scripted, server_and_peer},
    server::Server,
    user::User,
};

const SECRET: &str = "what clara said";

async fn close(user: &User, erase: bool) {
    let name = user.id[1..].split(':').next().unwrap();
    let auth = json!({
        "type": "m.login.password", "password": format!("password of {name}"),
        "identifier": { "type": "m.id.user", "user": name },
    });
    let wish = json!({ "auth": auth, "erase": erase });
    let (status, body) = user.post("/account/deactivate", wish).await;
    assert_eq!(status, 200, "{body}");
}

/// Content of an event, as somebody is shown it; null: it is not shown.
async fn content(user: &User, room: &str, id: &str) -> Value {
    let path = format!("/rooms/{}/event/{}", enc(room), enc(id));
    user.get(&path).await.1["content"].clone()
}

/// Waits until somebody is not shown what an event says.
async fn is_pruned_for(user: &User, room: &str, id: &str) {
    eventually("an event to be pruned", async || {
        (content(user, room, id).await == json!({})).then_some(())
    })
    .await;
}

/// All that a user can read of a room near an event, as text.
async fn all_that_is_told(user: &mut User, room: &str, near: &str) -> String {
    let room_events = json!({
        "search_term": "clara", "event_context": { "before_limit": 5, "after_limit": 5 },
    });
    let search = json!({ "search_categories": { "room_events": room_events } });
    let (status, found) = user.post("/search", search).await;
    assert_eq!(status, 200, "{found}");
    let found = &found["search_categories"]["room_events"]["results"];
    let mut told = found.to_string();
    let (room_path, near) = (enc(room), enc(near));
    for path in [
        format!("/rooms/{room_path}/messages?dir=b&limit=100"),
        format!("/rooms/{room_path}/context/{near}?limit=100"),
        format!("/../v1/rooms/{room_path}/threads?include=all"),
        format!("/../v1/rooms/{room_path}/relations/{near}"),
    ] {
        let (status, page) = user.get(&path).await;
        assert_eq!(status, 200, "{path}: {page}");
        told += &page.to_string();
    }
    let room = &user.sync(0).await["rooms"]["join"][room];
    told + &room["timeline"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_does_not_learn_what_the_erased_said() {
    let mut server = Server::start().await;
    let node = server.node().await;
    let (mut alice, clara) = (server.user("alice").await, server.user("clara").await);
    let name = json!({ "displayname": "Clara Kahn" });
    let (status, body) = clara
        .put(&format!("/profile/{}/displayname", enc(&clara.id)), name)
        .await;
    assert_eq!(status, 200, "{body}");
    let room = alice
        .create_room(json!({ "preset": "public_chat", "name": "Haushalt" }))
        .await;
    clara.join(&room).await;
    let asked = alice.say(&room, "what alice asked").await;
    let said = clara.say(&room, SECRET).await;
    for (turn, relation) in [
        json!({ "rel_type": "m.replace", "event_id": said }),
        json!({ "rel_type": "m.thread", "event_id": asked }),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!("{SECRET}, {turn}");
        let path = format!("/rooms/{}/send/m.room.message/t{turn}", enc(&room));
        let content = json!({
            "msgtype": "m.text", "body": text, "m.relates_to": relation,
            "m.new_content": { "msgtype": "m.text", "body": text },
        });
        let (status, body) = clara.put(&path, content).await;
        assert_eq!(status, 200, "{body}");
    }
    let mut early = server.user("early").await;
    early.join(&room).await;
    let told = all_that_is_told(&mut early, &room, &asked).await;
    assert!(
        told.contains(SECRET) && told.contains("Clara Kahn"),
        "{told}"
    );

    close(&clara, true).await;
    let mut late = server.user("late").await;
    late.join(&room).await;
    is_pruned_for(&late, &room, &said).await;
    let told = all_that_is_told(&mut late, &room, &asked).await;
    assert!(
        !told.contains(SECRET) && !told.contains("Clara Kahn"),
        "{told}"
    );
    assert!(
        told.contains(&said),
        "that something was said stays: {told}"
    );
    assert!(told.contains("what alice asked"), "{told}");
    // Who came after it was said, though before the erasure, was not there either.
    is_pruned_for(&early, &room, &said).await;
    let told = all_that_is_told(&mut alice, &room, &asked).await;
    assert!(
        told.contains(SECRET) && told.contains("Clara Kahn"),
        "{told}"
    );

    // The same at each node, and after a restart.
    is_pruned_for(&late.at(&node), &room, &said).await;
    server.restart().await;
    let (late, alice) = (late.at(&server), alice.at(&server));
    assert_eq!(content(&late, &room, &said).await, json!({}));
    assert_eq!(content(&alice, &room, &said).await["body"], SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_erased_took_back_is_for_nobody_who_came_later() {
    let server = Server::with(unredacted::CONFIG, None).await;
    let (alice, clara) = (server.user("alice").await, server.user("clara").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    clara.join(&room).await;
    let said = clara.say(&room, SECRET).await;
    unredacted::redact(&clara, &room, &said).await;
    let late = server.user("late").await;
    late.join(&room).await;
    let levels = format!("/rooms/{}/state/m.room.power_levels", enc(&room));
    let (_, mut power) = alice.get(&levels).await;
    power["users"][&late.id] = json!(50);
    assert_eq!(alice.put(&levels, power).await.0, 200);
    let text = async |user: &User| {
        let (status, event) = unredacted::look(user, &room, &said, "true").await;
        assert_eq!(status, 200, "{event}");
        event["content"]["body"].clone()
    };
    assert_eq!(text(&late).await, SECRET);
    close(&clara, true).await;
    eventually("what was taken back to be gone", async || {
        text(&late).await.is_null().then_some(())
    })
    .await;
    assert_eq!(text(&alice).await, SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_leaves_is_read_by_those_who_come() {
    let server = Server::start().await;
    let (alice, clara) = (server.user("alice").await, server.user("clara").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    clara.join(&room).await;
    clara.say(&room, SECRET).await;
    close(&clara, false).await;
    let late = server.user("late").await;
    late.join(&room).await;
    assert_eq!(late.history(&room).await, [SECRET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_close_accounts_with_and_without_erasure() {
    let config = "[registration]\nopen = true\nshared_secret = \"test secret\"\n";
    let server = Server::with(config, None).await;
    let operator = Operator::of(&server).await;
    let (alice, clara) = (server.user("alice").await, server.user("clara").await);
    let path = |id: &str| format!("/v1/deactivate/{}", enc(id));
    for (of, wish, status) in [
        (clara.id.as_str(), json!({ "erase": "yes" }), 400),
        (&operator.id, json!({ "erase": true }), 403),
        ("@nobody:amt.example", json!({}), 400),
        ("nobody", json!({}), 400),
        (&format!("@nobody:{}", server.name), json!({}), 404),
    ] {
        let (given, body) = operator.ask(Method::POST, &path(of), Some(wish)).await;
        assert_eq!(given, status, "{of}: {body}");
    }
    let admin = format!("/../../../_synapse/admin{}", path(&clara.id));
    assert_eq!(alice.post(&admin, json!({ "erase": true })).await.0, 403);

    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    clara.join(&room).await;
    let said = clara.say(&room, SECRET).await;
    let late = server.user("late").await;
    late.join(&room).await;
    let shown = format!("/v2/users/{}", enc(&clara.id));
    for (wish, erased) in [(json!({}), false), (json!({ "erase": true }), true)] {
        let (status, body) = operator
            .ask(Method::POST, &path(&clara.id), Some(wish))
            .await;
        assert_eq!(status, 200, "{body}");
        let shown = operator.get(&shown).await;
        assert_eq!(
            (&shown["deactivated"], &shown["erased"]),
            (&json!(true), &json!(erased))
        );
        if !erased {
            assert_eq!(late.history(&room).await, [SECRET]);
        }
    }
    is_pruned_for(&late, &room, &said).await;
    // As a new account of that name: what the old one said is what it was.
    let wish = json!({ "deactivated": false, "password": "a password of hers" });
    let (status, body) = operator.ask(Method::PUT, &shown, Some(wish)).await;
    assert_eq!(status, 200, "{body}");
    eventually("what was said to be shown", async || {
        (late.history(&room).await == [SECRET]).then_some(())
    })
    .await;
}

/// Has a user of a peer leave a room.
async fn leave(peer: &Scripted, server: &Server, room: &str, user: &str) {
    let leave = peer.make(server, "leave", room, user).await.sign(&peer.key);
    let path = format!(
        "/_matrix/federation/v2/send_leave/{}/{}",
        enc(room),
        enc(&leave.id)
    );
    let (status, body) = peer.call(server, "PUT", &path, Some(leave.json())).await;
    assert_eq!(status, 200, "{body}");
}

/// Events by what they say, as a peer is given them.
async fn backfilled(peer: &Scripted, server: &Server, room: &str, from: &str) -> Vec<Value> {
    let path = format!(
        "/_matrix/federation/v1/backfill/{}?v={}&limit=50",
        enc(room),
        enc(from)
    );
    let (status, body) = peer.call(server, "GET", &path, None).await;
    assert_eq!(status, 200, "{body}");
    body["pdus"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_given_what_its_users_heard() {
    let (_folder, _tls, server, peer) = server_and_peer().await;
    let (alice, clara) = (server.user("alice").await, server.user("clara").await);
    let bob = peer.user("bob");
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_version": "11" }))
        .await;
    clara.join(&room).await;
    peer.enter(&server, &room, &bob).await;
    clara.say(&room, "heard by bob").await;
    leave(&peer, &server, &room, &bob).await;
    let unheard = clara.say(&room, SECRET).await;
    peer.enter(&server, &room, &bob).await;
    let last = alice.say(&room, "the last word").await;
    let before = backfilled(&peer, &server, &room, &last).await;
    assert!(json!(before).to_string().contains(SECRET), "{before:?}");

    close(&clara, true).await;
    let unheard = format!("/_matrix/federation/v1/event/{}", enc(&unheard));
    eventually("an event to be pruned", async || {
        let (status, body) = peer.call(&server, "GET", &unheard, None).await;
        assert_eq!(status, 200, "{body}");
        (body["pdus"][0]["content"] == json!({})).then_some(())
    })
    .await;
    let after = backfilled(&peer, &server, &room, &last).await;
    assert_eq!(after.len(), before.len());
    let after = json!(after).to_string();
    assert!(after.contains("heard by bob") && after.contains("the last word"));
    assert!(!after.contains(SECRET), "{after}");
}
