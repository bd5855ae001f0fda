//! Searching in what was said.

use serde_json::{Value, json};

use crate::rig::{enc, server::Server, user::User};

/// Searches; the part of the answer about events.
async fn search(user: &User, term: &str, more: Value) -> Value {
    page(user, term, more, "").await
}

async fn page(user: &User, term: &str, more: Value, next: &str) -> Value {
    let mut criteria = json!({ "search_term": term, "order_by": "recent" });
    for (key, value) in more.as_object().unwrap() {
        criteria[key] = value.clone();
    }
    let body = json!({ "search_categories": { "room_events": criteria } });
    let path = if next.is_empty() {
        "/search".to_owned()
    } else {
        format!("/search?next_batch={}", enc(next))
    };
    let (status, answer) = user.post(&path, body).await;
    assert_eq!(status, 200, "{answer}");
    answer["search_categories"]["room_events"].clone()
}

/// Texts of the results.
fn texts(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().unwrap().iter();
    let contents = results.map(|found| &found["result"]["content"]);
    let text = |content: &Value| {
        ["body", "name", "topic"]
            .into_iter()
            .find(|key| content[key].is_string())
    };
    contents
        .map(|content| content[text(content).unwrap()].as_str().unwrap())
        .collect()
}

/// Texts that somebody finds.
async fn found(user: &User, term: &str, more: Value) -> Vec<String> {
    let answer = search(user, term, more).await;
    texts(&answer).into_iter().map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_by_word_forms_and_beginnings() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({
            "preset": "public_chat", "name": "Haushalt 2027", "topic": "Planung der Häuser",
        }))
        .await;
    let means = "Die Haushaltsmittel wurden bewilligt";
    let late = "We are running late\u{0} today";
    alice.say(&room, means).await;
    alice.say(&room, late).await;
    bob.join(&room).await;
    bob.say(&room, "Bewilligung: läuft").await;

    let no_result: &[&str] = &[];
    let (name, topic) = ("Haushalt 2027", "Planung der Häuser");
    for (term, results) in [
        ("haushaltsmittel", &[means][..]),
        ("BEWILLIGEN", &["Bewilligung: läuft"]),
        ("run late", &[late]),
        ("haus", &[means, topic, name]),
        ("haushalt -mittel", &[name]),
        ("\"wurden bewilligt\"", &[means]),
        ("\"bewilligt wurden\"", no_result),
        ("", no_result),
        ("!&|:*'", no_result),
        ("#1", no_result),
        ("\u{0}", no_result),
        ("die und", no_result),
        ("'#1' | plan", no_result),
    ] {
        assert_eq!(found(&bob, term, json!({})).await, results, "{term:?}");
    }
    let answer = search(&bob, "Haushaltsmittel bewilligt", json!({})).await;
    let words = json!(["bewilligt", "haushaltsmittel"]);
    assert_eq!(
        (&answer["highlights"], &answer["count"]),
        (&words, &json!(1))
    );

    for (more, count) in [
        (json!({ "keys": ["content.name"] }), 1),
        (json!({ "keys": ["content.topic", "content.name"] }), 2),
        (json!({ "filter": { "senders": [bob.id] } }), 0),
        (json!({ "filter": { "not_senders": [alice.id] } }), 0),
        (json!({ "filter": { "not_senders": [bob.id] } }), 3),
        (json!({ "filter": { "not_rooms": [room] } }), 0),
        (json!({ "filter": { "rooms": ["!none:other.example"] } }), 0),
        (json!({ "filter": { "types": ["m.room.name"] } }), 1),
    ] {
        assert_eq!(
            found(&bob, "haus", more.clone()).await.len(),
            count,
            "{more}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    for (path, term) in [
        ("/search", "x".repeat(2_000)),
        ("/search?next_batch=x", "x".to_owned()),
        ("/search?next_batch=f1_0_1_2", "x".to_owned()),
    ] {
        let criteria = json!({ "room_events": { "search_term": term } });
        let (status, answer) = alice
            .post(path, json!({ "search_categories": criteria }))
            .await;
        assert_eq!(
            (status, &answer["errcode"]),
            (400, &json!("M_INVALID_PARAM"))
        );
    }
    let (status, answer) = alice
        .post("/search", json!({ "search_categories": {} }))
        .await;
    assert_eq!((status, answer), (200, json!({ "search_categories": {} })));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_finds_what_they_may_not_see() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let eve = server.user("eve").await;
    let room = alice
        .create_room(json!({ "preset": "private_chat", "invite": [bob.id] }))
        .await;
    let visibility = json!({ "history_visibility": "joined" });
    let path = format!("/rooms/{}/state/m.room.history_visibility", enc(&room));
    assert_eq!(alice.put(&path, visibility).await.0, 200);
    alice.say(&room, "geheim vor Bob").await;
    bob.join(&room).await;
    let slip = alice.say(&room, "geheim mit Versehen").await;
    alice.say(&room, "geheim mit Bob").await;
    let (status, _) = bob
        .post(&format!("/rooms/{}/leave", enc(&room)), json!({}))
        .await;
    assert_eq!(status, 200);
    alice.say(&room, "geheim nach Bob").await;

    let secrets = async |user: &User| found(user, "geheim", json!({})).await;
    assert_eq!(secrets(&alice).await.len(), 4);
    assert_eq!(
        secrets(&bob).await,
        ["geheim mit Bob", "geheim mit Versehen"]
    );
    assert_eq!(secrets(&eve).await, Vec::<String>::new());

    let path = format!("/rooms/{}/redact/{}/1", enc(&room), enc(&slip));
    assert_eq!(alice.put(&path, json!({})).await.0, 200);
    assert_eq!(secrets(&bob).await, ["geheim mit Bob"]);
    let mut database = server.database().await;
    let left =
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM search_doc WHERE words @@ 'verseh'");
    assert_eq!(
        left.fetch_one(&mut database).await.unwrap(),
        0,
        "no word stays"
    );
    drop(database);

    // What is not entered yet when the server ends is entered by the next search.
    alice.say(&room, "geheim vor dem Ende").await;
    server.kill();
    server.restart().await;
    assert_eq!(secrets(&alice).await[0], "geheim vor dem Ende");
    let (status, _) = bob
        .post(&format!("/rooms/{}/forget", enc(&room)), json!({}))
        .await;
    assert_eq!(status, 200);
    assert_eq!(secrets(&bob).await, Vec::<String>::new(), "forgotten");
}

