//! Cross-signing keys, and the signatures on keys.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    enc,
    identity::{Identity, Signer, device_keys},
    server::Server,
    user::User,
};

const UPLOAD: &str = "/keys/device_signing/upload";
const SIGN: &str = "/keys/signatures/upload";

async fn query(asking: &User, user: &User) -> Value {
    let question = json!({ "device_keys": { &user.id: [] } });
    let (status, found) = asking.post("/keys/query", question).await;
    assert_eq!(status, 200, "{found}");
    found
}

/// Uploads identity keys of the device that a user is logged in with; its id and the keys.
async fn with_device(user: &User) -> (String, Value) {
    let (_, who) = user.get("/account/whoami").await;
    let device = who["device_id"].as_str().unwrap().to_owned();
    let keys = device_keys(&user.id, &device);
    let (status, answer) = user
        .post("/keys/upload", json!({ "device_keys": keys }))
        .await;
    assert_eq!(status, 200, "{answer}");
    (device, keys)
}

/// Errcode of what was not taken of a signature on one key.
async fn signed(user: &User, owner: &User, target: &str, key: Value) -> Option<String> {
    let (status, answer) = user.post(SIGN, json!({ &owner.id: { target: key } })).await;
    assert_eq!(status, 200, "{answer}");
    let failure = &answer["failures"][&owner.id][target]["errcode"];
    failure.as_str().map(ToOwned::to_owned)
}

fn by(signer: &Signer) -> String {
    format!("ed25519:{}", signer.id)
}

