//! Answers without end, in size or in time.

use serde_json::{Value, json};

use super::Stage;
use crate::rig::{enc, eventually, scripted::Answer};

/// What the memory may grow by at most while one answer is read: the largest answer that is
/// allowed, and a copy of it while the buffer grows.
const GROWTH_MAX_KIB: u64 = 700 << 10;

/// Beginning of the answer to a route, and what follows without end.
fn endless(begin: &str, item: &str) -> Answer {
    let times = (1 << 20) / item.len();
    Answer::Endless(begin.to_owned(), item.repeat(times))
}

impl Stage {
    pub(super) fn assert_bounded(&self, what: &str, before: u64, bound: u64) {
        let grown = self.server.memory("VmHWM").saturating_sub(before);
        assert!(grown < bound, "{what}: {grown} KiB more");
    }

    /// Sends an event that has us ask for what is missing before it, and when that came, for the
    /// state before what came: what is before that has nobody. Waits until we are done with it.
    async fn sends_after_a_hole(&self) {
        let ends = self.room.ends();
        let nobodys = [format!("${}", "A".repeat(43))];
        let before = self.room.current();
        let draft = self.room.draft_message(&self.bob, "in the hole");
        let hole = self.room.forge(draft.on("prev_events", &nobodys));
        self.room.insert_with_state(&hole, &before);
        self.room.set_ends(std::slice::from_ref(&hole.id));
        let event = self.room.message(&self.bob, "after the hole");
        self.room.set_ends(&ends);
        self.send(&event).await;
        self.settles().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_to_a_join_is_broken_off() {
    let mut stage = Stage::new("11").await;
    let room = stage.peer.room("11", &stage.bob);
    for (route, begin, item) in [
        ("make_join", "{\"event\":{\"x\":\"", "x"),
        ("send_join", "{\"state\":[", " "),
        (
            "send_join",
            "{\"state\":[",
            "{\"type\":\"m.room.member\",\"content\":{}},",
        ),
    ] {
        let before = stage.server.memory("VmHWM");
        stage.peer.route_to(route, endless(begin, item));
        let (status, body) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
        assert_eq!(status, 502, "{route}: {body}");
        stage.assert_bounded(route, before, GROWTH_MAX_KIB);
        stage.peer.honest(route);
        stage.goes_on().await;
    }
    stage.alice.join_via(&room.id, &stage.peer.name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_answers_about_history_are_broken_off() {
    let mut stage = Stage::new("11").await;
    for (route, begin, item) in [
        ("get_missing_events", "{\"events\":[", "{\"type\":\"x\"},"),
        ("state_ids", "{\"pdu_ids\":[", "\"$x\","),
        ("event_auth", "{\"auth_chain\":[", "{\"type\":\"x\"},"),
        ("backfill", "{\"pdus\":[", "{\"type\":\"x\"},"),
        ("event", "{\"pdus\":[", "{\"type\":\"x\"},"),
        ("state", "{\"pdus\":[", "{\"type\":\"x\"},"),
    ] {
        let before = stage.server.memory("VmHWM");
        let streamed = stage.peer.streamed();
        stage.peer.route_to(route, endless(begin, item));
        match route {
            "backfill" => {
                let room = stage.peer.room("11", &stage.bob);
                room.message(&stage.bob, "old");
                stage.alice.join_via(&room.id, &stage.peer.name).await;
                stage.alice.history(&room.id).await;
            }
            "event" | "state" => {
                // A state that is not ours: few of its events are asked for alone, more at once.
                let count = if route == "event" { 5 } else { 50 };
                let ids: Vec<String> = (0..count).map(|i| format!("${i:0>43}")).collect();
                let ids = json!({ "pdu_ids": ids, "auth_chain_ids": [] });
                stage.peer.route_to("state_ids", Answer::ok(ids));
                stage.sends_after_a_hole().await;
                stage.peer.honest("state_ids");
            }
            "event_auth" => {
                let unknown = [format!("${}", "A".repeat(43))];
                let draft = stage.room.draft_message(&stage.mallory, "x");
                let event = stage.room.forge(draft.on("auth_events", &unknown));
                stage.is_rejected("an event by nobody", &event).await;
            }
            _ => stage.sends_after_a_hole().await,
        }
        assert!(stage.peer.streamed() > streamed, "{route} was not asked");
        stage.assert_bounded(route, before, GROWTH_MAX_KIB);
        stage.peer.honest(route);
        stage.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_at_the_same_time_share_a_bound() {
    let stage = Stage::new("11").await;
    let before = stage.server.memory("VmHWM");
    stage
        .peer
        .route_to("send_join", endless("{\"state\":[", " "));
    let rooms: Vec<_> = (0..8).map(|_| stage.peer.room("11", &stage.bob)).collect();
    let joins = rooms
        .iter()
        .map(|room| async { stage.alice.try_join_via(&room.id, &stage.peer.name).await });
    for (status, body) in futures_util::future::join_all(joins).await {
        assert!(status >= 400, "{body}");
    }
    stage.assert_bounded("eight joins", before, 2 * GROWTH_MAX_KIB);
    assert!(stage.server.is_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_things_in_an_answer_do_not_grow_in_memory() {
    let mut stage = Stage::new("11").await;
    let room = stage.peer.room("11", &stage.bob);
    // Tens of millions of numbers where events should be: each is little on the wire.
    let before = stage.server.memory("VmHWM");
    let zeros = "0,".repeat(20_000_000);
    stage.peer.route_to(
        "send_join",
        Answer::Text(format!("{{\"state\":[{zeros}0],\"auth_chain\":[]}}")),
    );
    let (status, body) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
    assert_eq!(status, 502, "{body}");
    stage.assert_bounded("forty megabytes of zeros", before, 400 << 10);
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_gets_no_answer_stops_nobody_else() {
    let mut stage = Stage::new("11").await;
    let other = stage.peer.room("11", &stage.bob);
    stage.alice.join_via(&other.id, &stage.peer.name).await;

    let third = stage.peer.room("11", &stage.bob);
    for route in ["make_join", "send_join"] {
        let held = stage.peer.hold(route);
        let (alice, peer) = (stage.alice.again(), stage.peer.name.clone());
        let id = third.id.clone();
        let count = stage.peer.asked(route).len();
        let join = tokio::spawn(async move { alice.try_join_via(&id, &peer).await });
        eventually("the held request", async || {
            (stage.peer.asked(route).len() > count).then_some(())
        })
        .await;
        stage.goes_on().await;
        stage.goes_on_in(&other).await;
        drop(held);
        let (status, body) = join.await.unwrap();
        assert_eq!(status, 200, "{route}: {body}");
        let (status, _) = stage
            .alice
            .post(&format!("/rooms/{}/leave", enc(&third.id)), json!({}))
            .await;
        assert_eq!(status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_gets_no_answer_stops_nobody_else() {
    let mut stage = Stage::new("11").await;
    let other = stage.peer.room("11", &stage.bob);
    stage.alice.join_via(&other.id, &stage.peer.name).await;
    for route in ["get_missing_events", "state_ids", "event_auth"] {
        let held = stage.peer.hold(route);
        let unknown = [format!("${}", "A".repeat(43))];
        let ends = stage.room.ends();
        let draft = stage
            .room
            .draft_message(&stage.mallory, "leads to a question");
        let event = if route == "event_auth" {
            stage.room.forge(draft.on("auth_events", &unknown))
        } else {
            // One follows on it that is sent, so that it is asked for, and the state before it.
            let hole = stage.room.forge(draft.on("prev_events", &unknown));
            stage.room.insert(&hole);
            stage.room.set_ends(std::slice::from_ref(&hole.id));
            let event = stage.room.message(&stage.bob, "follows");
            stage.room.set_ends(&ends);
            event
        };
        let pdus: Vec<Value> = vec![event.json()];
        let sending = async {
            stage
                .peer
                .transaction(&stage.server, &format!("held {route}"), (&pdus, &[]))
                .await
        };
        let going_on = async {
            stage.peer.is_asked(route, |_| true).await;
            // Other events of the same peer, in the same room and in others.
            let said = stage.room.message(&stage.bob, &format!("beside {route}"));
            let results = stage.peer.send(&stage.server, &[&said]).await;
            assert_eq!(results[&said.id], json!({}), "{results}");
            let said = other.message(&stage.bob, &format!("elsewhere, {route}"));
            let results = stage.peer.send(&stage.server, &[&said]).await;
            assert_eq!(results[&said.id], json!({}), "{results}");
            stage
                .alice
                .say(&stage.room.id, &format!("alice, {route}"))
                .await;
            stage.peer.hears(&format!("alice, {route}")).await;
            drop(held);
        };
        let ((status, body), ()) = tokio::join!(sending, going_on);
        assert_eq!(status, 200, "{body}");
        stage.alice.hears(&format!("beside {route}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_gets_no_answer_stops_nobody_else() {
    let mut stage = Stage::new("11").await;
    // What we owe a peer that does not answer waits; others and our own users do not.
    let held = stage.peer.hold("send");
    let count = stage.peer.asked("send").len();
    stage.alice.say(&stage.room.id, "held").await;
    eventually("the held transaction", async || {
        (stage.peer.asked("send").len() > count).then_some(())
    })
    .await;
    let event = stage.room.message(&stage.bob, "meanwhile");
    stage.peer.send(&stage.server, &[&event]).await;
    stage.alice.hears("meanwhile").await;
    drop(held);
    stage.peer.hears("held").await;
    stage.goes_on().await;
}
