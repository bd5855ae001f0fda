//! A room in memory, in which tests write history.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ruma::{OwnedEventId, RoomVersionId, UserId, events::StateEventType};
use serde_json::{Value, json};

use super::super::{
    problem::{Key, resolve_in_memory},
    reference::{Reference, StateMap, key_of},
};
use crate::{
    event::{auth, pdu::Pdu, version::RoomVersion},
    rooms::{auth_graph::AuthGraph, state::Entries},
};

pub(super) const ALICE: &str = "@alice:a.example";
pub(super) const BOB: &str = "@bob:b.example";
pub(super) const CHARLIE: &str = "@charlie:c.example";

/// What a member wants to send.
pub(super) struct Wish<'a> {
    pub(super) kind: &'a str,
    pub(super) key: &'a str,
    pub(super) sender: &'a str,
    pub(super) content: Value,
    pub(super) time: i64,
}

/// A room with all its events, and the numbers that storage would give.
pub(super) struct World {
    pub(super) reference: Reference,
    pub(super) graph: AuthGraph,
    by_nid: Vec<Arc<Pdu>>,
    nids: HashMap<OwnedEventId, i64>,
    keys: BTreeMap<Key, i64>,
    room_id: Option<String>,
}

impl World {
    pub(super) fn new(version: &RoomVersionId) -> Self {
        Self {
            reference: Reference {
                version: RoomVersion::of(version).unwrap(),
                events: HashMap::new(),
            },
            graph: AuthGraph::default(),
            by_nid: Vec::new(),
            nids: HashMap::new(),
            keys: BTreeMap::new(),
            room_id: None,
        }
    }

    pub(super) fn version(&self) -> &RoomVersion {
        &self.reference.version
    }

    /// A room of Alice's with power levels and public join rules, and who joined it.
    pub(super) fn opened(version: &RoomVersionId, others: &[&str]) -> (Self, StateMap) {
        let mut world = Self::new(version);
        let mut state = StateMap::new();
        let create = json!({ "creator": ALICE, "room_version": version });
        world.must(&mut state, "m.room.create", "", ALICE, create);
        let join = json!({ "membership": "join" });
        world.must(&mut state, "m.room.member", ALICE, ALICE, join.clone());
        let levels = world.levels(&[]);
        world.must(&mut state, "m.room.power_levels", "", ALICE, levels);
        let public = json!({ "join_rule": "public" });
        world.must(&mut state, "m.room.join_rules", "", ALICE, public);
        for user in others {
            world.must(&mut state, "m.room.member", user, user, join.clone());
        }
        (world, state)
    }

    /// Content of power levels in which Alice has 100; in version 12 that is understood.
    pub(super) fn levels(&self, others: &[(&str, i64)]) -> Value {
        let mut users: BTreeMap<&str, i64> =
            others.iter().map(|(user, level)| (*user, *level)).collect();
        if self.version().has_hashed_room_id() {
            users.remove(ALICE);
        } else {
            users.insert(ALICE, 100);
        }
        json!({ "users": users })
    }

    /// An event that is allowed, each later than all before it.
    pub(super) fn must(
        &mut self,
        state: &mut StateMap,
        kind: &str,
        key: &str,
        sender: &str,
        content: Value,
    ) {
        let time = i64::try_from(self.by_nid.len()).unwrap();
        let wish = Wish {
            kind,
            key,
            sender,
            content,
            time,
        };
        assert!(
            self.send(state, &wish),
            "{kind} {key} of {sender} is not allowed"
        );
    }

    /// Sends an event on top of a state, as an honest server does; whether it is allowed.
    pub(super) fn send(&mut self, state: &mut StateMap, wish: &Wish<'_>) -> bool {
        let version = self.version().clone();
        let content = serde_json::value::to_raw_value(&wish.content).unwrap();
        let sender = <&UserId>::try_from(wish.sender).unwrap();
        let types = auth::types(
            &wish.kind.into(),
            sender,
            Some(wish.key),
            &content,
            &version,
        );
        let types = types.unwrap();
        let auth_events: Vec<&OwnedEventId> =
            types.iter().filter_map(|key| state.get(key)).collect();
        let last = self.by_nid.last().map(|pdu| &pdu.event_id);
        let mut json = json!({
            "type": wish.kind, "state_key": wish.key, "sender": wish.sender,
            "origin_server_ts": wish.time, "depth": self.by_nid.len(), "content": content,
            "prev_events": last.into_iter().collect::<Vec<_>>(), "auth_events": auth_events,
        });
        match &self.room_id {
            Some(room_id) => json["room_id"] = room_id.as_str().into(),
            None if version.has_hashed_room_id() => {}
            None => json["room_id"] = "!r:a.example".into(),
        }
        let object = serde_json::from_value(json).unwrap();
        let pdu = Arc::new(Pdu::from_object(object, &version).unwrap());
        let allowed = auth::check(&version, &pdu, |kind, key| {
            // Version 12 does not name it among the auth events.
            let create = *kind == StateEventType::RoomCreate;
            let at = (kind.clone(), key.to_owned());
            let known = create || types.contains(&at);
            Some(self.reference.events[known.then(|| state.get(&at)).flatten()?].clone())
        });
        if allowed.is_err() || self.nids.contains_key(&pdu.event_id) {
            return false;
        }
        self.room_id.get_or_insert_with(|| pdu.room_id.to_string());
        state.insert(key_of(&pdu), pdu.event_id.clone());
        self.add(pdu);
        true
    }

    fn add(&mut self, pdu: Arc<Pdu>) {
        let nid = i64::try_from(self.by_nid.len() + 1).unwrap();
        let auth = pdu.auth_events.iter().map(|id| self.nids[id]).collect();
        assert!(self.graph.insert([(nid, auth)]).is_empty());
        self.nids.insert(pdu.event_id.clone(), nid);
        let next = i64::try_from(self.keys.len() + 1).unwrap();
        self.keys.entry(key_of(&pdu)).or_insert(next);
        self.reference
            .events
            .insert(pdu.event_id.clone(), pdu.clone());
        self.by_nid.push(pdu);
    }

    /// Events at a key, oldest first.
    pub(super) fn history(&self, key: &Key) -> Vec<OwnedEventId> {
        let at_key = self.by_nid.iter().filter(|pdu| key_of(pdu) == *key);
        at_key.map(|pdu| pdu.event_id.clone()).collect()
    }

    /// A state as storage has it.
    pub(super) fn entries(&self, state: &StateMap) -> Entries {
        let entries = state
            .iter()
            .map(|(key, id)| (self.keys[key], self.nids[id]));
        entries.collect()
    }

    fn state_map(&self, entries: &Entries) -> StateMap {
        entries
            .values()
            .map(|nid| {
                let pdu = &self.by_nid[usize::try_from(*nid).unwrap() - 1];
                (key_of(pdu), pdu.event_id.clone())
            })
            .collect()
    }

    /// What our resolution makes of states.
    pub(super) fn resolve(&self, states: &[StateMap]) -> StateMap {
        let states: Vec<Entries> = states.iter().map(|state| self.entries(state)).collect();
        let event = |nid: i64| self.by_nid.get(usize::try_from(nid).unwrap() - 1).cloned();
        let number = |key: &Key| self.keys.get(key).copied();
        let resolved =
            resolve_in_memory(self.version(), &states, &self.graph, event, number).unwrap();
        self.state_map(&resolved)
    }
}
