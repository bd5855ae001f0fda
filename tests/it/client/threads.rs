//! Subscriptions to threads (MSC4306, MSC4308).

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    enc,
    gateway::{self, Gateway},
    server::Server,
    user::User,
};

/// A server where users subscribe to threads.
pub(crate) const CONFIG: &str =
    "[registration]\nopen = true\n[unstable]\nthread_subscriptions = true\n";

const SYNC: &str = "/../unstable/org.matrix.simplified_msc3575/sync";
const EXTENSION: &str = "io.element.msc4308.thread_subscriptions";

async fn ask(
    user: &User,
    method: Method,
    (room, first_id): (&str, &str),
    body: Option<Value>,
) -> (u16, Value) {
    let (room, first_id) = (enc(room), enc(first_id));
    let path =
        format!("/../unstable/io.element.msc4306/rooms/{room}/thread/{first_id}/subscription");
    user.call(method, &path, body).await
}

/// Begins or ends a subscription.
pub(crate) async fn subscribe(user: &User, method: Method, thread: (&str, &str), body: Value) {
    let body = (method == Method::PUT).then_some(body);
    let answer = ask(user, method, thread, body).await;
    assert_eq!(answer, (200, json!({})));
}

/// Says something in a thread; the event id.
async fn reply(user: &User, (room, first_id): (&str, &str), text: &str, more: Value) -> String {
    let mut content = json!({
        "msgtype": "m.text", "body": text,
        "m.relates_to": { "rel_type": "m.thread", "event_id": first_id },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        content[key] = value.clone();
    }
    let path = format!("/rooms/{}/send/m.room.message/{}", enc(room), enc(text));
    let (status, body) = user.put(&path, content).await;
    assert_eq!(status, 200, "{body}");
    body["event_id"].as_str().unwrap().to_owned()
}

/// The extension alone; the position, and its part of the answer.
async fn slide(user: &User, pos: Option<&str>, timeout_ms: u32, limit: u32) -> (String, Value) {
    let body = json!({ "extensions": { EXTENSION: { "enabled": true, "limit": limit } } });
    let pos = pos.map_or_else(String::new, |pos| format!("&pos={pos}"));
    let path = format!("{SYNC}?timeout={timeout_ms}{pos}");
    let (status, mut answer) = user.call(Method::POST, &path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    (
        answer["pos"].as_str().unwrap().to_owned(),
        answer["extensions"][EXTENSION].take(),
    )
}

async fn page(user: &User, query: &str) -> Value {
    let path = format!("/../unstable/io.element.msc4308/thread_subscriptions?dir=b&{query}");
    let (status, body) = user.get(&path).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn subscriptions_are_made_ended_told_and_forgotten_with_the_room() {
    let server = Server::with(CONFIG, None).await;
    let node = server.node().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let (_, versions) = alice.get("/../versions").await;
    assert_eq!(versions["unstable_features"]["org.matrix.msc4306"], true);

    let first_id = alice.say(&room, "root").await;
    let thread = (&*room, &*first_id);
    let (start, nothing) = slide(&bob, None, 0, 10).await;
    assert_eq!(nothing, json!({}));
    // A device at the other node waits and is told.
    let there = bob.at(&node);
    let waiting = tokio::spawn({
        let start = start.clone();
        async move { slide(&there, Some(&start), 20_000, 10).await }
    });
    let first = reply(&alice, thread, "first", json!({})).await;
    subscribe(&bob, Method::PUT, thread, json!({ "automatic": first })).await;
    let (pos, told) = waiting.await.unwrap();
    let entry = &told["subscribed"][&room][&first_id];
    assert_eq!(entry["automatic"], true, "{told}");
    assert_eq!(
        ask(&bob, Method::GET, thread, None).await,
        (200, json!({ "automatic": true }))
    );
    // By itself again: nothing new; by hand: that counts more, and stays.
    let cause = json!({ "automatic": first });
    subscribe(&bob, Method::PUT, thread, cause.clone()).await;
    subscribe(&bob, Method::PUT, thread, json!({})).await;
    subscribe(&bob, Method::PUT, thread, cause.clone()).await;
    let (pos, told) = slide(&bob, Some(&pos), 0, 10).await;
    let again = &told["subscribed"][&room][&first_id];
    assert_eq!(again["automatic"], false);
    assert!(again["bump_stamp"].as_i64() > entry["bump_stamp"].as_i64());

    // What was there when it ended is no reason for another one.
    subscribe(&bob, Method::DELETE, thread, json!({})).await;
    subscribe(&bob, Method::DELETE, thread, json!({})).await;
    let (pos, told) = slide(&bob, Some(&pos), 0, 10).await;
    assert!(told["unsubscribed"][&room][&first_id]["bump_stamp"].is_i64());
    assert!(told.get("subscribed").is_none(), "{told}");
    let (status, body) = ask(&bob, Method::PUT, thread, Some(cause)).await;
    assert_eq!(
        (status, &body["errcode"]),
        (
            409,
            &json!("IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")
        )
    );
    for wrong in [&first_id, &alice.say(&room, "elsewhere").await] {
        let cause = Some(json!({ "automatic": wrong }));
        let (status, body) = ask(&bob, Method::PUT, thread, cause).await;
        let code = json!("IO.ELEMENT.MSC4306.M_NOT_IN_THREAD");
        assert_eq!((status, &body["errcode"]), (400, &code));
    }
    let (status, body) = ask(&bob, Method::GET, thread, None).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    let second = reply(&alice, thread, "second", json!({})).await;
    subscribe(&bob, Method::PUT, thread, json!({ "automatic": second })).await;

    // More than fits: the newest, and the others page by page.
    let mut roots = vec![first_id.clone()];
    for n in 0..5 {
        let first_id = alice.say(&room, &format!("root {n}")).await;
        subscribe(&bob, Method::PUT, (&room, &first_id), json!({})).await;
        roots.push(first_id);
    }
    let (_, told) = slide(&bob, Some(&pos), 0, 2).await;
    let ids = |part: &Value| -> Vec<String> {
        let threads = part["subscribed"][&room].as_object().unwrap();
        threads.keys().cloned().collect()
    };
    let mut found = ids(&told);
    assert_eq!(found.len(), 2);
    let mut from = told["prev_batch"].as_str().unwrap().to_owned();
    loop {
        let part = page(&bob, &format!("from={from}&to={pos}&limit=3")).await;
        found.extend(ids(&part));
        let Some(end) = part["end"].as_str() else {
            break;
        };
        end.clone_into(&mut from);
    }
    found.sort();
    roots.sort();
    assert_eq!(found, roots);
    assert_eq!(page(&alice, "limit=3").await, json!({}));
    for query in ["from=x", "to=x", "limit=0"] {
        let path = format!("/../unstable/io.element.msc4308/thread_subscriptions?dir=b&{query}");
        assert_eq!(bob.get(&path).await.0, 400, "{query}");
    }

    // Who is outside neither sees nor keeps anything.
    let carol = server.user("carol").await;
    assert_eq!(
        ask(&carol, Method::PUT, thread, Some(json!({}))).await.0,
        404
    );
    let path = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(bob.post(&path, json!({})).await.0, 200);
    assert_eq!(slide(&bob, None, 0, 10).await.1, json!({}));
    assert_eq!(page(&bob, "limit=3").await, json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_are_notified_of_what_is_said_in_the_thread_and_others_of_mentions() {
    let more = format!(
        "{}[unstable]\nthread_subscriptions = true\n",
        gateway::CONFIG
    );
    let server = Server::with(&more, None).await;
    let gateway = Gateway::start().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for (user, key) in [(&bob, "bob"), (&carol, "carol")] {
        user.join(&room).await;
        gateway.serve(user, key).await;
    }
    let first_id = alice.say(&room, "root").await;
    let thread = (&*room, &*first_id);
    subscribe(&bob, Method::PUT, thread, json!({})).await;
    // Whatever bob says of the room, the thread is louder.
    let quiet = format!("/pushrules/global/room/{}", enc(&room));
    assert_eq!(bob.put(&quiet, json!({ "actions": [] })).await.0, 200);
    let one = reply(&alice, thread, "one", json!({})).await;
    let meant = json!({ "m.mentions": { "user_ids": [carol.id] } });
    let two = reply(&alice, thread, "two", meant).await;
    let end = alice.say(&room, "end").await;
    gateway.hears("bob", &two).await;
    gateway.hears("carol", &end).await;
    assert_eq!(gateway.events("carol"), [&*first_id, &two, &end]);
    assert_eq!(gateway.events("bob")[1..], [&*one, &two]);
    let listed = |user: User| async move {
        let (_, body) = user.get("/notifications").await;
        let entries = body["notifications"].as_array().unwrap();
        let ids = entries.iter();
        let ids = ids.map(|entry| entry["event"]["event_id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(listed(bob.again()).await, [&*two, &one]);
    assert_eq!(listed(carol.again()).await, [&*end, &two, &first_id]);

    // The rules are shown as the server's, can be changed, and users have none of that kind.
    let rule = "/pushrules/global/postcontent/.io.element.msc4306.rule.unsubscribed_thread";
    let (status, body) = carol.get(rule).await;
    assert_eq!((status, &body["default"]), (200, &json!(true)), "{body}");
    let off = json!({ "enabled": false });
    let renamed = rule.replace("postcontent", "io.element.msc4306.postcontent");
    let (status, body) = carol.put(&format!("{renamed}/enabled"), off).await;
    assert_eq!(status, 200, "{body}");
    let three = reply(&alice, thread, "three", json!({})).await;
    gateway.hears("carol", &three).await;
    let own = json!({ "conditions": [], "actions": ["notify"] });
    let (status, body) = carol.put("/pushrules/global/postcontent/own", own).await;
    assert_eq!((status, &body["errcode"]), (400, &json!("M_INVALID_PARAM")));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_switched_off_nothing_of_it_is_there() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let first_id = alice.say(&room, "root").await;
    let (status, body) = ask(&alice, Method::PUT, (&room, &first_id), Some(json!({}))).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_UNRECOGNIZED")));
    assert_eq!(slide(&alice, None, 0, 10).await.1, Value::Null);
    let (_, rules) = alice.get("/pushrules/").await;
    assert!(rules["global"].get("postcontent").is_none());
}
