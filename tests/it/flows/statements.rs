//! How many statements the paths take that users wait for (docs/performance.md). They do not grow
//! with the rooms of a user.

use serde_json::{Value, json};

use crate::rig::{
    scripted::{Scripted, server_and_peer},
    server::Server,
    user::User,
};

/// A user in that many rooms with somebody else, who said something in each.
async fn with_rooms(server: &Server, name: &str, count: usize) -> (User, User, Vec<String>) {
    let user = server.user(name).await;
    let other = server.user(&format!("{name}-other")).await;
    let mut rooms = Vec::new();
    for _ in 0..count {
        let room = user
            .create_room(json!({ "preset": "public_chat", "name": "room" }))
            .await;
        other.join(&room).await;
        other.say(&room, "hello").await;
        rooms.push(room);
    }
    (user, other, rooms)
}

/// How the routes end, as they are logged.
const CLASSIC: &str = "/v3/sync\"}";
const SLIDING: &str = "/org.matrix.simplified_msc3575/sync\"}";

/// A sliding sync of a list of all rooms: the position and the answer's rooms.
async fn slide(user: &User, pos: Option<&str>) -> (String, Value) {
    let list = json!({
        "ranges": [[0, 99]], "timeline_limit": 5,
        "required_state": [["m.room.name", ""], ["m.room.member", "$LAZY"]],
    });
    let body = json!({
        "lists": { "all": list },
        "extensions": {
            "to_device": { "enabled": true }, "e2ee": { "enabled": true },
            "account_data": { "enabled": true }, "receipts": { "enabled": true },
        },
    });
    let query = pos.map_or_else(String::new, |pos| format!("?pos={pos}"));
    let path = format!("/../unstable/org.matrix.simplified_msc3575/sync{query}");
    let (status, answer) = user.call(reqwest::Method::POST, &path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    (
        answer["pos"].as_str().unwrap().to_owned(),
        answer["rooms"].clone(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_take_as_many_statements_for_many_rooms_as_for_few() {
    let mut server = Server::start().await;
    server.log_statements().await;
    let mut counted = Vec::new();
    // The first of a server that has just started also looks up what it asks for everywhere.
    for (name, count) in [("first", 1), ("few", 3), ("many", 15)] {
        let (mut user, other, rooms) = with_rooms(&server, name, count).await;
        let measured = |before: usize| server.statements(CLASSIC) - before;
        let before = server.statements(CLASSIC);
        let sync = user.sync(0).await;
        assert_eq!(sync["rooms"]["join"].as_object().unwrap().len(), count);
        let first = measured(before);

        let before = server.statements(CLASSIC);
        user.sync(0).await;
        let quiet = measured(before);

        other.say(&rooms[0], "one").await;
        let before = server.statements(CLASSIC);
        user.hears("one").await;
        let one = measured(before);

        for room in &rooms {
            other.say(room, "all").await;
        }
        user.hears("all").await;
        user.sync(0).await;
        let (pos, listed) = slide(&user, None).await;
        assert_eq!(listed.as_object().unwrap().len(), count);
        let before = server.statements(SLIDING);
        let (pos, _) = slide(&user, Some(&pos)).await;
        let nothing = server.statements(SLIDING) - before;
        for room in &rooms {
            other.say(room, "more").await;
        }
        let before = server.statements(SLIDING);
        let (_, told) = slide(&user, Some(&pos)).await;
        assert_eq!(told.as_object().unwrap().len(), count);
        let slid = server.statements(SLIDING) - before;
        counted.push([first, quiet, one, nothing, slid]);
    }
    println!("first, quiet, one message, sliding quiet, sliding all rooms: {counted:?}");
    let [_, few, many] = counted[..] else {
        unreachable!()
    };
    assert_eq!(
        few, many,
        "first, quiet, one message, sliding quiet, all rooms"
    );
    let most = [21, 0, 6, 0, 7];
    let within = many.iter().zip(most).all(|(count, most)| *count <= most);
    assert!(within, "{many:?} of at most {most:?}");
    assert!(many[0] > 0, "nothing was logged");
}

/// A user in that many rooms whose history begins for everybody with their join, each with members of
/// its own and newer state; invited to as many, and gone from as many.
async fn with_closed_rooms(server: &Server, name: &str, count: usize) -> Closed {
    let user = server.user(name).await;
    let (mut others, mut rooms) = (Vec::new(), Vec::new());
    for at in 0..count {
        let other = server.user(&format!("{name}-{at}")).await;
        let visibility = json!({
            "type": "m.room.history_visibility", "state_key": "",
            "content": { "history_visibility": "joined" },
        });
        let options = json!({ "preset": "public_chat", "initial_state": [visibility] });
        let [room, left, invited] = [
            other.create_room(options.clone()).await,
            other.create_room(options.clone()).await,
            other.create_room(options).await,
        ];
        user.join(&room).await;
        user.join(&left).await;
        other.say(&left, "goodbye").await;
        user.post(&format!("/rooms/{left}/leave"), json!({})).await;
        let body = json!({ "user_id": user.id });
        other.post(&format!("/rooms/{invited}/invite"), body).await;
        others.push(other);
        rooms.push(room);
    }
    let closed = Closed {
        user,
        others,
        rooms,
    };
    closed.goes_on().await;
    closed
}

struct Closed {
    user: User,
    others: Vec<User>,
    /// By owner.
    rooms: Vec<String>,
}

impl Closed {
    /// In each room a new topic and a message, and one that is taken back.
    async fn goes_on(&self) {
        for (other, room) in self.others.iter().zip(&self.rooms) {
            let topic = format!("/rooms/{room}/state/m.room.topic");
            other.put(&topic, json!({ "topic": "old" })).await;
            other.put(&topic, json!({ "topic": "new" })).await;
            let said = other.say(room, "never mind").await;
            let redact = format!("/rooms/{room}/redact/{said}/r{said}");
            other.put(&redact, json!({})).await;
            other.say(room, "news").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_syncs_take_as_many_statements_for_many_rooms_as_for_few() {
    let mut server = Server::start().await;
    server.log_statements().await;
    let mut counted = Vec::new();
    for (name, count) in [("few", 2), ("many", 9)] {
        let mut closed = with_closed_rooms(&server, name, count).await;
        let archived = archived(&mut server, &closed, count).await;
        let (first, _) = again(&mut server, &mut closed, CLASSIC, None).await;
        closed.goes_on().await;
        let (next, _) = again(&mut server, &mut closed, CLASSIC, None).await;
        let (slid, pos) = again(&mut server, &mut closed, SLIDING, None).await;
        closed.goes_on().await;
        let (slid_on, _) = again(&mut server, &mut closed, SLIDING, Some(&pos)).await;
        counted.push([archived, first, next, slid, slid_on]);
    }
    println!("archived, first, next, first sliding, next sliding: {counted:?}");
    let what = "archived, first, next, sliding, sliding on";
    assert_eq!(counted[0], counted[1], "{what}");
}

/// Statements of a sync of a server that has just started, and the position of a sliding one.
async fn again(
    server: &mut Server,
    closed: &mut Closed,
    route: &str,
    pos: Option<&str>,
) -> (usize, String) {
    server.kill();
    server.restart().await;
    let before = server.statements(route);
    let count = closed.rooms.len();
    let pos = if route == CLASSIC {
        let sync = closed.user.sync(0).await;
        let joined = sync["rooms"]["join"].as_object().unwrap();
        assert_eq!(joined.len(), count, "{sync}");
        String::new()
    } else {
        let (pos, told) = slide(&closed.user, pos).await;
        assert!(told.as_object().unwrap().len() >= count, "{told}");
        pos
    };
    (server.statements(route) - before, pos)
}

/// Statements of a first sync with the rooms that were left; of each the end of the stay is told.
async fn archived(server: &mut Server, closed: &Closed, count: usize) -> usize {
    server.kill();
    server.restart().await;
    let before = server.statements(CLASSIC);
    let filter = r#"{"room":{"include_leave":true,"timeline":{"limit":20}}}"#;
    let (status, sync) = closed.user.get(&format!("/sync?filter={filter}")).await;
    assert_eq!(status, 200, "{sync}");
    let left = sync["rooms"]["leave"].as_object().unwrap();
    assert_eq!(left.len(), count, "{sync}");
    for part in left.values() {
        let events = part["timeline"]["events"].as_array().unwrap();
        assert_eq!(events.last().unwrap()["content"]["membership"], "leave");
        let bodies = events.iter().map(|event| &event["content"]["body"]);
        assert!(bodies.into_iter().any(|body| body == "goodbye"), "{part}");
    }
    server.statements(CLASSIC) - before
}

/// A room of a peer that a user has joined, whose history forks into branches with topics of their
/// own; who was not there at the time may not see it.
async fn fork(server: &Server, peer: &Scripted, user: &User) {
    let bob = peer.user("bob");
    let room = peer.room("11", &bob);
    let visible = json!({ "history_visibility": "joined" });
    room.state(&bob, "m.room.history_visibility", visible);
    user.join_via(&room.id, &peer.name).await;
    let base = room.ends();
    let mut events = Vec::new();
    for branch in 0..3 {
        let topic = ("m.room.topic", Some(""));
        let draft = room.draft_on(&base, &bob, topic, json!({ "topic": branch.to_string() }));
        let topic = room.add(draft);
        let on = [topic.id.clone()];
        let content = json!({ "msgtype": "m.text", "body": format!("branch {branch}") });
        let draft = room.draft_on(&on, &bob, ("m.room.message", None), content);
        events.extend([topic, room.add(draft)]);
    }
    events.push(room.message(&bob, "joined again"));
    peer.send(server, &events.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_whose_history_forks_are_read_together() {
    let (_folder, _tls, mut server, peer) = server_and_peer().await;
    server.log_statements().await;
    let mut counted = Vec::new();
    for (name, count) in [("few", 2), ("many", 6)] {
        let mut user = server.user(name).await;
        for _ in 0..count {
            fork(&server, &peer, &user).await;
        }
        user.hears("joined again").await;
        user.since = None;
        server.kill();
        server.restart().await;
        let before = server.statements(CLASSIC);
        let sync = user.sync(0).await;
        counted.push(server.statements(CLASSIC) - before);
        let rooms = sync["rooms"]["join"].as_object().unwrap();
        assert_eq!(rooms.len(), count, "{sync}");
        for room in rooms.values() {
            let events = room["timeline"]["events"].as_array().unwrap().iter();
            let said = events.filter_map(|event| event["content"]["body"].as_str());
            assert_eq!(said.count(), 4, "{room}");
        }
    }
    println!("first sync where histories fork: {counted:?}");
    // In which order branches came differs, and with it in how many turns they are read, two
    // statements each; what was read room by room would be eight more at least.
    assert!(counted[1] <= counted[0] + 4, "{counted:?}");
}
