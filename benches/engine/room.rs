//! Rooms made up for benchmarks: members, and branches on which things happen at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use amtsbote::{
    event::{auth, keys::SigningKeys, pdu::Pdu, version::RoomVersion},
    rooms::{
        auth_graph::AuthGraph,
        resolve::problem::{Key, resolve_in_memory},
        state::Entries,
    },
};
use ruma::{
    OwnedEventId, RoomVersionId, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Value, json};

/// Who may change things, besides the creator.
const MODERATORS: usize = 50;
const CREATOR: &str = "@creator:a.example";

/// Our signing key.
pub(crate) fn signing_keys() -> SigningKeys {
    let name = <&ServerName>::try_from("a.example").expect("a server name");
    SigningKeys::parse(name, &SigningKeys::generate("bench")).expect("a key")
}

pub(crate) fn member(number: usize) -> String {
    format!("@member{number}:server{}.example", number % 100)
}

/// A room in memory.
pub(crate) struct Room {
    pub(crate) version: RoomVersion,
    events: Vec<Arc<Pdu>>,
    nids: HashMap<OwnedEventId, i64>,
    numbers: HashMap<Key, i64>,
    graph: AuthGraph,
    pub(crate) state: Entries,
}

impl Room {
    /// A room of version 11 with that many members.
    pub(crate) fn new(members: usize) -> Self {
        let mut room = Self {
            version: RoomVersion::of(&RoomVersionId::V11).expect("a known version"),
            events: Vec::new(),
            nids: HashMap::new(),
            numbers: HashMap::new(),
            graph: AuthGraph::default(),
            state: Entries::new(),
        };
        let mut state = Entries::new();
        let join = json!({ "membership": "join" });
        let users = (0..MODERATORS.min(members)).map(|number| (member(number), json!(50)));
        let mut users: serde_json::Map<String, Value> = users.collect();
        users.insert(CREATOR.to_owned(), json!(100));
        let levels = json!({ "users": users });
        room.send(
            &mut state,
            "m.room.create",
            "",
            CREATOR,
            &json!({ "room_version": "11" }),
        );
        room.send(&mut state, "m.room.member", CREATOR, CREATOR, &join);
        room.send(&mut state, "m.room.power_levels", "", CREATOR, &levels);
        room.send(
            &mut state,
            "m.room.join_rules",
            "",
            CREATOR,
            &json!({ "join_rule": "public" }),
        );
        for number in 0..members {
            let user = member(number);
            room.send(&mut state, "m.room.member", &user, &user, &join);
        }
        room.state = state;
        room
    }

    /// Sends a state event on top of a state.
    fn send(&mut self, state: &mut Entries, kind: &str, key: &str, sender: &str, content: &Value) {
        let content = serde_json::value::to_raw_value(content).expect("JSON");
        let sender = <&UserId>::try_from(sender).expect("a user id");
        let types = auth::types(&kind.into(), sender, Some(key), &content, &self.version);
        let types = types.expect("good content");
        let auth: Vec<i64> = types
            .iter()
            .filter_map(|key| self.standing(state, key))
            .collect();
        let auth_events: Vec<_> = auth.iter().map(|nid| &self.event(*nid).event_id).collect();
        let last = self.events.last().map(|event| &event.event_id);
        let json = json!({
            "type": kind, "state_key": key, "sender": sender, "content": content,
            "room_id": "!room:a.example", "origin_server_ts": self.events.len(),
            "depth": self.events.len(), "auth_events": auth_events,
            "prev_events": last.into_iter().collect::<Vec<_>>(),
        });
        let object = serde_json::from_value(json).expect("an object");
        let pdu = Arc::new(Pdu::from_object(object, &self.version).expect("an event"));
        let nid = i64::try_from(self.events.len() + 1).expect("few events");
        self.graph.insert([(nid, auth)]);
        self.nids.insert(pdu.event_id.clone(), nid);
        let next = i64::try_from(self.numbers.len() + 1).expect("few keys");
        let number = self
            .numbers
            .entry((kind.into(), key.to_owned()))
            .or_insert(next);
        state.insert(*number, nid);
        self.events.push(pdu);
    }

