//! Two nodes on one database are one server.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::presence,
    rig::{
        eventually,
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
    for peer in &peers {
        peer.call(&server, "GET", "/_matrix/federation/v1/publicRooms", None)
            .await;
    }
    all_hear(&peers, "to those who rest").await;
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
