//! Relations of events, threads, and what is told beside events of those that relate to them.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::{
    federation::rooms::two_servers,
    rig::{Dice, enc, eventually, server::Server, user::User},
};

static TXNS: AtomicU32 = AtomicU32::new(0);

/// Status and body of sending an event.
async fn send(user: &User, room: &str, kind: &str, content: Value) -> (u16, Value) {
    let txn = TXNS.fetch_add(1, Ordering::Relaxed);
    let path = format!("/rooms/{}/send/{kind}/r{txn}", enc(room));
    user.put(&path, content).await
}

/// Sends an event that has to be accepted; returns its id.
async fn must_send(user: &User, room: &str, kind: &str, content: Value) -> String {
    let (status, body) = send(user, room, kind, content).await;
    assert_eq!(status, 200, "{body}");
    body["event_id"].as_str().unwrap().to_owned()
}

/// Content of a message that relates to an event.
fn related(rel_type: &str, to: &str, text: &str) -> Value {
    let mut content = json!({
        "msgtype": "m.text",
        "body": text,
        "m.relates_to": { "rel_type": rel_type, "event_id": to },
    });
    if rel_type == "m.replace" {
        content["m.new_content"] = json!({ "msgtype": "m.text", "body": format!("new {text}") });
    }
    content
}

fn reaction(to: &str, key: &str) -> Value {
    json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": to, "key": key } })
}

async fn redact(user: &User, room: &str, event: &str) {
    let txn = TXNS.fetch_add(1, Ordering::Relaxed);
    let path = format!("/rooms/{}/redact/{}/r{txn}", enc(room), enc(event));
    let (status, body) = user.put(&path, json!({})).await;
    assert_eq!(status, 200, "{body}");
}

/// All events of a room that are no state, oldest first, as the user sees them.
async fn history(user: &User, room: &str) -> Vec<Value> {
    let path = format!("/rooms/{}/messages?dir=b&limit=1000", enc(room));
    let (status, page) = user.get(&path).await;
    assert_eq!(status, 200, "{page}");
    let chunk = page["chunk"].as_array().unwrap();
    let messages = chunk.iter().filter(|event| event["state_key"].is_null());
    let mut events: Vec<Value> = messages.cloned().collect();
    events.reverse();
    events
}

fn relation(event: &Value) -> Option<(&str, &str)> {
    let relates_to = &event["content"]["m.relates_to"];
    Some((
        relates_to["rel_type"].as_str()?,
        relates_to["event_id"].as_str()?,
    ))
}

/// What has to be told beside an event: the specification, in as few words as can be.
fn expected(event: &Value, all: &[Value], viewer: &str, ignored: &[&str]) -> Value {
    if !event["unsigned"]["redacted_because"].is_null() {
        return Value::Null;
    }
    let id = event["event_id"].as_str().unwrap();
    let children = |rel_type: &'static str| {
        all.iter()
            .filter(move |child| relation(child) == Some((rel_type, id)))
    };
    let heard = |child: &&Value| !ignored.contains(&child["sender"].as_str().unwrap());
    let mut told = json!({});
    let edit = children("m.replace")
        .filter(|edit| {
            edit["sender"] == event["sender"]
                && edit["type"] == event["type"]
                && !edit["content"]["m.new_content"].is_null()
                && relation(event).is_none_or(|(rel_type, _)| rel_type != "m.replace")
        })
        .max_by_key(|edit| {
            let ts = edit["origin_server_ts"].as_i64().unwrap();
            (ts, edit["event_id"].as_str().unwrap())
        });
    if let Some(edit) = edit {
        told["m.replace"] = edit["event_id"].clone();
    }
    let thread: Vec<&Value> = children("m.thread").filter(heard).collect();
    if let Some(latest) = thread.last() {
        let edit = &expected(latest, all, viewer, ignored)["m.replace"];
        told["m.thread"] = json!({
            "latest": latest["event_id"],
            "latest_edit": edit,
            "count": thread.len(),
            "participated": thread.iter().chain([&event]).any(|event| event["sender"] == viewer),
        });
    }
    let references: Vec<&Value> = children("m.reference")
        .filter(heard)
        .map(|event| &event["event_id"])
        .collect();
    if !references.is_empty() {
        told["m.reference"] = json!(references);
    }
    if told == json!({}) { Value::Null } else { told }
}