    fn standing(&self, state: &Entries, key: &Key) -> Option<i64> {
        state.get(self.numbers.get(key)?).copied()
    }

    fn event(&self, nid: i64) -> &Arc<Pdu> {
        let at = usize::try_from(nid - 1).expect("a number of ours");
        &self.events[at]
    }

    /// The event at a key of the room's state.
    pub(crate) fn at(&self, kind: &StateEventType, key: &str) -> Option<Arc<Pdu>> {
        let nid = self.standing(&self.state, &(kind.clone(), key.to_owned()))?;
        Some(self.event(nid).clone())
    }

    /// States of branches that all began at the room's state: on each a moderator changes name,
    /// sets the topic and bans somebody, and on every tenth the creator changes power levels.
    pub(crate) fn forks(&mut self, count: usize) -> Vec<Entries> {
        let members = self.events.len() - 4;
        let mut states = Vec::with_capacity(count);
        for fork in 0..count {
            let mut state = self.state.clone();
            let moderator = member(fork % MODERATORS);
            let renamed = json!({ "membership": "join", "displayname": fork.to_string() });
            let topic = json!({ "topic": fork.to_string() });
            let ban = json!({ "membership": "ban" });
            let banned = member(MODERATORS + fork % (members - MODERATORS));
            if fork % 10 == 0 {
                let levels = json!({
                    "users": { CREATOR: 100, &moderator: 50 }, "invite": 10 + fork % 7,
                });
                self.send(&mut state, "m.room.power_levels", "", CREATOR, &levels);
            }
            self.send(
                &mut state,
                "m.room.member",
                &moderator,
                &moderator,
                &renamed,
            );
            self.send(&mut state, "m.room.topic", "", &moderator, &topic);
            self.send(&mut state, "m.room.member", &banned, &moderator, &ban);
            states.push(state);
        }
        states
    }

    /// One state out of several.
    pub(crate) fn resolve(&self, states: &[Entries]) -> Entries {
        let event = |nid: i64| Some(self.event(nid).clone());
        let number = |key: &Key| self.numbers.get(key).copied();
        resolve_in_memory(&self.version, states, &self.graph, event, number).expect("a state")
    }

    /// A message event on top of the room's state, signed.
    pub(crate) fn message(&self, sender: &str, keys: &SigningKeys) -> Pdu {
        use amtsbote::event::build::{Draft, Place, build};
        let content = json!({ "msgtype": "m.text", "body": "Guten Tag! ".repeat(20) });
        let content = serde_json::value::to_raw_value(&content).expect("JSON");
        let draft = Draft::message(TimelineEventType::RoomMessage, content);
        let last = self.events.last().expect("a room has events");
        let auth = self.events.iter().take(3);
        let place = Place {
            room_id: Some(&last.room_id),
            prev_events: vec![last.event_id.clone()],
            auth_events: auth.map(|event| event.event_id.clone()).collect(),
            depth: 7,
        };
        let sender = <&UserId>::try_from(sender).expect("a user id");
        build(&draft, &place, sender, 1, &self.version, keys).expect("an event")
    }
}

/// Rooms by number of members; making a large one takes seconds.
static ROOMS: Mutex<Vec<(usize, usize, Prepared)>> = Mutex::new(Vec::new());

/// A room with the states of its branches.
pub(crate) type Prepared = Arc<(Room, Vec<Entries>)>;

/// The room with that many members and branches.
pub(crate) fn prepared(members: usize, forks: usize) -> Prepared {
    let mut rooms = ROOMS.lock().expect("no thread failed");
    if let Some((.., room)) = rooms.iter().find(|(m, f, _)| (*m, *f) == (members, forks)) {
        return room.clone();
    }
    let mut room = Room::new(members);
    let states = room.forks(forks);
    let prepared = Arc::new((room, states));
    rooms.push((members, forks, prepared.clone()));
    prepared
}
