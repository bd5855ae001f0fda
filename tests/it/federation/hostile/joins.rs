//! Answers to our joins that are lies.

use serde_json::{Value, json};

use super::Stage;
use crate::rig::{
    enc, eventually,
    scripted::{
        Answer, Asked,
        event::{Event, canonical},
        room::Room,
    },
};

fn body(answer: Answer) -> Value {
    match answer {
        Answer::Json(200, body) => body,
        other => panic!("not an honest answer: {other:?}"),
    }
}

impl Stage {
    /// A room that nobody of ours is in, with a topic.
    fn other_room(&self, version: &str) -> Room {
        let room = self.peer.room(version, &self.bob);
        room.state(&self.bob, "m.room.topic", json!({ "topic": "honest" }));
        room
    }

    /// Joins a room while the answer to `send_join` is changed by a closure; must not work.
    async fn cannot_join(
        &self,
        (what, room): (&str, &Room),
        lie: impl Fn(&Asked, &mut Value) + Send + Sync + 'static,
    ) {
        // A join that we gave up stays what it is to the peer.
        let ends = room.ends();
        self.peer.route("send_join", move |asked, honest| {
            let mut answer = body(honest);
            lie(asked, &mut answer);
            Answer::ok(answer)
        });
        let (status, answer) = self.alice.try_join_via(&room.id, &self.peer.name).await;
        assert!([403, 502].contains(&status), "{what}: {status} {answer}");
        assert!(self.server.is_well().await, "{what}");
        let (status, _) = self
            .alice
            .get(&format!("/rooms/{}/state", enc(&room.id)))
            .await;
        assert_ne!(status, 200, "{what}: there is a room");
        self.peer.honest("send_join");
        room.set_ends(&ends);
    }

    /// Joins at last, as if nothing had been.
    async fn joins_in_the_end(&mut self, room: &Room) {
        self.alice.join_via(&room.id, &self.peer.name).await;
        let path = format!("/rooms/{}/state/m.room.topic/", enc(&room.id));
        assert_eq!(self.alice.get(&path).await.1["topic"], "honest");
        self.goes_on_in(room).await;
    }
}

