//! Three servers whose links break and heal while everybody changes the rooms: in the end all have
//! the same state.
//!
//! `AMTSBOTE_SEEDS`: how many stories are told (`./dev soak` tells many). `AMTSBOTE_SEED`: the first.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    links::Links,
    server::{Folder, Server},
    tls::Tls,
    user::User,
    within_patience,
};

const SERVERS: usize = 3;
const STEPS: usize = 40;

struct World {
    links: Links,
    /// Two a server; the server of user `i` is `i % SERVERS`.
    users: Vec<User>,
    random: StdRng,
    /// What was done, for whoever reads about a failure.
    story: Vec<String>,
}

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_were_apart_agree_in_the_end() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let links = Links::start(&tls, SERVERS).await;
    let mut users = Vec::new();
    for i in 0..SERVERS * 2 {
        users.push(links.servers[i % SERVERS].user(&format!("user{i}")).await);
    }
    let mut world = World {
        links,
        users,
        random: StdRng::seed_from_u64(0),
        story: Vec::new(),
    };
    let first = number("AMTSBOTE_SEED", 1);
    for seed in first..first + number("AMTSBOTE_SEEDS", 3) {
        world.random = StdRng::seed_from_u64(seed);
        world.story = vec![format!("seed {seed}")];
        let rooms = [world.room(seed, 0).await, world.room(seed, 1).await];
        for _ in 0..STEPS {
            world.step(&rooms).await;
        }
        world.links.open_all();
        for room in &rooms {
            world.agree(room).await;
        }
    }
}

