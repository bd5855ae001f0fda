//! The graph of a room as a peer has it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use ruma::CanonicalJsonValue;
use serde_json::{Value, json};

use super::event::{Draft, Event, Key, canonical, has_given_ids, now, references};

/// Event ids by type and state key.
pub(crate) type State = BTreeMap<(String, String), String>;

/// An event id as servers made them up in room versions 1 and 2.
fn new_id(key: &Key) -> String {
    format!("${:032x}:{}", rand::random::<u128>(), key.server)
}

/// A room. Clones are the same room.
#[derive(Clone)]
pub(crate) struct Room {
    pub(crate) id: String,
    pub(crate) version: String,
    key: Arc<Key>,
    graph: Arc<Mutex<Graph>>,
}

#[derive(Default)]
struct Graph {
    events: HashMap<String, Event>,
    /// Ids in the order in which they came.
    order: Vec<String>,
    before: HashMap<String, State>,
    ends: Vec<String>,
}

impl Graph {
    /// State before an event on these; of two branches the later named wins.
    fn state_on(&self, prev: &[String]) -> State {
        let mut state = State::new();
        for id in prev {
            let Some(event) = self.events.get(id) else {
                continue;
            };
            state.extend(self.before.get(id).cloned().unwrap_or_default());
            if let Some(key) = event.key() {
                state.insert(key, id.clone());
            }
        }
        state
    }

    fn insert(&mut self, event: &Event) {
        let prev = event.ids("prev_events");
        let before = self.state_on(&prev);
        self.before.insert(event.id.clone(), before);
        self.ends.retain(|id| !prev.contains(id));
        self.ends.push(event.id.clone());
        self.outlier(event);
    }

    fn outlier(&mut self, event: &Event) {
        if self
            .events
            .insert(event.id.clone(), event.clone())
            .is_none()
        {
            self.order.push(event.id.clone());
        }
    }
}

impl Room {
    /// A public room that its creator is in.
    pub(crate) fn new(key: &Arc<Key>, version: &str, creator: &str) -> Self {
        // Rooms of one millisecond would be the same room in version 12.
        let number = rand::random::<u32>();
        let mut content = json!({ "room_version": version, "org.example.number": number });
        if ["1", "2", "10"].contains(&version) {
            content["creator"] = json!(creator);
        }
        let hashed = version == "12";
        let given = format!("!{:016x}:{}", rand::random::<u64>(), key.server);
        let mut object = canonical(json!({
            "type": "m.room.create", "state_key": "", "sender": creator, "content": content,
            "origin_server_ts": now(), "depth": 1, "prev_events": [], "auth_events": [],
        }));
        if !hashed {
            object.insert("room_id".to_owned(), given.clone().into());
        }
        if has_given_ids(version) {
            object.insert("event_id".to_owned(), new_id(key).into());
        }
        let draft = Draft {
            version: version.to_owned(),
            object,
        };
        let create = draft.sign(key);
        let id = if hashed {
            create.id.replace('$', "!")
        } else {
            given
        };
        let room = Self::empty(key, version, &id);
        room.insert(&create);
        room.member(creator, "join");
        let users = if hashed {
            json!({})
        } else {
            json!({ creator: 100 })
        };
        room.state(creator, "m.room.power_levels", json!({ "users": users }));
        room.state(
            creator,
            "m.room.join_rules",
            json!({ "join_rule": "public" }),
        );
        let visible = json!({ "history_visibility": "shared" });
        room.state(creator, "m.room.history_visibility", visible);
        room
    }

