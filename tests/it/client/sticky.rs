//! Sticky events (MSC4354, MSC4480).

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    federation::rooms::two_servers,
    rig::{
        enc, eventually,
        scripted::{event::Event, room::Room, server_and_peer},
        server::Server,
        user::User,
    },
};

const SLIDE: &str = "/../unstable/org.matrix.simplified_msc3575/sync";
const EXTENSION: &str = "org.matrix.msc4354.sticky_events";
const FILTER: &str = r#"{"room":{"timeline":{"limit":3}}}"#;

/// Sends something that sticks; the event id.
pub(crate) async fn stick(user: &User, room: &str, name: &str, duration_ms: i64) -> String {
    let query = format!("org.matrix.msc4354.sticky_duration_ms={duration_ms}");
    let path = format!("/rooms/{}/send/m.rtc.member/{name}?{query}", enc(room));
    let content = json!({ "msc4354_sticky_key": name });
    let (status, body) = user.put(&path, content).await;
    assert_eq!(status, 200, "{body}");
    body["event_id"].as_str().unwrap().to_owned()
}

async fn chat(user: &User, room: &str) {
    for n in 0..4 {
        user.say(room, &format!("chat {n}")).await;
    }
}

/// A short sync: what sticks in a room beside the timeline, and in it.
async fn sync(user: &User, room: &str, since: &mut Option<String>) -> (Vec<Value>, Vec<Value>) {
    let since_query = since.as_ref().map(|since| format!("&since={since}"));
    let query = since_query.unwrap_or_default();
    let path = format!("/sync?filter={}{query}", enc(FILTER));
    let (status, body) = user.get(&path).await;
    assert_eq!(status, 200, "{body}");
    *since = Some(body["next_batch"].as_str().unwrap().to_owned());
    let part = &body["rooms"]["join"][room];
    let list = |part: &Value| part["events"].as_array().cloned().unwrap_or_default();
    let sticks = |event: &Value| event.get("msc4354_sticky").is_some();
    let mut timeline = list(&part["timeline"]);
    timeline.retain(sticks);
    let beside = list(&part["msc4354_sticky"]);
    assert!(beside.iter().all(sticks), "{beside:?}");
    (beside, timeline)
}

fn ids(events: &[Value]) -> Vec<&str> {
    let ids = events.iter();
    ids.map(|event| event["event_id"].as_str().unwrap())
        .collect()
}

