//! Delayed events (MSC4140), and what calls of many need beside them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{enc, eventually, operator::Operator, server::Server, user::User};

const BASE: &str = "/../unstable/org.matrix.msc4140";
const KIND: &str = "org.matrix.msc3401.call.member";

/// A room in which everybody may set the state of calls.
async fn room_of(alice: &User) -> String {
    let levels = json!({ "events": { KIND: 0 } });
    let options = json!({ "preset": "public_chat", "power_level_content_override": levels });
    alice.create_room(options).await
}

fn state(room: &str, key: &str) -> String {
    format!("/rooms/{}/state/{KIND}/{}", enc(room), enc(key))
}

/// Schedules; the id.
async fn later(user: &User, path: &str, delay_ms: i64, content: Value) -> String {
    let path = format!("{path}?org.matrix.msc4140.delay={delay_ms}");
    let (status, answer) = user.put(&path, content).await;
    assert_eq!(status, 200, "{answer}");
    answer["delay_id"].as_str().unwrap().to_owned()
}

/// Does something to a delayed event, without a session.
async fn manage(server: &Server, id: &str, action: &str) -> (u16, Value) {
    let nobody = User::with_token(&server.url(""), "@nobody:x", "none");
    nobody
        .post(&format!("{BASE}/delayed_events/{id}/{action}"), json!({}))
        .await
}

async fn listed(user: &User, part: &str) -> Vec<Value> {
    let (status, answer) = user.get(&format!("{BASE}/delayed_events")).await;
    assert_eq!(status, 200, "{answer}");
    answer[part].as_array().cloned().unwrap()
}

/// Waits until state is as it is to be.
async fn becomes(user: &User, path: &str, content: Value) {
    eventually("the state", async || {
        (user.get(path).await == (200, content.clone())).then_some(())
    })
    .await;
}

