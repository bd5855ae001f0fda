//! Rate limits, and who is not held to them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    enc,
    http::{self, Ask as _},
    mailbox::password,
    operator::Operator,
    server::Server,
    user::User,
};

/// Switches limits on; what is allowed once comes again in a quarter of an hour.
async fn limit(server: &mut Server, rates: &[(&str, u32)]) {
    let rates: Vec<String> = rates
        .iter()
        .map(|(name, burst)| format!("{name} = {{ per_second = 0.001, burst = {burst} }}"))
        .collect();
    let on = format!("enabled = true\nrates = {{ {} }}", rates.join(", "));
    server.reconfigure("enabled = false", &on);
    server.stop();
    server.restart().await;
}

fn is_limited(answer: &(u16, Value)) {
    let told = (answer.0, &answer.1["errcode"]);
    assert_eq!(told, (429, &json!("M_LIMIT_EXCEEDED")), "{}", answer.1);
    assert!(answer.1["retry_after_ms"].as_u64().unwrap() > 0);
}

fn is_done(answer: &(u16, Value)) {
    assert_eq!(answer.0, 200, "{}", answer.1);
}

async fn say(user: &User, room: &str, txn: &str) -> (u16, Value) {
    let path = format!("/rooms/{}/send/m.room.message/{txn}", enc(room));
    let body = json!({ "msgtype": "m.text", "body": txn });
    user.put(&path, body).await
}

async fn login(server: &Server, name: &str, password: &str) -> reqwest::Response {
    let body = json!({
        "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": name },
    });
    let url = server.url("/_matrix/client/v3/login");
    let request = http::client().post(url).body(body.to_string());
    request.ask().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_exempts_from_the_limits_on_every_node() {
    let mut server = Server::start().await;
    let admin = Operator::of(&server).await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    bert.join(&room).await;
    limit(&mut server, &[("message", 2)]).await;
    let node = server.node().await;
    for txn in ["1", "2"] {
        is_done(&say(&anna, &room, txn).await);
    }
    is_limited(&say(&anna, &room, "3").await);
    let topic = format!("/rooms/{}/state/m.room.topic", enc(&room));
    is_limited(&anna.put(&topic, json!({ "topic": "x" })).await);
    // Others have their own.
    is_done(&say(&bert, &room, "1").await);

    let path = format!("/v1/users/{}/override_ratelimit", anna.id);
    let exempt = json!({ "messages_per_second": 0, "burst_count": 0 });
    let nobody = Operator {
        base: admin.base.clone(),
        token: bert.token.clone(),
        id: bert.id.clone(),
    };
    for (who, path, wish, status) in [
        (&nobody, &path, exempt.clone(), 403),
        (&admin, &path, json!({ "messages_per_second": -1 }), 400),
        (&admin, &path, json!({ "burst_count": "many" }), 400),
        (&admin, &path.replace("anna", "nobody"), exempt.clone(), 404),
    ] {
        let (given, body) = who.ask(Method::POST, path, Some(wish)).await;
        assert_eq!(given, status, "{body}");
    }
    assert_eq!(admin.get(&path).await, json!({}));
    let answer = admin.ask(Method::POST, &path, Some(exempt.clone())).await;
    assert_eq!(answer, (200, exempt.clone()));
    assert_eq!(admin.get(&path).await, exempt);
    for txn in ["4", "5", "6", "7"] {
        is_done(&say(&anna, &room, txn).await);
        is_done(&say(&anna.at(&node), &room, &format!("there {txn}")).await);
    }

    // Another rate is one of its own.
    let more = json!({ "messages_per_second": 1_000, "burst_count": 1_000 });
    is_done(&admin.ask(Method::POST, &path, Some(more)).await);
    is_done(&say(&anna, &room, "8").await);
    is_done(&admin.ask(Method::DELETE, &path, None).await);
    assert_eq!(admin.get(&path).await, json!({}));
    let mut last = say(&anna, &room, "9").await;
    for txn in ["10", "11"] {
        if last.0 == 200 {
            last = say(&anna, &room, txn).await;
        }
    }
    is_limited(&last);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_and_invitations_and_joins_are_counted() {
    let mut server = Server::start().await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let carl = server.user("carl").await;
    let mut rooms = Vec::new();
    for _ in 0..3 {
        rooms.push(anna.create_room(json!({ "preset": "public_chat" })).await);
    }
    let rates = [
        ("login_failed", 2),
        ("invite_user", 1),
        ("join_local", 2),
        ("registration_token", 1),
        ("user_directory", 1),
    ];
    limit(&mut server, &rates).await;
    for _ in 0..2 {
        assert_eq!(login(&server, "anna", "wrong").await.status(), 403);
    }
    let answer = login(&server, "anna", "password of anna").await;
    assert_eq!(answer.status(), 429);
    let seconds = answer.headers()["retry-after"].to_str().unwrap();
    assert!(seconds.parse::<u64>().unwrap() > 0, "{seconds}");
    let answer = login(&server, "bert", "password of bert").await;
    assert_eq!(answer.status(), 200);
    // Nor is it asked for again where it was guessed at.
    let wish = json!({ "auth": password(&anna) });
    is_limited(&anna.post("/account/deactivate", wish).await);

    let join = |room: &str| format!("/rooms/{}/join", enc(room));
    for room in &rooms[..2] {
        is_done(&bert.post(&join(room), json!({})).await);
    }
    is_limited(&bert.post(&join(&rooms[2]), json!({})).await);
    let invite = |room: &str| format!("/rooms/{}/invite", enc(room));
    let whom = json!({ "user_id": carl.id });
    is_done(&anna.post(&invite(&rooms[0]), whom.clone()).await);
    is_limited(&bert.post(&invite(&rooms[1]), whom).await);
    is_limited(
        &anna
            .post("/createRoom", json!({ "invite": [carl.id] }))
            .await,
    );

    let search = json!({ "search_term": "carl" });
    is_done(&bert.post("/user_directory/search", search.clone()).await);
    is_limited(&bert.post("/user_directory/search", search).await);
}