/// What is told beside an event, in the words of [`expected`].
fn told(event: &Value) -> Value {
    let relations = &event["unsigned"]["m.relations"];
    if relations.is_null() {
        return Value::Null;
    }
    let mut told = json!({});
    if let Some(edit) = relations.get("m.replace") {
        assert!(
            edit["content"].is_object() && edit["sender"].is_string(),
            "{edit}"
        );
        told["m.replace"] = edit["event_id"].clone();
    }
    if let Some(thread) = relations.get("m.thread") {
        let latest = &thread["latest_event"];
        told["m.thread"] = json!({
            "latest": latest["event_id"],
            "latest_edit": latest["unsigned"]["m.relations"]["m.replace"]["event_id"],
            "count": thread["count"],
            "participated": thread["current_user_participated"],
        });
    }
    if let Some(references) = relations.get("m.reference") {
        let chunk = references["chunk"].as_array().unwrap();
        told["m.reference"] = chunk.iter().map(|one| one["event_id"].clone()).collect();
    }
    told
}

/// Holds what a user is told, in several ways, against [`expected`].
async fn check(user: &User, room: &str, ignored: &[&str], what: &str) {
    let all = history(user, room).await;
    for event in &all {
        let expected = expected(event, &all, &user.id, ignored);
        assert_eq!(told(event), expected, "{what}: {event:#}");
    }
    let Some(event) = all.iter().rev().find(|event| !told(event).is_null()) else {
        return;
    };
    let expected = told(event);
    let id = enc(event["event_id"].as_str().unwrap());
    let room_path = enc(room);
    let (_, alone) = user.get(&format!("/rooms/{room_path}/event/{id}")).await;
    assert_eq!(told(&alone), expected, "{what}, alone: {alone:#}");
    let (_, around) = user
        .get(&format!("/rooms/{room_path}/context/{id}?limit=4"))
        .await;
    assert_eq!(told(&around["event"]), expected, "{what}, with context");
    let filter = enc(r#"{"room":{"timeline":{"limit":100}}}"#);
    let (_, synced) = user.get(&format!("/sync?filter={filter}")).await;
    let timeline = &synced["rooms"]["join"][room]["timeline"]["events"];
    for event in timeline.as_array().unwrap() {
        let known = all
            .iter()
            .find(|known| known["event_id"] == event["event_id"]);
        if let Some(known) = known {
            assert_eq!(told(event), told(known), "{what}, synced: {event:#}");
        }
    }
    let (_, threads) = user
        .get(&format!("/../v1/rooms/{room_path}/threads?limit=100"))
        .await;
    for event in threads["chunk"].as_array().unwrap() {
        let known = all
            .iter()
            .find(|known| known["event_id"] == event["event_id"]);
        assert_eq!(
            told(event),
            told(known.unwrap()),
            "{what}, in /threads: {event:#}"
        );
    }
}

/// Does something at random.
async fn act(dice: &mut Dice, user: &User, room: &str, step: usize) {
    let all = history(user, room).await;
    let whole: Vec<&Value> = all
        .iter()
        .filter(|event| event["type"] != "m.room.redaction")
        .filter(|event| event["unsigned"]["redacted_because"].is_null())
        .collect();
    let text = format!("step {step}");
    if whole.is_empty() || dice.one_in(8) {
        user.say(room, &text).await;
        return;
    }
    // What was lately said is spoken of most.
    let few = whole.len().min(12);
    let event = whole[whole.len() - 1 - dice.roll(few)];
    let id = event["event_id"].as_str().unwrap();
    match dice.roll(10) {
        0..4 => {
            let begin = match relation(event) {
                Some(("m.thread", begin)) => begin,
                _ => id,
            };
            // Refused where the event relates to another, which is as it should be.
            send(
                user,
                room,
                "m.room.message",
                related("m.thread", begin, &text),
            )
            .await;
        }
        4..7 => {
            must_send(
                user,
                room,
                "m.room.message",
                related("m.replace", id, &text),
            )
            .await;
        }
        7 => {
            must_send(
                user,
                room,
                "m.room.message",
                related("m.reference", id, &text),
            )
            .await;
        }
        8 => {
            must_send(user, room, "m.reaction", reaction(id, &text)).await;
        }
        _ => {
            let own = whole
                .iter()
                .rev()
                .find(|event| event["sender"] == user.id.as_str());
            if let Some(own) = own {
                redact(user, room, own["event_id"].as_str().unwrap()).await;
            }
        }
    }
}

/// Waits until both see a last word of each.
async fn meet(room: &str, users: [&mut User; 2], text: &str) {
    let [one, other] = users;
    one.say(room, &format!("{text} of one")).await;
    other.hears(&format!("{text} of one")).await;
    other.say(room, &format!("{text} of other")).await;
    one.hears(&format!("{text} of other")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_beside_events_is_what_a_simple_model_says_on_every_server() {
    let given = std::env::var("AMTSBOTE_TEST_SEED").ok();
    let seed: u64 = given.map_or(20_261_128, |seed| seed.parse().unwrap());
    let mut dice = Dice(seed);
    let (_folder, mut one, other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let bob = one.user("bob").await;
    let mut carol = other.user("carol").await;
    let options = json!({ "preset": "public_chat", "room_alias_name": "talk" });
    let room = alice.create_room(options).await;
    bob.join(&room).await;
    let list = json!({ "ignored_users": { &carol.id: {} } });
    let path = format!("/user/{}/account_data/m.ignored_user_list", enc(&bob.id));
    assert_eq!(bob.put(&path, list).await.0, 200);

    for step in 0..30 {
        let user = if dice.one_in(2) { &alice } else { &bob };
        act(&mut dice, user, &room, step).await;
    }
    check(&alice, &room, &[], &format!("seed {seed}, alone")).await;
    // What was before she came, her server fetches as she pages back.
    carol.join(&format!("#talk:{}", one.name)).await;
    meet(&room, [&mut alice, &mut carol], "met").await;
    check(&carol, &room, &[], &format!("seed {seed}, fetched")).await;
    for turn in 0..4 {
        for step in 0..12 {
            let user = [&alice, &bob, &carol][dice.roll(3)];
            act(&mut dice, user, &room, 100 * (turn + 1) + step).await;
        }
        meet(&room, [&mut alice, &mut carol], &format!("turn {turn}")).await;
        if turn == 2 {
            one.kill();
            one.restart().await;
        }
        let what = format!("seed {seed}, turn {turn}");
        check(&alice, &room, &[], &what).await;
        check(&bob, &room, &[&carol.id], &what).await;
        check(&carol, &room, &[], &what).await;
    }

    // As it would be in a database from before relations were kept.
    one.stop();
    one.restart().await;
    let mut database = one.database().await;
    for table in ["relation", "thread_part"] {
        let sql = format!("DELETE FROM {table}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut database)
            .await
            .unwrap();
    }
    let sql = "INSERT INTO relation_todo SELECT room_nid, 0 FROM room_head";
    sqlx::query(sql).execute(&mut database).await.unwrap();
    one.kill();
    one.restart().await;
    let mut database = one.database().await;
    eventually("older events to be looked through", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM relation_todo")
            .fetch_one(&mut database)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    check(&alice, &room, &[], &format!("seed {seed}, looked through")).await;
}

/// Ids of a page of what relates to an event, and the token for the next one.
async fn relations(user: &User, room: &str, event: &str, more: &str) -> (Vec<String>, Value) {
    let path = format!("/../v1/rooms/{}/relations/{}{more}", enc(room), enc(event));
    let (status, body) = user.get(&path).await;
    assert_eq!(status, 200, "{path}: {body}");
    let chunk = body["chunk"].as_array().unwrap();
    let ids = chunk
        .iter()
        .map(|event| event["event_id"].as_str().unwrap().to_owned());
    (ids.collect(), body["next_batch"].clone())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
async fn relations_are_paged_filtered_followed_and_seen_by_who_may() {
    let server = Server::start().await;
    let mut alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let begin = alice.say(&room, "root").await;
    let message = "m.room.message";
    let mut replies = Vec::new();
    for n in 0..3 {
        let content = related("m.thread", &begin, &format!("reply {n}"));
        replies.push(must_send(&bob, &room, message, content).await);
    }
    alice.hears("reply 2").await;
    let since = alice.since.clone().unwrap();
    let edit = must_send(
        &bob,
        &room,
        message,
        related("m.replace", &replies[0], "edit"),
    )
    .await;
    let thumb = must_send(&bob, &room, "m.reaction", reaction(&edit, "+1")).await;
    let far = must_send(
        &alice,
        &room,
        message,
        related("m.reference", &thumb, "far"),
    )
    .await;
    must_send(
        &alice,
        &room,
        message,
        related("m.reference", &far, "too far"),
    )
    .await;
    let other = must_send(&bob, &room, "x.other", related("m.thread", &begin, "x")).await;

    let newest_first = [&*other, &replies[2], &replies[1], &replies[0]];
    let (all, next) = relations(&alice, &room, &begin, "").await;
    assert_eq!(
        (&*all, &next),
        (&newest_first.map(str::to_owned)[..], &Value::Null)
    );
    let (page, next) = relations(&alice, &room, &begin, "?limit=3").await;
    assert_eq!(page, all[..3]);
    let from = format!("?limit=3&from={}", next.as_str().unwrap());
    let (page, next) = relations(&alice, &room, &begin, &from).await;
    assert_eq!((&page[..], next), (&all[3..], Value::Null));
    let (page, next) = relations(&alice, &room, &begin, "?dir=f&limit=2").await;
    assert_eq!(page, replies[..2]);
    let from = format!("?dir=f&from={}", next.as_str().unwrap());
    assert_eq!(
        relations(&alice, &room, &begin, &from).await.0,
        [&*replies[2], &other]
    );
    // Tokens of sync count as well.
    let path = format!("?dir=f&from={since}");
    assert_eq!(relations(&alice, &room, &begin, &path).await.0, [&*other]);
    let path = format!("/m.thread/m.room.message?to={since}");
    assert!(relations(&alice, &room, &begin, &path).await.0.is_empty());
    let (found, _) = relations(&alice, &room, &begin, "/m.thread/x.other").await;
    assert_eq!(found, [&*other]);
    for nothing in ["/m.replace", "/never.seen", "/m.thread/never.seen"] {
        assert!(relations(&alice, &room, &begin, nothing).await.0.is_empty());
    }
    let path = format!(
        "/../v1/rooms/{}/relations/{}?recurse=true",
        enc(&room),
        enc(&begin)
    );
    let (_, body) = alice.get(&path).await;
    assert_eq!(body["recursion_depth"], 3);
    let (found, _) = relations(&alice, &room, &begin, "?recurse=true").await;
    let expected = [
        &*other,
        &*thumb,
        &*edit,
        &replies[2],
        &replies[1],
        &replies[0],
    ];
    assert_eq!(found, expected);
    let (found, _) = relations(&alice, &room, &begin, "/m.annotation?recurse=true").await;
    assert_eq!(found, [&*thumb]);

    let filtered = async |filter: Value| {
        let page = enc(&filter.to_string());
        let path = format!(
            "/rooms/{}/messages?dir=b&limit=100&filter={page}",
            enc(&room)
        );
        let (status, body) = alice.get(&path).await;
        assert_eq!(status, 200, "{body}");
        let stored = json!({ "room": { "timeline": filter } });
        let path = format!("/user/{}/filter", enc(&alice.id));
        let (_, stored) = alice.post(&path, stored).await;
        let synced = stored["filter_id"].as_str().unwrap();
        let (_, synced) = alice.get(&format!("/sync?filter={synced}")).await;
        let ids = |list: &Value| -> Vec<String> {
            let events = list.as_array().unwrap().iter();
            let ids = events.map(|event| event["event_id"].as_str().unwrap().to_owned());
            ids.collect()
        };
        let page = ids(&body["chunk"]);
        let mut synced = ids(&synced["rooms"]["join"][&room]["timeline"]["events"]);
        synced.reverse();
        assert_eq!(page, synced, "{filter}");
        page
    };
    let by = |rel_types: Value, senders: Value| json!({ "limit": 100, "related_by_rel_types": rel_types, "related_by_senders": senders });
    assert_eq!(
        filtered(by(json!(["m.thread"]), json!(null))).await,
        [&*begin]
    );
    assert_eq!(
        filtered(by(json!(null), json!([alice.id]))).await,
        [&*far, &*thumb]
    );
    let none: [&str; 0] = [];
    assert_eq!(
        filtered(by(json!(["m.thread"]), json!([alice.id]))).await,
        none
    );
    let way = "org.matrix.msc3874.rel_types";
    let found = filtered(json!({ "limit": 100, way: ["m.replace", "m.annotation"] })).await;
    assert_eq!(found, [&*thumb, &*edit]);
    let way = "org.matrix.msc3874.not_rel_types";
    let filter = json!({ "limit": 100, "types": ["x.other", "m.reaction"], way: ["m.thread"] });
    assert_eq!(filtered(filter).await, [&*thumb]);

    // A page that is shown has what is told beside its events.
    let path = format!(
        "/../v1/rooms/{}/relations/{}/m.thread",
        enc(&room),
        enc(&begin)
    );
    let (_, body) = alice.get(&path).await;
    let first = body["chunk"].as_array().unwrap().last().unwrap();
    let replacement = &first["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(replacement["event_id"], edit, "{first}");
    assert_eq!(first["content"]["body"], "reply 0");

    // Who is not there is told nothing, who left no more than what was before.
    let carol = server.user("carol").await;
    assert_eq!(carol.get(&path).await.0, 404);
    let missing = format!("/../v1/rooms/{}/relations/$nothing", enc(&room));
    assert_eq!(alice.get(&missing).await.0, 404);
    carol.join(&room).await;
    let path = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(carol.post(&path, json!({})).await.0, 200);
    must_send(
        &alice,
        &room,
        message,
        related("m.replace", &begin, "secret"),
    )
    .await;
    let path = format!("/rooms/{}/event/{}", enc(&room), enc(&begin));
    let (_, body) = carol.get(&path).await;
    let beside = &body["unsigned"]["m.relations"];
    assert_eq!(beside["m.replace"], Value::Null, "{body}");
    assert_eq!(beside["m.thread"]["count"], 4, "{body}");
    let (found, _) = relations(&carol, &room, &begin, "/m.replace").await;
    assert!(found.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_are_listed_by_their_newest_event_and_odd_relations_are_refused() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let message = "m.room.message";
    let mut roots = Vec::new();
    for n in 0..3 {
        let begin = alice.say(&room, &format!("root {n}")).await;
        let content = related("m.thread", &begin, "reply");
        must_send(if n == 1 { &bob } else { &alice }, &room, message, content).await;
        roots.push(begin);
    }
    let newest = must_send(
        &alice,
        &room,
        message,
        related("m.thread", &roots[0], "last"),
    )
    .await;
    let threads = async |user: &User, more: &str| {
        let path = format!("/../v1/rooms/{}/threads{more}", enc(&room));
        let (status, body) = user.get(&path).await;
        assert_eq!(status, 200, "{body}");
        let chunk = body["chunk"].as_array().unwrap();
        let ids = chunk
            .iter()
            .map(|event| event["event_id"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<String>>(), body["next_batch"].clone())
    };
    assert_eq!(
        threads(&alice, "").await.0,
        [&*roots[0], &roots[2], &roots[1]]
    );
    assert_eq!(threads(&bob, "?include=participated").await.0, [&*roots[1]]);
    let (page, next) = threads(&alice, "?limit=2").await;
    assert_eq!(page, [&*roots[0], &roots[2]]);
    let from = format!("?from={}", next.as_str().unwrap());
    assert_eq!(
        threads(&alice, &from).await,
        (vec![roots[1].clone()], Value::Null)
    );
    redact(&alice, &room, &newest).await;
    assert_eq!(
        threads(&alice, "").await.0,
        [&*roots[2], &roots[1], &roots[0]]
    );
    // Whose messages somebody ignores, of them they see no more than that there was a root.
    let ignored = json!({ "ignored_users": { &alice.id: {} } });
    let path = format!("/user/{}/account_data/m.ignored_user_list", enc(&bob.id));
    assert_eq!(bob.put(&path, ignored).await.0, 200);
    let path = format!("/../v1/rooms/{}/threads", enc(&room));
    let (_, body) = bob.get(&path).await;
    let shown = &body["chunk"][1];
    assert_eq!(shown["event_id"], roots[1]);
    assert_eq!(shown["content"], json!({}));
    assert_eq!(shown["unsigned"]["m.relations"]["m.thread"]["count"], 1);

    check_refusals((&alice, &bob), &room, &roots).await;
}

/// What our own users may not send.
async fn check_refusals((alice, bob): (&User, &User), room: &str, roots: &[String]) {
    let refused = |answer: (u16, Value), code: &str| {
        assert_eq!((answer.0, answer.1["errcode"].as_str()), (400, Some(code)));
    };
    must_send(alice, room, "m.reaction", reaction(&roots[0], "+1")).await;
    let again = send(alice, room, "m.reaction", reaction(&roots[0], "+1")).await;
    refused(again, "M_DUPLICATE_ANNOTATION");
    let other = must_send(bob, room, "m.reaction", reaction(&roots[0], "+1")).await;
    must_send(alice, room, "m.reaction", reaction(&roots[0], "-1")).await;
    redact(bob, room, &other).await;
    // One that is taken back may be made again; of two at the same time one is refused.
    let twice = tokio::join!(
        send(bob, room, "m.reaction", reaction(&roots[0], "+1")),
        send(bob, room, "m.reaction", reaction(&roots[0], "+1"))
    );
    let mut statuses = [twice.0.0, twice.1.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "{twice:?}");
    // The same request once more is answered as it was.
    let path = format!("/rooms/{}/send/m.reaction/same", enc(room));
    let first = alice.put(&path, reaction(&roots[1], "+1")).await;
    assert_eq!(first.0, 200);
    assert_eq!(alice.put(&path, reaction(&roots[1], "+1")).await, first);
    let content = related("m.thread", first.1["event_id"].as_str().unwrap(), "no");
    refused(
        send(alice, room, "m.room.message", content).await,
        "M_UNKNOWN",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_relates_to_an_event_is_redacted_with_it_where_the_user_asks_and_may() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let begun = bob.say(&room, "root").await;
    let send = async |user: &User, n: usize, rel_type: &str, id: &str| {
        let relates_to = json!({ "rel_type": rel_type, "event_id": id });
        let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relates_to });
        let path = format!("/rooms/{}/send/m.room.message/n{n}{rel_type}", enc(&room));
        let (status, body) = user.put(&path, content).await;
        assert_eq!(status, 200, "{body}");
        body["event_id"].as_str().unwrap().to_owned()
    };
    // More than is done at once, by both.
    let mut replies = Vec::new();
    for n in 0..60 {
        let user = if n % 2 == 0 { &alice } else { &bob };
        replies.push(send(user, n, "m.thread", &begun).await);
    }
    let reference = send(&bob, 0, "m.reference", &begun).await;
    let far = send(&bob, 1, "m.reference", &replies[1]).await;
    let is_redacted = async |id: &str| {
        let path = format!("/rooms/{}/event/{}", enc(&room), enc(id));
        let (status, body) = alice.get(&path).await;
        assert_eq!(status, 200, "{body}");
        body["content"] == json!({})
    };
    // Bob may redact what is his, and the server is killed in between.
    let path = format!("/rooms/{}/redact/{}/one", enc(&room), enc(&begun));
    let with = json!({ "org.matrix.msc3912.with_relations": ["m.thread"], "reason": "mine" });
    assert_eq!(bob.put(&path, with.clone()).await.0, 200);
    server.kill();
    server.restart().await;
    eventually("the last of bob's to go", async || {
        is_redacted(&replies[59]).await.then_some(())
    })
    .await;
    for (n, id) in replies.iter().enumerate() {
        assert_eq!(is_redacted(id).await, n % 2 == 1, "reply {n}");
    }
    assert!(!is_redacted(&reference).await && !is_redacted(&far).await);
    let redaction = |body: &Value| body["unsigned"]["redacted_because"]["content"].clone();
    let path = format!("/rooms/{}/event/{}", enc(&room), enc(&replies[1]));
    assert_eq!(redaction(&alice.get(&path).await.1)["reason"], "mine");
    // Alice may redact all, of any type.
    let path = format!("/rooms/{}/redact/{}/all", enc(&room), enc(&begun));
    let (status, _) = alice.put(&path, json!({ "with_rel_types": ["*"] })).await;
    assert_eq!(status, 200);
    eventually("the rest to go", async || {
        let rest = is_redacted(&reference).await && is_redacted(&replies[58]).await;
        rest.then_some(())
    })
    .await;
    assert!(!is_redacted(&far).await);
}
