//! Graphs that no honest server makes: circles, holes, bushes.

use serde_json::{Value, json};

use super::Stage;
use crate::rig::{
    enc,
    scripted::{
        Answer,
        event::{Draft, Event},
    },
};

/// An event id that is no event's.
fn nobodys(number: usize) -> String {
    format!("${number:0>43}")
}

/// The draft with an id of its own making (room version 1).
fn called(draft: Draft, id: &str) -> Draft {
    draft.with("event_id", json!(id))
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_events_in_a_circle_lead_nowhere() {
    let mut stage = Stage::new("1").await;
    let id = |name: &str| format!("${name}:{}", stage.peer.name);
    let topic = |name: &str, by: &[&str]| {
        let draft = stage.room.draft(
            &stage.bob,
            ("m.room.topic", Some("")),
            json!({ "topic": name }),
        );
        let mut auth = Event::of(draft.object.clone(), "1").ids("auth_events");
        auth.extend(by.iter().map(|name| id(name)));
        stage
            .room
            .forge(called(draft, &id(name)).on("auth_events", &auth))
    };
    let circle = [topic("a", &["b"]), topic("b", &["c"]), topic("c", &["a"])];
    let of_itself = topic("self", &["self"]);
    let chain: Vec<Value> = circle.iter().chain([&of_itself]).map(Event::json).collect();
    let answer = Answer::ok(json!({ "auth_chain": chain }));
    stage.peer.route_to("event_auth", answer);
    let by_circle = topic("after", &["a"]);
    for event in circle.iter().chain([&of_itself, &by_circle]) {
        stage.is_rejected("an event in a circle", event).await;
    }
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predecessors_in_a_circle_end() {
    let mut stage = Stage::new("1").await;
    let id = |name: &str| format!("${name}:{}", stage.peer.name);
    let message = |name: &str, on: &[&str]| {
        let on: Vec<String> = on.iter().map(|name| id(name)).collect();
        let draft = stage.room.draft_message(&stage.mallory, name);
        stage
            .room
            .forge(called(draft, &id(name)).on("prev_events", &on))
    };
    let circle = [
        message("x", &["z"]),
        message("y", &["x"]),
        message("z", &["y"]),
        message("own", &["own"]),
    ];
    let events: Vec<Value> = circle.iter().map(Event::json).collect();
    let answer = Answer::ok(json!({ "events": events }));
    stage.peer.route_to("get_missing_events", answer);
    // The peer tells no state before events that are before themselves.
    for event in &circle {
        stage.is_rejected("an event in a circle", event).await;
    }
    stage.peer.honest("get_missing_events");
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predecessors_that_nobody_has_are_asked_for_and_given_up() {
    for version in ["10", "12"] {
        let mut stage = Stage::new(version).await;
        let unknown: Vec<String> = (0..20).map(nobodys).collect();
        let draft = stage
            .room
            .draft_message(&stage.mallory, "after nobody's events");
        let event = stage.room.forge(draft.on("prev_events", &unknown));
        // Who sends it ought to have them, and does not tell.
        stage
            .is_rejected("an event after withheld ones", &event)
            .await;
        let asked = stage.peer.asked("get_missing_events").pop().unwrap();
        assert_eq!(asked.body["latest_events"], json!([event.id]));
        assert_eq!(stage.peer.asked("state_ids").len(), 0);

        // Below another one it is taken with the state before it, and its predecessors are asked
        // for when somebody reads back.
        let before = stage.room.current();
        stage.room.insert_with_state(&event, &before);
        stage.room.set_ends(std::slice::from_ref(&event.id));
        let after = stage.room.message(&stage.bob, "after that");
        stage.is_taken("an event after it", &after).await;
        let seen = stage.seen(&stage.room, &event).await;
        assert!(seen.is_some(), "an event with a state before it");
        stage.alice.history(&stage.room.id).await;
        for id in &unknown {
            stage
                .peer
                .is_asked("backfill", |asked| asked.params("v").contains(id))
                .await;
        }
        for route in ["get_missing_events", "state_ids", "backfill", "event"] {
            let asked = stage.peer.asked(route).len();
            assert!(asked <= 10, "{route} was asked {asked} times");
        }
        stage.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_with_predecessors_that_nobody_has_do_not_stop_the_room() {
    let mut stage = Stage::new("11").await;
    let events: Vec<Event> = (0..50)
        .map(|i| {
            let on: Vec<String> = (0..20).map(|j| nobodys(100 + i * 20 + j)).collect();
            let draft = stage
                .room
                .draft_message(&stage.mallory, &format!("hole {i}"));
            stage.room.forge(draft.on("prev_events", &on))
        })
        .collect();
    // For half of them the peer tells a state, below others that follow on them.
    let before = stage.room.current();
    let ends = stage.room.ends();
    let (told, untold) = events.split_at(25);
    let mut all: Vec<Event> = untold.to_vec();
    for event in told {
        stage.room.insert_with_state(event, &before);
        stage.room.set_ends(std::slice::from_ref(&event.id));
        all.push(stage.room.message(&stage.bob, "on a hole"));
    }
    stage.room.set_ends(&ends);
    let all: Vec<&Event> = all.iter().collect();
    stage.peer.send(&stage.server, &all).await;
    stage.settles().await;
    stage.goes_on().await;
    // A client that pages back gets to an end.
    let history = stage.alice.history(&stage.room.id).await;
    assert!(history.contains(&"hole 0".to_owned()), "{history:?}");
    assert!(!history.contains(&"hole 49".to_owned()), "{history:?}");
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_missing_events_is_not_believed() {
    let mut stage = Stage::new("11").await;
    let other = stage.peer.room("11", &stage.bob);
    let foreign = other.message(&stage.bob, "of another room");
    let flood: Vec<Value> = (0..400)
        .map(|i| {
            let draft = stage
                .room
                .draft_message(&stage.mallory, &format!("not asked for {i}"));
            stage.room.forge(draft).json()
        })
        .collect();
    let [hole, after] =
        ["in the hole", "after the hole"].map(|text| stage.room.message(&stage.bob, text));
    let answers = [
        json!({ "events": [] }),
        json!({ "events": [foreign.json(), after.json()] }),
        json!({ "events": [1, null, "x", {}, [], { "room_id": stage.room.id }] }),
        json!({ "events": flood }),
        json!({ "events": "none" }),
        json!([]),
    ];
    for answer in answers {
        stage
            .peer
            .route_to("get_missing_events", Answer::ok(answer));
        stage
            .peer
            .route_to("state_ids", Answer::refused(404, "M_NOT_FOUND"));
        stage
            .is_rejected("an event after a hole that stays", &after)
            .await;
        assert_eq!(stage.seen(&other, &foreign).await, None);
    }
    stage.peer.honest("get_missing_events");
    stage.peer.honest("state_ids");
    stage.is_taken("an event after a filled hole", &after).await;
    let seen = stage.seen(&stage.room, &hole).await;
    assert!(seen.is_some(), "what filled the hole");
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_a_peer_tells_is_not_believed() {
    let mut stage = Stage::new("11").await;
    let mallory = stage.mallory.clone();
    let kind = ("m.room.power_levels", Some(""));
    let levels = json!({ "users": { &mallory: 100 } });
    let grab = stage.room.forge(stage.room.draft(&mallory, kind, levels));
    stage.room.outlier(&grab);
    let by_grab = {
        let draft = stage.room.draft(
            &mallory,
            ("m.room.topic", Some("")),
            json!({ "topic": "mine" }),
        );
        let honest = stage.room.current_of("m.room.power_levels", "").id;
        let auth: Vec<String> = Event::of(draft.object.clone(), "11")
            .ids("auth_events")
            .into_iter()
            .map(|id| if id == honest { grab.id.clone() } else { id })
            .collect();
        let draft = draft.on("auth_events", &auth);
        stage.room.forge(draft.on("prev_events", &[nobodys(7)]))
    };
    let mut before: Vec<Event> = stage.room.current();
    before.retain(|event| event.text("type") != "m.room.power_levels");
    before.push(grab.clone());
    let ends = stage.room.ends();
    stage.room.insert_with_state(&by_grab, &before);
    stage.room.set_ends(std::slice::from_ref(&by_grab.id));
    let after = stage.room.message(&stage.bob, "after it");
    stage.room.set_ends(&ends);
    stage.send(&after).await;
    stage
        .is_rejected("a state event by stolen power", &by_grab)
        .await;
    let asked = stage.peer.asked("state_ids").pop();
    assert_eq!(asked.unwrap().param("event_id"), by_grab.id);
    let path = format!("/rooms/{}/state/m.room.topic/", enc(&stage.room.id));
    assert_eq!(stage.alice.get(&path).await.0, 404, "there is no topic");
    let path = format!("/rooms/{}/state/m.room.power_levels/", enc(&stage.room.id));
    let (_, levels) = stage.alice.get(&path).await;
    assert_eq!(levels["users"].get(&mallory), None, "{levels}");
    stage.goes_on().await;
}

/// Events on the same predecessor, as many as that.
fn bush(stage: &Stage, count: usize, kind: (&str, Option<&str>), sender: &str) -> Vec<Event> {
    let ends = stage.room.ends();
    let twig = |i: usize| {
        let content = json!({ "body": format!("twig {i}"), "msgtype": "m.text", "topic": i });
        let draft = stage.room.draft_on(&ends, sender, kind, content);
        stage.room.forge(draft)
    };
    (0..count).map(twig).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_branches_of_one_event_do_not_stop_a_room() {
    for kind in [("m.room.message", None), ("m.room.topic", Some(""))] {
        let mut stage = Stage::new("11").await;
        let before = stage.server.memory("VmRSS");
        let events = bush(&stage, 500, kind, &stage.bob);
        for fifty in events.chunks(50) {
            let fifty: Vec<&Event> = fifty.iter().collect();
            stage.peer.send(&stage.server, &fifty).await;
        }
        stage.goes_on().await;
        // What we send goes on from a few of them only.
        let said = stage.alice.say(&stage.room.id, "pruned").await;
        stage.peer.hears("pruned").await;
        let said = stage.room.get(&said).unwrap();
        assert!(said.ids("prev_events").len() <= 20);
        let grown = stage.server.memory("VmRSS").saturating_sub(before);
        assert!(grown < 250 << 10, "{kind:?}: {grown} KiB more");
    }
}
