//! Simplified sliding sync (MSC4186).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    http::{self, Ask as _},
    server::Server,
    user::User,
};

const PATH: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// A client that remembers where it is.
struct Client {
    user: User,
    url: String,
    http: reqwest::Client,
    pos: Option<String>,
}

impl Client {
    fn new(server: &Server, user: &User) -> Self {
        Self {
            user: user.again(),
            url: server.url(PATH),
            http: http::client(),
            pos: None,
        }
    }

    /// An answer; the position stays as it was.
    async fn ask(&self, timeout_ms: u32, body: &Value) -> (u16, Value) {
        let pos = self.pos.as_deref().map(|pos| format!("&pos={pos}"));
        let url = format!(
            "{}?timeout={timeout_ms}{}",
            self.url,
            pos.unwrap_or_default()
        );
        let request = self.http.post(url).bearer_auth(&self.user.token);
        let answer = request.body(body.to_string()).ask().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn next(&mut self, timeout_ms: u32, body: &Value) -> Value {
        let (status, answer) = self.ask(timeout_ms, body).await;
        assert_eq!(status, 200, "{answer}");
        self.pos = Some(answer["pos"].as_str().unwrap().to_owned());
        answer
    }
}

/// A list over some places.
fn list(ranges: &Value, limit: u32, state: &Value, filters: &Value) -> Value {
    json!({ "lists": { "all": {
        "ranges": ranges,
        "timeline_limit": limit,
        "required_state": state,
        "filters": filters,
    } } })
}

/// Texts of a room's timeline.
fn texts(answer: &Value, room: &str) -> Vec<String> {
    let events = answer["rooms"][room]["timeline"].as_array().unwrap();
    let bodies = events
        .iter()
        .filter_map(|event| event["content"]["body"].as_str());
    bodies.map(ToOwned::to_owned).collect()
}

/// Types and keys of a room's state.
fn state(answer: &Value, room: &str) -> BTreeSet<(String, String)> {
    let events = answer["rooms"][room]["required_state"].as_array().unwrap();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    events
        .iter()
        .map(|event| (text(event, "type"), text(event, "state_key")))
        .collect()
}

fn rooms(answer: &Value) -> BTreeSet<String> {
    answer["rooms"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

fn order(answer: &Value) -> Vec<&str> {
    let ids = answer["lists"]["all"]["ops"][0]["room_ids"]
        .as_array()
        .unwrap();
    ids.iter().map(|id| id.as_str().unwrap()).collect()
}

fn set(ids: &[&String]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).clone()).collect()
}

async fn named(user: &User, name: &str) -> String {
    user.create_room(json!({ "preset": "public_chat", "name": name }))
        .await
}

/// More of the timeline, and of the state, is told without being asked twice.
async fn more_is_told(
    client: &mut Client,
    (alice, bob): (&User, &User),
    (first, second): (&String, &String),
) {
    let more = list(
        &json!([[0, 9]]),
        3,
        &json!([
            ["m.room.name", ""],
            ["m.room.member", "$LAZY"],
            ["m.room.member", "$ME"]
        ]),
        &Value::Null,
    );
    let answer = client.next(0, &more).await;
    assert_eq!(rooms(&answer), set(&[first, second]));
    let room = &answer["rooms"][first];
    assert_eq!(room["unstable_expanded_timeline"], true, "{room}");
    assert_eq!(texts(&answer, first), ["three", "five", "six"]);
    let member = |user: &User| ("m.room.member".to_owned(), user.id.clone());
    let name = ("m.room.name".to_owned(), String::new());
    let expected = BTreeSet::from([name.clone(), member(alice), member(bob)]);
    assert_eq!(state(&answer, first), expected);
    let less = list(&json!([[0, 9]]), 1, &json!([]), &Value::Null);
    assert_eq!(rooms(&client.next(0, &less).await), set(&[]));
    let body = json!({ "name": "new name" });
    let path = format!("/rooms/{}/state/m.room.name", enc(first));
    assert_eq!(bob.put(&path, body).await.0, 200);
    let answer = client.next(0, &less).await;
    assert_eq!(answer["rooms"][first]["name"], "new name");
    assert!(state(&answer, first).contains(&name), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sees_the_newest_rooms_and_misses_nothing_in_the_others() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (first, second) = (named(&bob, "first").await, named(&bob, "second").await);
    for room in [&first, &second] {
        alice.join(room).await;
        bob.say(room, "one").await;
        bob.say(room, "two").await;
    }
    let top = list(&json!([[0, 0]]), 1, &json!([]), &Value::Null);
    let mut client = Client::new(&server, &alice);
    let answer = client.next(0, &top).await;
    assert_eq!(answer["lists"]["all"]["count"], 2, "{answer}");
    assert_eq!(order(&answer), [&second]);
    assert_eq!(rooms(&answer), set(&[&second]));
    let room = &answer["rooms"][&second];
    assert_eq!(
        (&room["initial"], &room["limited"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(room["name"], "second");
    assert_eq!(
        (&room["joined_count"], &room["num_live"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(texts(&answer, &second), ["two"]);
    assert_eq!(rooms(&client.next(0, &top).await), set(&[]));

    // The other comes up, and this one goes on where nobody looks.
    bob.say(&first, "three").await;
    let answer = client.next(0, &top).await;
    assert_eq!(order(&answer), [&first]);
    assert_eq!(answer["rooms"][&first]["initial"], true);
    bob.say(&second, "four").await;
    bob.say(&first, "five").await;
    bob.say(&first, "six").await;
    // An answer that is lost is given again.
    let (_, lost) = client.ask(0, &top).await;
    assert_eq!(texts(&lost, &first), ["six"]);
    server.restart().await;
    let answer = client.next(0, &top).await;
    assert_eq!(texts(&answer, &first), ["six"]);
    assert_eq!(answer["rooms"][&first]["limited"], true);
    assert_eq!(answer["rooms"][&first]["initial"], Value::Null);

    // What is looked at again is told from where it was left.
    let both = list(&json!([[0, 9]]), 1, &json!([]), &Value::Null);
    let answer = client.next(0, &both).await;
    assert_eq!(rooms(&answer), set(&[&second]));
    assert_eq!(answer["rooms"][&second]["initial"], Value::Null);
    assert_eq!(texts(&answer, &second), ["four"]);
    assert_eq!(answer["rooms"][&second]["limited"], false);

    more_is_told(&mut client, (&alice, &bob), (&first, &second)).await;

    // Who waits is woken.
    let less = list(&json!([[0, 9]]), 1, &json!([]), &Value::Null);
    let (_, waiting) = tokio::join!(bob.say(&second, "seven"), client.ask(60_000, &less));
    assert_eq!(texts(&waiting.1, &second), ["seven"]);
    for pos in ["p1_5_5_5", "s1_0_0_0", "p1_1", "nonsense"] {
        client.pos = Some(pos.to_owned());
        let (status, answer) = client.ask(0, &less).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!("M_UNKNOWN_POS")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invitations_joins_and_leaves_are_told_once() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let all = list(
        &json!([[0, 9]]),
        10,
        &json!([["m.room.create", ""]]),
        &Value::Null,
    );
    let mut client = Client::new(&server, &alice);
    client.next(0, &all).await;
    let options = json!({ "name": "for two", "invite": [alice.id], "is_direct": true });
    let room = bob.create_room(options).await;
    let answer = client.next(60_000, &all).await;
    let part = &answer["rooms"][&room];
    assert_eq!(part["name"], "for two", "{answer}");
    let stripped = part["invite_state"].as_array().unwrap();
    let own = stripped
        .iter()
        .find(|event| event["state_key"] == alice.id.as_str());
    assert_eq!(own.unwrap()["content"]["membership"], "invite");
    assert_eq!(rooms(&client.next(0, &all).await), set(&[]));

    let create = BTreeSet::from([("m.room.create".to_owned(), String::new())]);
    for _ in 0..2 {
        alice.join(&room).await;
        bob.say(&room, "welcome").await;
        let answer = client.next(60_000, &all).await;
        assert_eq!(answer["rooms"][&room]["initial"], true, "{answer}");
        assert!(state(&answer, &room).is_superset(&create));
        let (status, _) = alice
            .post(&format!("/rooms/{}/leave", enc(&room)), json!({}))
            .await;
        assert_eq!(status, 200);
        let answer = client.next(0, &all).await;
        let last = answer["rooms"][&room]["timeline"]
            .as_array()
            .unwrap()
            .last();
        assert_eq!(last.unwrap()["content"]["membership"], "leave", "{answer}");
        bob.say(&room, "a secret").await;
        let answer = client.next(0, &all).await;
        assert_eq!(rooms(&answer), set(&[]));
        assert_eq!(answer["lists"]["all"]["count"], 0);
        let path = format!("/rooms/{}/invite", enc(&room));
        assert_eq!(bob.post(&path, json!({ "user_id": alice.id })).await.0, 200);
        let answer = client.next(0, &all).await;
        assert!(
            answer["rooms"][&room]["invite_state"].is_array(),
            "{answer}"
        );
    }
}

async fn nonsense_is_refused(client: &Client) {
    for (body, errcode) in [
        (
            json!({ "lists": { "a": { "ranges": [[3, 1]], "timeline_limit": 1 } } }),
            "M_INVALID_PARAM",
        ),
        (
            json!({ "lists": { "a": { "ranges": [[0, 1]] } } }),
            "M_BAD_JSON",
        ),
        (json!({ "conn_id": "x".repeat(300) }), "M_INVALID_PARAM"),
        (json!({ "lists": 5 }), "M_BAD_JSON"),
        (
            json!({ "extensions": { "to_device": { "enabled": true, "since": "x" } } }),
            "M_INVALID_PARAM",
        ),
    ] {
        let (status, answer) = client.ask(0, &body).await;
        assert_eq!(
            (status, &answer["errcode"]),
            (400, &json!(errcode)),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_rooms_and_subscriptions_add_some() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let plain = named(&alice, "plain").await;
    let direct = named(&alice, "direct").await;
    let encryption =
        json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
    let secret = alice
        .create_room(json!({ "initial_state": [encryption] }))
        .await;
    let space = alice
        .create_room(json!({ "creation_content": { "type": "m.space" } }))
        .await;
    let invited = bob.create_room(json!({ "invite": [alice.id] })).await;
    let of_user = format!("/user/{}", enc(&alice.id));
    let content = json!({ bob.id.as_str(): [direct] });
    alice
        .put(&format!("{of_user}/account_data/m.direct"), content)
        .await;
    let path = format!("{of_user}/rooms/{}/tags/m.favourite", enc(&plain));
    alice.put(&path, json!({ "order": 0.5 })).await;
    let path = format!(
        "/rooms/{}/state/m.space.child/{}",
        enc(&space),
        enc(&secret)
    );
    alice.put(&path, json!({ "via": ["localhost"] })).await;

    let everything = [&plain, &direct, &secret, &space, &invited];
    let without = |left_out: &[&String]| -> BTreeSet<String> {
        let all = everything.iter().filter(|id| !left_out.contains(id));
        all.map(|id| (*id).clone()).collect()
    };
    let cases = [
        (json!({}), without(&[])),
        (json!({ "is_dm": true }), set(&[&direct])),
        (json!({ "is_dm": false }), without(&[&direct])),
        (json!({ "is_encrypted": true }), set(&[&secret])),
        (json!({ "is_invite": true }), set(&[&invited])),
        (
            json!({ "is_invite": false, "is_encrypted": false }),
            without(&[&invited, &secret]),
        ),
        (json!({ "room_types": ["m.space"] }), set(&[&space])),
        (json!({ "not_room_types": ["m.space"] }), without(&[&space])),
        (json!({ "room_types": [null] }), without(&[&space])),
        (json!({ "tags": ["m.favourite"] }), set(&[&plain])),
        (json!({ "not_tags": ["m.favourite"] }), without(&[&plain])),
        (json!({ "spaces": [space] }), set(&[&secret])),
        (json!({ "spaces": [plain, "!nowhere:localhost"] }), set(&[])),
        (json!({ "unknown": 1 }), without(&[])),
    ];
    let client = Client::new(&server, &alice);
    for (filters, expected) in cases {
        let body = list(&json!([[0, 9]]), 1, &json!([]), &filters);
        let (status, answer) = client.ask(0, &body).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(rooms(&answer), expected, "{filters}");
        assert_eq!(answer["lists"]["all"]["count"], expected.len(), "{filters}");
    }
    let wanted = json!({ "timeline_limit": 1, "required_state": [["*", "*"]] });
    let stranger = bob.create_room(json!({})).await;
    let body =
        json!({ "room_subscriptions": { plain.as_str(): wanted, stranger.as_str(): wanted } });
    let (_, answer) = client.ask(0, &body).await;
    assert_eq!(rooms(&answer), set(&[&plain]));
    assert!(state(&answer, &plain).len() > 5, "{answer}");
    nonsense_is_refused(&client).await;
}

/// What happens in a room that is not looked at is told when it is.
async fn what_was_not_looked_at(
    client: &mut Client,
    (alice, bob): (&User, &User),
    (other, mut body): (&String, Value),
) {
    let path = format!("/user/{}/rooms/{}/tags/m.low", enc(&alice.id), enc(other));
    assert_eq!(alice.put(&path, json!({})).await.0, 200);
    let answer = client.next(0, &body).await;
    assert!(
        answer["extensions"]["account_data"]["rooms"][other].is_null(),
        "{answer}"
    );
    bob.say(other, "look here").await;
    let answer = client.next(0, &body).await;
    let data = &answer["extensions"]["account_data"]["rooms"][other];
    assert_eq!(data[0]["type"], "m.tag", "{answer}");
    body["extensions"]["typing"]["lists"] = json!([]);
    body["extensions"]["typing"]["rooms"] = json!([]);
    let path = format!("/rooms/{}/typing/{}", enc(other), enc(&bob.id));
    bob.put(&path, json!({ "typing": true, "timeout": 60_000 }))
        .await;
    let answer = client.next(0, &body).await;
    assert_eq!(answer["extensions"]["typing"]["rooms"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_tell_what_is_beside_the_rooms() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (room, other) = (named(&bob, "room").await, named(&bob, "other").await);
    for room in [&room, &other] {
        alice.join(room).await;
    }
    let event = bob.say(&room, "hello").await;
    let on = json!({ "enabled": true });
    let mut body = list(&json!([[0, 0]]), 1, &json!([]), &Value::Null);
    body["conn_id"] = json!("main");
    body["extensions"] = json!({
        "to_device": on, "e2ee": on, "account_data": on, "receipts": on, "typing": on,
    });
    let read = |user: &User, room: &str, event: &str| {
        let path = format!("/rooms/{}/receipt/m.read/{}", enc(room), enc(event));
        let user = user.again();
        async move { assert_eq!(user.post(&path, json!({})).await.0, 200) }
    };
    read(&bob, &room, &event).await;
    let mut client = Client::new(&server, &alice);
    let answer = client.next(0, &body).await;
    let parts = &answer["extensions"];
    let receipts = &parts["receipts"]["rooms"][&room]["content"][&event]["m.read"];
    assert!(receipts[&bob.id]["ts"].is_u64(), "{parts}");
    let global = parts["account_data"]["global"].as_array().unwrap();
    assert!(global.iter().any(|event| event["type"] == "m.push_rules"));
    assert!(
        parts["e2ee"]["device_one_time_keys_count"].is_object(),
        "{parts}"
    );
    assert!(parts["e2ee"]["device_lists"].is_null(), "{parts}");
    let since = parts["to_device"]["next_batch"].as_str().unwrap();
    body["extensions"]["to_device"]["since"] = json!(since);

    // Each of them wakes a client that waits.
    let path = format!("/rooms/{}/typing/{}", enc(&room), enc(&bob.id));
    let typing = json!({ "typing": true, "timeout": 60_000 });
    let (_, answer) = tokio::join!(bob.put(&path, typing), client.next(60_000, &body));
    let users = &answer["extensions"]["typing"]["rooms"][&room]["content"]["user_ids"];
    assert_eq!(*users, json!([bob.id]), "{answer}");

    let path = format!("/user/{}/account_data/org.example", enc(&alice.id));
    let (_, answer) = tokio::join!(
        alice.put(&path, json!({ "a": 1 })),
        client.next(60_000, &body)
    );
    let global = &answer["extensions"]["account_data"]["global"];
    assert_eq!(
        *global,
        json!([{ "type": "org.example", "content": { "a": 1 } }]),
        "{answer}"
    );

    let message = json!({ "messages": { alice.id.as_str(): { "*": { "secret": 1 } } } });
    let path = "/sendToDevice/org.example/txn1";
    let (_, answer) = tokio::join!(bob.put(path, message), client.next(60_000, &body));
    let events = &answer["extensions"]["to_device"]["events"];
    assert_eq!(events[0]["content"]["secret"], 1, "{answer}");
    // Until the client says that it has it, it is told again.
    let (_, again) = client.ask(0, &body).await;
    assert_eq!(again["extensions"]["to_device"]["events"], *events);
    body["extensions"]["to_device"]["since"] =
        answer["extensions"]["to_device"]["next_batch"].clone();
    let answer = client.next(0, &body).await;
    assert_eq!(answer["extensions"]["to_device"]["events"], json!([]));

    // Reading with another client clears the counts of this one.
    let event = bob.say(&room, "news").await;
    let answer = client.next(0, &body).await;
    let count = &answer["rooms"][&room]["notification_count"];
    assert_eq!(*count, 2, "{answer}");
    let ((), answer) = tokio::join!(read(&alice, &room, &event), client.next(60_000, &body));
    let told = &answer["rooms"][&room];
    assert_eq!(told["notification_count"], 0, "{answer}");
    assert_eq!(told["timeline"], json!([]), "{answer}");
    assert!(told["initial"].is_null(), "{answer}");

    what_was_not_looked_at(&mut client, (&alice, &bob), (&other, body)).await;
}

/// Says one thing after the other. Rooms come in meanwhile, and must not be missed either.
async fn write(writer: User, reader: User, (name, count): (usize, usize)) {
    let mut room = String::new();
    for n in 0..count {
        if n % 6 == 0 {
            room = named(&writer, "meanwhile").await;
            reader.join(&room).await;
        }
        writer.say(&room, &format!("{name} {n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_many_writers_nothing_is_missed_and_nothing_comes_twice() {
    const EACH: usize = 60;
    let server = Server::start().await;
    let reader = server.user("reader").await;
    let mut client = Client::new(&server, &reader);
    let all = list(&json!([[0, 999]]), 100, &json!([]), &Value::Null);
    client.next(0, &all).await;
    let mut writers = Vec::new();
    for i in 0..4 {
        let writer = server.user(&format!("writer{i}")).await;
        let reader = reader.again();
        writers.push(tokio::spawn(write(writer, reader, (i, EACH))));
    }
    let expected: BTreeSet<String> = (0..4)
        .flat_map(|i| (0..EACH).map(move |n| format!("{i} {n}")))
        .collect();
    let mut seen = Vec::new();
    let mut ended = false;
    // Once more after the last of them has said everything.
    while !ended {
        ended = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let answer = client.next(0, &all).await;
        for room in rooms(&answer) {
            seen.extend(texts(&answer, &room));
        }
    }
    let unique: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "something came twice");
    assert_eq!(unique, expected);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_for_extensions_alone_is_answered_when_a_device_of_the_user_has_sent_something()
 {
    let server = Server::start().await;
    let node = server.node().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let body = json!({ "conn_id": "encryption", "extensions": { "e2ee": { "enabled": true } } });
    let mut client = Client::new(&server, &alice);
    client.next(0, &body).await;
    let waiting = async || {
        let here = server.figure("sync_waiting").await;
        (here + node.figure("sync_waiting").await > 0).then_some(())
    };
    // Asked before, and after, here and at another node.
    for (turn, at) in [&server, &node, &server].into_iter().enumerate() {
        client.url = at.url(PATH);
        let sent = if turn == 2 {
            alice.say(&room, "before").await;
            client.next(60_000, &body).await
        } else {
            let said = async {
                eventually("a waiting client", &waiting).await;
                alice.say(&room, "while it waits").await
            };
            tokio::join!(client.next(60_000, &body), said).0
        };
        assert!(sent["extensions"]["e2ee"].is_object(), "{sent}");
    }
    // What others say is no reason.
    let pos = client.pos.clone();
    bob.say(&room, "not for that").await;
    let answer = client.next(300, &body).await;
    assert!(answer["rooms"].as_object().unwrap().is_empty());
    assert_ne!(client.pos, pos);
}
