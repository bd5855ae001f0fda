//! What is hard about a room that spans servers: forks, absences, doors that others keep.

use serde_json::json;

use super::rooms::two_servers;
use crate::rig::{
    enc, eventually,
    http::{self, Ask as _},
    scripted::server_and_peer,
    server::Server,
    user::User,
};

async fn state(user: &User, room: &str, kind: &str) -> serde_json::Value {
    let (status, body) = user
        .get(&format!("/rooms/{}/state/{kind}/", enc(room)))
        .await;
    if status == 200 { body } else { json!(null) }
}

async fn set(user: &User, room: &str, kind: &str, content: serde_json::Value) {
    let path = format!("/rooms/{}/state/{kind}/", enc(room));
    let (status, body) = user.put(&path, content).await;
    assert_eq!(status, 200, "{body}");
}

/// A room of alice's that bob of the other server is in, with the power to change it.
pub(super) async fn shared_room(one: &Server, alice: &User, bob: &mut User, name: &str) -> String {
    let room = alice
        .create_room(json!({
            "preset": "public_chat",
            "room_version": "11",
            "room_alias_name": name,
            "power_level_content_override": { "users": { &alice.id: 100, &bob.id: 50 } },
        }))
        .await;
    bob.join(&format!("#{name}:{}", one.name)).await;
    room
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_was_torn_apart_becomes_one_again() {
    let (_folder, mut one, mut other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = shared_room(&one, &alice, &mut bob, "torn").await;
    alice.say(&room, "together").await;
    bob.hears("together").await;

    one.stop();
    set(&bob, &room, "m.room.topic", json!({ "topic": "of bob" })).await;
    set(
        &bob,
        &room,
        "m.room.name",
        json!({ "name": "named by bob" }),
    )
    .await;
    bob.say(&room, "alone on the other").await;
    other.stop();
    one.restart().await;
    set(
        &alice,
        &room,
        "m.room.topic",
        json!({ "topic": "of alice" }),
    )
    .await;
    alice.say(&room, "alone on the one").await;
    other.restart().await;

    bob.say(&room, "back").await;
    alice.say(&room, "back too").await;
    bob.hears("alone on the one").await;
    alice.hears("alone on the other").await;
    bob.hears("back too").await;
    alice.hears("back").await;
    let topic = eventually("both to agree on the topic", async || {
        let of_alice = state(&alice, &room, "m.room.topic").await;
        let of_bob = state(&bob, &room, "m.room.topic").await;
        (of_alice == of_bob).then_some(of_alice)
    })
    .await;
    assert!(topic["topic"].is_string(), "{topic}");
    assert_eq!(
        state(&alice, &room, "m.room.name").await["name"],
        "named by bob",
        "what only one of them changed stands"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_an_absence_can_read_on() {
    let (_folder, one, other) = two_servers().await;
    let alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = shared_room(&one, &alice, &mut bob, "absence").await;
    alice.say(&room, "before").await;
    bob.hears("before").await;
    let (status, body) = bob
        .post(&format!("/rooms/{}/leave", enc(&room)), json!({}))
        .await;
    assert_eq!(status, 200, "{body}");
    for i in 0..40 {
        alice.say(&room, &format!("meanwhile {i}")).await;
    }
    set(&alice, &room, "m.room.topic", json!({ "topic": "news" })).await;
    bob.join(&format!("#absence:{}", one.name)).await;
    assert_eq!(state(&bob, &room, "m.room.topic").await["topic"], "news");
    alice.say(&room, "after").await;
    bob.hears("after").await;
    let history = bob.history(&room).await;
    for text in ["before", "meanwhile 0", "meanwhile 39", "after"] {
        let found = history.iter().filter(|heard| *heard == text).count();
        assert_eq!(found, 1, "{text} in {history:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_can_knock_at_a_room_of_a_peer() {
    let (_folder, one, other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({
            "preset": "private_chat",
            "room_alias_name": "knock",
            "initial_state": [{
                "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" },
            }],
        }))
        .await;
    let alias = enc(&format!("#knock:{}", one.name));
    let (status, body) = bob.post(&format!("/join/{alias}"), json!({})).await;
    assert_eq!(
        (status, &body["errcode"]),
        (403, &json!("M_FORBIDDEN")),
        "{body}"
    );
    let (status, body) = bob
        .post(&format!("/knock/{alias}"), json!({ "reason": "it is me" }))
        .await;
    assert_eq!(status, 200, "{body}");
    let knocks = bob.sync(0).await;
    assert!(
        knocks["rooms"]["knock"][&room]["knock_state"]["events"].is_array(),
        "{knocks}"
    );
    let bob_id = bob.id.clone();
    let seen = alice
        .wait_for("the knock", |event| {
            event["state_key"] == bob_id.as_str() && event["content"]["membership"] == "knock"
        })
        .await;
    assert_eq!(seen["content"]["reason"], "it is me");
    let invite = format!("/rooms/{}/invite", enc(&room));
    let (status, body) = alice.post(&invite, json!({ "user_id": bob.id })).await;
    assert_eq!(status, 200, "{body}");
    bob.is_invited(&room).await;
    bob.join(&room).await;
    alice.say(&room, "come in").await;
    bob.hears("come in").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_one_room_may_enter_another_over_federation() {
    let (_folder, one, other) = two_servers().await;
    let alice = one.user("alice").await;
    let (mut bob, eve) = (other.user("bob").await, other.user("eve").await);
    let club = shared_room(&one, &alice, &mut bob, "club").await;
    for version in ["10", "11", "12"] {
        let alias = format!("cellar{version}");
        let cellar = alice
            .create_room(json!({
                "preset": "private_chat",
                "room_version": version,
                "room_alias_name": alias,
                "initial_state": [{
                    "type": "m.room.join_rules", "state_key": "", "content": {
                        "join_rule": "restricted",
                        "allow": [{ "type": "m.room_membership", "room_id": club }],
                    },
                }],
            }))
            .await;
        let path = format!("/join/{}", enc(&format!("#{alias}:{}", one.name)));
        let (status, body) = eve.post(&path, json!({})).await;
        assert_eq!(
            (status, &body["errcode"]),
            (403, &json!("M_FORBIDDEN")),
            "{body}"
        );
        let (status, body) = bob.post(&path, json!({})).await;
        assert_eq!(status, 200, "version {version}: {body}");
        let text = format!("below {version}");
        alice.say(&cellar, &text).await;
        bob.hears(&text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_no_room_opens_is_shut_and_nobody_else_is_asked() {
    let (_folder, one, other) = two_servers().await;
    let (alice, neighbour) = (one.user("alice").await, one.user("neighbour").await);
    let mut bob = other.user("bob").await;
    let room = shared_room(&one, &alice, &mut bob, "vault").await;
    let stranger = other.user("stranger").await;
    for rule in ["restricted", "knock_restricted"] {
        set(
            &alice,
            &room,
            "m.room.join_rules",
            json!({ "join_rule": rule }),
        )
        .await;
        let text = format!("{rule} from now on");
        alice.say(&room, &text).await;
        bob.hears(&text).await;
        for user in [&neighbour, &stranger] {
            let path = format!("/join/{}?via={}", enc(&room), enc(&one.name));
            let (status, body) = user.post(&path, json!({})).await;
            assert_eq!(
                (status, &body["errcode"]),
                (403, &json!("M_FORBIDDEN")),
                "{body}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_the_room_denies_is_not_heard() {
    let (_folder, one, other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = shared_room(&one, &alice, &mut bob, "acl").await;
    alice.say(&room, "hello").await;
    bob.hears("hello").await;
    // Both servers are called localhost: the room shuts itself off from everybody, which is what
    // the peer then has to be told by the one who did it.
    let acl = json!({ "allow": ["*"], "deny": ["localhost"] });
    set(&alice, &room, "m.room.server_acl", acl).await;
    bob.say(&room, "can you hear me?").await;
    // Another room of both still works, so what bob said had its chance to arrive.
    let open = shared_room(&one, &alice, &mut bob, "open").await;
    bob.say(&open, "in the open").await;
    alice.hears("in the open").await;
    let heard = alice.history(&room).await;
    assert!(!heard.contains(&"can you hear me?".to_owned()), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_a_peer_can_be_read() {
    let (_folder, one, other) = two_servers().await;
    let (alice, bob) = (one.user("alice").await, other.user("bob").await);
    alice
        .create_room(json!({
            "visibility": "public", "preset": "public_chat", "name": "Sprechstunde",
        }))
        .await;
    let server = enc(&one.name);
    let (status, page) = bob.get(&format!("/publicRooms?server={server}")).await;
    assert_eq!(
        (status, &page["chunk"][0]["name"]),
        (200, &json!("Sprechstunde")),
        "{page}"
    );
    let path = format!("/publicRooms?server={server}");
    let search = json!({ "filter": { "generic_search_term": "nothing of that name" } });
    let (status, page) = bob.post(&path, search).await;
    assert_eq!((status, &page["chunk"]), (200, &json!([])), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_others_are_vouched_for() {
    let (_folder, one, other) = two_servers().await;
    let ask = async |path: String| -> (u16, serde_json::Value) {
        let answer = http::client().get(one.url(&path)).ask().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    };
    let (status, body) = ask(format!("/_matrix/key/v2/query/{}", enc(&other.name))).await;
    assert_eq!(status, 200);
    let keys = &body["server_keys"][0];
    assert_eq!(keys["server_name"], other.name.as_str(), "{body}");
    for signer in [&one.name, &other.name] {
        assert!(keys["signatures"][signer].is_object(), "{signer}: {body}");
    }
    let (status, body) = ask("/_matrix/key/v2/query/localhost:1".to_owned()).await;
    assert_eq!((status, body), (200, json!({ "server_keys": [] })));
    let question = json!({ "server_keys": { &other.name: {}, &one.name: {} } });
    let answer = http::client()
        .post(one.url("/_matrix/key/v2/query"))
        .body(question.to_string())
        .ask()
        .await
        .unwrap();
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(
        body["server_keys"].as_array().map(Vec::len),
        Some(2),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_on_disk_yet_is_found_although_memory_is_full() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let mut alice = server.user("alice").await;
    let bob = peer.user("bob");
    let room = peer.room("11", &bob);
    alice.join_via(&room.id, &peer.name).await;
    let long = "x".repeat(60_000);
    for _ in 0..14 {
        let events: Vec<_> = (0..35).map(|_| room.message(&bob, &long)).collect();
        peer.send(&server, &events.iter().collect::<Vec<_>>()).await;
    }
    for _ in 0..60 {
        let mut events = Vec::new();
        for _ in 0..25 {
            events.push(room.member(&bob, "join"));
            events.push(room.message(&bob, "I have a new face"));
        }
        let results = peer.send(&server, &events.iter().collect::<Vec<_>>()).await;
        for event in &events {
            assert_eq!(results[&event.id], json!({}), "{results}");
        }
    }
    let last = room.message(&bob, "that was it");
    peer.send(&server, &[&last]).await;
    alice.hears("that was it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_while_the_room_is_loaded_again_all_find_their_place() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let bob = peer.user("bob");
    let room = peer.room("11", &bob);
    alice.join_via(&room.id, &peer.name).await;
    let mut conn = server.database().await;
    // What another node writes makes this one load the room again.
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let room_id = room.id.clone();
    let other_node = tokio::spawn(async move {
        while stopped.try_recv().is_err() {
            sqlx::query(
                "INSERT INTO stream_log (pos, kind, room_nid, user_nid, ref)
                 SELECT nextval('stream_pos_seq'), 1, room_nid, 1, 1 FROM room WHERE room_id = $1",
            )
            .bind(&room_id)
            .execute(&mut conn)
            .await
            .unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut sent = Vec::new();
    for round in 0..10 {
        let mut events = Vec::new();
        for n in 0..20 {
            events.push(room.member(&bob, "join"));
            events.push(room.message(&bob, &format!("{round} {n}")));
            sent.push(format!("{round} {n}"));
        }
        peer.send(&server, &events.iter().collect::<Vec<_>>()).await;
    }
    stop.send(()).unwrap();
    other_node.await.unwrap();
    eventually("every message", async || {
        let heard = alice.history(&room.id).await;
        sent.iter().all(|text| heard.contains(text)).then_some(())
    })
    .await;
}