/// How often a text was said in a room.
async fn count(user: &User, room: &str, text: &str) -> usize {
    let texts = user.history(room).await;
    texts.iter().filter(|it| *it == text).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_when_their_time_comes_unless_somebody_says_otherwise() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = room_of(&alice).await;
    bob.join(&room).await;
    let message = format!("/rooms/{}/send/m.room.message", enc(&room));
    let text = |text: &str| json!({ "msgtype": "m.text", "body": text });

    // A repeated request is the same one, and nobody else sees it.
    let one = later(&alice, &format!("{message}/1"), 4_000, text("one")).await;
    let again = later(&alice, &format!("{message}/1"), 4_000, text("one")).await;
    assert_eq!(one, again);
    let two = later(&alice, &format!("{message}/2"), 3_000, text("two")).await;
    let shown = listed(&alice, "delayed_events").await;
    assert_eq!(shown[0]["content"], text("one"));
    assert_eq!(shown[0]["delay"], 4_000);
    assert!(listed(&bob, "delayed_events").await.is_empty());
    let single = format!("{BASE}/delayed_events/{one}");
    assert_eq!(alice.get(&single).await.1["delay_id"], json!(one));
    assert_eq!(bob.get(&single).await.0, 404);
    eventually("both", async || {
        let mut texts = alice.history(&room).await;
        texts.sort_unstable();
        (texts == ["one", "two"]).then_some(())
    })
    .await;
    let over = listed(&alice, "finalised").await;
    let of_two = over.iter().find(|it| it["delay_id"] == two.as_str());
    assert!(of_two.unwrap()["event_id"].is_string(), "{over:?}");
    assert_eq!(manage(&server, &two, "send").await.0, 200);
    assert_eq!(manage(&server, &two, "cancel").await.0, 409);
    assert_eq!(manage(&server, "nothing", "cancel").await.0, 404);
    let (status, answer) = manage(&server, "nothing", "something").await;
    assert_eq!(
        (status, &answer["errcode"]),
        (404, &json!("M_UNRECOGNIZED"))
    );

    // Cancelled, restarted, sent at once; the newer path and the older form.
    let later_on = format!("{BASE}/rooms/{}/delayed_event/{KIND}/3", enc(&room));
    let body = json!({ "delay": 3_600_000, "state_key": "k", "content": { "n": 1 } });
    let id = alice.put(&later_on, body).await.1["delay_id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(manage(&server, id, "restart").await.0, 200);
    let form = format!("{BASE}/delayed_events/{id}");
    let (status, answer) = bob.post(&form, json!({ "action": "send" })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(alice.get(&state(&room, "k")).await.1, json!({ "n": 1 }));
    let id = later(&alice, &state(&room, "k"), 3_600_000, json!({ "n": 2 })).await;
    assert_eq!(manage(&server, &id, "cancel").await.0, 200);
    assert_eq!(manage(&server, &id, "cancel").await.0, 200);
    for refused in ["restart", "send"] {
        assert_eq!(manage(&server, &id, refused).await.0, 409);
    }
    assert!(listed(&alice, "delayed_events").await.is_empty());

    // What somebody else sets meanwhile stands; what one sets oneself does not count.
    later(&bob, &state(&room, "mine"), 3_000, json!({ "left": true })).await;
    bob.put(&state(&room, "mine"), json!({ "here": true }))
        .await;
    later(&bob, &state(&room, "taken"), 3_000, json!({ "left": true })).await;
    alice
        .put(&state(&room, "taken"), json!({ "by": "alice" }))
        .await;
    becomes(&alice, &state(&room, "mine"), json!({ "left": true })).await;
    eventually("all to be over", async || {
        listed(&bob, "delayed_events")
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    let taken = alice.get(&state(&room, "taken")).await.1;
    assert_eq!(taken, json!({ "by": "alice" }));

    refusals(&server, (&alice, &bob), &room).await;
}

/// What is not taken, and what is not sent.
async fn refusals(server: &Server, (alice, bob): (&User, &User), room: &str) {
    let path = format!("{}?org.matrix.msc4140.delay=", state(room, "x"));
    let (status, answer) = alice.put(&format!("{path}86400001"), json!({})).await;
    assert_eq!((status, &answer["errcode"]), (400, &json!("M_UNKNOWN")));
    assert_eq!(answer["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED");
    assert_eq!(answer["org.matrix.msc4140.max_delay"], 86_400_000);
    assert_eq!(alice.put(&format!("{path}-1"), json!({})).await.0, 400);
    let stranger = server.user("stranger").await;
    assert_eq!(stranger.put(&format!("{path}10"), json!({})).await.0, 403);
    for n in 0..100 {
        later(alice, &state(room, &format!("x{n}")), 3_600_000, json!({})).await;
    }
    let (status, answer) = alice.put(&format!("{path}10"), json!({})).await;
    let code = &answer["org.matrix.msc4140.errcode"];
    assert_eq!(
        (status, code),
        (400, &json!("M_MAX_DELAYED_EVENTS_EXCEEDED"))
    );
    let (_, page) = alice
        .get(&format!("{BASE}/delayed_events?status=scheduled"))
        .await;
    assert_eq!(page["delayed_events"].as_array().unwrap().len(), 100);
    let next = page["next_batch"].as_str().unwrap();
    let (_, page) = alice
        .get(&format!(
            "{BASE}/delayed_events?status=scheduled&from={next}"
        ))
        .await;
    assert_eq!(page, json!({ "delayed_events": [] }));

    // Power is looked at when the time comes, and so is what the account may do.
    later(
        bob,
        &format!("/rooms/{}/state/m.room.topic/", enc(room)),
        1,
        json!({ "topic": "x" }),
    )
    .await;
    let operator = Operator::of(server).await;
    let suspend = async |on: bool| {
        let path = format!("/v1/suspend/{}", bob.id);
        let body = json!({ "suspend": on });
        assert_eq!(operator.ask(Method::PUT, &path, Some(body)).await.0, 200);
    };
    let id = later(bob, &state(room, "y"), 3_600_000, json!({ "y": 1 })).await;
    suspend(true).await;
    assert_eq!(manage(server, &id, "send").await.0, 403);
    suspend(false).await;
    eventually("both to fail", async || {
        let over = listed(bob, "finalised").await;
        let failed = over.iter().filter(|it| it["error"]["error"].is_string());
        (failed.count() == 2).then_some(())
    })
    .await;
    assert_eq!(alice.get(&state(room, "y")).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_sent_once_by_whatever_node_and_after_a_crash() {
    let mut server = Server::start().await;
    let mut node = server.node().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let there = alice.at(&node);
    let mut said = Vec::new();
    let message = format!("/rooms/{}/send/m.room.message", enc(&room));
    for n in 0..40 {
        let text = format!("text {n}");
        let body = json!({ "msgtype": "m.text", "body": text });
        let user = if n % 2 == 0 { &alice } else { &there };
        // Some are due at once, some while nobody is there, some after the restart.
        later(user, &format!("{message}/{n}"), n * 60, body).await;
        said.push(text);
    }
    node.kill();
    server.kill();
    server.restart().await;
    for text in &said {
        eventually(text, async || {
            (count(&alice, &room, text).await > 0).then_some(())
        })
        .await;
    }
    for text in &said {
        assert_eq!(count(&alice, &room, text).await, 1, "{text}");
    }
    // That an event was sent is noted after it was.
    eventually("all to be noted", async || {
        let left = listed(&alice, "delayed_events").await;
        left.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_what_calls_go_through() {
    let config = "[registration]\nopen = true\n[well_known]\nclient = \"https://m.example\"\n\
                  [rtc]\nlivekit_service_urls = [\"https://rtc.example\"]\n\
                  [delayed_events]\nmax_delay_s = 0\n";
    let server = Server::with(config, None).await;
    let alice = server.user("alice").await;
    let expected = json!([{ "type": "livekit", "livekit_service_url": "https://rtc.example" }]);
    let path = "/../unstable/org.matrix.msc4143/rtc/transports";
    let answer = alice.get(path).await;
    assert_eq!(answer, (200, json!({ "rtc_transports": expected })));
    let document: Value = server.document("/.well-known/matrix/client").await;
    assert_eq!(document["org.matrix.msc4143.rtc_foci"], expected);
    let (_, versions) = alice.get("/../versions").await;
    assert_eq!(versions["unstable_features"]["org.matrix.msc4143"], true);
    assert_eq!(versions["unstable_features"]["org.matrix.msc4140"], false);
    let room = alice.create_room(json!({})).await;
    let path = format!("{}?org.matrix.msc4140.delay=5", state(&room, "x"));
    let (status, answer) = alice.put(&path, json!({})).await;
    assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));

    let plain = Server::start().await;
    let bob = plain.user("bob").await;
    let (status, answer) = bob
        .get("/../unstable/org.matrix.msc4143/rtc/transports")
        .await;
    assert_eq!(
        (status, &answer["errcode"]),
        (404, &json!("M_UNRECOGNIZED"))
    );
}
