//! Keys and messages to devices between servers.

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::rooms::two_servers;
use crate::{
    client::keys::{claim, send_to, texts, upload},
    rig::{
        enc, eventually,
        identity::Identity,
        scripted::{Answer, Scripted, server_and_peer},
        server::{Folder, Server},
        tls::Tls,
        user::User,
    },
};

/// Syncs until a user stands in that list of device lists.
async fn told(user: &mut User, list: &str, other: &str) {
    let user = tokio::sync::Mutex::new(user);
    eventually(&format!("{other} in {list}"), async || {
        let mut user = user.lock().await;
        let from = user.since.clone()?;
        let sync = user.sync(1_000).await;
        let to = user.since.clone()?;
        let named = |lists: &Value| {
            let users = lists[list].as_array();
            users.is_some_and(|users| users.contains(&json!(other)))
        };
        let (_, changes) = user
            .get(&format!("/keys/changes?from={from}&to={to}"))
            .await;
        let found = named(&sync["device_lists"]);
        let lists = &sync["device_lists"];
        assert!(!found || named(&changes), "{lists} and {changes}");
        found.then_some(())
    })
    .await;
}

async fn query(asking: &User, user: &User) -> Value {
    let question = json!({ "device_keys": { &user.id: [] } });
    let (status, found) = asking.post("/keys/query", question).await;
    assert_eq!(status, 200, "{found}");
    found
}

/// Name of a device as another user sees it.
async fn seen_name(asking: &User, user: &User, device: &str) -> Value {
    let found = query(asking, user).await;
    found["device_keys"][&user.id][device]["unsigned"]["device_display_name"].clone()
}

async fn rename(user: &User, device: &str, name: &str) {
    let body = json!({ "display_name": name });
    let (status, answer) = user.put(&format!("/devices/{}", enc(device)), body).await;
    assert_eq!(status, 200, "{answer}");
}

/// (`stream_id`, fresh) of the copy of a user's list.
async fn copy(database: &mut PgConnection, user: &User) -> Option<(i64, bool)> {
    sqlx::query_as(
        "SELECT COALESCE(stream_id, -1), fresh FROM device_list
         JOIN mx_user USING (user_nid) WHERE mxid = $1",
    )
    .bind(&user.id)
    .fetch_optional(database)
    .await
    .unwrap()
}

