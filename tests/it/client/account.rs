//! Accounts and sessions.

use serde_json::{Value, json};

use crate::rig::server::Server;

async fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http
        .post(server.url(path))
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or_default(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_begin_refresh_and_end() {
    let server = Server::start().await;
    let mut alice = server.user("alice").await;
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "password of alice",
        "device_id": "PHONE",
        "refresh_token": true,
    });
    let (status, phone) = post(&server, "/_matrix/client/v3/login", login.clone()).await;
    assert_eq!((status, &phone["device_id"]), (200, &json!("PHONE")));

    let (status, devices) = alice.get("/devices").await;
    assert_eq!(
        (status, devices["devices"].as_array().unwrap().len()),
        (200, 2)
    );

    let refresh = json!({ "refresh_token": phone["refresh_token"] });
    let (status, fresh) = post(&server, "/_matrix/client/v3/refresh", refresh.clone()).await;
    assert_eq!(status, 200, "{fresh}");
    alice.token = fresh["access_token"].as_str().unwrap().to_owned();
    let (status, who) = alice.get("/account/whoami").await;
    assert_eq!((status, &who["device_id"]), (200, &json!("PHONE")));
    let (status, again) = post(&server, "/_matrix/client/v3/refresh", refresh).await;
    assert_eq!(
        (status, &again["errcode"]),
        (401, &json!("M_UNKNOWN_TOKEN")),
        "used up"
    );

    let (status, _) = alice.post("/logout", json!({})).await;
    assert_eq!(status, 200);
    let (status, body) = alice.get("/account/whoami").await;
    assert_eq!((status, &body["errcode"]), (401, &json!("M_UNKNOWN_TOKEN")));

    let mut wrong = login;
    wrong["password"] = json!("guessed");
    let (status, body) = post(&server, "/_matrix/client/v3/login", wrong).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_change_and_accounts_close_after_authentication() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let change = json!({ "new_password": "another password" });
    let (status, challenge) = alice.post("/account/password", change.clone()).await;
    assert_eq!(
        (status, &challenge["flows"][0]["stages"][0]),
        (401, &json!("m.login.password"))
    );
    let auth = |password: &str| {
        json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": "alice" },
            "password": password,
            "session": challenge["session"],
        })
    };
    let mut tried = change.clone();
    tried["auth"] = auth("wrong password");
    let (status, body) = alice.post("/account/password", tried).await;
    assert_eq!((status, &body["errcode"]), (401, &json!("M_FORBIDDEN")));
    let mut done = change;
    done["auth"] = auth("password of alice");
    let (status, body) = alice.post("/account/password", done).await;
    assert_eq!(status, 200, "{body}");

    let room = alice.create_room(json!({})).await;
    let (_, challenge) = alice.post("/account/deactivate", json!({})).await;
    let close = json!({ "erase": false, "auth": {
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "another password",
        "session": challenge["session"],
    }});
    let (status, body) = alice.post("/account/deactivate", close).await;
    assert_eq!(status, 200, "{body}");
    let (status, _) = alice
        .get(&format!("/rooms/{}/state", crate::rig::enc(&room)))
        .await;
    assert_eq!(status, 401);
    let again = json!({ "username": "alice", "password": "password of alice" });
    let (status, body) = post(&server, "/_matrix/client/v3/register", again).await;
    assert_eq!(
        (status, &body["errcode"]),
        (400, &json!("M_USER_IN_USE")),
        "never given again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_can_be_closed_or_take_a_token() {
    let wish = json!({ "username": "eve", "password": "password of eve" });
    let closed = Server::with("", None).await;
    let (status, body) = post(&closed, "/_matrix/client/v3/register", wish.clone()).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));

    let (status, body) = post(&closed, "/_synapse/admin/v1/register", wish).await;
    assert_eq!(status, 400, "no shared secret: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_read_by_all_and_written_by_their_owner() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let path = format!("/profile/{}/displayname", crate::rig::enc(&alice.id));
    let (status, _) = alice
        .put(&path, json!({ "displayname": "Alice vom Amt" }))
        .await;
    assert_eq!(status, 200);
    let (status, body) = bob.get(&path).await;
    assert_eq!(
        (status, &body["displayname"]),
        (200, &json!("Alice vom Amt"))
    );
    let (status, body) = bob.put(&path, json!({ "displayname": "Eve" })).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    let (status, body) = bob.get("/profile/@nobody:localhost").await;
    assert!(status == 404 || status == 502, "{status} {body}");
}
