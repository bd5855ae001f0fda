//! What clients asked for before there was `/sync`, and looking into rooms from outside.

use serde_json::{Value, json};

use crate::rig::{enc, eventually, server::Server, user::User};

fn texts(chunk: &Value) -> Vec<String> {
    let events = chunk.as_array().unwrap().iter();
    let bodies = events.filter_map(|event| event["content"]["body"].as_str());
    bodies.map(ToOwned::to_owned).collect()
}

async fn ok(user: &User, path: &str) -> Value {
    let (status, answer) = user.get(path).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// What is told from a token on, until something is, and where that ends.
async fn listen(user: &User, from: &str, room: Option<&str>) -> (Value, String) {
    let room = room.map_or_else(String::new, |room| format!("&room_id={}", enc(room)));
    let path = format!("/events?timeout=30000&from={from}{room}");
    let answer = ok(user, &path).await;
    assert_eq!(answer["start"], from);
    (
        answer["chunk"].clone(),
        answer["end"].as_str().unwrap().to_owned(),
    )
}

fn membership(all: &Value, room: &str) -> Value {
    let mut rooms = all["rooms"].as_array().unwrap().iter();
    let its = rooms.find(|it| it["room_id"] == room);
    its.cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_told_at_once_and_then_event_by_event() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "visibility": "public", "name": "Here" }))
        .await;
    let other = bob
        .create_room(json!({ "preset": "private_chat", "invite": [alice.id] }))
        .await;
    let gone = alice.create_room(json!({ "preset": "public_chat" })).await;
    alice.say(&gone, "last words").await;
    alice
        .post(&format!("/rooms/{}/leave", enc(&gone)), json!({}))
        .await;
    for n in 0..5 {
        alice.say(&room, &format!("{n}")).await;
    }
    let tag = format!("/user/{}/rooms/{}/tags/work", enc(&alice.id), enc(&room));
    alice.put(&tag, json!({ "order": 0.5 })).await;

    let all = ok(&alice, "/initialSync?limit=3").await;
    let here = membership(&all, &room);
    assert_eq!(here["membership"], "join");
    assert_eq!(here["visibility"], "public");
    assert_eq!(texts(&here["messages"]["chunk"]), ["2", "3", "4"]);
    assert_eq!(here["messages"]["chunk"][0]["room_id"], json!(room));
    let state = here["state"].as_array().unwrap();
    assert!(state.iter().any(|event| event["content"]["name"] == "Here"));
    assert_eq!(here["account_data"][0]["type"], "m.tag");
    let start = here["messages"]["start"].as_str().unwrap();
    let path = format!("/rooms/{}/messages?dir=b&limit=2&from={start}", enc(&room));
    assert_eq!(texts(&ok(&alice, &path).await["chunk"]), ["1", "0"]);
    let invited = membership(&all, &other);
    assert_eq!(
        (&invited["membership"], &invited["inviter"]),
        (&json!("invite"), &json!(bob.id))
    );
    assert_eq!(invited["invite"]["content"]["membership"], "invite");
    assert!(membership(&all, &gone).is_null());
    let all_of_it = ok(&alice, "/initialSync?archived=true").await;
    let left = membership(&all_of_it, &gone);
    assert_eq!(left["membership"], "leave");
    assert!(texts(&left["messages"]["chunk"]).contains(&"last words".to_owned()));

    // What comes is told from there on; messages to devices wait for a sync.
    let (_, who) = alice.get("/account/whoami").await;
    let device = who["device_id"].as_str().unwrap();
    let secret = json!({ "messages": { &alice.id: { device: { "secret": 1 } } } });
    assert_eq!(bob.put("/sendToDevice/m.test/1", secret).await.0, 200);
    let end = all["end"].as_str().unwrap().to_owned();
    let listening = {
        let alice = alice.again();
        tokio::spawn(async move { listen(&alice, &end, None).await })
    };
    bob.join(&room).await;
    let (chunk, mut at) = listening.await.unwrap();
    let came = chunk.as_array().unwrap().iter();
    let mut came = came.filter(|event| event["state_key"] == bob.id.as_str());
    assert_eq!(came.next().unwrap()["room_id"], json!(room), "{chunk}");
    let event = bob.say(&room, "hello").await;
    eventually("the message", async || {
        let (chunk, end) = listen(&alice, &at, None).await;
        at = end;
        texts(&chunk).contains(&"hello".to_owned()).then_some(())
    })
    .await;
    let sync = ok(&alice, &format!("/sync?timeout=0&since={at}")).await;
    assert_eq!(sync["to_device"]["events"][0]["content"]["secret"], 1);
    assert_eq!(alice.get("/events?from=x").await.0, 400);

    // One event, for who may see it.
    let path = format!("/events/{}", enc(&event));
    assert_eq!(ok(&alice, &path).await["content"]["body"], "hello");
    let stranger = server.user("stranger").await;
    assert_eq!(stranger.get(&path).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_rooms_are_looked_into_and_left_ones_remembered() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let open = json!([{ "type": "m.room.history_visibility", "state_key": "",
                        "content": { "history_visibility": "world_readable" } }]);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": open }))
        .await;
    let closed = alice.create_room(json!({ "preset": "public_chat" })).await;
    alice.say(&room, "seen by all").await;
    let path = |room: &str| format!("/rooms/{}/initialSync?limit=2", enc(room));
    let seen = ok(&bob, &path(&room)).await;
    assert!(seen.get("membership").is_none(), "{seen}");
    assert!(texts(&seen["messages"]["chunk"]).contains(&"seen by all".to_owned()));
    assert!(seen["state"].as_array().unwrap().len() > 4);
    assert_eq!(bob.get(&path(&closed)).await.0, 403);
    let events = format!("/events?timeout=0&room_id={}", enc(&closed));
    assert_eq!(bob.get(&events).await.0, 403);

    let events = format!("/events?timeout=0&room_id={}", enc(&room));
    let at = ok(&bob, &events).await["end"].as_str().unwrap().to_owned();
    let listening = {
        let (bob, room, at) = (bob.again(), room.clone(), at.clone());
        tokio::spawn(async move { listen(&bob, &at, Some(&room)).await })
    };
    alice.say(&closed, "not for bob").await;
    alice.say(&room, "and this").await;
    let (chunk, at) = listening.await.unwrap();
    assert_eq!(texts(&chunk), ["and this"]);
    assert_eq!(chunk[0]["room_id"], json!(room));
    // Who looks in sees no more once the room is closed.
    let rule = format!("/rooms/{}/state/m.room.history_visibility/", enc(&room));
    let shared = json!({ "history_visibility": "shared" });
    assert_eq!(alice.put(&rule, shared).await.0, 200);
    let events = format!("/events?timeout=0&room_id={}&from={at}", enc(&room));
    assert_eq!(bob.get(&events).await.0, 403);

    // Who left sees what was.
    bob.join(&closed).await;
    alice.say(&closed, "while bob was there").await;
    bob.post(&format!("/rooms/{}/leave", enc(&closed)), json!({}))
        .await;
    alice.say(&closed, "after bob left").await;
    let left = ok(&bob, &path(&closed)).await;
    assert_eq!(left["membership"], "leave");
    let said = texts(&left["messages"]["chunk"]);
    assert!(!said.contains(&"after bob left".to_owned()), "{said:?}");
    let now = ok(&alice, &path(&closed)).await;
    assert_eq!(now["membership"], "join");
    assert_eq!(
        texts(&now["messages"]["chunk"]).last().unwrap(),
        "after bob left"
    );
}
