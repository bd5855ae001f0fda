//! Events that are not what they should be, in transactions.

use serde_json::{Value, json};

use super::Stage;
use crate::rig::{
    enc, eventually,
    scripted::event::{Draft, Event, Key, canonical, rules},
};

fn content(text: &str) -> Value {
    json!({ "msgtype": "m.text", "body": text })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_a_wrong_hash_is_taken_without_its_content() {
    for version in ["10", "12"] {
        let mut stage = Stage::new(version).await;
        let draft = stage.room.draft_message(&stage.mallory, "what was hashed");
        let forged = stage
            .room
            .forge(draft)
            .forged("content", content("what was put in its place"));
        let seen = stage.is_taken("a redacted form", &forged).await;
        assert_eq!(seen["content"], json!({}), "{seen}");
        stage.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_with_wrong_signatures_are_dropped() {
    let mut stage = Stage::new("11").await;
    let draft = |text: &str| stage.room.draft_message(&stage.mallory, text);
    let good = stage.room.forge(draft("good"));
    let signed_by = |key: &Key| draft("of another key").sign(key);
    let other_server = Key::new("localhost:1", "scripted");
    let mut doubled = signed_by(&Key::new(&stage.peer.name, "unknown"));
    stage.peer.key.sign_event(&mut doubled.object, "11");
    for (what, event) in [
        ("a changed type", good.forged("type", json!("m.changed"))),
        ("no signatures", good.forged("signatures", json!({}))),
        (
            "a signature that is none",
            good.forged(
                "signatures",
                json!({ &stage.peer.name: { "ed25519:scripted": "AAAA" } }),
            ),
        ),
        (
            "signatures of another form",
            good.forged("signatures", json!({ &stage.peer.name: "AAAA" })),
        ),
        (
            "a key of the same name",
            signed_by(&Key::new(&stage.peer.name, "scripted")),
        ),
        (
            "an unknown key",
            signed_by(&Key::new(&stage.peer.name, "unknown")),
        ),
        ("another server's key", signed_by(&other_server)),
    ] {
        stage.is_dropped(what, &event).await;
    }
    // A signature that nobody knows takes nothing from one that is good.
    stage.is_taken("a second signature", &doubled).await;
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_users_of_other_servers() {
    let mut stage = Stage::new("11").await;
    let alice = stage.alice.id.clone();
    for sender in [
        alice.as_str(),
        "@carol:localhost:1",
        "@nobody",
        "",
        "@a:b:c:d",
    ] {
        let draft = stage.room.draft_message(&stage.mallory, "in your name");
        let event = stage.room.forge(draft.with("sender", json!(sender)));
        stage.is_dropped(sender, &event).await;
    }
    // Nor takes them out of the room, in their own name.
    let draft = stage.room.draft(
        &stage.mallory,
        ("m.room.member", Some(&alice)),
        json!({ "membership": "leave" }),
    );
    let kick = stage.room.forge(draft.clone());
    stage.is_rejected("a kick without power", &kick).await;
    let leave = stage.room.forge(draft.with("sender", json!(alice)));
    stage.is_dropped("a leave in another's name", &leave).await;
    stage.goes_on().await;
}

/// A message whose JSON has that many bytes.
fn of_size(stage: &Stage, bytes: usize) -> Event {
    let sized = |length: usize| {
        let text = "x".repeat(length);
        stage
            .room
            .forge(stage.room.draft_message(&stage.mallory, &text))
    };
    let length = |event: &Event| serde_json::to_string(&event.object).unwrap().len();
    let event = sized(bytes - 2_000);
    let more = bytes - length(&event);
    sized(bytes - 2_000 + more)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_beyond_the_limits_are_dropped() {
    for version in ["10", "12"] {
        let mut stage = Stage::new(version).await;
        stage
            .is_taken("an event of 65,536 bytes", &of_size(&stage, 65_536))
            .await;
        let larger = of_size(&stage, 65_537);
        stage.is_dropped("an event of 65,537 bytes", &larger).await;

        let end = stage.room.ends();
        let forks: Vec<Event> = (0..21)
            .map(|i| {
                let kind = ("m.room.message", None);
                let text = content(&format!("branch {i}"));
                let draft = stage.room.draft_on(&end, &stage.bob, kind, text);
                stage.room.forge(draft)
            })
            .collect();
        for fork in &forks {
            stage.is_taken("a branch", fork).await;
        }
        let ids: Vec<String> = forks.iter().map(|fork| fork.id.clone()).collect();
        let on = |ids: &[String]| {
            let draft = stage.room.draft_message(&stage.bob, "on branches");
            stage.room.forge(draft.on("prev_events", ids))
        };
        stage
            .is_dropped("an event with 21 predecessors", &on(&ids))
            .await;
        stage
            .is_rejected("an event without predecessors", &on(&[]))
            .await;
        stage
            .is_taken("an event with 20 predecessors", &on(&ids[..20]))
            .await;
        let draft = stage.room.draft_message(&stage.bob, "authorized by many");
        let draft = draft.on("auth_events", &ids[..11]);
        stage
            .is_dropped("an event with 11 auth events", &stage.room.forge(draft))
            .await;
        for field in ["type", "state_key", "sender", "room_id"] {
            let draft = stage
                .room
                .draft(&stage.bob, ("m.x", Some("")), content("x"));
            let long = match field {
                "sender" => format!("@{}:{}", "x".repeat(256), stage.peer.name),
                "room_id" => format!("!{}:{}", "x".repeat(256), stage.peer.name),
                _ => "x".repeat(256),
            };
            let event = stage.room.forge(draft.with(field, json!(long)));
            stage.send(&event).await;
            assert_eq!(stage.seen(&stage.room, &event).await, None, "long {field}");
        }
        stage.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deepest_event_is_not_the_last() {
    let deepest: i64 = (1 << 53) - 1;
    for version in ["10", "12"] {
        let mut stage = Stage::new(version).await;
        let text = |stage: &Stage, depth: Value| {
            let mut draft = stage.room.draft_message(&stage.mallory, "deep");
            let depth = serde_json::from_value(depth).unwrap();
            draft.object.insert("depth".to_owned(), depth);
            draft
        };
        let negative = text(&stage, json!(-1));
        stage
            .is_dropped("a negative depth", &stage.room.forge(negative))
            .await;
        // JSON that no honest library makes: 2^53 and beyond.
        for depth in ["9007199254740992", "9223372036854775807", "1e3", "1.0"] {
            let event = stage.room.forge(text(&stage, json!(1_234_567)));
            let raw = event.json().to_string().replace("1234567", depth);
            let (status, answer) = raw_transaction(&stage, depth, &raw).await;
            assert!(status < 500, "{answer}");
            assert_eq!(stage.seen(&stage.room, &event).await, None);
        }
        for depth in [deepest - 1, deepest] {
            let event = stage.room.add(text(&stage, json!(depth)));
            stage.is_taken("a deep event", &event).await;
            stage.goes_on().await;
        }
        let said = stage.alice.say(&stage.room.id, "below").await;
        let asked = stage
            .peer
            .is_asked("send", |asked| asked.body.to_string().contains("\"below\""))
            .await;
        let pdus = asked.body["pdus"].as_array().unwrap().iter();
        let own = pdus
            .map(|pdu| Event::of(canonical(pdu.clone()), version))
            .find(|event| event.id == said);
        assert_eq!(own.unwrap().number("depth"), deepest);
    }
}

/// Sends a transaction with numbers that are not canonical, signed as they stand there: servers
/// that let such numbers into old rooms do so.
async fn raw_transaction(stage: &Stage, txn: &str, pdus: &str) -> (u16, Value) {
    let (own, to) = (&stage.peer.name, &stage.server.name);
    let path = format!("/_matrix/federation/v1/send/{}", enc(txn));
    let body = format!(r#"{{"origin":"{own}","origin_server_ts":1,"pdus":[{pdus}]}}"#);
    let signed = format!(
        r#"{{"content":{body},"destination":"{to}","method":"PUT","origin":"{own}","uri":"{path}"}}"#
    );
    let header = format!(
        r#"X-Matrix origin="{own}",destination="{to}",key="{}",sig="{}""#,
        stage.peer.key.id(),
        stage.peer.key.signature(signed.as_bytes())
    );
    let request = ("PUT", path.as_str());
    stage
        .peer
        .call_with(&stage.server, request, &header, Some(body))
        .await
}

/// Sends an event that says this number, and a good one that says "beside" it.
pub(super) async fn send_number(stage: &Stage, number: &str) -> (u16, Value) {
    let good = stage.room.message(&stage.bob, &format!("beside {number}"));
    let bad = stage
        .room
        .forge(stage.room.draft_message(&stage.mallory, "1234567"))
        .json()
        .to_string()
        .replace("\"1234567\"", number);
    let pdus = format!("{bad},{}", good.json());
    raw_transaction(stage, number, &pdus).await
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_not_canonical_do_no_harm() {
    for version in ["10", "11"] {
        let mut stage = Stage::new(version).await;
        for number in ["1.5", "1e3", "9007199254740992", "-9007199254740992"] {
            let (status, answer) = send_number(&stage, number).await;
            assert!([200, 401].contains(&status), "{number}: {answer}");
        }
        stage.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_51_events_is_refused_whole() {
    let mut stage = Stage::new("11").await;
    let events: Vec<Event> = (0..51)
        .map(|i| stage.room.message(&stage.bob, &format!("one of many {i}")))
        .collect();
    let pdus: Vec<Value> = events.iter().map(Event::json).collect();
    let (status, body) = stage
        .peer
        .transaction(&stage.server, "51", (&pdus, &[]))
        .await;
    assert_eq!(status, 400, "{body}");
    assert_eq!(stage.seen(&stage.room, &events[0]).await, None);
    let edus = vec![json!({ "edu_type": "m.unknown", "content": {} }); 101];
    let (status, body) = stage
        .peer
        .transaction(&stage.server, "101", (&[], &edus))
        .await;
    assert_eq!(status, 400, "{body}");
    let (status, body) = stage
        .peer
        .transaction(&stage.server, "50", (&pdus[..50], &edus[..100]))
        .await;
    assert_eq!(status, 200, "{body}");
    stage.is_taken("the rest", &events[50]).await;
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_often_is_there_once() {
    let mut stage = Stage::new("11").await;
    let event = stage.room.message(&stage.bob, "again and again");
    let twice = [event.json(), event.json(), event.json()];
    let many = (0..8).map(|i| {
        let txn = format!("same{}", i / 2);
        let (stage, twice) = (&stage, &twice);
        async move {
            // Where two come at once, one may be told to come again, as peers do.
            eventually("the transaction to be taken", async || {
                let to = &stage.server;
                let (status, body) = stage.peer.transaction(to, &txn, (twice, &[])).await;
                assert!([200, 503].contains(&status), "{status} {body}");
                (status == 200).then_some(body)
            })
            .await
        }
    });
    for body in futures_util::future::join_all(many).await {
        assert_eq!(body["pdus"][&event.id], json!({}), "{body}");
    }
    stage.goes_on().await;
    let history = stage.alice.history(&stage.room.id).await;
    let found = history.iter().filter(|text| *text == "again and again");
    assert_eq!(found.count(), 1, "{history:?}");
    let seen = stage.alice.seen.iter();
    let heard = seen.filter(|(_, seen)| seen["event_id"] == event.id.as_str());
    assert_eq!(heard.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_events_that_do_not_authorize_get_an_event_rejected() {
    for version in ["10", "12"] {
        let mut stage = Stage::new(version).await;
        let topic = |text: &str| {
            let topic = json!({ "topic": text });
            stage
                .room
                .draft(&stage.bob, ("m.room.topic", Some("")), topic)
        };
        let elsewhere = stage.peer.room(version, &stage.bob);
        let foreign = elsewhere.draft_message(&stage.bob, "").object;
        let foreign = Event::of(foreign, version).ids("auth_events");
        let of_another_room = topic("by another room").on("auth_events", &foreign);

        let grab = json!({ "users": { &stage.mallory: 100 } });
        let kind = ("m.room.power_levels", Some(""));
        let grab = stage
            .room
            .forge(stage.room.draft(&stage.mallory, kind, grab));
        stage.is_rejected("a grab for power", &grab).await;
        let mut by_rejected = stage.room.draft(
            &stage.mallory,
            ("m.room.topic", Some("")),
            json!({ "topic": "by a rejected event" }),
        );
        let levels = stage.room.current_of("m.room.power_levels", "").id;
        let auth: Vec<String> = Event::of(by_rejected.object.clone(), version)
            .ids("auth_events")
            .into_iter()
            .map(|id| if id == levels { grab.id.clone() } else { id })
            .collect();
        by_rejected = by_rejected.on("auth_events", &auth);

        let join_rules = stage.room.current_of("m.room.join_rules", "").id;
        let mut needless = Event::of(topic("").object, version).ids("auth_events");
        needless.push(join_rules);
        let mut doubled = Event::of(topic("").object, version).ids("auth_events");
        doubled.push(doubled[0].clone());
        let unknown = vec![format!("${}", "A".repeat(43))];
        for (what, draft) in [
            ("an event by another room's", of_another_room),
            ("an event by a rejected one", by_rejected),
            ("an event by none", topic("by none").on("auth_events", &[])),
            (
                "an event by unknown ones",
                topic("?").on("auth_events", &unknown),
            ),
            (
                "an event by one that is not asked for",
                topic("!").on("auth_events", &needless),
            ),
            (
                "an event by the same twice",
                topic("2").on("auth_events", &doubled),
            ),
        ] {
            let event = stage.room.forge(draft);
            stage.is_rejected(what, &event).await;
        }
        let path = format!("/rooms/{}/state/m.room.topic/", enc(&stage.room.id));
        assert_eq!(stage.alice.get(&path).await.0, 404, "there is no topic");
        stage.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_data_about_users_of_other_servers_is_ignored() {
    let mut stage = Stage::new("11").await;
    let carol = stage.server.user("carol").await;
    carol.join_via(&stage.room.id, &stage.peer.name).await;
    let said = stage.alice.say(&stage.room.id, "read this").await;
    stage.alice.sync(0).await;
    let typing = |user: &str| {
        json!({ "edu_type": "m.typing", "content": {
            "room_id": stage.room.id, "user_id": user, "typing": true,
        }})
    };
    let receipt = |user: &str| {
        json!({ "edu_type": "m.receipt", "content": { &stage.room.id: { "m.read": {
            user: { "event_ids": [said], "data": { "ts": 1 } },
        }}}})
    };
    let direct = |sender: &str, id: &str| {
        json!({ "edu_type": "m.direct_to_device", "content": {
            "sender": sender, "type": "m.test", "message_id": id,
            "messages": { &stage.alice.id: { "*": { "from": sender } } },
        }})
    };
    let devices = |user: &str| {
        json!({ "edu_type": "m.device_list_update", "content": {
            "user_id": user, "device_id": "X", "stream_id": 1, "prev_id": [],
        }})
    };
    let carols = &carol.id;
    let edus = [
        typing(carols),
        receipt(carols),
        direct(carols, "a"),
        devices(carols),
        json!({ "edu_type": "m.typing", "content": "nonsense" }),
        json!({ "edu_type": "m.typing" }),
        json!({ "edu_type": "m.receipt", "content": { "nonsense": 1 } }),
        typing(&stage.bob),
        receipt(&stage.bob),
        direct(&stage.bob, "b"),
    ];
    let (status, body) = stage
        .peer
        .transaction(&stage.server, "edus", (&[], &edus))
        .await;
    assert_eq!(status, 200, "{body}");
    let mut all = String::new();
    let (room, bob) = (stage.room.id.clone(), stage.bob.clone());
    let alice = tokio::sync::Mutex::new(&mut stage.alice);
    // What bob did came with what carol did not do, and after it.
    eventually("typing, receipt and message of bob", async || {
        let sync = alice.lock().await.sync(1_000).await;
        all.push_str(&sync["rooms"]["join"][&room]["ephemeral"].to_string());
        all.push_str(&sync["to_device"].to_string());
        all.push_str(&sync["device_lists"].to_string());
        (all.matches(bob.as_str()).count() >= 3).then_some(())
    })
    .await;
    assert!(!all.contains(carols.as_str()), "{all}");
    stage.goes_on().await;
}

#[test]
fn the_rig_makes_events_as_ruma_verifies_them() {
    let key = std::sync::Arc::new(Key::new("localhost:1", "a"));
    for version in ["1", "10", "11", "12"] {
        let room = crate::rig::scripted::room::Room::new(&key, version, "@a:localhost:1");
        let Draft { object, .. } = room.draft_message("@a:localhost:1", "x");
        let event = Draft {
            version: version.to_owned(),
            object,
        }
        .sign(&key);
        let public = ruma::serde::Base64::parse(key.public()).unwrap();
        let keys = [(key.server.clone(), [(key.id(), public)].into())].into();
        let verified = ruma::signatures::verify_event(&keys, &event.object, &rules(version));
        assert_eq!(verified.unwrap(), ruma::signatures::Verified::All);
    }
}
