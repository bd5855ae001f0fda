//! Spaces and summaries of rooms.

use serde_json::{Value, json};

use crate::rig::{
    enc,
    http::{self, Ask as _},
    server::Server,
    user::User,
};

/// A space with these children, in that order.
pub(crate) async fn space(user: &User, options: Value, children: &[&str], via: &str) -> String {
    let mut room = json!({ "creation_content": { "type": "m.space" } });
    room.as_object_mut()
        .unwrap()
        .extend(options.as_object().unwrap().clone());
    let space = user.create_room(room).await;
    for (at, child) in children.iter().enumerate() {
        let order = format!("{at:03}");
        link(
            user,
            (&space, child),
            json!({ "via": [via], "order": order }),
        )
        .await;
    }
    space
}

pub(crate) async fn link(user: &User, (space, child): (&str, &str), content: Value) {
    let path = format!("/rooms/{}/state/m.space.child/{}", enc(space), enc(child));
    let (status, body) = user.put(&path, content).await;
    assert_eq!(status, 200, "{body}");
}

pub(crate) async fn hierarchy(user: &User, space: &str, query: &str) -> (u16, Value) {
    user.get(&format!("/../v1/rooms/{}/hierarchy{query}", enc(space)))
        .await
}

/// Ids of the rooms that a user is shown.
pub(crate) async fn shown(user: &User, space: &str, query: &str) -> Vec<String> {
    let (status, body) = hierarchy(user, space, query).await;
    assert_eq!(status, 200, "{body}");
    ids(&body)
}