/// Two users of two servers in a room, the second with a device that the first knows of.
async fn acquainted(one: &Server, other: &Server) -> (User, User, String, String) {
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "keys" }))
        .await;
    alice.sync(0).await;
    bob.join(&format!("#keys:{}", one.name)).await;
    told(&mut alice, "changed", &bob.id).await;
    alice.say(&room, "hello").await;
    bob.hears("hello").await;
    let device = upload(&bob, 3).await;
    told(&mut alice, "changed", &bob.id).await;
    (alice, bob, room, device)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_two_servers_find_and_reach_each_other_also_after_an_outage() {
    let (_folder, one, mut other) = two_servers().await;
    let (alice, mut bob, room, device) = acquainted(&one, &other).await;
    let found = query(&alice, &bob).await;
    assert_eq!(
        found["device_keys"][&bob.id][&device]["device_id"],
        device.as_str(),
        "{found}"
    );
    let first = claim(&alice, &bob, &device).await;
    assert_eq!(first.as_deref(), Some("signed_curve25519:K0000"));
    let stranger = other.user("stranger").await;

    other.kill();
    for i in 0..5 {
        send_to(&alice, &bob, &device, &format!("t{i}"), &format!("m{i}")).await;
    }
    let found = query(&alice, &bob).await;
    assert!(
        found["device_keys"][&bob.id][&device].is_object(),
        "{found}"
    );
    assert_eq!(found["failures"], json!({}), "a copy is kept: {found}");
    let found = query(&alice, &stranger).await;
    assert!(found["failures"][&other.name].is_object(), "{found}");
    other.restart().await;
    bob.say(&room, "back").await;
    let mut heard = Vec::new();
    eventually("the messages", async || {
        heard.extend(texts(&bob.sync(0).await));
        (heard.len() >= 5).then_some(())
    })
    .await;
    assert_eq!(heard, ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_device_lists_follow_the_changes_and_go_with_the_last_shared_room() {
    let (_folder, one, mut other) = two_servers().await;
    let (mut alice, bob, room, device) = acquainted(&one, &other).await;
    let mut copies = one.database().await;
    assert_eq!(copy(&mut copies, &bob).await, None, "nobody asked yet");
    query(&alice, &bob).await;
    let (at, fresh) = copy(&mut copies, &bob).await.unwrap();
    assert!(fresh);

    rename(&bob, &device, "phone").await;
    told(&mut alice, "changed", &bob.id).await;
    assert_eq!(copy(&mut copies, &bob).await, Some((at + 1, true)));
    assert_eq!(seen_name(&alice, &bob, &device).await, "phone");

    // An update is lost.
    sqlx::query("UPDATE device_stream SET stream_id = stream_id + 1")
        .execute(&mut other.database().await)
        .await
        .unwrap();
    rename(&bob, &device, "tablet").await;
    told(&mut alice, "changed", &bob.id).await;
    assert_eq!(seen_name(&alice, &bob, &device).await, "tablet");
    let (now, fresh) = copy(&mut copies, &bob).await.unwrap();
    assert!(now == at + 3 && fresh, "fetched anew");

    let (of_bob, of_alice) = (Identity::new(&bob.id), Identity::new(&alice.id));
    let path = "/keys/device_signing/upload";
    let (status, answer) = alice.post(path, of_alice.body()).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = bob.post(path, of_bob.body()).await;
    assert_eq!(status, 200, "{answer}");
    told(&mut alice, "changed", &bob.id).await;
    let signed = of_alice.user_signing.sign(of_bob.master.object("master"));
    let body = json!({ &bob.id: { &of_bob.master.public: signed } });
    let (_, answer) = alice.post("/keys/signatures/upload", body).await;
    assert_eq!(answer["failures"], json!({}), "{answer}");

    other.kill();
    let found = query(&alice, &bob).await;
    assert_eq!(found["failures"], json!({}), "{found}");
    let own = &found["self_signing_keys"][&bob.id];
    assert_eq!(own["usage"], json!(["self_signing"]), "{found}");
    let master = &found["master_keys"][&bob.id];
    let by = format!("ed25519:{}", of_alice.user_signing.public);
    assert!(master["signatures"][&alice.id][by].is_string(), "{found}");
    other.restart().await;

    let path = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(bob.post(&path, json!({})).await.0, 200);
    told(&mut alice, "left", &bob.id).await;
    assert_eq!(copy(&mut copies, &bob).await, None);
    rename(&bob, &device, "watch").await;
    assert_eq!(seen_name(&alice, &bob, &device).await, "watch");
    assert_eq!(copy(&mut copies, &bob).await, None, "not kept");

    bob.join(&format!("#keys:{}", one.name)).await;
    told(&mut alice, "changed", &bob.id).await;
    assert_eq!(seen_name(&alice, &bob, &device).await, "watch");
    assert!(copy(&mut copies, &bob).await.is_some());
    let path = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(alice.post(&path, json!({})).await.0, 200);
    assert_eq!(copy(&mut copies, &bob).await, None, "none of us is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_ends_ends_for_peers() {
    let (_folder, one, other) = two_servers().await;
    let (mut alice, bob, _, device) = acquainted(&one, &other).await;
    assert!(query(&alice, &bob).await["device_keys"][&bob.id][&device].is_object());
    assert_eq!(bob.post("/logout", json!({})).await.0, 200);
    told(&mut alice, "changed", &bob.id).await;
    assert_eq!(query(&alice, &bob).await["device_keys"][&bob.id], json!({}));
}

/// Makes devices with keys for a user, as many logins would.
async fn many_devices(server: &Server, user: &User, count: i32) {
    let mut database = server.database().await;
    sqlx::query(
        "INSERT INTO device (user_nid, device_no, device_id, created_ts)
         SELECT user_nid, nextval('device_no_seq')::int, 'MANY' || n, 1
         FROM mx_user, generate_series(1, $2) n WHERE mxid = $1",
    )
    .bind(&user.id)
    .bind(count)
    .execute(&mut database)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO device_key (user_nid, device_no, body)
         SELECT d.user_nid, d.device_no, json_build_object('user_id', u.mxid,
           'device_id', d.device_id, 'algorithms', '[]'::json, 'signatures', '{}'::json,
           'keys', json_build_object('ed25519:' || d.device_id, repeat('A', 43)))::text
         FROM device d JOIN mx_user u USING (user_nid)
         WHERE u.mxid = $1 AND d.device_id LIKE 'MANY%'",
    )
    .bind(&user.id)
    .execute(&mut database)
    .await
    .unwrap();
}

/// EDUs of a type that a peer was sent, in order.
fn told_peer(peer: &Scripted, kind: &str) -> Vec<Value> {
    let mut told = Vec::new();
    for asked in peer.asked("send") {
        let edus = asked.body["edus"].as_array().cloned().unwrap_or_default();
        told.extend(edus.into_iter().filter(|edu| edu["edu_type"] == kind));
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_devices_of_one_user_are_no_burden() {
    let (_folder, _tls, server, peer) = server_and_peer().await;
    let (mut alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_version": "11" }))
        .await;
    bob.join(&room).await;
    peer.enter(&server, &room, &peer.user("carol")).await;
    many_devices(&server, &alice, 500).await;
    let device = upload(&alice, 1).await;
    peer.is_asked("send", |asked| {
        asked.body["edus"].to_string().contains(&device)
    })
    .await;
    let found = query(&bob, &alice).await;
    let devices = found["device_keys"][&alice.id].as_object().unwrap();
    assert_eq!(devices.len(), 501);
    let path = format!("/_matrix/federation/v1/user/devices/{}", enc(&alice.id));
    let (status, list) = peer.call(&server, "GET", &path, None).await;
    assert_eq!(
        (status, list["devices"].as_array().unwrap().len()),
        (200, 501)
    );
    send_to(&bob, &alice, "*", "star", "to all").await;
    assert_eq!(texts(&alice.sync(0).await), ["to all"]);
    let queued: i64 = sqlx::query_scalar("SELECT count(*) FROM to_device")
        .fetch_one(&mut server.database().await)
        .await
        .unwrap();
    assert!(queued >= 500, "{queued}");

    // All of them end: the peer is told of the last ones, and sees by the numbers that it missed some.
    let before = told_peer(&peer, "m.device_list_update").len();
    let stream = list["stream_id"].as_i64().unwrap();
    assert_eq!(alice.post("/logout/all", json!({})).await.0, 200);
    peer.is_asked("send", |asked| {
        let edus = asked.body["edus"].as_array().cloned().unwrap_or_default();
        let is_last = |edu: &Value| edu["content"]["stream_id"].as_i64() == Some(stream + 501);
        edus.iter().any(is_last)
    })
    .await;
    let told = told_peer(&peer, "m.device_list_update").split_off(before);
    assert!(told.len() <= 50, "{}", told.len());
    let first = &told[0]["content"];
    let prev = first["prev_id"][0].as_i64().unwrap();
    assert!(prev > stream, "a gap: {first}");
    let (_, list) = peer.call(&server, "GET", &path, None).await;
    assert_eq!(list["devices"], json!([]), "{list}");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM to_device")
        .fetch_one(&mut server.database().await)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_peer_that_is_away_only_the_newest_updates_wait() {
    let (_folder, _tls, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_version": "11" }))
        .await;
    peer.enter(&server, &room, &peer.user("carol")).await;
    let device = upload(&alice, 1).await;
    peer.route_to("send", Answer::refused(503, "M_UNKNOWN"));
    for n in 0..80 {
        rename(&alice, &device, &format!("name {n}")).await;
    }
    let body = json!({ "messages": { peer.user("carol"): { "*": { "text": "kept" } } } });
    assert_eq!(alice.put("/sendToDevice/m.test/1", body).await.0, 200);
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM fed_edu WHERE about IS NOT NULL")
        .fetch_one(&mut server.database().await)
        .await
        .unwrap();
    assert!(waiting <= 50, "{waiting}");
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM fed_edu WHERE about IS NULL")
        .fetch_one(&mut server.database().await)
        .await
        .unwrap();
    assert_eq!(kept, 1, "messages wait however many there are");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_a_peer_wait_long_but_not_for_ever() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let more = "[registration]\nopen = true\n[federation]\nkeep_messages_days = 30\nkeep_messages_max = 20\n";
    let mut server = Server::with(more, Some(&tls)).await;
    let peer = Scripted::start(&tls).await;
    let alice = server.user("alice").await;
    peer.route_to("send", Answer::refused(503, "M_UNKNOWN"));
    let send = async |n: usize| {
        let body = json!({ "messages": { peer.user("carol"): { "*": { "n": n } } } });
        let path = format!("/sendToDevice/m.test/{n}");
        assert_eq!(alice.put(&path, body).await.0, 200);
    };
    for n in 0..40 {
        send(n).await;
    }
    let mut database = server.database().await;
    let days = 86_400_000_i64;
    for (which, ago) in [("edu_no % 4 = 0", 31 * days), ("edu_no % 4 = 1", 29 * days)] {
        let sql = format!("UPDATE fed_edu SET ts = ts - {ago} WHERE {which}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut database)
            .await
            .unwrap();
    }
    // Looked for at the start, and from time to time.
    server.kill();
    server.restart().await;
    eventually("the oldest to be dropped", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM fed_edu")
            .fetch_one(&mut server.database().await)
            .await
            .unwrap();
        (left == 20).then_some(())
    })
    .await;
    assert_eq!(server.figure("federation_messages_dropped_total").await, 20);
    assert!(server.log().contains("has been away for too long"));
    // What is left arrives, in order.
    let before = peer.asked("send").len();
    peer.route_to("send", Answer::ok(json!({ "pdus": {} })));
    server.kill();
    server.restart().await;
    let numbers = eventually("what is left to arrive", async || {
        let told = peer.asked("send").into_iter().skip(before);
        let edus: Vec<Value> = told
            .flat_map(|asked| asked.body["edus"].as_array().cloned().unwrap_or_default())
            .collect();
        let number =
            |edu: &Value| edu["content"]["messages"][peer.user("carol")]["*"]["n"].as_i64();
        let mut numbers: Vec<i64> = edus.iter().filter_map(number).collect();
        numbers.dedup();
        (numbers.len() >= 20).then_some(numbers)
    })
    .await;
    let expected: Vec<i64> = (13..39).filter(|n| n % 4 != 3).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_repeats_counts_once() {
    let (_folder, _tls, server, peer) = server_and_peer().await;
    let mut alice = server.user("alice").await;
    let device = upload(&alice, 1).await;
    let bob = peer.user("bob");
    let edu = |sender: &str, id: &str, text: &str| {
        json!({ "edu_type": "m.direct_to_device", "content": {
            "sender": sender, "type": "m.test", "message_id": id,
            "messages": { &alice.id: { &device: { "text": text } } },
        }})
    };
    let first = [
        edu(&bob, "1", "one"),
        edu(&bob, "2", "two"),
        edu(&bob, "1", "one again"),
    ];
    let send = async |txn: &str, edus: &[Value]| {
        let (status, body) = peer.transaction(&server, txn, (&[], edus)).await;
        assert_eq!(status, 200, "{body}");
    };
    let at_once = (0..4).map(|_| send("t1", &first));
    futures_util::future::join_all(at_once).await;
    send("t2", &first).await;
    let forged = edu("@eve:elsewhere.example", "3", "forged");
    let mut huge = edu(&bob, "4", "huge");
    huge["content"]["messages"][&alice.id][&device]["x"] = json!("x".repeat(70_000));
    let nonsense = [
        forged,
        json!({ "edu_type": "m.direct_to_device", "content": { "sender": bob } }),
        json!({ "edu_type": "m.direct_to_device", "content": 7 }),
        json!({ "edu_type": "m.device_list_update", "content": { "user_id": alice.id } }),
        huge,
        edu(&bob, "5", "three"),
    ];
    send("t3", &nonsense).await;
    let mut heard = Vec::new();
    eventually("the last message", async || {
        heard.extend(texts(&alice.sync(0).await));
        heard.iter().any(|text| text == "three").then_some(())
    })
    .await;
    assert_eq!(heard, ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_peers_are_read_with_care() {
    let (_folder, _tls, server, peer) = server_and_peer().await;
    let mut alice = server.user("alice").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_version": "11" }))
        .await;
    let bob = peer.user("bob");
    peer.enter(&server, &room, &bob).await;
    alice.sync(0).await;
    let key = |user: &str, device: &str| {
        json!({
            "user_id": user, "device_id": device, "algorithms": [], "signatures": {},
            "keys": { format!("ed25519:{device}"): "A" },
        })
    };
    let device =
        |user: &str, device: &str| json!({ "device_id": device, "keys": key(user, device) });
    let mut huge = device(&bob, "HUGE");
    huge["keys"]["keys"]["ed25519:HUGE"] = json!("x".repeat(70_000));
    let mut renamed = device(&bob, "RENAMED");
    renamed["device_id"] = json!("OTHER");
    let master =
        |user: &str| json!({ "user_id": user, "usage": ["master"], "keys": { "ed25519:M": "M" } });
    let list = json!({
        "user_id": bob, "stream_id": 5, "master_key": master(&alice.id),
        "devices": [device(&bob, "GOOD"), device(&alice.id, "HERS"), huge, renamed],
    });
    peer.route("user", move |asked, honest| match asked.args[0].as_str() {
        "devices" => Answer::ok(list.clone()),
        _ => honest,
    });
    let question = json!({ "device_keys": { &bob: [] } });
    let (status, found) = alice.post("/keys/query", question.clone()).await;
    assert_eq!(status, 200, "{found}");
    let devices = found["device_keys"][&bob].as_object().unwrap();
    assert_eq!(devices.keys().collect::<Vec<_>>(), ["GOOD"], "{found}");
    assert_eq!(found["master_keys"], json!({}), "{found}");

    // A gap in the updates, and then an answer that nobody can use: what there was is not served.
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    peer.route_to("user", Answer::Text(deep));
    let update = json!({ "edu_type": "m.device_list_update", "content": {
        "user_id": bob, "device_id": "NEW", "stream_id": 9, "prev_id": [8],
    }});
    let (status, _) = peer.transaction(&server, "gap", (&[], &[update])).await;
    assert_eq!(status, 200);
    eventually("the copy to be old", async || {
        let (_, found) = alice.post("/keys/query", question.clone()).await;
        found["failures"][&peer.name].is_object().then_some(())
    })
    .await;
    assert!(server.is_well().await);
}
