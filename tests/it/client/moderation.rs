//! What administrators do to accounts, what users report, and small endpoints around calls and logins.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha1::Sha1;

use crate::rig::{
    eventually,
    gateway::{self, Gateway},
    operator::Operator,
    server::Server,
    user::User,
};

/// The administrator in their own client.
fn in_client(chief: &Operator, server: &Server) -> User {
    User::with_token(&server.url(""), &chief.id, &chief.token)
}

async fn measure(by: &User, what: &str, user: &str, on: bool) -> (u16, Value) {
    let field = format!("{what}ed");
    let path = format!("/../v1/admin/{what}/{user}");
    by.put(&path, json!({ field: on })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_locked_is_refused_until_unlocked_on_every_node() {
    let server = Server::start().await;
    let node = server.node().await;
    let chief = in_client(&Operator::of(&server).await, &server);
    let mut anna = server.user("anna").await;
    let bert = server.user("bert").await;
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    anna.sync(0).await;

    // Nobody else learns who exists, and administrators are safe from each other and themselves.
    let (status, body) = measure(&bert, "lock", "@nobody:x", true).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    let (status, body) = measure(&chief, "lock", "@else:other.example", true).await;
    assert_eq!((status, &body["errcode"]), (400, &json!("M_INVALID_PARAM")));
    let (status, body) = measure(&chief, "lock", &anna.id.replace("anna", "nobody"), true).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    let (status, body) = measure(&chief, "lock", &chief.id, true).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));

    // A sync that waits, here and at the other node, is cut off.
    let (mut here, mut there) = (anna.again(), anna.at(&node));
    for waiting in [&mut here, &mut there] {
        waiting.since = anna.since.clone();
    }
    let before = server.figure("sync_waiting").await;
    let wait = |user: User| {
        tokio::spawn(async move {
            let since = user.since.clone().unwrap();
            user.get(&format!("/sync?timeout=60000&since={since}"))
                .await
        })
    };
    let waiting = [wait(here), wait(there)];
    eventually("a sync that waits", async || {
        (server.figure("sync_waiting").await > before).then_some(())
    })
    .await;
    let (status, body) = measure(&chief, "lock", &anna.id, true).await;
    assert_eq!((status, body), (200, json!({ "locked": true })));
    for waiting in waiting {
        let (status, body) = waiting.await.unwrap();
        assert_eq!((status, &body["errcode"]), (401, &json!("M_USER_LOCKED")));
        assert_eq!(body["soft_logout"], true);
    }
    let (status, body) = anna.get("/account/whoami").await;
    assert_eq!((status, &body["errcode"]), (401, &json!("M_USER_LOCKED")));
    let login = json!({
        "type": "m.login.password", "password": "password of anna",
        "identifier": { "type": "m.id.user", "user": "anna" },
    });
    let (status, body) = anna.post("/login", login).await;
    assert_eq!((status, &body["errcode"]), (401, &json!("M_USER_LOCKED")));
    let (_, body) = chief.get(&format!("/../v1/admin/lock/{}", anna.id)).await;
    assert_eq!(body, json!({ "locked": true }));

    let (status, _) = measure(&chief, "lock", &anna.id, false).await;
    assert_eq!(status, 200);
    anna.say(&room, "back").await;

    // Who is locked may still log out.
    measure(&chief, "lock", &anna.id, true).await;
    let (status, body) = anna.post("/logout", json!({})).await;
    assert_eq!(status, 200, "{body}");
    measure(&chief, "lock", &anna.id, false).await;
    let (_, body) = anna.get("/account/whoami").await;
    assert_eq!(body["errcode"], "M_UNKNOWN_TOKEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_locked_is_notified_of_nothing_until_unlocked() {
    let server = Server::with(gateway::CONFIG, None).await;
    let chief = in_client(&Operator::of(&server).await, &server);
    let gateway = Gateway::start().await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let carl = server.user("carl").await;
    let room = bert.create_room(json!({ "preset": "public_chat" })).await;
    for user in [&anna, &carl] {
        user.join(&room).await;
    }
    gateway.serve(&anna, "anna").await;
    gateway.serve(&carl, "carl").await;
    let first = bert.say(&room, "before").await;
    gateway.hears("anna", &first).await;
    measure(&chief, "lock", &anna.id, true).await;
    let second = bert.say(&room, "meanwhile").await;
    gateway.hears("carl", &second).await;
    measure(&chief, "lock", &anna.id, false).await;
    let third = bert.say(&room, "after").await;
    gateway.hears("anna", &third).await;
    let told: Vec<String> = gateway.events("anna");
    assert_eq!(told, [first, third]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_suspended_reads_leaves_and_takes_back_and_does_nothing_else() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let chief = in_client(&operator, &server);
    let mut anna = server.user("anna").await;
    let bert = server.user("bert").await;
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    bert.join(&room).await;
    let mine = anna.say(&room, "mine").await;
    let theirs = bert.say(&room, "theirs").await;
    let (status, body) = chief.get("/capabilities").await;
    assert_eq!(status, 200);
    let offered = &body["capabilities"]["m.account_moderation"];
    assert_eq!(offered, &json!({ "lock": true, "suspend": true }));
    let (_, body) = anna.get("/capabilities").await;
    assert!(body["capabilities"].get("m.account_moderation").is_none());

    let (status, body) = measure(&chief, "suspend", &anna.id, true).await;
    assert_eq!((status, body), (200, json!({ "suspended": true })));
    let refused = [
        (Method::PUT, format!("/rooms/{room}/send/m.room.message/1")),
        (Method::PUT, format!("/rooms/{room}/state/m.room.topic")),
        (Method::POST, "/createRoom".to_owned()),
        (Method::POST, format!("/join/{room}")),
        (Method::POST, format!("/rooms/{room}/invite")),
        (Method::PUT, format!("/profile/{}/displayname", anna.id)),
        (Method::PUT, format!("/rooms/{room}/redact/{theirs}/2")),
    ];
    for (method, path) in refused {
        let body = json!({ "body": "a", "msgtype": "m.text", "user_id": bert.id });
        let (status, body) = anna.call(method, &path, Some(body)).await;
        let told = (status, &body["errcode"]);
        assert_eq!(told, (403, &json!("M_USER_SUSPENDED")), "{path}");
    }
    bert.say(&room, "can you read?").await;
    anna.hears("can you read?").await;
    let (status, body) = anna
        .put(&format!("/rooms/{room}/redact/{mine}/3"), json!({}))
        .await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = anna.post(&format!("/rooms/{room}/leave"), json!({})).await;
    assert_eq!(status, 200, "{body}");

    let path = format!("/v1/suspend/{}", anna.id);
    let ended = operator
        .ask(Method::PUT, &path, Some(json!({ "suspend": false })))
        .await;
    let field = format!("user_{}_suspended", anna.id);
    assert_eq!(ended, (200, json!({ field: false })));
    anna.join(&room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_see_what_is_reported_and_from_where_devices_ask() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let chief = in_client(&operator, &server);
    let anna = server.user("anna").await;
    let bert = server.user("bert").await;
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    let said = anna.say(&room, "rude").await;
    let report = format!("/rooms/{room}/report/{said}");

    // Who is not in the room cannot report what is said in it, but the room.
    let (status, body) = bert.post(&report, json!({ "reason": "rude" })).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    let (status, _) = bert
        .post(&format!("/rooms/{room}/report"), json!({ "reason": "" }))
        .await;
    assert_eq!(status, 200);
    bert.join(&room).await;
    let long = json!({ "reason": "x".repeat(20_000) });
    assert_eq!(bert.post(&report, long).await.0, 400);
    let (status, body) = bert
        .post(&report, json!({ "reason": "rude\0", "score": -100 }))
        .await;
    assert_eq!((status, body), (200, json!({})));
    let user = format!("/users/{}/report", anna.id);
    assert_eq!(bert.post(&user, json!({ "reason": "always" })).await.0, 200);
    let nobody = "/users/@nobody:elsewhere.example/report";
    assert_eq!(bert.post(nobody, json!({ "reason": "" })).await.0, 200);

    let list = operator.get("/v1/event_reports").await;
    assert_eq!(list["total"], 1);
    let first = &list["event_reports"][0];
    assert_eq!(first["reason"], "rude");
    assert_eq!(
        (&first["user_id"], &first["sender"]),
        (&json!(bert.id), &json!(anna.id))
    );
    let path = format!("/v1/event_reports/{}", first["id"]);
    let whole = operator.get(&path).await;
    assert_eq!(whole["event_json"]["content"]["body"], "rude");
    assert_eq!(operator.ask(Method::DELETE, &path, None).await.0, 200);
    assert_eq!(operator.ask(Method::GET, &path, None).await.0, 404);
    let ours = "/../../_amtsbote/admin/v1";
    assert_eq!(
        operator.get(&format!("{ours}/room_reports")).await["total"],
        1
    );
    let users = operator.get(&format!("{ours}/user_reports")).await;
    assert_eq!(users["user_reports"][0]["sender"], json!(anna.id));

    // From where, and with what.
    let whois = format!("/admin/whois/{}", anna.id);
    assert_eq!(bert.get(&whois).await.0, 403);
    let seen = eventually("the last request of a device", async || {
        let (_, body) = chief.get(&whois).await;
        let devices = body["devices"].as_object()?.values().next()?.clone();
        let connection = devices["sessions"][0]["connections"][0].clone();
        (!connection.is_null()).then_some(connection)
    })
    .await;
    assert_eq!(seen["ip"], "127.0.0.1");
    let (_, body) = anna.get("/devices").await;
    assert_eq!(body["devices"][0]["last_seen_ip"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_in_common_are_listed_page_by_page() {
    let server = Server::start().await;
    let anna = server.user("anna").await;
    let bert = server.user("bert").await;
    let mut shared = Vec::new();
    for at in 0..103 {
        let room = anna.create_room(json!({ "preset": "public_chat" })).await;
        if at > 0 {
            bert.join(&room).await;
            shared.push(room);
        }
    }
    let path = format!("/../v1/mutual_rooms?user_id={}", anna.id);
    let (status, first) = bert.get(&path).await;
    assert_eq!((status, &first["count"]), (200, &json!(102)));
    let next = first["next_batch"].as_str().unwrap();
    let (_, second) = bert.get(&format!("{path}&from={next}")).await;
    assert_eq!(second["count"], 102);
    assert!(second.get("next_batch").is_none());
    let pages = [&first, &second].map(|page| page["joined"].as_array().unwrap().clone());
    let mut listed: Vec<String> = pages
        .concat()
        .iter()
        .map(|room| room.as_str().unwrap().to_owned())
        .collect();
    listed.sort();
    shared.sort();
    assert_eq!(listed, shared);

    let nobody = "/../v1/mutual_rooms?user_id=@nobody:elsewhere.example";
    assert_eq!(
        bert.get(nobody).await,
        (200, json!({ "joined": [], "count": 0 }))
    );
    for wrong in [
        format!("/../v1/mutual_rooms?user_id={}", bert.id),
        "/../v1/mutual_rooms".to_owned(),
        format!("{path}&from=nonsense"),
    ] {
        assert_eq!(bert.get(&wrong).await.0, 400, "{wrong}");
    }
    let old = "/../unstable/uk.half-shot.msc2666/user/mutual_rooms";
    let (status, body) = bert.get(&format!("{old}?user_id={}", anna.id)).await;
    assert_eq!(
        (status, body["joined"].as_array().unwrap().len()),
        (200, 100)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_opens_another_one_once() {
    let server = Server::start().await;
    let anna = server.user("anna").await;
    let path = "/../v1/login/get_token";
    let (status, challenge) = anna.post(path, json!({})).await;
    assert_eq!(status, 401);
    let auth = json!({
        "type": "m.login.password", "session": challenge["session"],
        "identifier": { "type": "m.id.user", "user": anna.id },
        "password": "password of anna",
    });
    let (status, granted) = anna.post(path, json!({ "auth": auth })).await;
    assert_eq!(status, 200, "{granted}");
    let login = json!({ "type": "m.login.token", "token": granted["login_token"] });
    let (_, flows) = anna.get("/login").await;
    let offered = json!({ "type": "m.login.token", "get_login_token": true });
    assert!(flows["flows"].as_array().unwrap().contains(&offered));

    // However many try at the same time.
    let tries = (0..5).map(|_| anna.post("/login", login.clone()));
    let answers = futures_util::future::join_all(tries).await;
    let good: Vec<_> = answers
        .iter()
        .filter(|(status, _)| *status == 200)
        .collect();
    assert_eq!(good.len(), 1, "{answers:?}");
    assert_eq!(good[0].1["user_id"], anna.id);
    let bad = answers.iter().filter(|(status, _)| *status == 403).count();
    assert_eq!(bad, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_get_credentials_for_the_turn_server() {
    let server = Server::start().await;
    let anna = server.user("anna").await;
    assert_eq!(anna.get("/voip/turnServer").await, (200, json!({})));

    let turn = "[registration]\nopen = true\n[turn]\nuris = [\"turn:turn.test:3478?transport=udp\"]\n\
                shared_secret = \"between us\"\nlifetime_seconds = 600\n";
    let server = Server::with(turn, None).await;
    let anna = server.user("anna").await;
    let (status, body) = anna.get("/voip/turnServer").await;
    assert_eq!((status, &body["ttl"]), (200, &json!(600)));
    assert_eq!(body["uris"], json!(["turn:turn.test:3478?transport=udp"]));
    let username = body["username"].as_str().unwrap();
    assert!(username.ends_with(&anna.id), "{username}");
    let mut mac = Hmac::<Sha1>::new_from_slice(b"between us").unwrap();
    mac.update(username.as_bytes());
    assert_eq!(
        body["password"],
        STANDARD.encode(mac.finalize().into_bytes())
    );
}
