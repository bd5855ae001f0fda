//! Rooms that are encrypted because the operator says so.

use serde_json::{Value, json};

use crate::rig::{enc, server::Server, user::User};

async fn algorithm(user: &User, room: &str) -> Value {
    let path = format!("/rooms/{}/state/m.room.encryption/", enc(room));
    user.get(&path).await.1["algorithm"].clone()
}

fn config(rooms: &str) -> String {
    format!(
        "[registration]\nopen = true\n[rooms]\n{rooms}\
         [well_known]\nclient = \"https://matrix.amt.example\"\n"
    )
}

fn own(algorithm: &str) -> Value {
    json!({ "initial_state": [
        { "type": "m.room.encryption", "state_key": "", "content": { "algorithm": algorithm } },
    ]})
}

const MEGOLM: &str = "m.megolm.v1.aes-sha2";

#[tokio::test(flavor = "multi_thread")]
async fn private_rooms_are_encrypted_where_that_is_the_default() {
    let server = Server::with(&config("encryption = \"private\"\n"), None).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let document: Value = server.document("/.well-known/matrix/client").await;
    assert_eq!(document["io.element.e2ee"]["default"], true, "{document}");
    let join_rule = |rule: &str| json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": rule } }]);
    for (options, expected) in [
        (json!({}), json!(MEGOLM)),
        (
            json!({ "preset": "private_chat", "is_direct": true, "invite": [bob.id] }),
            json!(MEGOLM),
        ),
        (json!({ "preset": "trusted_private_chat" }), json!(MEGOLM)),
        (json!({ "preset": "public_chat" }), Value::Null),
        (
            json!({ "preset": "public_chat", "initial_state": join_rule("knock") }),
            json!(MEGOLM),
        ),
        (json!({ "initial_state": join_rule("public") }), Value::Null),
        (
            json!({ "creation_content": { "type": "m.space" } }),
            Value::Null,
        ),
        (own("m.other"), json!("m.other")),
    ] {
        let room = alice.create_room(options.clone()).await;
        assert_eq!(algorithm(&alice, &room).await, expected, "{options}");
    }
    // An upgrade changes nothing of it.
    let public = alice.create_room(json!({ "preset": "public_chat" })).await;
    for (room, expected) in [
        (public, Value::Null),
        (alice.create_room(json!({})).await, json!(MEGOLM)),
    ] {
        let path = format!("/rooms/{}/upgrade", enc(&room));
        let (status, answer) = alice.post(&path, json!({ "new_version": "12" })).await;
        assert_eq!(status, 200, "{answer}");
        let next = answer["replacement_room"].as_str().unwrap();
        assert_eq!(algorithm(&alice, next).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_does_otherwise_where_encryption_is_required() {
    let text = config("encryption = \"all\"\nencryption_required = true\n");
    let server = Server::with(&text, None).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    assert_eq!(algorithm(&alice, &room).await, MEGOLM);
    let (status, answer) = alice.post("/createRoom", own("m.other")).await;
    assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
    let room_of_own = alice.create_room(own(MEGOLM)).await;
    assert_eq!(algorithm(&alice, &room_of_own).await, MEGOLM);
    let path = format!("/rooms/{}/state/m.room.encryption/", enc(&room));
    for content in [
        json!({}),
        json!({ "algorithm": "none" }),
        json!({ "algorithm": 1 }),
    ] {
        assert_eq!(alice.put(&path, content.clone()).await.0, 403, "{content}");
    }
    let rotated = json!({ "algorithm": MEGOLM, "rotation_period_msgs": 10 });
    assert_eq!(alice.put(&path, rotated).await.0, 200);
    assert_eq!(algorithm(&alice, &room).await, MEGOLM);

    // What is said in the clear is refused, and what clients never encrypt is not.
    let send = async |room: &str, kind: &str, txn: &str| {
        let path = format!("/rooms/{}/send/{kind}/{txn}", enc(room));
        let relates = json!({ "rel_type": "m.annotation", "event_id": "$x", "key": txn });
        let body = json!({ "msgtype": "m.text", "body": "secret", "m.relates_to": relates });
        alice.put(&path, body).await
    };
    for kind in [
        "m.room.message",
        "m.sticker",
        "m.call.invite",
        "m.key.verification.start",
        "org.matrix.msc3381.poll.start",
        "example.of.ours",
    ] {
        let (status, answer) = send(&room, kind, kind).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
        assert!(
            answer["error"].to_string().contains("encrypted"),
            "{answer}"
        );
    }
    for kind in [
        "m.room.encrypted",
        "m.reaction",
        "org.matrix.msc4143.rtc.member",
    ] {
        let (status, answer) = send(&room, kind, kind).await;
        assert_eq!(status, 200, "{answer}");
    }
    let again = send(&room, "m.room.encrypted", "again").await.1;
    let event = again["event_id"].as_str().unwrap();
    let path = format!("/rooms/{}/redact/{}/1", enc(&room), enc(event));
    assert_eq!(alice.put(&path, json!({})).await.0, 200);
    // Spaces are not encrypted, and nobody has to do otherwise.
    let space = json!({ "creation_content": { "type": "m.space" } });
    let space = alice.create_room(space).await;
    assert_eq!(send(&space, "m.room.message", "1").await.0, 200);
}
