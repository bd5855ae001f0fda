//! Attacks that succeeded once.

use serde_json::{Value, json};

use super::{Stage, events::send_number};
use crate::rig::scripted::Answer;

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_its_auth_events_do_not_allow_is_refused() {
    let stage = Stage::new("11").await;
    let open = json!({ "preset": "public_chat", "room_version": "11" });
    let open = stage.alice.create_room(open).await;
    let eve = stage.peer.user("eve");
    let draft = stage.peer.make(&stage.server, "join", &open, &eve).await;
    let unknown = vec![format!("${}", "A".repeat(43))];
    let elsewhere = stage.room.ends();
    for (what, auth) in [
        ("none", &[][..]),
        ("unknown ones", &unknown),
        ("those of another room", &elsewhere),
    ] {
        let event = draft.clone().on("auth_events", auth).sign(&stage.peer.key);
        stage.join_is_refused(what, &open, &event).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_answer_are_not_all_parsed_before_any_is_checked() {
    let mut stage = Stage::new("11").await;
    let room = stage.peer.room("11", &stage.bob);
    let before = stage.server.memory("VmHWM");
    let mut junk = room
        .forge(room.draft_message(&stage.mallory, &"x".repeat(200)))
        .json();
    junk["signatures"] = json!({});
    let junk = junk.to_string();
    let list = vec![junk.as_str(); (60 << 20) / junk.len()].join(",");
    let answer = format!("{{\"state\":[{list}],\"auth_chain\":[]}}");
    stage.peer.route_to("send_join", Answer::Text(answer));
    let (status, body) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
    assert_eq!(status, 502, "{body}");
    stage.assert_bounded("sixty megabytes of events", before, 250 << 10);
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_twice_at_once_fails_nobody() {
    let stage = Stage::new("11").await;
    for round in 0..10 {
        let event = stage.room.message(&stage.bob, &format!("at once {round}"));
        let pdus = [event.json()];
        let sending = (0..6).map(|i| {
            let (stage, pdus) = (&stage, &pdus);
            async move {
                let txn = format!("r{round}t{i}");
                let to = &stage.server;
                stage.peer.transaction(to, &txn, (pdus, &[])).await
            }
        });
        let saying = (0..6).map(|i| {
            let text = format!("beside {round} {i}");
            let (alice, room) = (&stage.alice, &stage.room.id);
            async move { alice.say(room, &text).await }
        });
        let (sent, _) = tokio::join!(
            futures_util::future::join_all(sending),
            futures_util::future::join_all(saying)
        );
        for (status, body) in sent {
            assert_eq!(status, 200, "{body}\n{}", stage.server.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_not_canonical_cost_their_event_only() {
    let mut stage = Stage::new("11").await;
    for number in ["1.5", "1e3", "9007199254740992", "-9007199254740992"] {
        let (status, answer) = send_number(&stage, number).await;
        assert_eq!(status, 200, "{number}: {answer}");
        stage.alice.hears(&format!("beside {number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_template_is_the_fault_of_the_peer() {
    let stage = Stage::new("11").await;
    let room = stage.peer.room("11", &stage.bob);
    stage.peer.route("make_join", move |_, honest| {
        let Answer::Json(status, mut answer) = honest else {
            return honest;
        };
        answer["event"]["prev_events"] = json!(vec!["$a"; 21]);
        Answer::Json(status, answer)
    });
    let (status, answer) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
    assert_eq!(status, 502, "{answer}");
    assert_ne!(answer["errcode"], Value::from("M_BAD_JSON"));
}