impl World {
    fn pick(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    /// A public room that everybody is in, some with power.
    async fn room(&mut self, seed: u64, number: usize) -> String {
        let creator = self.pick(self.users.len());
        let version = ["10", "11", "12"][self.pick(3)];
        let mut levels = serde_json::Map::new();
        for (i, user) in self.users.iter().enumerate() {
            let level = [100, 100, 50, 50, 0, 0][(i + usize::try_from(seed).unwrap()) % 6];
            levels.insert(user.id.clone(), json!(level));
        }
        if version == "12" {
            levels.remove(&self.users[creator].id);
        } else {
            levels.insert(self.users[creator].id.clone(), json!(100));
        }
        let room = self.users[creator]
            .create_room(json!({
                "preset": "public_chat",
                "room_version": version,
                "power_level_content_override": { "users": levels },
            }))
            .await;
        let via = &self.links.servers[creator % SERVERS].name;
        for (i, user) in self.users.iter().enumerate() {
            if i != creator {
                // A link that has healed just now is left alone for a moment.
                eventually("the join", async || {
                    let (status, _) = user.try_join_via(&room, via).await;
                    (status == 200).then_some(())
                })
                .await;
            }
        }
        self.story.push(format!(
            "room {number} {room} of version {version} by {creator}"
        ));
        room
    }

    /// Somebody does something, or a link changes.
    async fn step(&mut self, rooms: &[String]) {
        let room = self.pick(rooms.len());
        let who = self.pick(self.users.len());
        let whom = self.pick(self.users.len());
        let number = self.story.len();
        let base = format!("/rooms/{}", enc(&rooms[room]));
        let target = json!({ "user_id": self.users[whom].id });
        let (method, path, body) = match self.pick(20) {
            0..3 => {
                let text = json!({ "msgtype": "m.text", "body": format!("step {number}") });
                let path = format!("send/m.room.message/step{number}");
                ("PUT", path, text)
            }
            3..5 => {
                let topic = json!({ "topic": format!("step {number}") });
                ("PUT", "state/m.room.topic/".to_owned(), topic)
            }
            5 => {
                let name = json!({ "name": format!("step {number}") });
                ("PUT", "state/m.room.name/".to_owned(), name)
            }
            6..9 => {
                let path = format!("{base}/state/m.room.power_levels/");
                let (_, mut levels) = self.users[who].get(&path).await;
                let level = [0, 25, 50, 75, 100][self.pick(5)];
                levels["users"][&self.users[whom].id] = json!(level);
                ("PUT", "state/m.room.power_levels/".to_owned(), levels)
            }
            9 => ("POST", "ban".to_owned(), target),
            10 => ("POST", "kick".to_owned(), target),
            11 => ("POST", "unban".to_owned(), target),
            12 => ("POST", "leave".to_owned(), json!({})),
            13..15 => {
                let other = self.pick_other(who);
                let via = &self.links.servers[other].name;
                ("POST", format!("join?via={}", enc(via)), json!({}))
            }
            change => return self.change_links(change).await,
        };
        self.story.push(format!("{who} in {room}: {path} {body}"));
        let path = format!("{base}/{path}");
        let method = method.parse().unwrap();
        let (status, answer) = self.users[who].call(method, &path, Some(body)).await;
        assert_ne!(status, 500, "{answer}\n{}", self.story.join("\n"));
        self.story.push(format!("  {status}"));
    }

    /// A server that a user is not of.
    fn pick_other(&mut self, user: usize) -> usize {
        (user + 1 + self.pick(SERVERS - 1)) % SERVERS
    }

    async fn change_links(&mut self, change: usize) {
        let from = self.pick(SERVERS);
        let to = self.pick_other(from);
        match change {
            15 => {
                self.links.set(from, to, false);
                self.story.push(format!("cut {from} to {to}"));
            }
            16 => {
                for other in (0..SERVERS).filter(|other| *other != from) {
                    self.links.set(from, other, false);
                    self.links.set(other, from, false);
                }
                self.story.push(format!("{from} is alone"));
            }
            17 => {
                self.links.set(from, to, true);
                self.links.set(to, from, true);
                self.story.push(format!("healed {from} and {to}"));
            }
            18 => {
                self.links.open_all();
                self.story.push("healed all".to_owned());
            }
            // A restart takes seconds: now and then.
            _ if self.pick(4) == 0 => {
                self.story.push(format!("killed {from}"));
                self.links.kill_and_restart(from).await;
            }
            _ => {}
        }
    }

    /// Everybody who can says something until all servers have the same state.
    async fn agree(&self, room: &str) {
        let mut attempts = 0;
        let mut states = Vec::new();
        let agreed = within_patience(async || {
            states.clear();
            for server in 0..SERVERS {
                states.push(self.state(room, server).await);
            }
            if same(&states) {
                return Some(());
            }
            if attempts % 10 == 0 {
                for (speaker, _) in states.iter().flatten() {
                    let path = format!("/rooms/{}/send/m.room.message/h{attempts}", enc(room));
                    let text = json!({ "msgtype": "m.text", "body": "are you there?" });
                    let (answered, body) = speaker.put(&path, text).await;
                    assert_ne!(answered, 500, "{body}");
                }
            }
            attempts += 1;
            None
        })
        .await
        .is_some();
        let shown: Vec<_> = states
            .iter()
            .map(|state| state.as_ref().map(|(_, s)| s))
            .collect();
        let logs: Vec<String> = self.links.servers.iter().map(Server::log).collect();
        assert!(
            agreed,
            "no agreement in {room}:\n{shown:#?}\n{}\n{}",
            self.story.join("\n"),
            logs.join("\n--\n")
        );
        for log in logs {
            assert!(!log.contains("panic"), "{log}\n{}", self.story.join("\n"));
        }
    }

    /// Event ids by type and state key as a server has them, and a user of its who is in the room.
    async fn state(&self, room: &str, server: usize) -> Option<(&User, State)> {
        for user in self.users.iter().skip(server).step_by(SERVERS) {
            let (status, body) = user.get(&format!("/rooms/{}/state", enc(room))).await;
            if status != 200 {
                continue;
            }
            let state: State = body
                .as_array()
                .unwrap()
                .iter()
                .map(|event| {
                    let text = |key: &str| event[key].as_str().unwrap().to_owned();
                    let membership = event["content"]["membership"].clone();
                    let key = (text("type"), text("state_key"));
                    (key, (text("event_id"), membership))
                })
                .collect();
            if is_joined(&state, &user.id) {
                return Some((user, state));
            }
        }
        None
    }
}

type State = BTreeMap<(String, String), (String, Value)>;

fn is_joined(state: &State, user: &str) -> bool {
    let key = ("m.room.member".to_owned(), user.to_owned());
    state
        .get(&key)
        .is_some_and(|(_, membership)| membership == "join")
}

/// Whether all who are in the room have the same state, and nobody else is in it by that.
fn same(states: &[Option<(&User, State)>]) -> bool {
    let Some((_, one)) = states.iter().flatten().next() else {
        return true;
    };
    let inside: Vec<&str> = states
        .iter()
        .flatten()
        .filter_map(|(user, _)| Some(user.id.split_once(':')?.1))
        .collect();
    let mut members = one.iter().filter(|((kind, _), _)| kind == "m.room.member");
    states.iter().flatten().all(|(_, state)| state == one)
        && members.all(|((_, user), (_, membership))| {
            let server = user.split_once(':').map_or("", |(_, server)| server);
            membership != "join" || inside.contains(&server)
        })
}
