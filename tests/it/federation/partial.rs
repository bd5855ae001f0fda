//! Rooms that are joined without their members, and events that wait for what they lean on.

use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    scripted::{Held, Scripted, event::Event, room::Room, server_and_peer},
    server::{Folder, Server},
    tls::Tls,
    user::User,
};

/// A filter that loads members as they speak.
const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true}}}"#;

struct Scene {
    server: Server,
    peer: Scripted,
    alice: User,
    tls: Tls,
    _folder: Folder,
}

impl Scene {
    async fn new() -> Self {
        let (folder, tls, server, peer) = server_and_peer().await;
        peer.omit_members(true);
        let alice = server.user("alice").await;
        Self {
            server,
            peer,
            alice,
            tls,
            _folder: folder,
        }
    }

    /// Alice joins a room of the peer, which keeps its members to itself until `Held` is dropped.
    async fn join(&self, room: &Room) -> Held {
        let held = self.peer.hold("state_ids");
        self.alice.join_via(&room.id, &self.peer.name).await;
        held
    }

    async fn members(&self, room: &str) -> Vec<String> {
        members(&self.alice, room).await
    }
}

async fn members(user: &User, room: &str) -> Vec<String> {
    let (status, body) = user.get(&format!("/rooms/{}/members", enc(room))).await;
    assert_eq!(status, 200, "{body}");
    let chunk = body["chunk"].as_array().unwrap().iter();
    let joined = chunk.filter(|event| event["content"]["membership"] == "join");
    let mut users: Vec<String> = joined
        .map(|event| event["state_key"].as_str().unwrap().to_owned())
        .collect();
    users.sort();
    users
}