/// Two rooms in which two people said twelve things in turn, and what they said, newest first.
async fn conversation(alice: &User, bob: &User) -> ([String; 2], Vec<String>) {
    let mut rooms = [String::new(), String::new()];
    for room in &mut rooms {
        *room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(room).await;
    }
    let mut said = Vec::new();
    for n in 0..12 {
        let user = if n % 3 == 0 { bob } else { alice };
        let text = format!("Nachricht {n}");
        user.say(&rooms[n % 2], &text).await;
        said.push(text);
    }
    said.reverse();
    (rooms, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_in_pages_and_groups() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (rooms, said) = conversation(&alice, &bob).await;
    for order in ["recent", "rank"] {
        let more = json!({ "order_by": order, "filter": { "limit": 5 } });
        let mut found = Vec::new();
        let mut next = String::new();
        loop {
            let answer = page(&bob, "nachrichten", more.clone(), &next).await;
            assert_eq!(answer["count"], 12);
            found.extend(texts(&answer).into_iter().map(ToOwned::to_owned));
            match answer["next_batch"].as_str() {
                Some(token) => next = token.to_owned(),
                None => break,
            }
        }
        assert_eq!(found, said, "{order}");
    }

    let more = json!({
        "filter": { "limit": 4 },
        "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
    });
    let answer = search(&bob, "nachricht", more.clone()).await;
    let id = |at: usize| &answer["results"][at]["result"]["event_id"];
    let rest = async |group: &Value| {
        let next = group["next_batch"].as_str().unwrap();
        let rest = page(&bob, "nachricht", more.clone(), next).await;
        texts(&rest)
            .into_iter()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    let group = &answer["groups"]["room_id"][&rooms[1]];
    assert_eq!(group["results"], json!([id(0), id(2)]));
    let others = ["Nachricht 7", "Nachricht 5", "Nachricht 3", "Nachricht 1"];
    assert_eq!(rest(group).await, others);
    let by_bob = &answer["groups"]["sender"][&bob.id];
    assert_eq!(by_bob["results"], json!([id(2)]));
    assert_eq!(
        rest(by_bob).await,
        ["Nachricht 6", "Nachricht 3", "Nachricht 0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_with_what_stands_around_them() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (rooms, _) = conversation(&alice, &bob).await;
    let more = json!({
        "filter": { "limit": 4 }, "include_state": true,
        "event_context": { "before_limit": 1, "after_limit": 2, "include_profile": true },
    });
    let answer = search(&bob, "nachricht", more).await;
    let third = &answer["results"][2];
    assert_eq!(third["result"]["content"]["body"], "Nachricht 9");
    let bodies = |key: &str| {
        let events = third["context"][key].as_array().unwrap().iter();
        events
            .map(|event| event["content"]["body"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(bodies("events_before"), ["Nachricht 7"]);
    assert_eq!(bodies("events_after"), ["Nachricht 11"]);
    let profiles = &third["context"]["profile_info"];
    for user in [&alice, &bob] {
        let name = user.id.split(['@', ':']).nth(1).unwrap();
        assert_eq!(profiles[&user.id]["displayname"], name);
    }
    let start = enc(third["context"]["start"].as_str().unwrap());
    let path = format!(
        "/rooms/{}/messages?dir=b&limit=1&from={start}",
        enc(&rooms[1])
    );
    let (_, older) = bob.get(&path).await;
    assert_eq!(older["chunk"][0]["content"]["body"], "Nachricht 5");
    assert_eq!(answer["state"].as_object().unwrap().len(), 2);
}
