//! Presence between servers.

use serde_json::{Value, json};

use crate::{
    client::presence::{get, is_seen, set, told},
    rig::{
        eventually,
        scripted::Scripted,
        server::{Folder, Server},
        tls::Tls,
        user::User,
    },
};

const ON: &str = "[registration]\nopen = true\n[presence]\nfederation = true\n";

/// A user of each server in a room.
async fn together(one: &Server, other: &Server) -> (User, User, String) {
    let (mut alice, mut bob) = (one.user("alice").await, other.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join_via(&room, &one.name).await;
    for (from, to) in [(&alice, &mut bob)] {
        from.say(&room, "hello").await;
        to.hears("hello").await;
    }
    bob.say(&room, "hello back").await;
    alice.hears("hello back").await;
    (alice, bob, room)
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_share_a_room_tell_each_other_who_is_there() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let one = Server::with(ON, Some(&tls)).await;
    let other = Server::with(ON, Some(&tls)).await;
    let (alice, mut bob, room) = together(&one, &other).await;
    for (state, text) in [("unavailable", "at lunch"), ("online", "back")] {
        set(&alice, state, text).await;
        let content = is_seen(&mut bob, &alice.id, state).await;
        assert_eq!(content["status_msg"], text);
        assert!(content["last_active_ago"].is_u64(), "{content}");
        assert_eq!(get(&bob, &alice.id).await.1["status_msg"], text);
    }
    set(&bob, "offline", "gone home").await;
    let mut alice = alice;
    is_seen(&mut alice, &bob.id, "offline").await;
    let stranger = other.user("stranger").await;
    assert_eq!(get(&stranger, &alice.id).await.0, 403);
    // Who comes into a room is told who is there, and told of, without a change.
    let third = Server::with(ON, Some(&tls)).await;
    let mut carol = third.user("carol").await;
    set(&carol, "unavailable", "on the way").await;
    set(&alice, "unavailable", "waiting").await;
    carol.join_via(&room, &one.name).await;
    is_seen(&mut carol, &alice.id, "unavailable").await;
    is_seen(&mut alice, &carol.id, "unavailable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_or_believed_where_that_is_not_switched_on() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let usual = Server::with_tls(&tls).await;
    let open = Server::with(ON, Some(&tls)).await;
    let (mut alice, mut bob, room) = together(&usual, &open).await;
    set(&alice, "online", "secret").await;
    set(&bob, "online", "open").await;
    // Several turns, in which both could have told.
    for turn in 0..4 {
        let text = format!("turn {turn}");
        bob.say(&room, &text).await;
        alice.hears(&text).await;
        let text = format!("answer {turn}");
        alice.say(&room, &text).await;
        bob.hears(&text).await;
    }
    for (viewer, user) in [(&alice, &bob.id), (&bob, &alice.id)] {
        let (_, sync) = viewer.get("/sync").await;
        assert!(told(&sync, user).is_none(), "{sync}");
        assert_eq!(get(viewer, user).await.1["presence"], "offline");
    }
    let (_, sync) = alice.get("/sync").await;
    assert!(told(&sync, &alice.id).is_some(), "{sync}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_believed_about_its_own_users_in_our_rooms_and_no_others() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with(ON, Some(&tls)).await;
    let peer = Scripted::start(&tls).await;
    let mut alice = server.user("alice").await;
    let carol = server.user("carol").await;
    let (bob, mallory) = (peer.user("bob"), peer.user("mallory"));
    let (last, elsewhere) = (peer.user("last"), peer.user("elsewhere"));
    let room = peer.room("11", &bob);
    room.member(&mallory, "join");
    room.member(&last, "join");
    alice.join_via(&room.id, &peer.name).await;
    carol.join_via(&room.id, &peer.name).await;

    let of = |user: &str, state: &str| json!({ "user_id": user, "presence": state, "last_active_ago": 1 });
    let with = |mut update: Value, key: &str, value: Value| {
        update[key] = value;
        update
    };
    let push = |push: Value| json!({ "edu_type": "m.presence", "content": { "push": push } });
    let long = "x".repeat(2_000);
    let huge = json!(vec!["x".repeat(1_000); 200]);
    let edus = [
        push(json!([of(&carol.id, "online"), of(&elsewhere, "online")])),
        push(json!([
            "nonsense",
            of(&mallory, "dancing"),
            json!({ "user_id": mallory }),
            with(of(&mallory, "online"), "last_active_ago", json!("long")),
            of("@bob:localhost:1", "online"),
            with(of(&bob, "unavailable"), "org.example", json!({})),
        ])),
        push(json!([with(of(&bob, "online"), "status_msg", json!(long))])),
        push(json!([with(of(&mallory, "online"), "huge", huge)])),
        push(json!("nonsense")),
        json!({ "edu_type": "m.presence" }),
        push(json!([with(
            of(&last, "online"),
            "last_active_ago",
            json!(-5)
        ),])),
    ];
    let (status, answer) = peer.transaction(&server, "presence", (&[], &edus)).await;
    assert_eq!(status, 200, "{answer}");
    let (_, sync) = alice.get("/sync?set_presence=offline").await;
    let content = told(&sync, &bob).unwrap();
    assert_eq!(content["presence"], "online", "the last word counts");
    assert_eq!(content["status_msg"], Value::Null, "{content}");
    assert_eq!(told(&sync, &last).unwrap()["presence"], "online");
    for user in [&carol.id, &mallory, &elsewhere] {
        assert!(told(&sync, user).is_none(), "{user}: {sync}");
    }
    let text = with(of(&bob, "unavailable"), "status_msg", json!("away"));
    let edus = [push(json!([text]))];
    peer.transaction(&server, "more", (&[], &edus)).await;
    let content = is_seen(&mut alice, &bob, "unavailable").await;
    assert_eq!(content["status_msg"], "away");

    // And it is told of ours.
    set(&alice, "unavailable", "at lunch").await;
    eventually("the peer to be told", async || {
        let asked = peer.asked("send");
        asked
            .iter()
            .filter_map(|asked| asked.body["edus"].as_array())
            .flatten()
            .filter(|edu| edu["edu_type"] == "m.presence")
            .filter_map(|edu| edu["content"]["push"].as_array())
            .flatten()
            .find(|update| update["user_id"] == alice.id && update["status_msg"] == "at lunch")
            .map(|update| assert_eq!(update["presence"], "unavailable"))
    })
    .await;
}
