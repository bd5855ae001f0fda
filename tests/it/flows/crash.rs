//! Power cuts in the middle of a run of sends: what was acknowledged is there, exactly once.

use std::collections::HashSet;

use serde_json::json;

use crate::rig::{
    enc,
    http::{self, Ask as _},
    server::Server,
    user::User,
};

/// Sends until `stop` says so; event ids of what was acknowledged, by text.
async fn send_until_it_breaks(user: &User, room: &str, run: &str) -> Vec<(String, String)> {
    let http = http::client();
    let mut acknowledged = Vec::new();
    for i in 0..100_000 {
        let text = format!("{run} {i}");
        let path = format!("/rooms/{}/send/m.room.message/{run}{i}", enc(room));
        let body = json!({ "msgtype": "m.text", "body": text }).to_string();
        let request = http
            .put(user.url(&path))
            .bearer_auth(&user.token)
            .body(body);
        let Ok(answer) = request.ask().await else {
            break;
        };
        if answer.status() != 200 {
            break;
        }
        let Ok(body) = answer.json::<serde_json::Value>().await else {
            break;
        };
        acknowledged.push((text, body["event_id"].as_str().unwrap().to_owned()));
    }
    acknowledged
}

/// Every acknowledged event is in the history, once; nothing is there twice.
async fn assert_kept(user: &User, room: &str, acknowledged: &[(String, String)]) {
    assert!(!acknowledged.is_empty());
    let history = user.history(room).await;
    let unique: HashSet<&String> = history.iter().collect();
    assert_eq!(unique.len(), history.len(), "something is there twice");
    for (text, _) in acknowledged {
        assert!(unique.contains(text), "{text} was acknowledged and is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_events_survive_a_killed_server() {
    let mut server = Server::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut all = Vec::new();
    for run in ["first", "second"] {
        let sending = send_until_it_breaks(&alice, &room, run);
        let killing = async {
            // The run is under way once something of it can be read.
            crate::rig::eventually("the run to begin", async || {
                let history = alice.history(&room).await;
                history
                    .iter()
                    .any(|text| text.starts_with(run))
                    .then_some(())
            })
            .await;
            server.kill();
        };
        let (acknowledged, ()) = tokio::join!(sending, killing);
        server.restart().await;
        // The same transaction again gives the same event, however the first try ended.
        let (text, id) = acknowledged.last().unwrap().clone();
        let number = text.rsplit(' ').next().unwrap();
        let path = format!("/rooms/{}/send/m.room.message/{run}{number}", enc(&room));
        let (status, body) = alice
            .put(&path, json!({ "msgtype": "m.text", "body": text }))
            .await;
        assert_eq!(
            (status, body["event_id"].as_str()),
            (200, Some(id.as_str()))
        );
        all.extend(acknowledged);
    }
    assert_kept(&alice, &room, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_events_survive_a_killed_database() {
    let mut server = Server::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let sending = send_until_it_breaks(&alice, &room, "run");
    let killing = async {
        crate::rig::eventually("the run to begin", async || {
            (alice.history(&room).await.len() > 5).then_some(())
        })
        .await;
        server.kill_database();
    };
    let (acknowledged, ()) = tokio::join!(sending, killing);
    // Without its database the server ends; whoever supervises it starts it anew.
    server.ended().await;
    server.restart().await;
    assert_kept(&alice, &room, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_ends_in_good_order() {
    let mut server = Server::start().await;
    let mut alice = server.user("alice").await;
    alice.sync(0).await;
    let room = alice.create_room(json!({})).await;
    alice.say(&room, "before").await;
    server.stop();
    // An operator who reads of a problem looks for one, and that the database ends then is none.
    let log = server.log();
    for problem in ["does nothing of it for now", "PostgreSQL has ended"] {
        assert!(!log.contains(problem), "{log}");
    }
    server.restart().await;
    assert_eq!(alice.history(&room).await, ["before"]);
}