fn ids(body: &Value) -> Vec<String> {
    let rooms = body["rooms"].as_array().unwrap().iter();
    rooms
        .map(|room| room["room_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_is_a_tree_that_comes_in_pages() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let via = server.name.as_str();
    let open = || json!({ "preset": "public_chat" });
    let one = alice.create_room(open()).await;
    let two = alice.create_room(open()).await;
    let deep = alice.create_room(open()).await;
    let inner = space(&alice, open(), &[&deep], via).await;
    let root = space(&alice, open(), &[&two, &inner, &one], via).await;
    // Round and round: each room comes once.
    link(&alice, (&inner, &root), json!({ "via": [via] })).await;
    let all = [&root, &two, &inner, &deep, &one].map(ToString::to_string);
    assert_eq!(shown(&bob, &root, "").await, all);
    assert_eq!(shown(&bob, &root, "?max_depth=0").await, all[..1]);
    let (_, body) = hierarchy(&bob, &root, "?max_depth=1").await;
    assert_eq!(
        ids(&body),
        [&root, &two, &inner, &one].map(ToString::to_string)
    );
    let links = &body["rooms"][2]["children_state"];
    let first = &links[0];
    assert_eq!(first["state_key"], deep.as_str(), "{links}");
    assert_eq!(first["sender"], alice.id.as_str());
    assert!(first["origin_server_ts"].is_i64() && first["event_id"].is_null());
    assert_eq!(body["rooms"][0]["room_type"], "m.space");
    assert_eq!(body["rooms"][1]["children_state"], json!([]));

    // Pages.
    let (_, page) = hierarchy(&bob, &root, "?limit=2").await;
    assert_eq!(ids(&page), all[..2]);
    let token = page["next_batch"].as_str().unwrap();
    let (_, page) = hierarchy(&bob, &root, &format!("?limit=2&from={token}")).await;
    assert_eq!(ids(&page), all[2..4]);
    let last = page["next_batch"].as_str().unwrap();
    let (_, page) = hierarchy(&bob, &root, &format!("?from={last}")).await;
    assert_eq!(ids(&page), all[4..]);
    assert!(page["next_batch"].is_null());
    for (user, query) in [
        (&alice, format!("?from={token}")),
        (&bob, format!("?from={token}&max_depth=3")),
        (&bob, format!("?from={token}&suggested_only=true")),
        (&bob, "?from=x".to_owned()),
        (&bob, "?limit=0".to_owned()),
        (&bob, "?max_depth=-1".to_owned()),
    ] {
        let (status, body) = hierarchy(user, &root, &query).await;
        let got = (status, &body["errcode"]);
        assert_eq!(got, (400, &json!("M_INVALID_PARAM")), "{query}: {body}");
    }

    // Only what is suggested, links included; links that are taken back are none.
    let suggested = json!({ "via": [via], "suggested": true });
    link(&alice, (&root, &one), suggested).await;
    link(&alice, (&root, &two), json!({})).await;
    let (_, body) = hierarchy(&bob, &root, "?suggested_only=true").await;
    assert_eq!(ids(&body), [&root, &one].map(ToString::to_string));
    let links = body["rooms"][0]["children_state"].as_array().unwrap();
    assert_eq!(links.len(), 1);
    assert!(!shown(&bob, &root, "").await.contains(&two));
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_of_a_space_are_shown_to_who_may_come() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let via = server.name.as_str();
    let with = |rules: Value| {
        json!({ "initial_state": [
            { "type": "m.room.join_rules", "state_key": "", "content": rules },
        ]})
    };
    let closed = alice.create_room(json!({ "preset": "private_chat" })).await;
    let knock = alice
        .create_room(with(json!({ "join_rule": "knock" })))
        .await;
    let public = json!({ "preset": "public_chat" });
    let root = space(&alice, public.clone(), &[&closed, &knock], via).await;
    let rules = json!({ "join_rule": "restricted", "allow": [
        { "type": "m.room_membership", "room_id": root },
    ]});
    let restricted = alice.create_room(with(rules)).await;
    let forbidden = alice.create_room(public).await;
    link(&alice, (&root, &restricted), json!({ "via": [via] })).await;
    link(&alice, (&root, &forbidden), json!({ "via": [via] })).await;
    let (status, body) = alice
        .post(
            &format!("/rooms/{}/ban", enc(&forbidden)),
            json!({ "user_id": bob.id }),
        )
        .await;
    assert_eq!(status, 200, "{body}");

    let expect = |rooms: &[&String]| rooms.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&bob, &root, "").await, expect(&[&root, &knock]));
    bob.join(&root).await;
    let now = shown(&bob, &root, "").await;
    assert_eq!(now, expect(&[&root, &knock, &restricted]));
    let invite = format!("/rooms/{}/invite", enc(&closed));
    let (status, body) = alice.post(&invite, json!({ "user_id": bob.id })).await;
    assert_eq!(status, 200, "{body}");
    let now = shown(&bob, &root, "").await;
    assert_eq!(now, expect(&[&root, &closed, &knock, &restricted]));

    // What cannot be seen at all looks like what is not there.
    for room in [&forbidden, &format!("!nothing:{via}")] {
        let (status, body) = hierarchy(&bob, room, "").await;
        let got = (status, &body["errcode"]);
        assert_eq!(got, (403, &json!("M_FORBIDDEN")), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_summed_up_for_who_may_see_it() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let path = |room: &str| format!("/../v1/room_summary/{}", enc(room));
    let public = alice
        .create_room(json!({
            "preset": "public_chat", "name": "Amt", "topic": "Termine", "room_version": "11",
            "room_alias_name": "amt",
            "initial_state": [{
                "type": "m.room.encryption", "state_key": "",
                "content": { "algorithm": "m.megolm.v1.aes-sha2" },
            }],
        }))
        .await;
    let alias = format!("#amt:{}", server.name);
    let expected = json!({
        "room_id": public, "name": "Amt", "topic": "Termine", "canonical_alias": alias,
        "num_joined_members": 1, "join_rule": "public", "guest_can_join": false,
        "world_readable": false, "encryption": "m.megolm.v1.aes-sha2", "room_version": "11",
        "membership": "leave",
    });
    for target in [&public, &alias] {
        assert_eq!(bob.get(&path(target)).await, (200, expected.clone()));
    }
    let (_, mine) = alice.get(&path(&public)).await;
    assert_eq!(mine["membership"], "join");
    let old = format!("/../unstable/im.nheko.summary/summary/{}", enc(&public));
    let (status, body) = bob.get(&old).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["im.nheko.summary.room_version"], "11");

    let rules = json!({ "join_rule": "restricted", "allow": [
        { "type": "m.room_membership", "room_id": public },
        { "type": "x.other", "room_id": "!x:y" },
    ]});
    let restricted = alice
        .create_room(json!({ "initial_state": [
            { "type": "m.room.join_rules", "state_key": "", "content": rules },
        ]}))
        .await;
    let (status, body) = bob.get(&path(&restricted)).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    bob.join(&public).await;
    let (status, body) = bob.get(&path(&restricted)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["allowed_room_ids"], json!([public]));

    // Without a session only what is open to anybody; a wrong token is an error.
    let http = http::client();
    for (room, token, expected) in [
        (&public, None, 200),
        (&restricted, None, 404),
        (&public, Some("wrong"), 401),
    ] {
        let mut request = http.get(alice.url(&path(room)));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.ask().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected);
        let body: Value = answer.json().await.unwrap();
        assert!(body["membership"].is_null(), "{body}");
    }
}
