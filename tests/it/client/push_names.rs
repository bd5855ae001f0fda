//! Names in texts that do not say whom they mention, where the operator has them notify.

use serde_json::{Value, json};

use crate::rig::{enc, eventually, server::Server, user::User};

/// Notifications and highlights of a user in a room.
async fn counts(user: &User, room: &str) -> (i64, i64) {
    let (status, body) = user.get("/sync?timeout=0").await;
    assert_eq!(status, 200, "{body}");
    let unread = &body["rooms"]["join"][room]["unread_notifications"];
    let count = |key: &str| unread[key].as_i64().unwrap();
    (count("notification_count"), count("highlight_count"))
}

/// How many highlights a message adds for a user.
async fn added(from: &User, to: &User, room: &str, content: Value) -> i64 {
    let (_, before) = counts(to, room).await;
    let txn = format!("{:x}", rand::random::<u64>());
    let path = format!("/rooms/{}/send/m.room.message/{txn}", enc(room));
    let (status, answer) = from.put(&path, content).await;
    assert_eq!(status, 200, "{answer}");
    counts(to, room).await.1 - before
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_named_is_notified_as_if_mentioned() {
    let server = Server::with(
        "[registration]\nopen = true\n[push]\nnames_in_texts = true\n",
        None,
    )
    .await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let name = json!({ "displayname": "Bärbel Ohm" });
    let path = format!("/profile/{}/displayname", enc(&bob.id));
    assert_eq!(bob.put(&path, name).await.0, 200);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    eventually("the name to be known", async || {
        let term = json!({ "search_term": "Bärbel" });
        let (_, found) = alice.post("/user_directory/search", term).await;
        (found["results"][0]["user_id"] == bob.id.as_str()).then_some(())
    })
    .await;

    for (body, loud) in [
        ("Hello!", 0),
        (&*format!("Hello {}!", bob.id), 1),
        ("bob: have you seen it?", 1),
        ("the bobsleigh", 0),
        ("ask bärbel ohm", 1),
        ("@room: lunch", 1),
    ] {
        assert_eq!(added(&alice, &bob, &room, text(body)).await, loud, "{body}");
    }
    // Who says whom they mention means nobody else; not everybody may call the room.
    for mentions in [json!({}), json!({ "user_ids": [alice.id] })] {
        let mut content = text("bob and @room");
        content["m.mentions"] = mentions;
        assert_eq!(added(&alice, &bob, &room, content).await, 0);
    }
    assert_eq!(
        added(&bob, &alice, &room, text("@room: I am here")).await,
        0
    );
    assert_eq!(
        added(&bob, &alice, &room, text("thank you, alice")).await,
        1
    );

    // Whoever does not want it turns it off.
    let rule = "/pushrules/global/content/.m.rule.contains_user_name";
    let (status, shown) = bob.get(rule).await;
    assert_eq!((status, &shown["pattern"]), (200, &json!("bob")));
    let off = json!({ "enabled": false });
    assert_eq!(bob.put(&format!("{rule}/enabled"), off).await.0, 200);
    assert_eq!(added(&alice, &bob, &room, text("bob?")).await, 0);
    assert_eq!(added(&alice, &bob, &room, text("Bärbel Ohm?")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_texts_are_no_mentions_else() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    for body in ["bob?", "@room"] {
        assert_eq!(added(&alice, &bob, &room, text(body)).await, 0);
    }
    let rule = "/pushrules/global/content/.m.rule.contains_user_name";
    assert_eq!(bob.get(rule).await.0, 404);
}
