//! Keys of devices and messages to them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rig::{enc, eventually, server::Server, user::User};

/// Id of the device that a user is logged in with.
async fn device(user: &User) -> String {
    let (_, body) = user.get("/account/whoami").await;
    body["device_id"].as_str().unwrap().to_owned()
}

/// Uploads identity keys and some one-time keys, as a client does after login.
pub(crate) async fn upload(user: &User, count: usize) -> String {
    let device = device(user).await;
    let one_time: serde_json::Map<String, Value> = (0..count)
        .map(|i| {
            (
                format!("signed_curve25519:K{i:04}"),
                json!({ "key": format!("key {i}"), "signatures": {} }),
            )
        })
        .collect();
    let body = json!({
        "device_keys": {
            "user_id": user.id, "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": { format!("ed25519:{device}"): "AAAA", format!("curve25519:{device}"): "BBBB" },
            "signatures": { &user.id: { format!("ed25519:{device}"): "sig" } },
        },
        "one_time_keys": one_time,
        "fallback_keys": { "signed_curve25519:FALL": { "key": "the last", "signatures": {}, "fallback": true } },
    });
    let (status, answer) = user.post("/keys/upload", body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["one_time_key_counts"]["signed_curve25519"], count,
        "{answer}"
    );
    device
}

pub(crate) async fn claim(asking: &User, user: &User, device: &str) -> Option<String> {
    let wish = json!({ "one_time_keys": { &user.id: { device: "signed_curve25519" } } });
    let (status, body) = asking.post("/keys/claim", wish).await;
    assert_eq!(status, 200, "{body}");
    let keys = body["one_time_keys"][&user.id][device].as_object()?;
    keys.keys().next().cloned()
}

pub(crate) async fn send_to(user: &User, to: &User, device: &str, txn: &str, text: &str) {
    let path = format!("/sendToDevice/m.test/{txn}");
    let body = json!({ "messages": { &to.id: { device: { "text": text } } } });
    let (status, answer) = user.put(&path, body).await;
    assert_eq!(status, 200, "{answer}");
}

