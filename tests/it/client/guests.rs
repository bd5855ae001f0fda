//! Guests.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{enc, eventually, server::Server, user::User};

pub(super) const CONFIG: &str = "[registration]\nopen = true\nguests = true\n";

/// Becomes a guest.
pub(super) async fn guest(server: &Server) -> User {
    let (status, answer) = register(server, json!({ "username": "me", "device_id": "D" })).await;
    assert_eq!(status, 200, "{answer}");
    assert_ne!(answer["device_id"], "D");
    let text = |name: &str| answer[name].as_str().unwrap();
    User::with_token(&server.url(""), text("user_id"), text("access_token"))
}

async fn register(server: &Server, body: Value) -> (u16, Value) {
    let nobody = User::with_token(&server.url(""), "@nobody:x", "none");
    nobody.post("/register?kind=guest", body).await
}

async fn access(user: &User, room: &str, rule: &str) {
    let path = format!("/rooms/{}/state/m.room.guest_access/", enc(room));
    let (status, answer) = user.put(&path, json!({ "guest_access": rule })).await;
    assert_eq!(status, 200, "{answer}");
}

async fn membership(user: &User, room: &str, of: &User) -> Value {
    let path = format!("/rooms/{}/state/m.room.member/{}", enc(room), enc(&of.id));
    user.get(&path).await.1["membership"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_are_in_rooms_that_admit_them_and_do_little() {
    let server = Server::with(CONFIG, None).await;
    let alice = server.user("alice").await;
    let guest = guest(&server).await;
    let (_, who) = guest.get("/account/whoami").await;
    assert_eq!(who["is_guest"], true);
    let open = alice.create_room(json!({ "preset": "public_chat" })).await;
    let closed = alice.create_room(json!({ "preset": "public_chat" })).await;
    access(&alice, &open, "can_join").await;
    access(&alice, &closed, "forbidden").await;
    let join = |room: &str| format!("/rooms/{}/join", enc(room));
    let (status, answer) = guest.post(&join(&open), json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = guest.post(&join(&closed), json!({})).await;
    assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
    // Nor by the back door, nor where they are invited.
    let own = format!(
        "/rooms/{}/state/m.room.member/{}",
        enc(&closed),
        enc(&guest.id)
    );
    assert_eq!(
        guest.put(&own, json!({ "membership": "join" })).await.0,
        403
    );
    let invite = format!("/rooms/{}/invite", enc(&closed));
    assert_eq!(
        alice.post(&invite, json!({ "user_id": guest.id })).await.0,
        200
    );
    assert_eq!(guest.post(&join(&closed), json!({})).await.0, 403);

    guest.say(&open, "hello").await;
    assert!(guest.history(&open).await.contains(&"hello".to_owned()));
    assert_eq!(guest.get("/sync?timeout=0").await.0, 200);
    let profile = format!("/profile/{}", enc(&guest.id));
    let name = json!({ "displayname": "A guest" });
    assert_eq!(
        guest.put(&format!("{profile}/displayname"), name).await.0,
        200
    );
    for (method, path) in [
        (Method::POST, "/createRoom".to_owned()),
        (Method::POST, format!("/rooms/{}/invite", enc(&open))),
        (Method::POST, "/user_directory/search".to_owned()),
        (Method::POST, "/account/password".to_owned()),
        (Method::POST, "/pushers/set".to_owned()),
        (Method::PUT, format!("{profile}/avatar_url")),
        (Method::GET, "/capabilities".to_owned()),
        (Method::GET, "/joined_rooms".to_owned()),
    ] {
        let (status, answer) = guest.call(method, &path, Some(json!({}))).await;
        let told = (status, &answer["errcode"]);
        assert_eq!(told, (403, &json!("M_GUEST_ACCESS_FORBIDDEN")), "{path}");
    }

    // Where a room admits guests no more, they go; others stay.
    let bob = server.user("bob").await;
    bob.join(&open).await;
    access(&alice, &open, "forbidden").await;
    eventually("the guest to go", async || {
        (membership(&alice, &open, &guest).await == "leave").then_some(())
    })
    .await;
    assert_eq!(membership(&alice, &open, &bob).await, "join");

    upgrade(&server, &guest, &closed).await;
    assert_eq!(guest.post("/logout", json!({})).await.0, 200);
}

/// A guest becomes a usual user.
async fn upgrade(server: &Server, guest: &User, closed: &str) {
    let name = guest.id[1..].split(':').next().unwrap().to_owned();
    let mut body = json!({
        "username": name, "password": "a long password", "guest_access_token": guest.token,
    });
    let other = json!({ "username": "other", "guest_access_token": guest.token });
    assert_eq!(guest.post("/register", other).await.0, 403);
    let (_, first) = guest.post("/register", body.clone()).await;
    body["auth"] = json!({ "type": "m.login.dummy", "session": first["session"] });
    let (status, answer) = guest.post("/register", body).await;
    assert_eq!((status, &answer["user_id"]), (200, &json!(guest.id)));
    let token = answer["access_token"].as_str().unwrap();
    let user = User::with_token(&server.url(""), &guest.id, token);
    assert_eq!(user.get("/account/whoami").await.1["is_guest"], false);
    user.create_room(json!({})).await;
    // The session of before is one of the user as well.
    assert_eq!(guest.get("/joined_rooms").await.0, 200);
    user.join(closed).await;
    let login = json!({
        "type": "m.login.password", "password": "a long password",
        "identifier": { "type": "m.id.user", "user": name },
    });
    assert_eq!(user.post("/login", login).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_guests_where_the_operator_wants_none() {
    let server = Server::start().await;
    let (status, answer) = register(&server, json!({})).await;
    let told = (status, &answer["errcode"]);
    assert_eq!(told, (403, &json!("M_GUEST_ACCESS_FORBIDDEN")));
}
