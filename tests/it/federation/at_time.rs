//! Events by their time, where others know more than we do.

use serde_json::{Value, json};

use super::rooms::two_servers;
use crate::rig::{
    enc,
    http::{self, Ask as _},
    server::Server,
    user::User,
};

async fn find(server: &Server, user: &User, room: &str, ts: i64, dir: &str) -> (u16, Value) {
    let path = format!("/_matrix/client/v1/rooms/{}/timestamp_to_event", enc(room));
    let url = format!("{}?ts={ts}&dir={dir}", server.url(&path));
    let http = http::client();
    let answer = http.get(url).bearer_auth(&user.token).ask().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn time_of(user: &User, room: &str, event: &str) -> i64 {
    let path = format!("/rooms/{}/event/{}", enc(room), enc(event));
    let (status, body) = user.get(&path).await;
    assert_eq!(status, 200, "{body}");
    body["origin_server_ts"].as_i64().unwrap()
}

/// Texts of a page of messages from a token on, and where the next one begins.
async fn page(user: &User, room: &str, from: &str) -> (Vec<String>, Option<String>) {
    let path = format!("/rooms/{}/messages?dir=b&limit=20&from={from}", enc(room));
    let (status, page) = user.get(&path).await;
    assert_eq!(status, 200, "{page}");
    let events = page["chunk"].as_array().unwrap().iter();
    let texts = events.filter_map(|event| event["content"]["body"].as_str());
    (
        texts.map(ToOwned::to_owned).collect(),
        page["end"].as_str().map(ToOwned::to_owned),
    )
}

async fn back_from(user: &User, room: &str, from: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut from = Some(from.to_owned());
    while let Some(token) = from {
        let (more, next) = page(user, room, &token).await;
        texts.extend(more);
        from = next;
    }
    texts
}

async fn talk(user: &User, room: &str, what: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for i in 0..count {
        ids.push(user.say(room, &format!("{what} {i}")).await);
    }
    ids
}

fn texts(what: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.rev().map(|i| format!("{what} {i}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_we_came_is_found_and_read_from_there() {
    let (_folder, one, other) = two_servers().await;
    let alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "time" }))
        .await;
    let said = talk(&alice, &room, "early", 250).await;
    bob.join(&format!("#time:{}", one.name)).await;
    let created = time_of(&alice, &room, &said[0]).await - 10_000;
    let (status, body) = find(&other, &bob, &room, created, "b").await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));

    let wanted = &said[30];
    let ts = time_of(&alice, &room, wanted).await;
    let (_, expected) = find(&one, &alice, &room, ts, "b").await;
    let (status, found) = find(&other, &bob, &room, ts, "b").await;
    assert_eq!((status, &found), (200, &expected), "{}", other.log());
    let found = found["event_id"].as_str().unwrap();
    let at = said.iter().position(|id| id == found).unwrap();
    // Around it is what is around it, and not what came long after.
    let path = format!("/rooms/{}/context/{}?limit=6", enc(&room), enc(found));
    let (status, context) = bob.get(&path).await;
    assert_eq!(status, 200, "{context}");
    assert_eq!(context["event"]["content"]["body"], format!("early {at}"));
    assert_eq!(context["events_after"], json!([]), "a hole: {context}");
    let before = context["events_before"].as_array().unwrap();
    assert_eq!(before.len(), 3, "{context}");
    assert_eq!(before[0]["content"]["body"], format!("early {}", at - 1));
    let end = context["end"].as_str().unwrap();
    assert_eq!(back_from(&bob, &room, end).await, texts("early", 0..at + 1));

    // The sync of a new client does not take the one for the neighbour of the other.
    let body = bob.sync(0).await;
    let timeline = &body["rooms"]["join"][&room]["timeline"];
    assert_eq!(timeline["limited"], true, "{timeline}");
    assert!(
        timeline["events"]
            .as_array()
            .unwrap()
            .iter()
            .all(|event| event["content"]["body"].is_null()),
        "{timeline}"
    );
    // From the top everything is read in its order, and once, also what lies in between.
    let from = timeline["prev_batch"].as_str().unwrap();
    assert_eq!(back_from(&bob, &room, from).await, texts("early", 0..250));
    let now = time_of(&alice, &room, &said[249]).await;
    let (_, found) = find(&other, &bob, &room, now, "b").await;
    assert_eq!(found["event_id"], said[249].as_str());
    let start = time_of(&alice, &room, &said[0]).await;
    let (_, found) = find(&other, &bob, &room, start, "f").await;
    let (_, expected) = find(&one, &alice, &room, start, "f").await;
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_while_we_were_away_is_found_in_its_place() {
    let (_folder, one, other) = two_servers().await;
    let alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "away" }))
        .await;
    let alias = format!("#away:{}", one.name);
    talk(&alice, &room, "before", 3).await;
    bob.join(&alias).await;
    alice.say(&room, "with bob").await;
    bob.hears("with bob").await;
    let (status, _) = bob
        .post(&format!("/rooms/{}/leave", enc(&room)), json!({}))
        .await;
    assert_eq!(status, 200);
    let said = talk(&alice, &room, "meanwhile", 150).await;
    bob.join(&alias).await;
    alice.say(&room, "back").await;
    bob.hears("back").await;

    let wanted = &said[20];
    let ts = time_of(&alice, &room, wanted).await;
    for dir in ["b", "f"] {
        let (_, expected) = find(&one, &alice, &room, ts, dir).await;
        let (status, found) = find(&other, &bob, &room, ts, dir).await;
        assert_eq!((status, &found), (200, &expected), "{dir}");
    }
    let history = bob.history(&room).await;
    let mut expected = texts("before", 0..3);
    expected.reverse();
    expected.push("with bob".to_owned());
    let mut away = texts("meanwhile", 0..150);
    away.reverse();
    expected.extend(away);
    expected.push("back".to_owned());
    assert_eq!(history, expected, "each once, in order");
}
