//! Rooms: membership, state, redaction, history, aliases.

use serde_json::{Value, json};

use crate::rig::{
    enc,
    http::{self, Ask as _},
    server::Server,
    user::User,
};

#[tokio::test(flavor = "multi_thread")]
async fn membership_follows_the_rules() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for version in ["10", "11", "12"] {
        let room = alice.create_room(json!({ "room_version": version })).await;
        let path = |action: &str| format!("/rooms/{}/{action}", enc(&room));
        let target = json!({ "user_id": bob.id });
        let (status, body) = bob.post(&path("join"), json!({})).await;
        assert_eq!(
            (status, &body["errcode"]),
            (403, &json!("M_FORBIDDEN")),
            "not invited"
        );
        for (user, action, body, expected) in [
            (&alice, "invite", &target, 200),
            (&bob, "join", &json!({}), 200),
            (&bob, "kick", &json!({ "user_id": alice.id }), 403),
            (&alice, "kick", &target, 200),
            (&alice, "unban", &target, 403),
            (&alice, "ban", &target, 200),
            (&alice, "invite", &target, 403),
            (&bob, "join", &json!({}), 403),
            (&alice, "unban", &target, 200),
            (&alice, "invite", &target, 200),
            (&bob, "join", &json!({}), 200),
            (&bob, "forget", &json!({}), 400),
            (&bob, "leave", &json!({}), 200),
            (&bob, "forget", &json!({}), 200),
        ] {
            let (status, answer) = user.post(&path(action), body.clone()).await;
            assert_eq!(status, expected, "v{version} {action}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_can_be_refused_when_nobody_is_left_and_forgetting_is_told() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let mut bob = server.user("bob").await;
    let room = alice.create_room(json!({ "invite": [bob.id] })).await;
    bob.is_invited(&room).await;
    let leave = format!("/rooms/{}/leave", enc(&room));
    let forget = format!("/rooms/{}/forget", enc(&room));
    assert_eq!(alice.post(&leave, json!({})).await.0, 200);
    assert_eq!(bob.post(&leave, json!({})).await.0, 200);
    let since = bob.since.clone().unwrap();
    let sync = bob.sync(0).await;
    let events = &sync["rooms"]["leave"][&room]["timeline"]["events"];
    assert_eq!(events[0]["content"]["membership"], "leave", "{sync}");

    // Another client of Bob's, which has not seen the end of the invitation yet.
    assert_eq!(bob.post(&forget, json!({})).await.0, 200);
    let (_, sync) = bob.get(&format!("/sync?since={since}")).await;
    assert!(sync["rooms"]["leave"][&room].is_object(), "{sync}");
    let filter = enc(&json!({ "room": { "include_leave": true } }).to_string());
    let (_, sync) = bob.get(&format!("/sync?filter={filter}")).await;
    assert!(sync["rooms"]["leave"].is_null(), "{sync}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_says_when_it_came_and_shows_who_is_invited() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let mut bob = server.user("bob").await;
    let path = format!("/profile/{}/displayname", enc(&bob.id));
    let name = json!({ "displayname": "Bob vom Amt" });
    assert_eq!(bob.put(&path, name).await.0, 200);

    // With the creation of a room, and afterwards.
    let direct = json!({ "invite": [bob.id], "is_direct": true, "preset": "private_chat" });
    let with_creation = alice.create_room(direct).await;
    let later = alice.create_room(json!({ "preset": "private_chat" })).await;
    let invite = format!("/rooms/{}/invite", enc(&later));
    let body = json!({ "user_id": bob.id, "reason": "please" });
    assert_eq!(alice.post(&invite, body).await.0, 200);
    for (room, is_direct, reason) in [
        (&with_creation, json!(true), Value::Null),
        (&later, Value::Null, json!("please")),
    ] {
        let path = format!("/rooms/{}/state", enc(room));
        let (_, state) = alice.get(&path).await;
        let id = bob.id.clone();
        let is_own = |event: &&Value| event["state_key"] == id.as_str();
        let sent = state.as_array().unwrap().iter().find(is_own).unwrap();
        let content = &sent["content"];
        assert_eq!(content["membership"], "invite", "{sent}");
        assert_eq!(content["displayname"], "Bob vom Amt", "{sent}");
        assert_eq!(
            (&content["is_direct"], &content["reason"]),
            (&is_direct, &reason)
        );
        let told = bob.is_invited(room).await;
        let told = told["invite_state"]["events"].as_array().unwrap();
        let told = told.iter().find(is_own).unwrap();
        for field in ["content", "event_id", "origin_server_ts", "sender"] {
            assert_eq!(told[field], sent[field], "{told}");
        }
        bob.since = None;
    }
    // Nobody is made by an invitation.
    let nobody = format!("@nobody:{}", server.name);
    let status = alice.post(&invite, json!({ "user_id": nobody })).await.0;
    assert_eq!(status, 200);
    assert_eq!(bob.get(&format!("/profile/{}", enc(&nobody))).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn knocking_asks_to_be_let_in() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({ "initial_state": [
            { "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } },
        ]}))
        .await;
    let (status, body) = bob.post(&format!("/knock/{}", enc(&room)), json!({})).await;
    assert_eq!(status, 200, "{body}");
    let invite = format!("/rooms/{}/invite", enc(&room));
    let (status, body) = alice.post(&invite, json!({ "user_id": bob.id })).await;
    assert_eq!(status, 200, "{body}");
    bob.join(&room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redacted_event_loses_its_content_everywhere() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for version in ["10", "12"] {
        let room = alice
            .create_room(json!({ "room_version": version, "preset": "public_chat" }))
            .await;
        bob.join(&room).await;
        let event = alice.say(&room, "secret").await;
        let path = format!("/rooms/{}/redact/{}/r", enc(&room), enc(&event));
        let (status, body) = bob.put(&path, json!({})).await;
        assert_eq!(
            (status, &body["errcode"]),
            (403, &json!("M_FORBIDDEN")),
            "no power"
        );
        let (status, body) = alice.put(&path, json!({ "reason": "oops" })).await;
        assert_eq!(status, 200, "{body}");
        let seen = format!("/rooms/{}/event/{}", enc(&room), enc(&event));
        let (status, body) = bob.get(&seen).await;
        assert_eq!((status, &body["content"]), (200, &json!({})));
        let because = &body["unsigned"]["redacted_because"];
        assert_eq!(because["content"]["reason"], "oops", "{body}");
        assert!(!bob.history(&room).await.contains(&"secret".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_shown_from_where_visibility_says() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for (visibility, sees_before) in [
        ("world_readable", true),
        ("shared", true),
        ("invited", false),
        ("joined", false),
    ] {
        let room = alice
            .create_room(json!({ "preset": "public_chat", "initial_state": [{
                "type": "m.room.history_visibility",
                "state_key": "",
                "content": { "history_visibility": visibility },
            }]}))
            .await;
        alice.say(&room, "before").await;
        bob.join(&room).await;
        alice.say(&room, "while in").await;
        let history = bob.history(&room).await;
        assert_eq!(
            history.contains(&"before".to_owned()),
            sees_before,
            "{visibility}"
        );
        assert!(history.contains(&"while in".to_owned()), "{visibility}");
        let (status, _) = bob
            .post(&format!("/rooms/{}/leave", enc(&room)), json!({}))
            .await;
        assert_eq!(status, 200);
        alice.say(&room, "after").await;
        let history = bob.history(&room).await;
        let after = history.contains(&"after".to_owned());
        assert_eq!(after, visibility == "world_readable", "{visibility}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_and_the_directory_lead_to_rooms() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({
            "visibility": "public",
            "room_alias_name": "amt",
            "name": "Bürgeramt",
        }))
        .await;
    let alias = format!("#amt:{}", server.name);
    let (status, body) = bob.get(&format!("/directory/room/{}", enc(&alias))).await;
    assert_eq!((status, &body["room_id"]), (200, &json!(room)));
    let (status, body) = bob.get("/publicRooms").await;
    assert_eq!(
        (status, &body["chunk"][0]["name"]),
        (200, &json!("Bürgeramt")),
        "{body}"
    );
    let taken = json!({ "room_alias_name": "amt" });
    let (status, body) = bob.post("/createRoom", taken).await;
    assert_eq!((status, &body["errcode"]), (400, &json!("M_ROOM_IN_USE")));
    let path = format!("/directory/room/{}", enc(&alias));
    let (status, _) = bob.call(reqwest::Method::DELETE, &path, None).await;
    assert_eq!(status, 403);
    let (status, _) = alice.call(reqwest::Method::DELETE, &path, None).await;
    assert_eq!(status, 200);
    let (status, body) = bob.get(&path).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    let canonical = format!("/rooms/{}/state/m.room.canonical_alias", enc(&room));
    let (status, body) = alice.get(&canonical).await;
    assert_eq!(
        (status, body),
        (200, json!({})),
        "the room names it no more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn state_context_and_members_can_be_read() {
    let server = Server::start().await;
    let (alice, eve) = (server.user("alice").await, server.user("eve").await);
    let room = alice.create_room(json!({ "name": "Akte" })).await;
    let base = format!("/rooms/{}", enc(&room));
    for path in ["/state/m.room.name", "/state/m.room.name/"] {
        let (status, body) = alice.get(&format!("{base}{path}")).await;
        assert_eq!((status, &body["name"]), (200, &json!("Akte")), "{path}");
    }
    let custom = format!("{base}/state/de.example.custom/a%2Fb");
    assert_eq!(alice.put(&custom, json!({ "x": 1 })).await.0, 200);
    assert_eq!(alice.get(&custom).await, (200, json!({ "x": 1 })));
    let middle = alice.say(&room, "1").await;
    alice.say(&room, "2").await;
    alice.say(&room, "3").await;
    let (status, body) = alice
        .get(&format!("{base}/context/{}?limit=3", enc(&middle)))
        .await;
    let after = body["events_after"].as_array().unwrap().iter();
    let after: Vec<&Value> = after.map(|event| &event["content"]["body"]).collect();
    assert_eq!((status, after), (200, vec![&json!("2"), &json!("3")]));
    assert_eq!(body["events_before"].as_array().unwrap().len(), 1, "{body}");
    let (status, body) = alice.get(&format!("{base}/joined_members")).await;
    assert_eq!((status, body["joined"][&alice.id].is_object()), (200, true));
    let (status, body) = alice.get(&format!("{base}/members")).await;
    assert_eq!((status, body["chunk"].as_array().unwrap().len()), (200, 1));
    for path in ["/state", "/members", "/messages?dir=b", "/joined_members"] {
        let (status, body) = eve.get(&format!("{base}{path}")).await;
        assert_eq!(
            (status, &body["errcode"]),
            (403, &json!("M_FORBIDDEN")),
            "{path}"
        );
    }
    let visibility = format!("{base}/state/m.room.history_visibility");
    let open = json!({ "history_visibility": "world_readable" });
    assert_eq!(alice.put(&visibility, open).await.0, 200);
    for path in ["/state", "/joined_members"] {
        let (status, _) = eve.get(&format!("{base}{path}")).await;
        assert_eq!(status, 200, "anybody may look in: {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_makes_one_event_also_across_a_restart() {
    let mut server = Server::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/rooms/{}/send/m.room.message/once", enc(&room));
    let body = json!({ "msgtype": "m.text", "body": "once" });
    let (first, second, fourth) = tokio::join!(
        alice.put(&path, body.clone()),
        alice.put(&path, body.clone()),
        alice.put(&path, body.clone())
    );
    assert_eq!(first, fourth);
    server.stop();
    server.restart().await;
    let third = alice.put(&path, body).await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(first, second);
    assert_eq!(first, third);
    assert_eq!(alice.history(&room).await, ["once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_room_takes_name_alias_and_rules_along() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for (from, to) in [("1", "10"), ("10", "12"), ("11", "6")] {
        let name = format!("up{from}");
        let room = alice
            .create_room(json!({
                "room_version": from, "preset": "public_chat", "name": "Referat Z",
                "room_alias_name": name, "visibility": "public",
            }))
            .await;
        bob.join(&room).await;
        let path = format!("/rooms/{}/upgrade", enc(&room));
        let (status, body) = bob.post(&path, json!({ "new_version": to })).await;
        assert_eq!(
            (status, &body["errcode"]),
            (403, &json!("M_FORBIDDEN")),
            "{body}"
        );
        let (status, body) = alice.post(&path, json!({ "new_version": "99" })).await;
        assert_eq!(
            (status, &body["errcode"]),
            (400, &json!("M_UNSUPPORTED_ROOM_VERSION")),
            "{body}"
        );
        let (status, body) = alice.post(&path, json!({ "new_version": to })).await;
        assert_eq!(status, 200, "{from} to {to}: {body}");
        let new = body["replacement_room"].as_str().unwrap().to_owned();
        let state = async |room: &str, kind: &str| {
            let path = format!("/rooms/{}/state/{kind}/", enc(room));
            alice.get(&path).await.1
        };
        assert_eq!(
            state(&room, "m.room.tombstone").await["replacement_room"],
            new.as_str()
        );
        let create = state(&new, "m.room.create").await;
        assert_eq!(create["predecessor"]["room_id"], room.as_str(), "{create}");
        assert_eq!(create["room_version"], to);
        assert_eq!(state(&new, "m.room.name").await["name"], "Referat Z");
        assert_eq!(
            state(&new, "m.room.join_rules").await["join_rule"],
            "public"
        );
        let alias = enc(&format!("#{name}:{}", server.name));
        let (_, found) = bob.get(&format!("/directory/room/{alias}")).await;
        assert_eq!(found["room_id"], new.as_str(), "{found}");
        let canonical = state(&new, "m.room.canonical_alias").await;
        assert!(canonical["alias"].is_string(), "{canonical}");
        let say = format!("/rooms/{}/send/m.room.message/late", enc(&room));
        let (status, _) = bob
            .put(&say, json!({ "msgtype": "m.text", "body": "late" }))
            .await;
        assert_eq!(status, 403, "the old room is closed");
        bob.join(&new).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_by_their_time() {
    let server = Server::start().await;
    let (alice, eve) = (server.user("alice").await, server.user("eve").await);
    let room = alice.create_room(json!({})).await;
    let first = alice.say(&room, "first").await;
    let last = alice.say(&room, "last").await;
    let find = async |user: &crate::rig::user::User, ts: i64, dir: &str| {
        let http = http::client();
        let path = format!("/_matrix/client/v1/rooms/{}/timestamp_to_event", enc(&room));
        let url = format!("{}?ts={ts}&dir={dir}", server.url(&path));
        let answer = http.get(url).bearer_auth(&user.token).ask().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<serde_json::Value>().await.unwrap(),
        )
    };
    let far = 32_503_680_000_000;
    assert_eq!(find(&alice, far, "b").await.1["event_id"], last.as_str());
    let (_, event) = alice
        .get(&format!("/rooms/{}/event/{first}", enc(&room)))
        .await;
    let ts = event["origin_server_ts"].as_i64().unwrap();
    let (_, found) = find(&alice, ts, "f").await;
    assert!(found["origin_server_ts"].as_i64().unwrap() >= ts, "{found}");
    let (status, body) = find(&alice, far, "f").await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    assert_eq!(find(&eve, far, "b").await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_those_of_a_point_in_time_and_nobody_sees_beyond_their_stay() {
    let server = Server::start().await;
    let mut alice = server.user("alice").await;
    let (mut bob, carol) = (server.user("bob").await, server.user("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let sync = alice.sync(0).await;
    let begin = sync["rooms"]["join"][&room]["timeline"]["prev_batch"].clone();
    // Words of one's own go into the membership event, but for what a server says.
    let said = json!({ "reason": "hello", "de.example.desk": 4, "displayname": "Mallory" });
    let (status, body) = bob.post(&format!("/join/{}", enc(&room)), said).await;
    assert_eq!(status, 200, "{body}");
    let path = format!("/rooms/{}/state/m.room.member/{}", enc(&room), enc(&bob.id));
    let (_, member) = alice.get(&path).await;
    assert_eq!(
        (
            &member["reason"],
            &member["de.example.desk"],
            &member["displayname"]
        ),
        (&json!("hello"), &json!(4), &json!("bob"))
    );
    bob.sync(0).await;
    let leave = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(bob.post(&leave, json!({})).await.0, 200);
    carol.join(&room).await;
    alice.sync(0).await;

    let members = async |user: &User, at: &str| -> Vec<String> {
        let path = format!("/rooms/{}/members?at={}", enc(&room), enc(at));
        let (status, body) = user.get(&path).await;
        assert_eq!(status, 200, "{body}");
        let chunk = body["chunk"].as_array().unwrap().iter();
        let joined = chunk.filter(|event| event["content"]["membership"] == "join");
        joined
            .map(|event| event["state_key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(members(&alice, begin.as_str().unwrap()).await, [&*alice.id]);
    let now = alice.since.clone().unwrap();
    let mut both = members(&alice, &now).await;
    both.sort();
    assert_eq!(both, [&*alice.id, &*carol.id]);
    assert_eq!(members(&bob, &now).await, [&*alice.id]);

    // The direction of a page may be left out, but not be nonsense.
    let messages = format!("/rooms/{}/messages", enc(&room));
    let (_, page) = alice.get(&messages).await;
    assert_eq!(page["chunk"][0]["type"], "m.room.create", "{page}");
    assert_eq!(alice.get(&format!("{messages}?dir=up")).await.0, 400);
}