/// Texts of messages to the device that a sync brings.
pub(crate) fn texts(sync: &Value) -> Vec<String> {
    let events = sync["to_device"]["events"].as_array().unwrap();
    let texts = events.iter().map(|event| event["content"]["text"].as_str());
    texts
        .map(|text| text.unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_time_key_is_given_once_and_the_oldest_first() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let device = upload(&alice, 50).await;
    let first = claim(&bob, &alice, &device).await;
    assert_eq!(first.as_deref(), Some("signed_curve25519:K0000"));
    let mut claims = Vec::new();
    for _ in 0..60 {
        claims.push(claim(&bob, &alice, &device));
    }
    let mut given = futures_util::future::join_all(claims).await;
    given.retain(|key| key.as_deref() != Some("signed_curve25519:FALL"));
    let mut keys: Vec<String> = given.into_iter().flatten().collect();
    keys.push(first.unwrap());
    keys.sort();
    let count = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), count, "none twice");
    let last = claim(&bob, &alice, &device).await;
    let mut alice = alice;
    let sync = alice.sync(0).await;
    let left = sync["device_one_time_keys_count"]["signed_curve25519"]
        .as_u64()
        .unwrap();
    assert_eq!(
        usize::try_from(left).unwrap() + count,
        50 + usize::from(left > 0)
    );
    assert!(last.is_some(), "the fallback key goes on");
    assert_eq!(sync["device_unused_fallback_key_types"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_devices_arrive_once_and_in_order() {
    let mut server = Server::start().await;
    let (alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let device = upload(&bob, 1).await;
    bob.sync(0).await;
    for i in 0..120 {
        send_to(&alice, &bob, &device, &format!("t{i}"), &format!("m{i}")).await;
    }
    send_to(&alice, &bob, &device, "t0", "again").await;
    send_to(&alice, &bob, "*", "star", "to all").await;
    send_to(&alice, &bob, "NOBODY", "none", "to nobody").await;
    let since = bob.since.clone();
    let first = texts(&bob.sync(0).await);
    // A lost answer: the same token asks again.
    bob.since = since;
    assert_eq!(texts(&bob.sync(0).await), first);
    server.kill();
    server.restart().await;
    let mut all = first;
    all.extend(texts(&bob.sync(0).await));
    let mut expected: Vec<String> = (0..120).map(|i| format!("m{i}")).collect();
    expected.push("to all".to_owned());
    assert_eq!(all, expected);
    assert_eq!(texts(&bob.sync(0).await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_wait_for_a_device_and_arrive_in_pages() {
    const SENDERS: usize = 20;
    const EACH: usize = 500;
    let mut server = Server::start().await;
    let mut bob = server.user("bob").await;
    let device = upload(&bob, 1).await;
    let alice = server.user("alice").await;
    let device = device.as_str();
    let send = async |sender: usize| {
        for n in 0..EACH {
            let txn = format!("{sender}-{n}");
            send_to(&alice, &bob, device, &txn, &txn).await;
        }
    };
    futures_util::future::join_all((0..SENDERS).map(send)).await;
    server.kill();
    server.restart().await;
    let mut next = [0_usize; SENDERS];
    let mut pages = 0;
    loop {
        let since = bob.since.clone();
        let mut page = texts(&bob.sync(0).await);
        if pages % 10 == 3 {
            // A lost answer: the same token asks again.
            bob.since = since;
            assert_eq!(texts(&bob.sync(0).await), page);
        }
        assert!(page.len() <= 100, "an answer is bounded: {}", page.len());
        if page.is_empty() {
            break;
        }
        pages += 1;
        for text in page.drain(..) {
            let (sender, n) = text.split_once('-').unwrap();
            let sender: usize = sender.parse().unwrap();
            assert_eq!(n.parse(), Ok(next[sender]), "in order, once: {text}");
            next[sender] += 1;
        }
    }
    assert_eq!(next, [EACH; SENDERS], "after {pages} pages");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM to_device")
        .fetch_one(&mut server.database().await)
        .await
        .unwrap();
    assert_eq!(left, 0, "what was acknowledged is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_room_hears_of_new_devices_and_keys() {
    let server = Server::start().await;
    let (alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.sync(0).await;
    upload(&alice, 1).await;
    let alice_id = json!(alice.id);
    eventually("the change", async || {
        let sync = bob.sync(0).await;
        let changed = sync["device_lists"]["changed"].as_array()?;
        changed.contains(&alice_id).then_some(())
    })
    .await;
    let (_, keys) = bob
        .post("/keys/query", json!({ "device_keys": { &alice.id: [] } }))
        .await;
    assert_eq!(
        keys["device_keys"][&alice.id]
            .as_object()
            .map(serde_json::Map::len),
        Some(1)
    );

    let (status, _) = bob
        .post(&format!("/rooms/{}/leave", enc(&room)), json!({}))
        .await;
    assert_eq!(status, 200);
    let sync = bob.sync(0).await;
    assert_eq!(sync["device_lists"]["left"], json!([alice.id]), "{sync}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_keys_are_refused() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    for (path, body) in [
        ("/keys/upload", json!({ "one_time_keys": [] })),
        (
            "/keys/upload",
            json!({ "one_time_keys": { "no colon": {} } }),
        ),
        (
            "/keys/upload",
            json!({ "device_keys": { "user_id": "@eve:x", "device_id": "D" } }),
        ),
        ("/keys/query", json!({})),
        ("/keys/query", json!({ "device_keys": { "nobody": [] } })),
        ("/keys/claim", json!({ "one_time_keys": 1 })),
        (
            "/keys/device_signing/upload",
            json!({ "master_key": { "keys": {} } }),
        ),
        (
            "/keys/upload",
            json!({ "one_time_keys": { format!("{}:A", "x".repeat(300)): {} } }),
        ),
        ("/keys/signatures/upload", json!([])),
    ] {
        let (status, answer) = alice.post(path, body.clone()).await;
        assert_eq!(status, 400, "{path} {body}: {answer}");
    }
    let lacking = json!({ "device_keys": { "user_id": alice.id, "device_id": "D" } });
    let (_, answer) = alice.post("/keys/upload", lacking).await;
    assert_eq!(answer["errcode"], "M_BAD_JSON");
    upload(&alice, 1).await;
    let other = json!({ "one_time_keys": { "signed_curve25519:K0000": { "key": "another", "signatures": {} } } });
    assert_eq!(
        alice.post("/keys/upload", other).await.0,
        400,
        "ids are used once"
    );
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    for path in ["/keys/upload", "/keys/signatures/upload", "/keys/query"] {
        assert_eq!(alice.post_text(path, &deep).await, 400, "{path}");
    }
    let many: serde_json::Map<String, Value> = (0..2_001)
        .map(|n| (format!("@u{n}:localhost"), json!([])))
        .collect();
    let (status, _) = alice
        .post("/keys/query", json!({ "device_keys": many }))
        .await;
    assert_eq!(status, 400);
    let huge = json!({ "messages": { &alice.id: { "*": { "text": "x".repeat(70_000) } } } });
    assert_eq!(alice.put("/sendToDevice/m.test/huge", huge).await.0, 400);
    let (status, _) = alice.get("/keys/changes?from=x&to=y").await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_given_is_not_given_again_when_its_upload_is_repeated() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let keys = |of: &str| json!({ "one_time_keys": { "signed_curve25519:A": { "key": of, "signatures": {} } } });
    let device = device(&alice).await;
    for _ in 0..2 {
        let (status, answer) = alice.post("/keys/upload", keys("one")).await;
        assert_eq!(status, 200, "{answer}");
    }
    let given = claim(&bob, &alice, &device).await;
    assert_eq!(given.as_deref(), Some("signed_curve25519:A"));
    // The answer was lost: the client uploads the same again.
    let (_, answer) = alice.post("/keys/upload", keys("one")).await;
    let counts = &answer["one_time_key_counts"];
    assert_eq!(counts["signed_curve25519"], 0, "{answer}");
    assert_eq!(claim(&bob, &alice, &device).await, None);
    let (_, answer) = alice.post("/keys/upload", keys("two")).await;
    let counts = &answer["one_time_key_counts"];
    assert_eq!(counts["signed_curve25519"], 1, "another key: {answer}");
    assert!(claim(&bob, &alice, &device).await.is_some());

    for round in 0..4 {
        let keys: serde_json::Map<String, Value> = (0..1_900)
            .map(|n| (format!("curve25519:{round}-{n}"), json!("key")))
            .collect();
        let (status, answer) = alice
            .post("/keys/upload", json!({ "one_time_keys": keys }))
            .await;
        let expected = if round < 2 { 200 } else { 400 };
        assert_eq!(status, expected, "only so many wait: {answer}");
    }
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test(flavor = "multi_thread")]
async fn room_keys_are_kept_and_only_better_ones_replace_them() {
    let server = Server::start().await;
    let (alice, eve) = (server.user("alice").await, server.user("eve").await);
    let base = "/room_keys/version";
    assert_eq!(alice.get(base).await.0, 404);
    let backup =
        json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "k": 1 } });
    let (_, made) = alice.post(base, backup.clone()).await;
    assert_eq!(made["version"], "1", "{made}");
    let key = |index: i64, verified: bool, data: &str| {
        json!({
            "first_message_index": index, "forwarded_count": 0, "is_verified": verified,
            "session_data": { "data": data },
        })
    };
    let room = enc("!room:a.example");
    let one = format!("/room_keys/keys/{room}/s1?version=1");
    let (status, put) = alice.put(&one, key(5, false, "first")).await;
    assert_eq!((status, &put["count"]), (200, &json!(1)), "{put}");
    let etag = put["etag"].clone();
    let (_, worse) = alice.put(&one, key(9, false, "worse")).await;
    assert_eq!(worse["etag"], etag, "nothing changed");
    alice.put(&one, key(9, true, "verified")).await;
    let (_, kept) = alice.get(&one).await;
    assert_eq!(kept["session_data"]["data"], "verified");
    let many = json!({ "rooms": { "!other:a.example": { "sessions": {
        "s2": key(0, false, "two"), "s3": key(0, false, "three"),
    }}}});
    let (_, put) = alice.put("/room_keys/keys?version=1", many).await;
    assert_eq!(put["count"], 3, "{put}");
    let (_, all) = alice.get("/room_keys/keys?version=1").await;
    assert_eq!(
        all["rooms"].as_object().map(serde_json::Map::len),
        Some(2),
        "{all}"
    );
    assert_eq!(
        eve.get("/room_keys/keys?version=1").await.0,
        404,
        "of another user"
    );

    let (_, second) = alice.post(base, backup.clone()).await;
    assert_eq!(second["version"], "2");
    let (status, body) = alice.put(&one, key(0, true, "late")).await;
    assert_eq!(
        (status, &body["errcode"]),
        (403, &json!("M_WRONG_ROOM_KEYS_VERSION"))
    );
    assert_eq!(body["current_version"], "2");
    for bad in [
        json!({}),
        json!({ "first_message_index": -1 }),
        key(0, true, &"x".repeat(70_000)),
    ] {
        let path = format!("/room_keys/keys/{room}/s1?version=2");
        assert_eq!(alice.put(&path, bad.clone()).await.0, 400, "{bad}");
    }
    let delete = reqwest::Method::DELETE;
    let (status, gone) = alice
        .call(
            delete.clone(),
            &format!("/room_keys/keys/{room}?version=1"),
            None,
        )
        .await;
    assert_eq!((status, &gone["count"]), (200, &json!(2)), "{gone}");
    assert_eq!(
        alice.call(delete, "/room_keys/version/2", None).await.0,
        200
    );
    let (_, newest) = alice.get(base).await;
    assert_eq!(newest["version"], "1", "{newest}");
    let (_, third) = alice.post(base, backup).await;
    assert_eq!(third["version"], "3", "numbers are given once");
}

/// More users than go into one answer, all of whose devices changed after a position and up to another.
async fn crowd(server: &Server, room: &str, (after, upto): (i64, i64), count: i64) {
    let mut database = server.database().await;
    let sql = format!(
        "SET session_replication_role = replica;
         INSERT INTO mx_user (server_nid, mxid)
           SELECT server_nid, '@crowd' || n || ':' || name FROM generate_series(1, {count}) n,
             (SELECT server_nid, name FROM server WHERE name = '{}') s;
         INSERT INTO member (room_nid, user_nid, membership, event_nid)
           SELECT r.room_nid, u.user_nid, 1, 1 FROM mx_user u, room r
           WHERE u.mxid LIKE '@crowd%' AND r.room_id = '{room}';
         INSERT INTO device_change (user_nid, pos)
           SELECT user_nid, {after} + 1 + user_nid % ({upto} - {after}) FROM mx_user
           WHERE mxid LIKE '@crowd%';
         ANALYZE member; ANALYZE device_change; ANALYZE mx_user;",
        server.name
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut database)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_more_changes_than_an_answer_holds_none_is_lost() {
    const COUNT: usize = 130_000;
    let server = Server::start().await;
    let mut alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let sliding = "/../unstable/org.matrix.simplified_msc3575/sync";
    let body = json!({ "conn_id": "e", "extensions": { "e2ee": { "enabled": true } } });
    let (status, first) = alice.post(sliding, body.clone()).await;
    assert_eq!(status, 200, "{first}");
    alice.sync(0).await;
    let from = alice.since.clone().unwrap();
    let pos = |token: &str| -> i64 { token.split('_').nth(1).unwrap().parse().unwrap() };
    for n in 0..30 {
        alice.say(&room, &format!("{n}")).await;
    }
    let (_, now) = alice.get("/sync?timeout=0").await;
    let to = now["next_batch"].as_str().unwrap().to_owned();
    let span = (pos(&from), pos(&to));
    crowd(&server, &room, span, i64::try_from(COUNT).unwrap()).await;

    let named = |lists: &Value| -> Vec<String> {
        let users = lists["changed"].as_array().cloned().unwrap_or_default();
        let users = users
            .into_iter()
            .filter_map(|id| Some(id.as_str()?.to_owned()));
        users.filter(|id| id.starts_with("@crowd")).collect()
    };
    let (mut pages, mut told) = (Vec::new(), BTreeSet::new());
    for _ in 0..3 {
        let page = named(&alice.sync(0).await["device_lists"]);
        pages.push(page.len());
        told.extend(page);
    }
    assert_eq!(told.len(), COUNT, "{pages:?}");
    assert!(
        pages[0] < COUNT && pages[1] > 0 && pages[2] == 0,
        "{pages:?}"
    );

    let (mut pages, mut told) = (Vec::new(), BTreeSet::new());
    let mut at = first["pos"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        let path = format!("{sliding}?timeout=0&pos={at}");
        let (status, answer) = alice.post(&path, body.clone()).await;
        assert_eq!(status, 200);
        let page = named(&answer["extensions"]["e2ee"]["device_lists"]);
        pages.push(page.len());
        told.extend(page);
        at = answer["pos"].as_str().unwrap().to_owned();
    }
    assert_eq!(told.len(), COUNT, "{pages:?}");
    assert!(
        pages[0] < COUNT && pages[1] > 0 && pages[2] == 0,
        "{pages:?}"
    );

    let path = format!("/keys/changes?from={from}&to={to}");
    let all: BTreeSet<String> = named(&alice.get(&path).await.1).into_iter().collect();
    assert_eq!(all.len(), COUNT);
}