/// Changes one of the lists of events of an answer.
fn retain(answer: &mut Value, list: &str, keep: impl Fn(&Value) -> bool) {
    answer[list].as_array_mut().unwrap().retain(keep);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_whose_answer_is_a_lie_fails_and_harms_no_later_one() {
    for version in ["11", "12"] {
        let mut stage = Stage::new(version).await;
        let room = stage.other_room(version);
        let another = stage.other_room(version);
        let foreign: Vec<Value> = another.current().iter().map(Event::json).collect();
        stage
            .cannot_join(("the state of another room", &room), move |_, answer| {
                answer["state"] = json!(foreign);
                answer["auth_chain"] = json!(foreign);
            })
            .await;
        stage
            .cannot_join(("a state without its create event", &room), |_, answer| {
                for list in ["state", "auth_chain"] {
                    retain(answer, list, |event| event["type"] != "m.room.create");
                }
            })
            .await;
        let alice = stage.alice.id.clone();
        let ban = room.draft(
            &stage.bob,
            ("m.room.member", Some(&alice)),
            json!({ "membership": "ban" }),
        );
        let ban = room.forge(ban).json();
        stage
            .cannot_join(("a state with a ban of ours", &room), move |_, answer| {
                answer["state"].as_array_mut().unwrap().push(ban.clone());
            })
            .await;
        stage
            .cannot_join(("no state", &room), |_, answer| {
                answer["state"] = json!([]);
                answer["auth_chain"] = json!([]);
            })
            .await;
        stage
            .cannot_join(("nonsense for a state", &room), |_, answer| {
                answer["state"] = json!([1, null, "x", {}, [[]]]);
                answer["auth_chain"] = json!([{ "type": "m.room.create" }]);
            })
            .await;
        stage
            .cannot_join(("lists that are none", &room), |_, answer| {
                answer["state"] = json!({});
            })
            .await;
        stage
            .cannot_join(("signatures that are wrong", &room), |_, answer| {
                let changed = |event: &mut Value| event["origin_server_ts"] = json!(1);
                for list in ["state", "auth_chain"] {
                    answer[list]
                        .as_array_mut()
                        .unwrap()
                        .iter_mut()
                        .for_each(changed);
                }
            })
            .await;
        stage.joins_in_the_end(&room).await;
        stage.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_of_the_version_that_its_create_event_says() {
    let mut stage = Stage::new("11").await;
    let room = stage.other_room("11");
    for version in ["10", "1", "99"] {
        let said = json!(version);
        stage.peer.route("make_join", move |_, honest| {
            let mut answer = body(honest);
            answer["room_version"] = said.clone();
            Answer::ok(answer)
        });
        let (status, answer) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
        assert!((400..=502).contains(&status), "{version}: {answer}");
        assert_ne!(status, 500, "{version}: {answer}");
        stage.peer.honest("make_join");
    }
    stage.joins_in_the_end(&room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_is_a_trap_is_not_signed() {
    let mut stage = Stage::new("11").await;
    let room = stage.other_room("11");
    let carol = stage.server.user("carol").await.id;
    let carol = &carol;
    for (what, field, value) in [
        ("another type", "type", json!("m.room.power_levels")),
        ("another sender", "sender", json!(carol)),
        ("another state key", "state_key", json!(carol)),
        ("another room", "room_id", json!(stage.room.id)),
        ("a ban", "content", json!({ "membership": "ban" })),
        ("no object", "content", json!("join")),
        (
            "too many predecessors",
            "prev_events",
            json!(vec!["$a"; 10_000]),
        ),
        (
            "too many auth events",
            "auth_events",
            json!(vec!["$a"; 10_000]),
        ),
        ("a depth below the first", "depth", json!(-5)),
        ("a large field", "x", json!("x".repeat(70_000))),
    ] {
        let asked = stage.peer.asked("send_join").len();
        stage.peer.route("make_join", move |_, honest| {
            let mut answer = body(honest);
            answer["event"][field] = value.clone();
            Answer::ok(answer)
        });
        let (status, answer) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
        assert!(
            [400, 403, 502].contains(&status),
            "{what}: {status} {answer}"
        );
        assert_eq!(
            stage.peer.asked("send_join").len(),
            asked,
            "{what} was signed"
        );
    }
    // Content of its own is left out of what we sign.
    stage.peer.route("make_join", |_, honest| {
        let mut answer = body(honest);
        answer["event"]["content"]["displayname"] = json!("A fool");
        Answer::ok(answer)
    });
    stage.joins_in_the_end(&room).await;
    let asked = stage.peer.asked("send_join").pop().unwrap();
    assert_ne!(asked.body["content"]["displayname"], "A fool");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_join_is_ours_whatever_comes_back() {
    let mut stage = Stage::new("11").await;
    let peer_key = stage.peer.key.clone();
    for lie in ["content", "sender", "nonsense", "none"] {
        let room = stage.other_room("11");
        let key = peer_key.clone();
        stage.peer.route("send_join", move |asked, honest| {
            let mut answer = body(honest);
            let event = &mut answer["event"];
            match lie {
                "content" => event["content"]["displayname"] = json!("A fool"),
                "sender" => event["sender"] = json!("@fool:localhost:1"),
                "nonsense" => *event = json!([1]),
                _ => *event = Value::Null,
            }
            if lie == "content" {
                let mut signed = canonical(event.clone());
                ruma::signatures::add_content_hash_to_event(&mut signed).unwrap();
                key.sign_event(&mut signed, "11");
                *event = json!(signed);
                assert_eq!(asked.method, "PUT");
            }
            Answer::ok(answer)
        });
        let (status, answer) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
        stage.peer.honest("send_join");
        if status != 200 {
            assert!([403, 502].contains(&status), "{lie}: {status} {answer}");
            continue;
        }
        let kind = format!("m.room.member/{}", enc(&stage.alice.id));
        let path = format!("/rooms/{}/state/{kind}", enc(&room.id));
        let (_, member) = stage.alice.get(&path).await;
        assert_eq!(member["membership"], "join", "{lie}: {member}");
        assert_ne!(member["displayname"], "A fool", "{lie}");
        stage.goes_on_in(&room).await;
    }
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_auth_chain_does_not_bear_is_not_in_a_room() {
    let mut stage = Stage::new("11").await;
    let room = stage.other_room("11");
    // A second generation of power levels: the first is in the auth chain only.
    let levels = json!({ "users": { &stage.bob: 100 }, "state_default": 60 });
    room.state(&stage.bob, "m.room.power_levels", levels);
    let levels = room.current_of("m.room.power_levels", "").id;
    stage.peer.route("send_join", move |_, honest| {
        let mut answer = body(honest);
        answer["auth_chain"] = json!([]);
        Answer::ok(answer)
    });
    let (status, answer) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
    assert!([200, 403, 502].contains(&status), "{status} {answer}");
    if status == 200 {
        // Without its auth events it cannot be believed, and must not count.
        let path = format!("/rooms/{}/event/{}", enc(&room.id), enc(&levels));
        assert_ne!(stage.alice.get(&path).await.0, 200);
    }
    stage.peer.honest("send_join");
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_and_circles_in_a_state_do_not_stop_a_server() {
    let mut stage = Stage::new("1").await;
    let room = stage.other_room("1");
    let id = |name: &str| format!("${name}:{}", stage.peer.name);
    let member = |name: &str, by: &str| {
        let user = stage.peer.user(name);
        let draft = room.draft(
            &user,
            ("m.room.member", Some(&user)),
            json!({ "membership": "join" }),
        );
        let mut auth = Event::of(draft.object.clone(), "1").ids("auth_events");
        auth.push(id(by));
        room.forge(
            draft
                .with("event_id", json!(id(name)))
                .on("auth_events", &auth),
        )
        .json()
    };
    let circle = [member("a", "b"), member("b", "a"), member("c", "c")];
    let before = stage.server.memory("VmHWM");
    stage.peer.route("send_join", move |_, honest| {
        let mut answer = body(honest);
        for list in ["state", "auth_chain"] {
            let list = answer[list].as_array_mut().unwrap();
            list.extend(circle.clone());
            list.extend((0..100_000).map(|i| json!({ "junk": i, "type": "m.room.member" })));
            let again: Vec<Value> = list[..5].to_vec();
            list.extend(again.iter().cycle().take(1_000).cloned());
        }
        Answer::ok(answer)
    });
    let joined = async {
        stage.alice.join_via(&room.id, &stage.peer.name).await;
    };
    let others = async {
        stage
            .peer
            .is_asked("send_join", |asked| asked.args[0] == room.id)
            .await;
        eventually("health while junk is read", async || {
            stage.server.is_well().await.then_some(())
        })
        .await;
    };
    tokio::join!(joined, others);
    let grown = stage.server.memory("VmHWM").saturating_sub(before);
    assert!(grown < 200 << 10, "{grown} KiB more");
    stage.peer.honest("send_join");
    let path = format!("/rooms/{}/joined_members", enc(&room.id));
    let (_, members) = stage.alice.get(&path).await;
    let joined = members["joined"].as_object().unwrap();
    assert_eq!(joined.len(), 2, "alice and bob: {members}");
    stage.goes_on_in(&room).await;
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_servers_that_cannot_help_ends() {
    let mut stage = Stage::new("11").await;
    let room = stage.other_room("11");
    for (status, errcode) in [
        (500, "M_UNKNOWN"),
        (404, "M_NOT_FOUND"),
        (403, "M_FORBIDDEN"),
        (302, "M_UNKNOWN"),
        (200, "M_UNKNOWN"),
    ] {
        for route in ["make_join", "send_join"] {
            stage.peer.route_to(route, Answer::refused(status, errcode));
            let (got, answer) = stage.alice.try_join_via(&room.id, &stage.peer.name).await;
            assert!([403, 404, 502].contains(&got), "{status}: {got} {answer}");
            stage.peer.honest(route);
            // It is not asked for a while after an error of its own, until it speaks to us.
            stage.goes_on().await;
        }
    }
    stage.joins_in_the_end(&room).await;
}