/// The extension: where the client is, the next token for it, and ids of events of a room.
async fn slide(
    user: &User,
    room: &str,
    (pos, since): (Option<&str>, Option<&str>),
    limit: u32,
) -> (String, Option<String>, Vec<String>) {
    let body = json!({ "extensions": { EXTENSION: {
        "enabled": true, "limit": limit, "since": since,
    } } });
    let pos = pos.map_or_else(String::new, |pos| format!("&pos={pos}"));
    let path = format!("{SLIDE}?timeout=300{pos}");
    let (status, answer) = user.call(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    let part = &answer["extensions"][EXTENSION];
    let events = part["rooms"][room]["events"].as_array().cloned();
    let events = events.unwrap_or_default();
    (
        answer["pos"].as_str().unwrap().to_owned(),
        part["next_batch"].as_str().map(ToOwned::to_owned),
        ids(&events).into_iter().map(ToOwned::to_owned).collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sticks_is_told_to_everybody_in_the_room_once_as_long_as_it_sticks() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let hidden = json!({
        "type": "m.room.history_visibility", "content": { "history_visibility": "joined" },
    });
    let room = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": [hidden] }))
        .await;
    let first = stick(&alice, &room, "first", 600_000).await;
    stick(&alice, &room, "short", 1).await;
    chat(&alice, &room).await;
    let mut since = None;
    bob.join(&room).await;
    let (beside, shown) = sync(&bob, &room, &mut since).await;
    assert_eq!((ids(&beside), shown.len()), (vec![&*first], 0));
    assert_eq!(
        beside[0]["msc4354_sticky"],
        json!({ "duration_ms": 600_000 })
    );
    let left = beside[0]["unsigned"]["msc4354_sticky_duration_ttl_ms"].as_i64();
    assert!(
        left.is_some_and(|left| left > 0 && left <= 600_000),
        "{beside:?}"
    );
    assert_eq!(beside[0]["content"]["msc4354_sticky_key"], "first");

    // In a timeline it needs no other place; where the timeline is short it does.
    let second = stick(&alice, &room, "second", 5_000_000).await;
    let (beside, shown) = sync(&bob, &room, &mut since).await;
    assert_eq!((beside.len(), ids(&shown)), (0, vec![&*second]));
    let hour = json!({ "duration_ms": 3_600_000 });
    assert_eq!(shown[0]["msc4354_sticky"], hour, "an hour at most");
    let third = stick(&alice, &room, "third", 600_000).await;
    chat(&alice, &room).await;
    let (beside, shown) = sync(&bob, &room, &mut since).await;
    assert_eq!((ids(&beside), shown.len()), (vec![&*third], 0));
    let (beside, shown) = sync(&bob, &room, &mut since).await;
    assert_eq!((beside.len(), shown.len()), (0, 0), "once");

    // Sliding sync: piece by piece, the oldest first.
    let (pos, next, told) = slide(&bob, &room, (None, None), 2).await;
    assert_eq!(told, [&*first, &second]);
    let (pos, next, told) = slide(&bob, &room, (Some(&pos), next.as_deref()), 2).await;
    assert_eq!(told, [&*third]);
    let (pos, _, told) = slide(&bob, &room, (Some(&pos), next.as_deref()), 2).await;
    assert!(told.is_empty(), "{told:?}");
    let fourth = stick(&alice, &room, "fourth", 600_000).await;
    let (_, _, told) = slide(&bob, &room, (Some(&pos), next.as_deref()), 2).await;
    assert_eq!(told, [&*fourth]);

    // What is redacted is like any other event, and who is ignored is not heard.
    let path = format!("/rooms/{}/redact/{}/r", enc(&room), enc(&second));
    assert_eq!(alice.put(&path, json!({})).await.0, 200);
    chat(&alice, &room).await;
    let carol = server.user("carol").await;
    carol.join(&room).await;
    let (beside, _) = sync(&carol, &room, &mut None).await;
    assert_eq!(ids(&beside), [&*first, &third, &fourth]);
    let path = format!("/user/{}/account_data/m.ignored_user_list", enc(&carol.id));
    let list = json!({ "ignored_users": { &alice.id: {} } });
    assert_eq!(carol.put(&path, list).await.0, 200);
    assert!(sync(&carol, &room, &mut None).await.0.is_empty());

    // State that is set to what it is already sticks anew.
    let path = format!(
        "/rooms/{}/state/org.example/x?org.matrix.msc4354.sticky_duration_ms=600000",
        enc(&room)
    );
    let mut sent = BTreeSet::new();
    for _ in 0..2 {
        let (status, body) = alice.put(&path, json!({ "a": 1 })).await;
        assert_eq!(status, 200, "{body}");
        sent.insert(body["event_id"].to_string());
    }
    assert_eq!(sent.len(), 2);
    let (status, _) = alice.put(&path.replace("600000", "-1"), json!({})).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_into_a_room_is_sent_what_sticks_there() {
    let (_folder, one, other) = two_servers().await;
    let (alice, bob) = (one.user("alice").await, other.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let stuck = stick(&alice, &room, "before", 600_000).await;
    chat(&alice, &room).await;
    bob.join_via(&room, &one.name).await;
    eventually("what sticks", async || {
        let (beside, shown) = sync(&bob, &room, &mut None).await;
        (ids(&beside).contains(&&*stuck) || ids(&shown).contains(&&*stuck)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_room_did_not_allow_is_looked_at_again_when_its_sender_comes_back() {
    let (_folder, _tls, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let options = json!({ "preset": "public_chat", "room_version": "11" });
    let room_id = alice.create_room(options).await;
    let bob = peer.user("bob");
    let room: Room = peer.join(&server, &room_id, &bob).await;
    let draft = room.draft(&bob, ("m.rtc.member", None), json!({}));
    let event: Event = room.add(draft.with("msc4354_sticky", json!({ "duration_ms": 600_000 })));
    let ban = |what: &str| format!("/rooms/{}/{what}", enc(&room_id));
    let body = json!({ "user_id": bob });
    assert_eq!(alice.post(&ban("ban"), body.clone()).await.0, 200);
    let answer = peer.send(&server, &[&event]).await;
    assert_eq!(answer[&event.id], json!({}), "{answer}");
    let mut since = None;
    let (beside, shown) = sync(&alice, &room_id, &mut since).await;
    assert_eq!((beside.len(), shown.len()), (0, 0), "soft-failed");
    assert_eq!(alice.post(&ban("unban"), body).await.0, 200);
    peer.enter(&server, &room_id, &bob).await;
    eventually("what sticks", async || {
        let (beside, shown) = sync(&alice, &room_id, &mut since).await;
        let all = [ids(&beside), ids(&shown)].concat();
        all.contains(&&*event.id).then_some(())
    })
    .await;
}