/// Changes keys with the password.
async fn replace(user: &User, name: &str, mut body: Value) {
    let (status, challenge) = user.post(UPLOAD, body.clone()).await;
    assert_eq!(status, 401, "{challenge}");
    body["auth"] = json!({
        "type": "m.login.password", "session": challenge["session"],
        "identifier": { "type": "m.id.user", "user": name },
        "password": format!("password of {name}"),
    });
    let (status, answer) = user.post(UPLOAD, body).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_signing_keys_are_set_once_and_changed_with_the_password() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let one = Identity::new(&alice.id);
    let other = Identity::new(&alice.id);
    let refused = async |body: Value| {
        let (status, answer) = alice.post(UPLOAD, body).await;
        (status, answer["errcode"].as_str().unwrap_or("").to_owned())
    };
    let mut alone = one.body();
    alone.as_object_mut().unwrap().remove("master_key");
    assert_eq!(
        refused(alone).await,
        (400, "M_MISSING_PARAM".to_owned()),
        "there is no master key"
    );
    let mut mixed = one.body();
    mixed["self_signing_key"] = other.body()["self_signing_key"].clone();
    assert_eq!(
        refused(mixed).await,
        (400, "M_INVALID_SIGNATURE".to_owned()),
        "of another master key"
    );
    assert_eq!(alice.post(UPLOAD, one.body()).await.0, 200, "the first");
    assert_eq!(alice.post(UPLOAD, one.body()).await.0, 200, "the same");
    assert_eq!(alice.post(UPLOAD, other.body()).await.0, 401, "another");

    let (device, keys) = with_device(&alice).await;
    let of_device = one.self_signing.sign(keys.clone());
    assert_eq!(signed(&alice, &alice, &device, of_device).await, None);
    let own = one.user_signing.sign(one.master.object("master"));
    let master = one.master.public.clone();
    assert_eq!(signed(&alice, &alice, &master, own).await, None);
    let found = query(&alice, &alice).await;
    let of_device = &found["device_keys"][&alice.id][&device]["signatures"][&alice.id];
    assert!(of_device[by(&one.self_signing)].is_string(), "{found}");
    assert!(of_device[format!("ed25519:{device}")].is_string());
    let user_signing = &found["user_signing_keys"][&alice.id]["keys"];
    assert_eq!(user_signing[by(&one.user_signing)], one.user_signing.public);

    // What was signed and is replaced is not shown as signed.
    replace(&alice, "alice", other.body()).await;
    let found = query(&alice, &alice).await;
    assert_eq!(found["master_keys"][&alice.id], other.body()["master_key"]);
    let (status, answer) = alice
        .post(
            "/keys/upload",
            json!({ "device_keys": device_keys(&alice.id, &device) }),
        )
        .await;
    assert_eq!(status, 200, "{answer}");
    let found = query(&alice, &alice).await;
    let of_device = &found["device_keys"][&alice.id][&device]["signatures"][&alice.id];
    assert_eq!(of_device.as_object().unwrap().len(), 1, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_has_to_be_right_and_is_seen_by_its_signer() {
    let server = Server::start().await;
    let (mut alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let (of_alice, of_bob) = (Identity::new(&alice.id), Identity::new(&bob.id));
    assert_eq!(alice.post(UPLOAD, of_alice.body()).await.0, 200);
    assert_eq!(bob.post(UPLOAD, of_bob.body()).await.0, 200);
    alice.sync(0).await;
    bob.sync(0).await;
    let master = &of_alice.master;
    let key = master.object("master");

    let wrong = Identity::new(&bob.id).user_signing.sign(key.clone());
    let invalid = Some("M_INVALID_SIGNATURE".to_owned());
    let unknown = Some("M_NOT_FOUND".to_owned());
    assert_eq!(signed(&bob, &alice, &master.public, wrong).await, invalid);
    let mut forged = of_bob.user_signing.sign(key.clone());
    forged["signatures"][&bob.id][by(&of_bob.user_signing)] = json!("AAAA");
    assert_eq!(signed(&bob, &alice, &master.public, forged).await, invalid);
    let (device, keys) = with_device(&alice).await;
    let not_his = of_bob.user_signing.sign(keys);
    assert_eq!(signed(&bob, &alice, &device, not_his).await, unknown);
    let good = of_bob.user_signing.sign(key);
    assert_eq!(signed(&bob, &alice, "NONE", good.clone()).await, unknown);
    bob.sync(0).await;
    alice.sync(0).await;

    assert_eq!(signed(&bob, &alice, &master.public, good).await, None);
    let sync = bob.sync(0).await;
    assert_eq!(
        sync["device_lists"]["changed"],
        json!([alice.id]),
        "who signed looks anew at what was signed: {sync}"
    );
    let sync = alice.sync(0).await;
    assert!(
        sync["device_lists"]["changed"]
            .as_array()
            .is_none_or(Vec::is_empty),
        "nobody else does: {sync}"
    );
    let shown = async |asking: &User| {
        let found = query(asking, &alice).await;
        let signatures = &found["master_keys"][&alice.id]["signatures"];
        signatures[&bob.id][by(&of_bob.user_signing)].is_string()
    };
    assert!(shown(&bob).await);
    assert!(!shown(&alice).await, "only who signed sees it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_takes_its_keys_with_it() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    assert_eq!(
        alice.post(UPLOAD, Identity::new(&alice.id).body()).await.0,
        200
    );
    let (device, _) = with_device(&alice).await;
    let backup = json!({ "algorithm": "m.megolm_backup.v1", "auth_data": { "k": 1 } });
    assert_eq!(alice.post("/room_keys/version", backup).await.0, 200);
    let key = json!({
        "first_message_index": 0, "forwarded_count": 0, "is_verified": true,
        "session_data": { "data": "x" },
    });
    let path = format!("/room_keys/keys/{}/s?version=1", enc(&room));
    assert_eq!(alice.put(&path, key).await.0, 200);
    let body = json!({ "messages": { &alice.id: { &device: { "text": "waits" } } } });
    assert_eq!(bob.put("/sendToDevice/m.test/1", body).await.0, 200);

    let mut body = json!({});
    let (_, challenge) = alice.post("/account/deactivate", body.clone()).await;
    body["auth"] = json!({
        "type": "m.login.password", "session": challenge["session"],
        "identifier": { "type": "m.id.user", "user": "alice" }, "password": "password of alice",
    });
    let (status, answer) = alice
        .call(Method::POST, "/account/deactivate", Some(body))
        .await;
    assert_eq!(status, 200, "{answer}");
    let found = query(&bob, &alice).await;
    assert_eq!(found["device_keys"][&alice.id], json!({}), "{found}");
    assert_eq!(found["master_keys"], json!({}), "{found}");
    let mut database = server.database().await;
    for table in [
        "device",
        "device_key",
        "one_time_key",
        "fallback_key",
        "to_device",
        "key_signature",
        "cross_signing_key",
        "backup",
        "backup_key",
        "pusher",
    ] {
        let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT count(*) FROM {table} JOIN mx_user USING (user_nid) WHERE mxid = $1"
        )))
        .bind(&alice.id)
        .fetch_one(&mut database)
        .await
        .unwrap();
        assert_eq!(left, 0, "{table}");
    }
}
