//! The scripted peer is an honest server where no script says otherwise.

use serde_json::{Value, json};

use crate::rig::{
    enc,
    scripted::{
        Answer, Scripted,
        event::{Event, canonical},
        room::Room,
        server_and_peer,
    },
    server::Server,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_scripted_peer_and_we_join_each_others_rooms() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let mut alice = server.user("alice").await;
    let bob = peer.user("bob");
    // Only who asks for it gets a room without its members.
    peer.omit_members(true);
    for version in ["1", "10", "11", "12"] {
        let theirs = peer.room(version, &bob);
        theirs.message(&bob, "before the join");
        alice.join_via(&theirs.id, &peer.name).await;
        let said = format!("to alice {version}");
        peer.send(&server, &[&theirs.message(&bob, &said)]).await;
        alice.hears(&said).await;
        let said = format!("to bob {version}");
        alice.say(&theirs.id, &said).await;
        peer.hears(&said).await;
        assert!(
            alice
                .history(&theirs.id)
                .await
                .contains(&"before the join".to_owned())
        );
        // What only its answers tell: the event before the one that is sent.
        let skipped = format!("skipped {version}");
        theirs.message(&bob, &skipped);
        let event = theirs.message(&bob, "after a hole");
        let results = peer.send(&server, &[&event]).await;
        assert_eq!(results[&event.id], json!({}), "{results}");
        alice.hears(&skipped).await;

        let ours = alice
            .create_room(json!({ "room_version": version, "preset": "public_chat" }))
            .await;
        let ours = peer.join(&server, &ours, &bob).await;
        let said = format!("bob is in {version}");
        peer.send(&server, &[&ours.message(&bob, &said)]).await;
        alice.hears(&said).await;
        let said = format!("welcome {version}");
        alice.say(&ours.id, &said).await;
        peer.hears(&said).await;

        let closed = peer.room(version, &bob);
        closed.state(&bob, "m.room.join_rules", json!({ "join_rule": "invite" }));
        peer.invite(&server, &closed, &bob, &alice.id).await;
        alice.is_invited(&closed.id).await;
        alice.join_via(&closed.id, &peer.name).await;
    }
}

/// Invites a user the old way, which does not say of which version the room is; the peer's answer.
async fn invite_v1(
    peer: &Scripted,
    server: &Server,
    room: &Room,
    (sender, user): (&str, &str),
) -> (u16, Value) {
    let content = json!({ "membership": "invite" });
    let invite = room.forge(room.draft(sender, ("m.room.member", Some(user)), content));
    let mut body = invite.json();
    let preview: Vec<Value> = room.current().iter().map(Event::json).collect();
    body["unsigned"] = json!({ "invite_room_state": preview });
    let (room, event) = (enc(&room.id), enc(&invite.id));
    let path = format!("/_matrix/federation/v1/invite/{room}/{event}");
    peer.call(server, "PUT", &path, Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn old_servers_invite_in_the_first_version_of_the_api() {
    let (_folder, _, mut server, peer) = server_and_peer().await;
    let mut alice = server.user("alice").await;
    let bob = peer.user("bob");
    for version in ["1", "2"] {
        let room = peer.room(version, &bob);
        room.state(&bob, "m.room.join_rules", json!({ "join_rule": "invite" }));
        let (status, answer) = invite_v1(&peer, &server, &room, (&bob, &alice.id)).await;
        assert_eq!((status, &answer[0]), (200, &json!(200)), "{answer}");
        let event = answer[1]["event"].clone();
        assert!(event["signatures"][&server.name].is_object(), "{answer}");
        room.insert(&Event::of(canonical(event), version));
        let invited = alice.is_invited(&room.id).await;
        let shown = invited["invite_state"]["events"].as_array().unwrap();
        assert!(
            shown
                .iter()
                .any(|event| event["type"] == "m.room.join_rules")
        );
        // When one was invited is told, of a room of a peer as well.
        let own = shown.iter().find(|event| event["state_key"] == *alice.id);
        assert!(own.unwrap()["origin_server_ts"].is_i64(), "{invited}");
        alice.join_via(&room.id, &peer.name).await;
        // Which version it is we remember from the join.
        server.kill();
        server.restart().await;
        let said = format!("after a restart {version}");
        peer.send(&server, &[&room.message(&bob, &said)]).await;
        alice.hears(&said).await;
        let summary = format!("/../v1/room_summary/{}", enc(&room.id));
        assert_eq!(alice.get(&summary).await.1["room_version"], version);
    }
    // Newer rooms are not for who cannot name them.
    let room = peer.room("10", &bob);
    let (status, answer) = invite_v1(&peer, &server, &room, (&bob, &alice.id)).await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_servers_join_and_leave_in_the_first_version_of_the_api() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let bob = peer.user("bob");
    let ours = alice
        .create_room(json!({ "room_version": "10", "preset": "public_chat" }))
        .await;
    for membership in ["join", "leave"] {
        let draft = peer.make(&server, membership, &ours, &bob).await;
        let event = draft.sign(&peer.key);
        let path = format!(
            "/_matrix/federation/v1/send_{membership}/{}/{}",
            enc(&ours),
            enc(&event.id)
        );
        let (status, answer) = peer.call(&server, "PUT", &path, Some(event.json())).await;
        assert_eq!((status, &answer[0]), (200, &json!(200)), "{answer}");
        assert_eq!(answer[1]["state"].is_array(), membership == "join");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_stops_above_a_hole_and_paging_fills_it() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let mut alice = server.user("alice").await;
    let bob = peer.user("bob");
    let theirs = peer.room("11", &bob);
    alice.join_via(&theirs.id, &peer.name).await;
    alice.say(&theirs.id, "before the hole").await;
    peer.hears("before the hole").await;
    alice.hears("before the hole").await;
    let since = alice.since.clone().unwrap();

    for n in 0..4 {
        theirs.message(&bob, &format!("in the hole {n}"));
    }
    let lowest = theirs.message(&bob, "above the hole");
    let newest = theirs.message(&bob, "the newest");
    let some = Answer::ok(json!({ "events": [lowest.json()] }));
    peer.route_to("get_missing_events", some);
    let results = peer.send(&server, &[&newest]).await;
    assert_eq!(results[&newest.id], json!({}), "{results}");
    alice.hears("the newest").await;

    let (_, sync) = alice.get(&format!("/sync?since={since}")).await;
    let timeline = &sync["rooms"]["join"][&theirs.id]["timeline"];
    let bodies = |events: &Value| -> Vec<Value> {
        let events = events.as_array().unwrap().iter();
        events
            .map(|event| event["content"]["body"].clone())
            .collect()
    };
    assert_eq!(timeline["limited"], true, "{timeline}");
    assert_eq!(
        bodies(&timeline["events"]),
        ["above the hole", "the newest"]
    );
    let path = format!(
        "/rooms/{}/messages?dir=b&limit=5&from={}",
        enc(&theirs.id),
        enc(timeline["prev_batch"].as_str().unwrap())
    );
    let (_, page) = alice.get(&path).await;
    let filled = [
        "in the hole 3",
        "in the hole 2",
        "in the hole 1",
        "in the hole 0",
        "before the hole",
    ];
    assert_eq!(bodies(&page["chunk"]), filled);
}
