//! Rooms shared by two servers of ours.

use serde_json::json;

use crate::rig::{
    enc, eventually,
    server::{Folder, Server},
    tls::Tls,
    user::User,
};

pub(crate) async fn two_servers() -> (Folder, Server, Server) {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let one = Server::with_tls(&tls).await;
    let other = Server::with_tls(&tls).await;
    (folder, one, other)
}

/// What people do in a room that spans two servers.
pub(crate) async fn a_life_together(
    (alice, alice_server): (&mut User, &str),
    bob: &mut User,
    version: &str,
) {
    let alias = format!("room{version}{}", alice_server.replace(':', ""));
    let room = alice
        .create_room(json!({
            "room_version": version,
            "preset": "public_chat",
            "room_alias_name": alias,
            "topic": "Anfang",
        }))
        .await;
    alice
        .say(&room, &format!("before the join {version}{alice_server}"))
        .await;
    bob.join(&format!("#{alias}:{alice_server}")).await;
    let to_alice = format!("to alice {version}{alice_server}");
    bob.say(&room, &to_alice).await;
    alice.hears(&to_alice).await;
    let to_bob = format!("to bob {version}{alice_server}");
    alice.say(&room, &to_bob).await;
    bob.hears(&to_bob).await;
    let history = bob.history(&room).await;
    assert!(
        history
            .iter()
            .any(|text| text.starts_with("before the join")),
        "{history:?}"
    );

    let private = alice
        .create_room(json!({
            "room_version": version,
            "preset": "private_chat",
            "invite": [bob.id],
        }))
        .await;
    bob.is_invited(&private).await;
    bob.join(&private).await;
    let (status, profile) = bob.get(&format!("/profile/{}", enc(&alice.id))).await;
    assert_eq!(
        (status, profile["displayname"].is_string()),
        (200, true),
        "{profile}"
    );

    let (status, _) = bob
        .post(&format!("/rooms/{}/leave", enc(&room)), json!({}))
        .await;
    assert_eq!(status, 200);
    let bob_id = bob.id.clone();
    alice
        .wait_for("bob to leave", |event| {
            event["state_key"] == bob_id.as_str() && event["content"]["membership"] == "leave"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_by_a_peer_is_told_that_there_is_more_before() {
    let (_folder, one, other) = two_servers().await;
    let (alice, mut bob) = (one.user("alice").await, other.user("bob").await);
    for version in ["11", "12"] {
        let room = alice
            .create_room(json!({ "room_version": version, "invite": [bob.id] }))
            .await;
        // A client that knows the room already, from the invitation, asks for no more unless it is told.
        bob.is_invited(&room).await;
        alice.say(&room, "before you came").await;
        bob.join(&room).await;
        let timeline = eventually("the joined room", async || {
            let (_, sync) = bob.get("/sync").await;
            let joined = &sync["rooms"]["join"][&room];
            joined.is_object().then(|| joined["timeline"].clone())
        })
        .await;
        assert_eq!(timeline["limited"], true, "{timeline}");
        let since = bob.since.clone().unwrap();
        let (_, sync) = bob.get(&format!("/sync?since={since}")).await;
        let known = &sync["rooms"]["join"][&room]["timeline"];
        assert_eq!(known["limited"], true, "{known}");
        let history = bob.history(&room).await;
        assert!(history.iter().any(|text| text == "before you came"));

        // What came since is told to the beginning, and then there is no more.
        let filter = json!({ "room": { "timeline": { "limit": 50 } } });
        let (_, sync) = bob
            .get(&format!("/sync?filter={}", enc(&filter.to_string())))
            .await;
        let timeline = &sync["rooms"]["join"][&room]["timeline"];
        assert_eq!(timeline["events"][0]["type"], "m.room.create", "{timeline}");
        assert_eq!(timeline["limited"], false, "{timeline}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_two_servers_meet_in_every_room_version() {
    let (_folder, one, other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    for version in (1..=12).map(|version| version.to_string()) {
        a_life_together((&mut alice, &one.name), &mut bob, &version).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_while_a_server_was_down_arrives_when_it_is_back() {
    let (_folder, mut one, mut other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "outage" }))
        .await;
    bob.join(&format!("#outage:{}", one.name)).await;
    alice.say(&room, "both up").await;
    bob.hears("both up").await;

    other.kill();
    for i in 0..5 {
        alice.say(&room, &format!("while you were away {i}")).await;
    }
    // What we owe a peer survives our own end, too.
    one.kill();
    one.restart().await;
    other.restart().await;
    // The peer is known to be back once it speaks.
    bob.say(&room, "I am back").await;
    alice.hears("I am back").await;
    bob.hears("while you were away 4").await;
    let expected: Vec<String> = (0..5).map(|i| format!("while you were away {i}")).collect();
    let history = bob.history(&room).await;
    let heard: Vec<&String> = history
        .iter()
        .filter(|text| text.starts_with("while you were away"))
        .collect();
    assert_eq!(
        heard.len(),
        expected.len(),
        "each exactly once: {history:?}"
    );
    for text in &expected {
        assert!(history.contains(text), "{text} in {history:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kicked_and_banned_users_of_a_peer_are_told_and_kept_out() {
    let (_folder, one, other) = two_servers().await;
    let alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "strict" }))
        .await;
    bob.join(&format!("#strict:{}", one.name)).await;
    bob.sync(0).await;
    let ban = format!("/rooms/{}/ban", enc(&room));
    let (status, body) = alice.post(&ban, json!({ "user_id": bob.id })).await;
    assert_eq!(status, 200, "{body}");
    let this = tokio::sync::Mutex::new(&mut bob);
    crate::rig::eventually("the ban", async || {
        let body = this.lock().await.sync(1_000).await;
        body["rooms"]["leave"].get(&room).cloned()
    })
    .await;
    let (status, body) = bob.post(&format!("/join/{}", enc(&room)), json!({})).await;
    assert_eq!(
        (status, &body["errcode"]),
        (403, &json!("M_FORBIDDEN")),
        "{body}"
    );
}
