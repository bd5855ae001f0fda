//! Two nodes on one database are one server.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::presence,
    rig::{
        enc, eventually,
        operator::{self, Operator},
        scripted::{Answer, Scripted, server_and_peer},
        server::Server,
        user::User,
    },
};

/// Waits until each of two nodes sends to half of the peers.
async fn halves(nodes: [&Server; 2]) {
    for node in nodes {
        eventually("half of the peers", async || {
            (node.figure("federation_shares").await == 32).then_some(())
        })
        .await;
    }
}

async fn all_hear(peers: &[Scripted], text: &str) {
    for peer in peers {
        peer.hears(text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_shared_out_and_taken_over() {
    let (_folder, tls, server, first) = server_and_peer().await;
    let mut node = server.node().await;
    halves([&server, &node]).await;
    let alice = server.user("alice").await;
    let there = alice.at(&node);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_version": "11" }))
        .await;
    let mut peers = vec![first];
    for _ in 0..3 {
        peers.push(Scripted::start(&tls).await);
    }
    for peer in &peers {
        peer.enter(&server, &room, &peer.user("bob")).await;
    }
    for n in 0..10 {
        alice.say(&room, &format!("here {n}")).await;
        there.say(&room, &format!("there {n}")).await;
    }
    alice.say(&room, "that was all").await;
    all_hear(&peers, "that was all").await;
    for peer in &peers {
        let heard = peer.heard(0);
        let unique: BTreeSet<&String> = heard.iter().collect();
        assert_eq!((heard.len(), unique.len()), (21, 21), "{heard:?}");
    }

    // A node that is gone leaves nobody without what it owed them.
    for peer in &peers {
        peer.route_to("send", Answer::refused(503, "M_UNKNOWN"));
    }
    alice.say(&room, "while nobody listens").await;
    node.kill();
    for peer in &peers {
        peer.honest("send");
    }
    all_hear(&peers, "while nobody listens").await;

    // A peer that rests on one node may speak to the other.
    let mut conn = server.database().await;
    node.restart().await;
    halves([&server, &node]).await;
    node.stop();
    sqlx::query(
        "UPDATE fed_dest SET failing_since_ts = 1, backoff_ms = 3600000,
           retry_at_ts = 3600000 + 1000 * extract(epoch FROM now())::bigint",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    node.restart().await;
    halves([&server, &node]).await;
    alice.say(&room, "to those who rest").await;
    // Who was tried or spoke a moment ago is not tried at each word: peers speak again and again.
    for peer in &peers {
        eventually("a peer that speaks to be spoken to", async || {
            let path = "/_matrix/federation/v1/publicRooms";
            peer.call(&server, "GET", path, None).await;
            let heard = peer.heard(0);
            heard
                .contains(&"to those who rest".to_owned())
                .then_some(())
        })
        .await;
    }
}

const SLIDE: &str = "/../unstable/org.matrix.simplified_msc3575/sync";

/// An answer of a sliding sync: the position, and what was said.
async fn slide(user: &User, pos: Option<&str>, timeout_ms: u32) -> (String, Vec<String>) {
    let body = json!({
        "conn_id": "moving",
        "lists": { "all": { "ranges": [[0, 9]], "timeline_limit": 20, "required_state": [] } },
    });
    let pos = pos.map_or_else(String::new, |pos| format!("&pos={pos}"));
    let path = format!("{SLIDE}?timeout={timeout_ms}{pos}");
    let (status, answer) = user.call(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    let rooms = answer["rooms"].as_object().into_iter().flatten();
    let events = rooms.flat_map(|(_, room)| room["timeline"].as_array().into_iter().flatten());
    let texts = events.filter_map(|event| event["content"]["body"].as_str());
    let texts = texts.map(ToOwned::to_owned).collect();
    (answer["pos"].as_str().unwrap().to_owned(), texts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_sliding_sync_goes_from_node_to_node() {
    let server = Server::start().await;
    let mut node = server.node().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (alice, bob) = (
        [alice.at(&server), alice.at(&node)],
        [bob.at(&server), bob.at(&node)],
    );
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let room = alice[0]
            .create_room(json!({ "preset": "public_chat" }))
            .await;
        bob[0].join(&room).await;
        rooms.push(room);
    }
    let (mut pos, _) = slide(&bob[0], None, 0).await;
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    for turn in 0..12 {
        let text = format!("turn {turn}");
        alice[turn % 2].say(&rooms[turn % 3], &text).await;
        said.push(text);
        // What comes is asked for where it was not said, in turn; each third answer is lost, and
        // asked for once more at the other node.
        let (here, there) = (&bob[(turn / 2) % 2], &bob[(turn / 2 + 1) % 2]);
        let (next, texts) = slide(here, Some(&pos), 20_000).await;
        if turn % 3 == 0 {
            let (again, repeated) = slide(there, Some(&pos), 20_000).await;
            assert_eq!(repeated, texts, "lost at turn {turn}");
            pos = again;
        } else {
            pos = next;
        }
        heard.extend(texts);
    }
    assert_eq!(heard, said);

    // Who waits at one node is woken by what is said at the other.
    for turn in 0..2 {
        let here = bob[turn].again();
        let from = pos.clone();
        let waiting = tokio::spawn(async move { slide(&here, Some(&from), 60_000).await });
        let text = format!("woken {turn}");
        alice[1 - turn].say(&rooms[0], &text).await;
        let (next, texts) = waiting.await.unwrap();
        assert_eq!(texts, [text]);
        pos = next;
    }

    // A node that has seen nothing of the connection takes it over.
    node.stop();
    node.restart().await;
    alice[0].say(&rooms[1], "to a new node").await;
    let there = bob[1].at(&node);
    assert_eq!(slide(&there, Some(&pos), 20_000).await.1, ["to a new node"]);
}

async fn status_at(peer: &Scripted, node: &Server) -> u16 {
    let path = "/_matrix/federation/v1/query/directory?room_alias=%23a:localhost";
    peer.call(node, "GET", path, None).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_presence_hold_on_both() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let node = server.node().await;
    let operator = Operator::of(&server).await;
    assert_eq!(status_at(&peer, &node).await, 404);
    let base = server.url("/_amtsbote/admin/v1/federation/rules/deny/");
    let (status, body) = operator::call(
        &base,
        &operator.token,
        Method::PUT,
        "localhost",
        Some(json!({})),
    )
    .await;
    assert!(status < 300, "{status} {body}");
    eventually("the rule at the other node", async || {
        (status_at(&peer, &node).await == 403).then_some(())
    })
    .await;

    let alice = server.user("alice").await;
    let mut bob: User = server.user("bob").await.at(&node);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    presence::set(&alice, "online", "at the first node").await;
    let content: Value = presence::is_seen(&mut bob, &alice.id, "online").await;
    assert_eq!(content["status_msg"], "at the first node");
    presence::set(&alice.at(&node), "unavailable", "at the other").await;
    presence::is_seen(&mut bob.at(&server), &alice.id, "unavailable").await;
}

/// Syncs at a node until an answer has what is looked for; nothing may come twice.
async fn finds(user: &mut User, what: &str, fits: impl Fn(&Value) -> bool) {
    let user = tokio::sync::Mutex::new(user);
    eventually(what, async || {
        let answer = user.lock().await.sync(500).await;
        fits(&answer).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_nothing_to_be_told_at_one_node_is_told_what_is_written_at_the_other() {
    let server = Server::start().await;
    let node = server.node().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut there = bob.at(&node);
    there.sync(0).await;
    let count = |answer: &Value| answer["device_one_time_keys_count"]["signed_curve25519"].clone();
    let (_, me) = bob.get("/account/whoami").await;
    let device = me["device_id"].as_str().unwrap();
    for turn in 0..3 {
        // Whatever it remembers, it has remembered by now.
        assert_eq!(count(&there.sync(0).await), turn);
        assert_eq!(count(&there.sync(0).await), turn);
        let said = alice.say(&room, &format!("turn {turn}")).await;
        let text = format!("turn {turn}");
        there.hears(&text).await;

        let receipt = format!("/rooms/{}/receipt/m.read/{}", enc(&room), enc(&said));
        assert_eq!(alice.post(&receipt, json!({})).await.0, 200);
        finds(&mut there, "a receipt", |answer| {
            let part = &answer["rooms"]["join"][&room]["ephemeral"]["events"][0];
            !part["content"][&said]["m.read"][&alice.id].is_null()
        })
        .await;

        let data = format!("/user/{}/account_data/org.example", enc(&bob.id));
        assert_eq!(bob.put(&data, json!({ "turn": turn })).await.0, 200);
        finds(&mut there, "account data", |answer| {
            let events = &answer["account_data"]["events"];
            events[0]["content"]["turn"] == turn
        })
        .await;

        let body = json!({ "messages": { &bob.id: { device: { "turn": turn } } } });
        let send = format!("/sendToDevice/org.example/{turn}");
        assert_eq!(alice.put(&send, body).await.0, 200);
        finds(&mut there, "a message to the device", |answer| {
            let events = &answer["to_device"]["events"];
            events[0]["content"]["turn"] == turn
        })
        .await;

        let left = alice.create_room(json!({ "invite": [&bob.id] })).await;
        there.is_invited(&left).await;
        let leave = format!("/rooms/{}/leave", enc(&left));
        assert_eq!(bob.post(&leave, json!({})).await.0, 200);
        finds(&mut there, "the end of an invitation", |answer| {
            answer["rooms"]["leave"].get(&left).is_some()
        })
        .await;

        let key = json!({ format!("signed_curve25519:{turn}"): { "key": "a", "signatures": {} } });
        let keys = json!({ "one_time_keys": key });
        assert_eq!(bob.post("/keys/upload", keys).await.0, 200);
        finds(&mut there, "another key", |answer| {
            count(answer) == turn + 1
        })
        .await;
    }
    let mut conn = server.database().await;
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM to_device")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    there.sync(0).await;
    assert_eq!(waiting, 0, "what was acknowledged is deleted");

    let claim = json!({ "one_time_keys": { &bob.id: { device: "signed_curve25519" } } });
    assert_eq!(alice.post("/keys/claim", claim).await.0, 200);
    finds(&mut there, "a key less", |answer| count(answer) == 2).await;
    assert_eq!(count(&bob.again().sync(0).await), 2);
}
