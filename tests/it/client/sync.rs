//! Sync v2.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::rig::{enc, server::Server, user::User};

#[tokio::test(flavor = "multi_thread")]
async fn with_many_writers_nothing_is_missed_and_nothing_comes_twice() {
    const EACH: usize = 40;
    let server = Server::start().await;
    let mut reader = server.user("reader").await;
    let mut rooms = Vec::new();
    for i in 0..3 {
        let room = reader
            .create_room(json!({ "preset": "public_chat", "name": format!("{i}") }))
            .await;
        rooms.push(room);
    }
    reader.sync(0).await;
    reader.seen.clear();
    let mut writers = Vec::new();
    for i in 0..4 {
        let writer = server.user(&format!("writer{i}")).await;
        for room in &rooms {
            writer.join(room).await;
        }
        let rooms = rooms.clone();
        writers.push(tokio::spawn(async move {
            for n in 0..EACH {
                writer
                    .say(&rooms[n % rooms.len()], &format!("{i} {n}"))
                    .await;
            }
        }));
    }
    let expected: HashSet<String> = (0..4)
        .flat_map(|i| (0..EACH).map(move |n| format!("{i} {n}")))
        .collect();
    let this = tokio::sync::Mutex::new(&mut reader);
    crate::rig::eventually("all messages", async || {
        let mut reader = this.lock().await;
        let filter = enc(r#"{"room":{"timeline":{"limit":100}}}"#);
        let since = reader.since.clone().unwrap();
        let (status, body) = reader
            .get(&format!("/sync?timeout=500&since={since}&filter={filter}"))
            .await;
        assert_eq!(status, 200, "{body}");
        reader.since = Some(body["next_batch"].as_str().unwrap().to_owned());
        for (room, part) in body["rooms"]["join"].as_object().into_iter().flatten() {
            assert_eq!(part["timeline"]["limited"], false, "{part}");
            for event in part["timeline"]["events"].as_array().unwrap() {
                reader.seen.push((room.clone(), event.clone()));
            }
        }
        let texts: Vec<String> = reader
            .seen
            .iter()
            .filter_map(|(_, event)| event["content"]["body"].as_str().map(ToOwned::to_owned))
            .collect();
        let unique: HashSet<String> = texts.iter().cloned().collect();
        assert_eq!(unique.len(), texts.len(), "something came twice");
        (unique == expected).then_some(())
    })
    .await;
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Joined rooms that a sync tells of.
fn joined(sync: &Value) -> Vec<String> {
    let rooms = sync["rooms"]["join"].as_object();
    rooms
        .into_iter()
        .flat_map(|rooms| rooms.keys().cloned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_that_are_entered_meanwhile_all_come() {
    const ROOMS: usize = 40;
    let server = Server::start().await;
    let mut reader = server.user("reader").await;
    reader.sync(0).await;
    let entering = reader.again();
    let entered = tokio::spawn(async move {
        let mut rooms = HashSet::new();
        for _ in 0..ROOMS {
            rooms.insert(entering.create_room(json!({})).await);
        }
        rooms
    });
    let mut told = HashSet::new();
    while !entered.is_finished() || told.is_empty() {
        let sync = reader.sync(0).await;
        told.extend(joined(&sync));
    }
    let sync = reader.sync(0).await;
    told.extend(joined(&sync));
    assert_eq!(told, entered.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_marked_and_can_be_paged_over() {
    let server = Server::start().await;
    let mut alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.sync(0).await;
    for i in 0..25 {
        alice.say(&room, &format!("{i}")).await;
    }
    let body = alice.sync(0).await;
    let timeline = &body["rooms"]["join"][&room]["timeline"];
    assert_eq!(timeline["limited"], true);
    assert_eq!(timeline["events"].as_array().unwrap().len(), 10);
    let from = timeline["prev_batch"].as_str().unwrap();
    let path = format!("/rooms/{}/messages?dir=b&limit=15&from={from}", enc(&room));
    let (_, page) = alice.get(&path).await;
    let texts: Vec<&str> = page["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["content"]["body"].as_str())
        .collect();
    let expected: Vec<String> = (0..15).rev().map(|i| i.to_string()).collect();
    assert_eq!(texts, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_loaded_lazily_and_all_on_demand() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for i in 0..5 {
        server.user(&format!("member{i}")).await.join(&room).await;
    }
    let last = server.user("last").await;
    last.join(&room).await;
    for i in 0..12 {
        last.say(&room, &format!("{i}")).await;
    }
    let members = |body: &serde_json::Value| {
        let events = body["rooms"]["join"][&room]["state"]["events"]
            .as_array()
            .unwrap()
            .clone();
        events
            .into_iter()
            .filter(|event| event["type"] == "m.room.member")
            .count()
    };
    let (_, all) = alice.get("/sync").await;
    assert_eq!(members(&all), 7);
    let filter = enc(r#"{"room":{"state":{"lazy_load_members":true}}}"#);
    let (_, lazy) = alice.get(&format!("/sync?filter={filter}")).await;
    assert_eq!(members(&lazy), 2, "who speaks, and oneself");
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_counts_typing_and_receipts_follow_what_happens() {
    let server = Server::start().await;
    let (alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.sync(0).await;
    alice.say(&room, "one").await;
    let last = alice.say(&room, "two").await;
    let path = format!("/rooms/{}/send/m.room.message/mention", enc(&room));
    let mention =
        json!({ "msgtype": "m.text", "body": "bob?", "m.mentions": { "user_ids": [bob.id] } });
    assert_eq!(alice.put(&path, mention).await.0, 200);
    let body = bob.sync(0).await;
    let unread = &body["rooms"]["join"][&room]["unread_notifications"];
    assert_eq!(
        (&unread["notification_count"], &unread["highlight_count"]),
        (&json!(3), &json!(1))
    );

    let receipt = format!("/rooms/{}/receipt/m.read/{}", enc(&room), enc(&last));
    assert_eq!(bob.post(&receipt, json!({})).await.0, 200);
    let body = bob.sync(0).await;
    let part = &body["rooms"]["join"][&room];
    assert_eq!(
        part["unread_notifications"]["notification_count"], 1,
        "{part}"
    );
    let told = &part["ephemeral"]["events"][0];
    assert!(
        told["content"][&last]["m.read"][&bob.id]["ts"].is_number(),
        "{told}"
    );

    let typing = format!("/rooms/{}/typing/{}", enc(&room), enc(&alice.id));
    assert_eq!(
        alice
            .put(&typing, json!({ "typing": true, "timeout": 30_000 }))
            .await
            .0,
        200
    );
    let body = bob.sync(10_000).await;
    let told = &body["rooms"]["join"][&room]["ephemeral"]["events"][0];
    assert_eq!(told["content"]["user_ids"], json!([alice.id]), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn account_data_tags_and_filters_come_back_as_they_were() {
    let server = Server::start().await;
    let mut alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.sync(0).await;
    let user = enc(&alice.id);
    let data = json!({ "de.bwi.anything": [1, { "deep": null }] });
    let path = format!("/user/{user}/account_data/de.bwi.notes");
    assert_eq!(alice.put(&path, data.clone()).await.0, 200);
    assert_eq!(alice.get(&path).await, (200, data.clone()));
    let tag = format!("/user/{user}/rooms/{}/tags/m.favourite", enc(&room));
    assert_eq!(alice.put(&tag, json!({ "order": 0.5 })).await.0, 200);
    let body = alice.sync(0).await;
    assert_eq!(body["account_data"]["events"][0]["content"], data);
    let tags = &body["rooms"]["join"][&room]["account_data"]["events"][0];
    assert_eq!(
        tags["content"]["tags"]["m.favourite"]["order"], 0.5,
        "{tags}"
    );
    let rules = format!("/user/{user}/account_data/m.push_rules");
    assert_eq!(alice.put(&rules, json!({})).await.0, 405);
}

/// Texts of a room's timeline with the memberships that the server adds.
fn heard(sync: &Value, room: &str) -> Vec<(String, String)> {
    let events = sync["rooms"]["join"][room]["timeline"]["events"].as_array();
    let messages = events
        .into_iter()
        .flatten()
        .filter(|event| event["type"] == "m.room.message");
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    messages
        .map(|event| {
            let body = text(&event["content"]["body"]);
            (body, text(&event["unsigned"]["membership"]))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_one_ignores_is_not_heard_and_events_tell_whether_one_was_there() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    // Capitals in names make no other user.
    let carol = User::register(&server.url(""), "Carol").await;
    assert!(carol.id.starts_with("@carol:"), "{}", carol.id);
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;
    let before = bob.say(&room, "before").await;
    let event = format!("/rooms/{}/event/{}", enc(&room), enc(&before));
    assert_eq!(alice.get(&event).await.0, 404);
    alice.join(&room).await;
    carol.join(&room).await;
    bob.say(&room, "after").await;
    let list = json!({ "ignored_users": { carol.id.as_str(): {} } });
    let path = format!("/user/{}/account_data/m.ignored_user_list", enc(&alice.id));
    assert_eq!(alice.put(&path, list).await.0, 200);
    carol.say(&room, "nobody listens").await;
    let invited = carol.create_room(json!({ "invite": [alice.id] })).await;
    let wanted = bob.create_room(json!({ "invite": [alice.id] })).await;

    let (_, sync) = alice.get("/sync").await;
    let pair = |text: &str, membership: &str| (text.to_owned(), membership.to_owned());
    let expected = [pair("before", "leave"), pair("after", "join")];
    assert_eq!(heard(&sync, &room), expected);
    let invitations = sync["rooms"]["invite"].as_object().unwrap();
    assert!(invitations.contains_key(&wanted) && !invitations.contains_key(&invited));
    let filter = enc(&json!({ "room": { "timeline": { "limit": 0 } } }).to_string());
    let (_, sync) = alice.get(&format!("/sync?filter={filter}")).await;
    let timeline = &sync["rooms"]["join"][&room]["timeline"];
    assert_eq!(
        (&timeline["events"], &timeline["limited"]),
        (&json!([]), &json!(true))
    );
    let from = timeline["prev_batch"].as_str().unwrap();
    let path = format!("/rooms/{}/messages?dir=b&limit=1&from={from}", enc(&room));
    let (_, page) = alice.get(&path).await;
    assert_eq!(
        page["chunk"][0]["content"]["body"], "nobody listens",
        "{page}"
    );

    let path = format!("/rooms/{}/forget", enc(&room));
    let (status, answer) = alice.post(&path, json!({})).await;
    assert_eq!((status, &answer["errcode"]), (400, &json!("M_UNKNOWN")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_after_a_timeline_holds_the_members_that_the_timeline_changes() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let filter = enc(r#"{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}"#);
    let look = async |since: &str| {
        let path = format!("/sync?use_state_after=true&filter={filter}{since}");
        let (status, body) = alice.get(&path).await;
        assert_eq!(status, 200, "{body}");
        let state = body["rooms"]["join"][&room]["state_after"]["events"].clone();
        let mut members: Vec<(String, String)> = state
            .as_array()
            .into_iter()
            .flatten()
            .filter(|event| event["type"] == "m.room.member")
            .map(|event| {
                (
                    event["state_key"].as_str().unwrap().to_owned(),
                    event["content"]["membership"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        members.sort();
        (
            members,
            format!("&since={}", body["next_batch"].as_str().unwrap()),
        )
    };
    let is = |user: &User, membership: &str| (user.id.clone(), membership.to_owned());
    let (members, since) = look("").await;
    assert_eq!(
        members,
        [is(&alice, "join"), is(&bob, "join"), is(&carol, "join")]
    );

    // Carol has said nothing: that she is out is told all the same.
    let kick = json!({ "user_id": carol.id });
    assert_eq!(
        alice
            .post(&format!("/rooms/{}/kick", enc(&room)), kick)
            .await
            .0,
        200
    );
    let (members, _) = look(&since).await;
    assert!(members.contains(&is(&carol, "leave")), "{members:?}");
}
