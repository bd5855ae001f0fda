//! What a user was notified of, page by page.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{enc, server::Server, user::User};

/// Ids of the events of a page, and the token of the next one.
async fn page(user: &User, query: &str) -> (Vec<String>, Option<String>, Vec<Value>) {
    let (status, body) = user.get(&format!("/notifications{query}")).await;
    assert_eq!(status, 200, "{body}");
    let entries = body["notifications"].as_array().unwrap().clone();
    let ids = entries.iter();
    let ids = ids.map(|entry| entry["event"]["event_id"].as_str().unwrap().to_owned());
    let next = body["next_token"].as_str().map(ToOwned::to_owned);
    (ids.collect(), next, entries)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn what_notified_is_listed_by_the_rules_and_only_what_may_be_seen() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({
            "preset": "public_chat",
            "initial_state": [{
                "type": "m.room.history_visibility",
                "content": { "history_visibility": "joined" },
            }],
        }))
        .await;
    alice.say(&room, "before bob came").await;
    bob.join(&room).await;
    let one = alice.say(&room, "one").await;
    let mention = json!({
        "msgtype": "m.text", "body": "two", "m.mentions": { "user_ids": [bob.id] },
    });
    let path = format!("/rooms/{}/send/m.room.message/mention", enc(&room));
    let (_, body) = alice.put(&path, mention).await;
    let two = body["event_id"].as_str().unwrap().to_owned();
    let receipt = format!("/rooms/{}/receipt/m.read/{}", enc(&room), enc(&two));
    assert_eq!(bob.post(&receipt, json!({})).await.0, 200);
    let three = alice.say(&room, "three").await;
    let gone = alice.say(&room, "never said").await;
    let path = format!("/rooms/{}/redact/{}/gone", enc(&room), enc(&gone));
    assert_eq!(alice.put(&path, json!({})).await.0, 200);
    // A room where only words of the user's own count, one that is silenced, and an invitation.
    let words = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&words).await;
    let silent = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&silent).await;
    let rule = |room: &str| format!("/pushrules/global/room/{}", enc(room));
    for room in [&words, &silent] {
        bob.put(&rule(room), json!({ "actions": [] })).await;
    }
    let actions = json!(["notify", { "set_tweak": "highlight" }]);
    let cake = json!({ "pattern": "cake", "actions": actions });
    bob.put("/pushrules/global/content/cake", cake).await;
    alice.say(&silent, "psst").await;
    alice.say(&words, "bread").await;
    let sweet = alice.say(&words, "cake").await;
    let other = alice
        .create_room(json!({ "preset": "private_chat", "invite": [bob.id] }))
        .await;

    let (ids, next, entries) = page(&bob, "").await;
    assert_eq!(ids[1..], [&*sweet, &three, &two, &one]);
    assert!(next.is_none());
    let invitation = &entries[0];
    assert_eq!(
        (
            &invitation["room_id"],
            &invitation["event"]["content"]["membership"]
        ),
        (&json!(other), &json!("invite"))
    );
    let read: Vec<&Value> = entries.iter().map(|entry| &entry["read"]).collect();
    assert_eq!(read, [false, false, false, true, true]);
    let sweet = &entries[1];
    assert_eq!(
        (&sweet["actions"], &sweet["room_id"]),
        (&actions, &json!(words))
    );
    assert!(sweet["ts"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(sweet["event"]["content"]["body"], "cake");

    // Page by page, and what was highlighted alone.
    let (first, next, _) = page(&bob, "?limit=2").await;
    assert_eq!(first, ids[..2]);
    let (rest, next, _) = page(&bob, &format!("?limit=3&from={}", next.unwrap())).await;
    assert_eq!(rest, ids[2..]);
    let (none, last, _) = page(&bob, &format!("?from={}", next.unwrap())).await;
    assert!(none.is_empty() && last.is_none());
    let (high, ..) = page(&bob, "?only=highlight").await;
    assert_eq!(high, [&*ids[1], &two]);
    let (status, body) = bob.get("/notifications?from=nonsense").await;
    assert_eq!((status, &body["errcode"]), (400, &json!("M_INVALID_PARAM")));
    // Rules count as they are now.
    assert_eq!(bob.call(Method::DELETE, &rule(&silent), None).await.0, 200);
    assert_eq!(page(&bob, "").await.0.len(), 6);
    assert!(page(&alice, "").await.0.is_empty());
}