async fn sync(user: &User, filter: &str) -> Value {
    let (status, body) = user.get(&format!("/sync?filter={}", enc(filter))).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn event_status(user: &User, room: &str, event: &Event) -> u16 {
    let path = format!("/rooms/{}/event/{}", enc(room), enc(&event.id));
    user.get(&path).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_used_before_its_members_are_known() {
    let mut scene = Scene::new().await;
    let (bob, carol) = (scene.peer.user("bob"), scene.peer.user("carol"));
    for version in ["1", "10", "12"] {
        let room = scene.peer.room(version, &bob);
        room.member(&carol, "join");
        let held = scene.join(&room).await;

        let said = format!("to the peer {version}");
        scene.alice.say(&room.id, &said).await;
        scene.peer.hears(&said).await;
        let said = format!("of carol {version}");
        let message = room.message(&carol, &said);
        scene.peer.send(&scene.server, &[&message]).await;
        eventually(
            "the message of a member that is not known yet",
            async || {
                let body = sync(&scene.alice, LAZY).await;
                let part = &body["rooms"]["join"][&room.id];
                let events = part["timeline"]["events"].as_array()?;
                events
                    .iter()
                    .find(|event| event["event_id"] == message.id.as_str())?;
                let state = part["state"]["events"].as_array()?.clone();
                state
                    .into_iter()
                    .find(|event| event["state_key"] == carol.as_str())
            },
        )
        .await;
        let body = sync(&scene.alice, "{}").await;
        assert!(
            body["rooms"]["join"].get(&room.id).is_none(),
            "who wants all members is not told of the room yet: {body}"
        );

        drop(held);
        let mut expected = vec![scene.alice.id.clone(), bob.clone(), carol.clone()];
        expected.sort();
        assert_eq!(scene.members(&room.id).await, expected);
        scene.alice.hears(&said).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_a_room_that_lacks_its_members() {
    let mut scene = Scene::new().await;
    let bob = scene.peer.user("bob");
    let room = scene.peer.room("11", &bob);
    let held = scene.join(&room).await;
    scene.peer.is_asked("state_ids", |_| true).await;
    scene.server.kill();
    scene.server.restart().await;
    scene.alice.say(&room.id, "still partial").await;
    scene.peer.hears("still partial").await;
    drop(held);
    let mut expected = vec![scene.alice.id.clone(), bob];
    expected.sort();
    assert_eq!(scene.members(&room.id).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_let_us_in_tells_the_rest_of_the_state() {
    let scene = Scene::new().await;
    let older = Scripted::start(&scene.tls).await;
    let carol = older.user("carol");
    let theirs = older.room("12", &carol);
    scene.alice.join_via(&theirs.id, &older.name).await;
    let bob = scene.peer.user("bob");
    let room = scene.peer.room("12", &bob);
    room.member(&carol, "join");
    drop(scene.join(&room).await);
    assert!(scene.members(&room.id).await.contains(&bob));
    assert!(!scene.peer.asked("state_ids").is_empty());
    assert!(older.asked("state_ids").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_without_the_members_is_judged_again_with_them() {
    let scene = Scene::new().await;
    let user = |name: &str| scene.peer.user(name);
    let (bob, gone, eve) = (user("bob"), user("gone"), user("eve"));
    let room = scene.peer.room("11", &bob);
    let levels = json!({ "users": { &bob: 100, &gone: 100, &eve: 50 } });
    room.state(&bob, "m.room.power_levels", levels);
    let was_in = room.member(&gone, "join");
    room.member(&gone, "leave");
    let eve_in = room.member(&eve, "join");
    let held = scene.join(&room).await;

    // Says that he is in the room, which we cannot know better: he was once.
    let create = room.current_of("m.room.create", "");
    let levels = room.current_of("m.room.power_levels", "");
    let mut claimed = vec![create.id.clone(), levels.id.clone()];
    claimed.extend([was_in.id.clone(), eve_in.id.clone()]);
    let kick = room
        .draft(
            &gone,
            ("m.room.member", Some(&eve)),
            json!({ "membership": "leave" }),
        )
        .on("auth_events", &claimed);
    let kick = room.forge(kick);
    let topic = room
        .draft(
            &eve,
            ("m.room.topic", Some("")),
            json!({ "topic": "of eve" }),
        )
        .on("prev_events", std::slice::from_ref(&kick.id));
    let topic = room.add(topic);
    let end = room.message(&bob, "the end");
    scene.peer.send(&scene.server, &[&kick, &topic, &end]).await;
    eventually("the events to come", async || {
        (event_status(&scene.alice, &room.id, &end).await == 200).then_some(())
    })
    .await;
    assert_eq!(event_status(&scene.alice, &room.id, &kick).await, 200);
    assert_eq!(event_status(&scene.alice, &room.id, &topic).await, 404);

    drop(held);
    assert!(scene.members(&room.id).await.contains(&eve));
    assert_eq!(event_status(&scene.alice, &room.id, &kick).await, 404);
    assert_eq!(event_status(&scene.alice, &room.id, &topic).await, 200);
    let path = format!("/rooms/{}/state/m.room.topic", enc(&room.id));
    assert_eq!(scene.alice.get(&path).await.1["topic"], "of eve");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_lacks_members_lets_nobody_of_other_servers_in() {
    let scene = Scene::new().await;
    let bob = scene.peer.user("bob");
    let room = scene.peer.room("11", &bob);
    let held = scene.join(&room).await;
    let dora = scene.peer.user("dora");
    for verb in ["make_join", "make_knock"] {
        let path = format!(
            "/_matrix/federation/v1/{verb}/{}/{}?ver=11",
            enc(&room.id),
            enc(&dora)
        );
        let (status, body) = scene.peer.call(&scene.server, "GET", &path, None).await;
        assert_eq!(
            (status, &body["errcode"]),
            (404, &json!("M_NOT_FOUND")),
            "{verb}: {body}"
        );
    }
    drop(held);
    scene.members(&room.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_is_not_told_of_members_but_of_servers() {
    let scene = Scene::new().await;
    let mut alice = scene.server.user("anna").await;
    let ours = alice
        .create_room(json!({ "preset": "public_chat", "name": "named" }))
        .await;
    let bob = scene.peer.user("bob");
    let draft = scene.peer.make(&scene.server, "join", &ours, &bob).await;
    let join = draft.sign(&scene.peer.key);
    let path = format!(
        "/_matrix/federation/v2/send_join/{}/{}?omit_members=true",
        enc(&ours),
        enc(&join.id)
    );
    let (status, told) = scene
        .peer
        .call(&scene.server, "PUT", &path, Some(join.json()))
        .await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(told["members_omitted"], true);
    assert_eq!(
        told["servers_in_room"].as_array().map(Vec::len),
        Some(1),
        "{told}"
    );
    let state = told["state"].as_array().unwrap();
    assert!(
        state.iter().all(|event| event["type"] != "m.room.member"),
        "{told}"
    );
    let chain = told["auth_chain"].as_array().unwrap();
    let member = |event: &&Value| event["state_key"] == alice.id.as_str();
    assert!(chain.iter().any(|event| member(&event)), "{told}");
    alice
        .wait_for("the join", |event| event["state_key"] == bob.as_str())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_was_told_we_have_survives_a_power_cut() {
    let mut scene = Scene::new().await;
    scene.peer.omit_members(false);
    let bob = scene.peer.user("bob");
    let room = scene.peer.room("11", &bob);
    scene.alice.join_via(&room.id, &scene.peer.name).await;
    let held = scene.peer.hold("get_missing_events");
    room.message(&bob, "in the hole");
    let after = room.message(&bob, "after the hole");
    let results = scene.peer.send(&scene.server, &[&after]).await;
    assert_eq!(results[&after.id], json!({}), "{results}");
    scene.peer.is_asked("get_missing_events", |_| true).await;
    // The room goes on without the peer that does not answer.
    scene.alice.say(&room.id, "meanwhile").await;
    scene.server.kill();
    scene.server.restart().await;
    drop(held);
    scene.alice.hears("after the hole").await;
    scene.alice.hears("in the hole").await;
}
