//! Who application services may be.

use serde_json::{Value, json};

use crate::rig::{
    appservice::{Appservice, register, room_path},
    enc,
    server::Server,
    user::User,
};

fn is(answer: &(u16, Value), status: u16, errcode: &str) {
    assert_eq!(
        (answer.0, answer.1["errcode"].as_str().unwrap_or_default()),
        (status, errcode),
        "{}",
        answer.1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_its_users_and_nobody_else() {
    let irc = Appservice::new("irc", "");
    let sms = Appservice::new("sms", "");
    let server = Server::with(&Appservice::config(&[&irc, &sms]), None).await;
    let base = server.url("");
    let bot = irc.bot(&server);
    let (status, who) = bot.get("/account/whoami").await;
    assert_eq!(
        (status, &who),
        (200, &json!({ "user_id": bot.id, "is_guest": false }))
    );

    // Names: its own ones without a password, those of others and of none not at all.
    let bob = irc.ghost(&server, "bob").await;
    is(
        &register(&base, "irc", "_irc_bob").await,
        400,
        "M_USER_IN_USE",
    );
    is(
        &register(&base, "irc", "_sms_bob").await,
        400,
        "M_EXCLUSIVE",
    );
    is(&register(&base, "irc", "alice").await, 400, "M_EXCLUSIVE");
    is(
        &register(&base, "no", "_no_x").await,
        401,
        "M_UNKNOWN_TOKEN",
    );
    let nobody = User::with_token(&base, "", "none");
    for name in ["_irc_eve", "_irc_bot"] {
        let wish = json!({ "username": name, "password": "password of eve" });
        is(&nobody.post("/register", wish).await, 400, "M_EXCLUSIVE");
        let path = format!("/register/available?username={name}");
        is(&nobody.get(&path).await, 400, "M_EXCLUSIVE");
    }

    speaks_for(&server, &bot, &bob).await;
    has_devices(&bob).await;
    logs_in(&server, &bot, &bob).await;
}

/// Whom it speaks for.
async fn speaks_for(server: &Server, bot: &User, bob: &User) {
    let (_, who) = bob.get("/account/whoami").await;
    assert_eq!(who["user_id"], json!(bob.id));
    let alice = server.user("alice").await;
    for other in [
        alice.id.clone(),
        format!("@_sms_bob:{}", server.name),
        format!("@_irc_unborn:{}", server.name),
        "@_irc_bob:elsewhere.example".to_owned(),
    ] {
        is(
            &bot.masked(&other).get("/account/whoami").await,
            403,
            "M_FORBIDDEN",
        );
    }
    is(&alice.masked(&bob.id).get("/account/whoami").await, 200, "");
    let (_, who) = alice.masked(&bob.id).get("/account/whoami").await;
    assert_eq!(who["user_id"], json!(alice.id), "users are themselves");
}

/// Devices, without a password.
async fn has_devices(bob: &User) {
    let lost = bob.masked(&format!("{}&device_id=LOST", bob.id));
    is(&lost.get("/account/whoami").await, 400, "M_UNKNOWN_DEVICE");
    let (status, _) = bob
        .put("/devices/D1", json!({ "display_name": "one" }))
        .await;
    assert_eq!(status, 201);
    let (status, _) = bob
        .put("/devices/D1", json!({ "display_name": "two" }))
        .await;
    assert_eq!(status, 200);
    let device = bob.masked(&format!("{}&device_id=D1", bob.id));
    let (_, who) = device.get("/account/whoami").await;
    assert_eq!(who["device_id"], json!("D1"));
    let keys = json!({ "one_time_keys": {} });
    is(
        &bob.post("/keys/upload", keys.clone()).await,
        400,
        "M_INVALID_PARAM",
    );
    is(&device.post("/keys/upload", keys).await, 200, "");
    let gone = device.call(reqwest::Method::DELETE, "/devices/D1", Some(json!({})));
    is(&gone.await, 200, "");
    is(
        &device.get("/account/whoami").await,
        400,
        "M_UNKNOWN_DEVICE",
    );
    for seed in ["first", "second"] {
        let key = json!({ "user_id": bob.id, "usage": ["master"],
            "keys": { format!("ed25519:{seed}"): seed } });
        let upload = json!({ "master_key": key });
        is(
            &bob.post("/keys/device_signing/upload", upload).await,
            200,
            "",
        );
    }
}

async fn logs_in(server: &Server, bot: &User, bob: &User) {
    let base = server.url("");
    let nobody = User::with_token(&base, "", "none");
    let login = |user: &str| {
        json!({ "type": "m.login.application_service",
            "identifier": { "type": "m.id.user", "user": user } })
    };
    let (status, session) = bot.post("/login", login("_irc_bob")).await;
    assert_eq!((status, &session["user_id"]), (200, &json!(bob.id)));
    let token = session["access_token"].as_str().unwrap();
    is(
        &User::with_token(&base, "", token)
            .get("/account/whoami")
            .await,
        200,
        "",
    );
    is(
        &bot.post("/login", login("alice")).await,
        400,
        "M_EXCLUSIVE",
    );
    is(
        &nobody.post("/login", login("_irc_bob")).await,
        401,
        "M_UNKNOWN_TOKEN",
    );
    let wish = json!({ "type": "m.login.application_service", "username": "_irc_dan" });
    let (status, session) = bot.post("/register", wish).await;
    assert_eq!(status, 200, "{session}");
    assert!(session["access_token"].is_string(), "{session}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_writes_the_past_and_owns_its_aliases() {
    let irc = Appservice::new("irc", "");
    let server = Server::with(&Appservice::config(&[&irc]), None).await;
    let alice = server.user("alice").await;
    let bob = irc.ghost(&server, "bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let time = async |event: &Value| {
        let id = event["event_id"].as_str().unwrap();
        let (_, event) = alice
            .get(&room_path(&room, &format!("event/{}", enc(id))))
            .await;
        event["origin_server_ts"].as_i64().unwrap()
    };
    let long_ago = 1_000_000_000_000_i64;
    let path = room_path(&room, "send/m.room.message/t");
    let text = json!({ "msgtype": "m.text", "body": "old" });
    let on = format!("{}&ts={long_ago}", bob.id);
    let (status, sent) = bob.masked(&on).put(&path, text.clone()).await;
    assert_eq!((status, time(&sent).await), (200, long_ago));
    let (_, by_alice) = alice.put(&format!("{path}?ts={long_ago}"), text).await;
    assert!(time(&by_alice).await > long_ago, "users write the present");
    let path = room_path(&room, "state/m.room.member/");
    let path = format!("{path}{}", enc(&bob.id));
    let state = json!({ "membership": "join", "displayname": "Bob of old" });
    let never = format!("{}&ts=-1", bob.id);
    is(
        &bob.masked(&never).put(&path, state.clone()).await,
        400,
        "M_INVALID_PARAM",
    );
    let (status, sent) = bob.masked(&on).put(&path, state).await;
    assert_eq!((status, time(&sent).await), (200, long_ago));

    let alias = |name: &str| {
        format!(
            "/directory/room/{}",
            enc(&format!("#{name}:{}", server.name))
        )
    };
    let here = json!({ "room_id": room });
    is(
        &alice.put(&alias("_irc_x"), here.clone()).await,
        400,
        "M_EXCLUSIVE",
    );
    is(
        &bob.put(&alias("other"), here.clone()).await,
        400,
        "M_EXCLUSIVE",
    );
    let wish = json!({ "room_alias_name": "_irc_y" });
    is(&alice.post("/createRoom", wish).await, 400, "M_EXCLUSIVE");
    is(&irc.bot(&server).put(&alias("_irc_x"), here).await, 200, "");
    let path = alias("_irc_x");
    let gone = alice.call(reqwest::Method::DELETE, &path, None);
    is(&gone.await, 400, "M_EXCLUSIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_registration_is_told() {
    let irc = Appservice::new("irc", "");
    let twin = Appservice::new("irc", "");
    let server = Server::with(&Appservice::config(&[&irc]), None).await;
    irc.edit("regex: '@_irc_.*'", "regex: '@_irc_(?=x)'");
    let told = || {
        let told = server.run_again(&["check-config"]);
        assert!(!told.status.success());
        String::from_utf8(told.stderr).unwrap()
    };
    let wrong = told();
    assert!(
        wrong.contains("namespaces.users") && wrong.contains("look-around"),
        "{wrong}"
    );
    irc.edit("regex: '@_irc_(?=x)'", "regex: '@_irc_x'");
    let file = twin.file();
    let more = format!("[[appservice]]\nregistration = \"{file}\"\n[[appservice]]");
    server.reconfigure("[[appservice]]", &more);
    let wrong = format!("{wrong}{}", told());
    assert!(
        wrong.contains("has the id") && wrong.contains("has the as_token"),
        "{wrong}"
    );
    assert!(!wrong.contains("token-irc"), "{wrong}");
}
