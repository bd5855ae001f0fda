//! Accounts and sessions.

use serde_json::{Value, json};

use crate::rig::{
    http::{self, Ask as _},
    server::Server,
};

async fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    let http = http::client();
    let answer = http
        .post(server.url(path))
        .body(body.to_string())
        .ask()
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
    let _ = server.user("bob").await;
    let mut tried = change.clone();
    tried["auth"] = auth("password of bob");
    tried["auth"]["identifier"]["user"] = json!("bob");
    let (status, body) = alice.post("/account/password", tried).await;
    assert_eq!(
        (status, &body["errcode"]),
        (403, &json!("M_FORBIDDEN")),
        "another user"
    );
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

/// Registers with the shared secret, as `register_new_matrix_user` does; returns the token.
pub(crate) async fn register_with_secret(
    server: &Server,
    name: &str,
    secret: &str,
) -> (u16, Value) {
    register_as(server, (name, secret), &Value::Null).await
}

/// The same, as an account of a type.
async fn register_as(
    server: &Server,
    (name, secret): (&str, &str),
    user_type: &Value,
) -> (u16, Value) {
    use std::fmt::Write as _;

    use hmac::{Hmac, KeyInit, Mac};
    let nonce: Value = server.document("/_synapse/admin/v1/register").await;
    let nonce = nonce["nonce"].as_str().unwrap();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    let mut signed = vec![nonce, name, "a password of some length", "admin"];
    signed.extend(user_type.as_str());
    mac.update(signed.join("\0").as_bytes());
    let mut hex = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    let body = json!({
        "nonce": nonce, "username": name, "password": "a password of some length",
        "admin": true, "mac": hex, "user_type": user_type,
    });
    post(server, "/_synapse/admin/v1/register", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_made_by_the_shared_secret_are_of_a_type_that_there_is() {
    let server = Server::with("[registration]\nshared_secret = \"test secret\"\n", None).await;
    for (name, user_type) in [
        ("nobody", json!(null)),
        ("robot", json!("bot")),
        ("help", json!("support")),
    ] {
        let (status, body) = register_as(&server, (name, "test secret"), &user_type).await;
        assert_eq!(status, 200, "{body}");
        let token = body["access_token"].as_str().unwrap();
        let id = body["user_id"].as_str().unwrap();
        let path = format!("/_synapse/admin/v2/users/{}", crate::rig::enc(id));
        let url = server.url(&path);
        let asked = crate::rig::http::client().get(url).bearer_auth(token);
        let shown: Value = asked.ask().await.unwrap().json().await.unwrap();
        assert_eq!(shown["user_type"], user_type, "{shown}");
    }
    for user_type in [json!("robot"), json!(""), json!(true)] {
        let (status, body) = register_as(&server, ("eve", "test secret"), &user_type).await;
        assert_eq!(
            (status, &body["errcode"]),
            (400, &json!("M_BAD_JSON")),
            "{body}"
        );
    }
    let (status, body) = register_as(&server, ("eve", "test secret"), &json!("bot")).await;
    assert_eq!(status, 200, "nobody was made of it: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_give_out_registration_tokens() {
    let server = Server::with(
        "[registration]\nrequire_token = true\nshared_secret = \"test secret\"\n",
        None,
    )
    .await;
    let (status, body) = register_with_secret(&server, "root", "another secret").await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    let (status, root) = register_with_secret(&server, "root", "test secret").await;
    assert_eq!(status, 200, "{root}");
    let root = root["access_token"].as_str().unwrap();

    let http = http::client();
    let tokens = server.url("/_synapse/admin/v1/registration_tokens");
    let admin = async |method, path: &str, body: Value| -> (u16, Value) {
        let request = http.request(method, format!("{tokens}{path}"));
        let answer = request
            .bearer_auth(root)
            .header("content-type", "application/json");
        let answer = answer.body(body.to_string()).ask().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    };
    let wish = json!({ "token": "welcome", "uses_allowed": 1 });
    let (status, made) = admin(reqwest::Method::POST, "/new", wish.clone()).await;
    assert_eq!((status, &made["uses_allowed"]), (200, &json!(1)), "{made}");
    let (status, _) = admin(reqwest::Method::POST, "/new", wish).await;
    assert_eq!(status, 400, "names are given once");
    for bad in [
        json!({ "token": "with space" }),
        json!({ "token": "x".repeat(65) }),
        json!({ "length": 0 }),
        json!({ "uses_allowed": -1 }),
        json!({ "expiry_time": 1 }),
    ] {
        let (status, body) = admin(reqwest::Method::POST, "/new", bad).await;
        assert_eq!(status, 400, "{body}");
    }

    let register = async |name: &str, token: &str| {
        let mut wish = json!({ "username": name, "password": format!("password of {name}") });
        let path = "/_matrix/client/v3/register";
        let (status, challenge) = post(&server, path, wish.clone()).await;
        assert_eq!(status, 401, "{challenge}");
        assert_eq!(
            challenge["flows"][0]["stages"][0],
            "m.login.registration_token"
        );
        wish["auth"] = json!({
            "type": "m.login.registration_token", "token": token, "session": challenge["session"],
        });
        post(&server, path, wish).await.0
    };
    assert_eq!(register("eve", "guessed").await, 401);
    assert_eq!(register("alice", "welcome").await, 200);
    assert_eq!(register("bob", "welcome").await, 401, "used up");
    let (_, shown) = admin(reqwest::Method::GET, "/welcome", json!(null)).await;
    assert_eq!(shown["completed"], 1);
    let more = json!({ "uses_allowed": null });
    let (status, _) = admin(reqwest::Method::PUT, "/welcome", more).await;
    assert_eq!(status, 200);
    assert_eq!(register("bob", "welcome").await, 200);
    let (status, _) = admin(reqwest::Method::DELETE, "/welcome", json!(null)).await;
    assert_eq!(status, 200);
    let (status, body) = admin(reqwest::Method::GET, "/welcome", json!(null)).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_do_is_closed_to_others() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let url = server.url("/_synapse/admin/v1/registration_tokens");
    let http = http::client();
    assert_eq!(http.get(&url).ask().await.unwrap().status(), 401);
    let asked = http
        .get(&url)
        .bearer_auth(&alice.token)
        .ask()
        .await
        .unwrap();
    assert_eq!(asked.status(), 403);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_others_says_who_a_user_is_and_nothing_else() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let http = http::client();
    let info = async |token: &str| {
        let path = format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
        let answer = http.get(server.url(&path)).ask().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let path = |user: &str| format!("/user/{user}/openid/request_token");
    let (status, body) = alice.post(&path(&alice.id), json!({})).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["matrix_server_name"], server.name.as_str());
    assert_eq!(body["expires_in"], 3600);
    let token = body["access_token"].as_str().unwrap();
    let expected = json!({ "sub": alice.id });
    assert_eq!(info(token).await, (200, expected.clone()));
    assert_eq!(info(token).await, (200, expected));
    let (status, _) = bob.post(&path(&alice.id), json!({})).await;
    assert_eq!(status, 403);

    let refused = async |token: &str| {
        let (status, body) = info(token).await;
        let got = (status, &body["errcode"]);
        assert_eq!(got, (401, &json!("M_UNKNOWN_TOKEN")), "{body}");
    };
    refused("").await;
    refused(&alice.token).await;
    let as_session = http.get(alice.url("/account/whoami")).bearer_auth(token);
    assert_eq!(as_session.ask().await.unwrap().status().as_u16(), 401);

    let (_, body) = bob.post(&path(&bob.id), json!({})).await;
    let of_bob = body["access_token"].as_str().unwrap();
    let mut conn = server.database().await;
    let expire = "UPDATE openid_token SET expires_ts = 1
        WHERE user_nid = (SELECT user_nid FROM mx_user WHERE mxid = $1)";
    sqlx::query(expire)
        .bind(&bob.id)
        .execute(&mut conn)
        .await
        .unwrap();
    refused(of_bob).await;
    let auth = json!({
        "type": "m.login.password", "password": "password of alice",
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    let (status, body) = alice
        .post("/account/deactivate", json!({ "auth": auth }))
        .await;
    assert_eq!(status, 200, "{body}");
    refused(token).await;
}
