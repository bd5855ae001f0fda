//! Spaces that reach over several servers.

use serde_json::{Value, json};

use super::rooms::two_servers;
use crate::{
    client::spaces::{link, shown, space},
    rig::{
        enc,
        scripted::{Answer, server_and_peer},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_space_reaches_over_two_servers() {
    let (_folder, one, other) = two_servers().await;
    let (alice, bob) = (one.user("alice").await, other.user("bob").await);
    let carol = one.user("carol").await;
    let open = || json!({ "preset": "public_chat" });
    let near = alice.create_room(open()).await;
    let far = bob.create_room(open()).await;
    // A space there, of a room here.
    let inner = space(&bob, open(), &[&far], &other.name).await;
    link(&bob, (&inner, &near), json!({ "via": [one.name] })).await;
    let root = space(&alice, open(), &[&inner], &other.name).await;
    let expected = [&root, &inner, &far, &near].map(ToString::to_string);
    assert_eq!(shown(&carol, &root, "").await, expected);
    // The root is elsewhere, and nobody here is in it.
    let root_id = enc(&inner);
    let path = format!("/../v1/room_summary/{root_id}?via={}", enc(&other.name));
    let (status, body) = carol.get(&path).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["room_type"], "m.space");

    // A restricted room there is shown to who is in the space here, as soon as they know there.
    let rules = json!({ "join_rule": "restricted", "allow": [
        { "type": "m.room_membership", "room_id": root },
    ]});
    let restricted = bob
        .create_room(json!({ "initial_state": [
            { "type": "m.room.join_rules", "state_key": "", "content": rules },
        ]}))
        .await;
    link(&alice, (&root, &restricted), json!({ "via": [other.name] })).await;
    assert!(!shown(&alice, &root, "").await.contains(&restricted));
    bob.join_via(&root, &one.name).await;
    crate::rig::eventually("the restricted room", async || {
        shown(&alice, &root, "")
            .await
            .contains(&restricted)
            .then_some(())
    })
    .await;
    assert!(!shown(&carol, &root, "").await.contains(&restricted));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_tells_of_a_space_is_looked_at_twice() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let id = |name: &str| format!("!{name}:{}", peer.name);
    let summary = |name: &str| {
        json!({
            "room_id": id(name), "num_joined_members": 1, "join_rule": "public", "name": name,
            "world_readable": false, "guest_can_join": false,
        })
    };
    let link_to = |name: &str| {
        json!({
            "type": "m.space.child", "state_key": id(name), "sender": peer.user("bob"),
            "origin_server_ts": 1, "content": { "via": [peer.name] },
        })
    };
    let mut told = summary("space");
    told["room_type"] = json!("m.space");
    told["children_state"] = json!([link_to("a"), link_to("hidden"), link_to("secret"), 7]);
    let mut secret = summary("secret");
    secret["join_rule"] = json!("invite");
    let honest = json!({
        "room": told,
        "children": [summary("a"), secret, summary("no child")],
        "inaccessible_children": [id("hidden"), id("elsewhere")],
    });
    let elsewhere = summary("elsewhere");
    let space_id = id("space");
    peer.route("hierarchy", move |asked, _| match asked.args.first() {
        Some(room) if *room == space_id => Answer::ok(honest.clone()),
        Some(room) if room.starts_with("!elsewhere") => {
            Answer::ok(json!({ "room": elsewhere, "children": [], "inaccessible_children": [] }))
        }
        Some(room) if room.starts_with("!other") => {
            let room = json!({ "room_id": "!wrong:x", "num_joined_members": 1 });
            Answer::ok(json!({ "room": room, "children": [], "inaccessible_children": [] }))
        }
        Some(room) if room.starts_with("!endless") => {
            Answer::Endless("{\"room\":[".to_owned(), "1,".repeat(5_000))
        }
        _ => Answer::refused(404, "M_NOT_FOUND"),
    });
    let children = [
        id("other"),
        id("endless"),
        id("space"),
        id("elsewhere"),
        id("gone"),
    ];
    let children: Vec<&str> = children.iter().map(String::as_str).collect();
    let open = json!({ "preset": "public_chat" });
    let root = space(&alice, open, &children, &peer.name).await;
    let expected = vec![root.clone(), id("space"), id("a"), id("elsewhere")];
    assert_eq!(shown(&alice, &root, "").await, expected);
    assert!(peer.streamed() < 64 << 20, "read without an end");
    // What was told is kept; what a peer hid is not asked for.
    assert_eq!(shown(&alice, &root, "").await, expected);
    let asked = peer.asked("hierarchy");
    let times = |name: &str| {
        let of = asked.iter().filter(|asked| asked.args[0] == id(name));
        of.count()
    };
    assert_eq!((times("space"), times("elsewhere")), (1, 1));
    assert_eq!((times("a"), times("hidden"), times("secret")), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_told_what_its_users_could_peek_or_join() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let open = || json!({ "preset": "public_chat" });
    let public = alice.create_room(open()).await;
    let closed = alice.create_room(json!({ "preset": "private_chat" })).await;
    let denied = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": [{
            "type": "m.room.server_acl", "state_key": "",
            "content": { "allow": ["*"], "deny": ["localhost"] },
        }]}))
        .await;
    let away = format!("!away:{}", peer.name);
    let children = [&*public, &*closed, &*denied, &*away];
    let root = space(&alice, open(), &children, &server.name).await;
    let suggested = json!({ "via": [server.name], "suggested": true });
    link(&alice, (&root, &public), suggested).await;
    let ask = async |room: &str, query: &str| {
        let path = format!("/_matrix/federation/v1/hierarchy/{}{query}", enc(room));
        peer.call(&server, "GET", &path, None).await
    };
    let (status, body) = ask(&root, "").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["room"]["room_id"], root.as_str());
    let links = |body: &Value| body["room"]["children_state"].as_array().unwrap().len();
    assert_eq!(links(&body), 4);
    let told: Vec<&Value> = body["children"].as_array().unwrap().iter().collect();
    assert_eq!(told.len(), 1, "{body}");
    assert_eq!(told[0]["room_id"], public.as_str());
    let mut hidden: Vec<&str> = body["inaccessible_children"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    hidden.sort_unstable();
    let mut expected = [&*closed, &*denied];
    expected.sort_unstable();
    assert_eq!(hidden, expected);
    let (_, body) = ask(&root, "?suggested_only=true").await;
    assert_eq!(links(&body), 1, "{body}");
    assert_eq!(body["inaccessible_children"], json!([]));
    for room in [&closed, &denied, &away] {
        let (status, body) = ask(room, "").await;
        let got = (status, &body["errcode"]);
        assert_eq!(got, (404, &json!("M_NOT_FOUND")), "{body}");
    }
}