    /// A room of which nothing is known.
    pub(crate) fn empty(key: &Arc<Key>, version: &str, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            version: version.to_owned(),
            key: key.clone(),
            graph: Arc::default(),
        }
    }

    /// An event on the ends of the graph, or with `on` on those events.
    pub(crate) fn draft_on(
        &self,
        on: &[String],
        sender: &str,
        (kind, key): (&str, Option<&str>),
        content: Value,
    ) -> Draft {
        let graph = self.graph.lock().unwrap();
        let state = graph.state_on(on);
        let depth = on.iter().filter_map(|id| graph.events.get(id));
        let depth = depth.map(|event| event.number("depth")).max();
        let auth = self.auth_for(&state, sender, (kind, key), &content);
        let mut object = canonical(json!({
            "type": kind, "sender": sender, "room_id": self.id, "origin_server_ts": now(),
            "depth": depth.unwrap_or(0).saturating_add(1).min((1 << 53) - 1),
            "prev_events": references(on, &self.version),
            "auth_events": references(&auth, &self.version),
        }));
        let content = CanonicalJsonValue::try_from(content).unwrap();
        object.insert("content".to_owned(), content);
        if let Some(key) = key {
            object.insert("state_key".to_owned(), key.to_owned().into());
        }
        if has_given_ids(&self.version) {
            object.insert("event_id".to_owned(), new_id(&self.key).into());
        }
        Draft {
            version: self.version.clone(),
            object,
        }
    }

    pub(crate) fn draft(&self, sender: &str, kind: (&str, Option<&str>), content: Value) -> Draft {
        self.draft_on(&self.ends(), sender, kind, content)
    }

    /// A message on the ends of the graph.
    pub(crate) fn draft_message(&self, sender: &str, text: &str) -> Draft {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.draft(sender, ("m.room.message", None), content)
    }

    fn auth_for(
        &self,
        state: &State,
        sender: &str,
        (kind, key): (&str, Option<&str>),
        content: &Value,
    ) -> Vec<String> {
        let mut keys = vec![("m.room.power_levels", ""), ("m.room.member", sender)];
        if self.version != "12" {
            keys.push(("m.room.create", ""));
        }
        if let ("m.room.member", Some(target)) = (kind, key) {
            keys.push(("m.room.member", target));
            if ["join", "invite"].contains(&content["membership"].as_str().unwrap_or_default()) {
                keys.push(("m.room.join_rules", ""));
            }
        }
        let ids = keys
            .into_iter()
            .filter_map(|(kind, key)| state.get(&(kind.to_owned(), key.to_owned())));
        let ids: BTreeSet<&String> = ids.collect();
        ids.into_iter().cloned().collect()
    }

    /// Signs with the room's own key and takes the event into the graph.
    pub(crate) fn add(&self, draft: Draft) -> Event {
        let event = draft.sign(&self.key);
        self.insert(&event);
        event
    }

    /// Signs with the room's own key; the graph does not know the event.
    pub(crate) fn forge(&self, draft: Draft) -> Event {
        draft.sign(&self.key)
    }

    /// A membership that the user itself sends.
    pub(crate) fn member(&self, user: &str, membership: &str) -> Event {
        let content = json!({ "membership": membership });
        self.add(self.draft(user, ("m.room.member", Some(user)), content))
    }

    pub(crate) fn message(&self, sender: &str, text: &str) -> Event {
        self.add(self.draft_message(sender, text))
    }

    /// A state event without a state key of its own.
    pub(crate) fn state(&self, sender: &str, kind: &str, content: Value) -> Event {
        self.add(self.draft(sender, (kind, Some("")), content))
    }

    /// Takes an event into the graph, as its new end.
    pub(crate) fn insert(&self, event: &Event) {
        self.graph.lock().unwrap().insert(event);
    }

    /// Takes an event that is not part of the graph, or takes it as such.
    pub(crate) fn outlier(&self, event: &Event) {
        self.graph.lock().unwrap().outlier(event);
    }

    /// Takes an event with the state before it as someone told it.
    pub(crate) fn insert_with_state(&self, event: &Event, before: &[Event]) {
        let mut graph = self.graph.lock().unwrap();
        for event in before {
            graph.outlier(event);
        }
        let state = before
            .iter()
            .filter_map(|event| Some((event.key()?, event.id.clone())));
        let state = state.collect();
        graph.insert(event);
        graph.before.insert(event.id.clone(), state);
    }

    pub(crate) fn get(&self, id: &str) -> Option<Event> {
        self.graph.lock().unwrap().events.get(id).cloned()
    }

    /// Ids of events that nothing follows.
    pub(crate) fn ends(&self) -> Vec<String> {
        self.graph.lock().unwrap().ends.clone()
    }

    /// Goes on from these events only.
    pub(crate) fn set_ends(&self, ends: &[String]) {
        self.graph.lock().unwrap().ends = ends.to_vec();
    }

    /// Events of the current state.
    pub(crate) fn current(&self) -> Vec<Event> {
        let graph = self.graph.lock().unwrap();
        let state = graph.state_on(&graph.ends);
        state.values().map(|id| graph.events[id].clone()).collect()
    }

    pub(crate) fn current_of(&self, kind: &str, key: &str) -> Event {
        let graph = self.graph.lock().unwrap();
        let state = graph.state_on(&graph.ends);
        graph.events[&state[&(kind.to_owned(), key.to_owned())]].clone()
    }

    /// State before an event; `None`: the event is not known.
    pub(crate) fn before(&self, id: &str) -> Option<Vec<Event>> {
        let graph = self.graph.lock().unwrap();
        let state = graph.before.get(id)?;
        Some(state.values().map(|id| graph.events[id].clone()).collect())
    }

    /// All that authorizes these, oldest first, without themselves where they are not of it.
    pub(crate) fn auth_chain(&self, of: &[Event]) -> Vec<Event> {
        let graph = self.graph.lock().unwrap();
        let mut found = BTreeSet::new();
        let mut todo: Vec<String> = of.iter().flat_map(|e| e.ids("auth_events")).collect();
        if self.version == "12" && !of.is_empty() {
            todo.push(self.id.replace('!', "$"));
        }
        while let Some(id) = todo.pop() {
            if let Some(event) = graph.events.get(&id)
                && found.insert(id)
            {
                todo.extend(event.ids("auth_events"));
            }
        }
        let chain = graph.order.iter().filter(|id| found.contains(*id));
        chain.map(|id| graph.events[id].clone()).collect()
    }

    /// Events before `latest`, back to `earliest` (both left out), at most `limit`, oldest first.
    pub(crate) fn between(
        &self,
        earliest: &[String],
        latest: &[String],
        limit: usize,
    ) -> Vec<Event> {
        let graph = self.graph.lock().unwrap();
        let mut found = BTreeSet::new();
        let prev = |id: &String| graph.events.get(id).map(|event| event.ids("prev_events"));
        let mut todo: std::collections::VecDeque<String> =
            latest.iter().filter_map(prev).flatten().collect();
        while let Some(id) = todo.pop_front() {
            let known = graph.events.contains_key(&id) && !earliest.contains(&id);
            if known && found.len() < limit && found.insert(id.clone()) {
                todo.extend(prev(&id).unwrap_or_default());
            }
        }
        let order = graph.order.iter().filter(|id| found.contains(*id));
        order.map(|id| graph.events[id].clone()).collect()
    }
}
