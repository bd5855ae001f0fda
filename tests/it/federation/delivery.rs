//! What peers are owed reaches them: in order, after outages, and no more than they need.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    operator::Operator,
    scripted::{Answer, Scripted, room::Room, server_and_peer},
    server::{Folder, Server},
    user::User,
};

/// More events than a peer that was away is sent one by one.
const MANY: usize = 205;

struct Scene {
    server: Server,
    peer: Scripted,
    alice: User,
    rooms: Vec<Room>,
    _folder: Folder,
}

impl Scene {
    /// Alice is in some rooms of a peer.
    async fn new(rooms: usize) -> Self {
        let (folder, _, server, peer) = server_and_peer().await;
        let alice = server.user("alice").await;
        let bob = peer.user("bob");
        let rooms: Vec<Room> = (0..rooms).map(|_| peer.room("11", &bob)).collect();
        for room in &rooms {
            alice.join_via(&room.id, &peer.name).await;
        }
        alice.say(&rooms[0].id, "hello").await;
        peer.hears("hello").await;
        Self {
            server,
            peer,
            alice,
            rooms,
            _folder: folder,
        }
    }

    /// The peer takes no transaction any more; waits until that was noticed.
    async fn outage(&self) {
        let before = self.peer.asked("send").len();
        self.peer
            .route_to("send", Answer::refused(503, "M_UNKNOWN"));
        self.alice.say(&self.rooms[0].id, "nobody hears").await;
        eventually("a transaction that is refused", async || {
            (self.peer.asked("send").len() > before).then_some(())
        })
        .await;
    }

    async fn destination(&self, operator: &Operator) -> Value {
        let path = format!("/v1/federation/destinations/{}", enc(&self.peer.name));
        operator.get(&path).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_away_for_little_gets_every_event_in_order() {
    let scene = Scene::new(1).await;
    scene.outage().await;
    let texts: Vec<String> = (0..60).map(|n| format!("message {n}")).collect();
    for text in &texts {
        scene.alice.say(&scene.rooms[0].id, text).await;
    }
    scene.peer.honest("send");
    let skip = scene.peer.asked("send").len();
    scene.peer.hears("message 59").await;
    let heard = scene.peer.heard(skip);
    let heard: Vec<&String> = heard
        .iter()
        .filter(|text| *text != "nobody hears")
        .collect();
    assert_eq!(heard, texts.iter().collect::<Vec<_>>());
    for asked in scene.peer.asked("send") {
        assert!(asked.body["pdus"].as_array().unwrap().len() <= 50);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_missed_much_gets_the_newest_of_each_room_even_after_a_restart() {
    let mut scene = Scene::new(2).await;
    scene.outage().await;
    scene.alice.say(&scene.rooms[1].id, "elsewhere").await;
    for n in 0..MANY {
        scene
            .alice
            .say(&scene.rooms[0].id, &format!("message {n}"))
            .await;
    }
    scene.server.kill();
    let skip = scene.peer.asked("send").len();
    scene.server.restart().await;
    // Whoever speaks is tried at once.
    scene.peer.honest("send");
    let newest = format!("message {}", MANY - 1);
    scene.peer.hears(&newest).await;
    scene.peer.hears("elsewhere").await;
    let heard = scene.peer.heard(skip);
    for old in ["message 0", "message 100"] {
        assert!(!heard.contains(&old.to_owned()), "{heard:?}");
    }
    scene.alice.say(&scene.rooms[0].id, "and on").await;
    scene.peer.hears("and on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_who_is_not_reached_and_why_and_try_again() {
    let scene = Scene::new(1).await;
    let operator = Operator::of(&scene.server).await;
    let well = scene.destination(&operator).await;
    assert_eq!(well["failure_ts"], Value::Null, "{well}");
    assert_eq!(well["retry_interval"], 0, "{well}");
    scene.outage().await;
    let failing = eventually("a failure", async || {
        let found = scene.destination(&operator).await;
        found["failure_ts"].is_i64().then_some(found)
    })
    .await;
    assert!(failing["retry_interval"].as_i64().unwrap() > 0, "{failing}");
    assert!(failing["retry_last_ts"].as_i64().unwrap() > 0, "{failing}");
    let why = failing["last_error"].as_str().unwrap();
    assert!(why.contains("503"), "{failing}");
    let list = operator
        .get("/v1/federation/destinations?failing=true")
        .await;
    assert_eq!(list["total"], 1, "{list}");
    assert_eq!(list["destinations"][0]["destination"], *scene.peer.name);

    let path = format!("/v1/federation/destinations/{}", enc(&scene.peer.name));
    let rooms = operator.get(&format!("{path}/rooms")).await;
    assert_eq!(rooms["rooms"][0]["room_id"], *scene.rooms[0].id, "{rooms}");
    scene.peer.honest("send");
    let reset = format!("{path}/reset_connection");
    let (status, body) = operator.ask(Method::POST, &reset, Some(json!({}))).await;
    assert_eq!(status, 200, "{body}");
    scene.peer.hears("nobody hears").await;
    eventually("a peer that is well", async || {
        let found = scene.destination(&operator).await;
        found["failure_ts"].is_null().then_some(())
    })
    .await;
    let (status, body) = operator.ask(Method::POST, &reset, Some(json!({}))).await;
    assert_eq!(
        (status, &body["errcode"]),
        (400, &json!("M_UNKNOWN")),
        "{body}"
    );
    let unknown = "/v1/federation/destinations/nobody.example";
    let (status, body) = operator.ask(Method::GET, unknown, None).await;
    assert_eq!(
        (status, &body["errcode"]),
        (404, &json!("M_NOT_FOUND")),
        "{body}"
    );
}
