//! The pure part of state resolution: what is in conflict, what that touches, and the answer.
//!
//! `ruma::state_res::resolve` is given a projection of the states, so that work follows the
//! conflict and not the size of the room:
//!
//! - Of the states, the keys in conflict, and the keys that authorization of the events in question
//!   looks at. Every other key is the same in all states and is copied.
//! - Not a map for each state, but as few maps as have the same conflicts between them: the
//!   algorithm reads of the maps only what all agree on and what not.
//! - Of the auth chains, their difference, which is all that the algorithm makes of them.
//!
//! Tests hold the answer against an implementation that follows the specification line by line.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
    state_res::{self, StateMap, utils::event_id_set::EventIdSet},
};

use crate::{
    event::{
        auth,
        pdu::{Pdu, PduRef},
        version::RoomVersion,
    },
    rooms::{
        auth_graph::AuthGraph,
        state::{Entries, difference},
    },
};

/// Where in a state an event stands.
pub type Key = (StateEventType, String);

/// States of one room that are not the same.
#[derive(Clone, Debug)]
pub struct Problem {
    version: RoomVersion,
    /// One of the states: what all agree on is read from it.
    base: Entries,
    /// At each key in conflict: the events that states have there.
    conflicts: Vec<(i64, Vec<i64>)>,
    /// Auth difference.
    difference: Vec<i64>,
    /// Conflicted state subgraph (v12).
    subgraph: Vec<i64>,
    /// Full conflicted set.
    full: Vec<i64>,
}

/// What is loaded of a room for a problem.
#[derive(Debug, Default)]
pub struct Material {
    events: HashMap<i64, Arc<Pdu>>,
    nids: HashMap<OwnedEventId, i64>,
    keys: HashMap<Key, Option<i64>>,
    absent: HashSet<OwnedEventId>,
}

impl Material {
    /// Adds an event with its number.
    pub fn add_event(&mut self, event: i64, pdu: Arc<Pdu>) {
        self.nids.insert(pdu.event_id.clone(), event);
        self.events.insert(event, pdu);
    }

    /// Adds the number of a key; `None`: nothing ever stood there.
    pub fn add_key(&mut self, key: Key, number: Option<i64>) {
        self.keys.insert(key, number);
    }

    /// Notes an event that we do not have.
    pub fn add_absent(&mut self, id: OwnedEventId) {
        if !self.nids.contains_key(&id) {
            self.absent.insert(id);
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unsolved {
    /// The algorithm asked for events that are neither loaded nor known to be absent.
    #[error("{} events are not loaded", .0.len())]
    Missing(Vec<OwnedEventId>),
    /// An event has not the form that it must have.
    #[error("{0}")]
    Failed(String),
}

/// Keys at which not all states agree, sorted; absent counts as a value.
pub fn conflicted_keys(states: &[Entries]) -> Vec<i64> {
    let mut keys = BTreeSet::new();
    if let Some((first, others)) = states.split_first() {
        for other in others {
            let changes = difference(first, other);
            keys.extend(changes.into_iter().map(|(key, ..)| key));
        }
    }
    keys.into_iter().collect()
}

impl Problem {
    /// The problem that states pose which differ at `keys`. All their events are in the graph.
    pub fn new(version: &RoomVersion, states: &[Entries], keys: &[i64], graph: &AuthGraph) -> Self {
        let base = states.first().cloned().unwrap_or_default();
        let rules = version.rules.state_res.v2_rules();
        let conflicts: Vec<(i64, Vec<i64>)> = keys
            .iter()
            .map(|key| {
                let events: BTreeSet<i64> =
                    states.iter().filter_map(|s| s.get(key).copied()).collect();
                (*key, events.into_iter().collect())
            })
            .collect();
        let sets: Vec<Vec<i64>> = states
            .iter()
            .map(|state| {
                keys.iter()
                    .filter_map(|key| state.get(key).copied())
                    .collect()
            })
            .collect();
        // Both are sorted.
        let mut next = keys.iter().peekable();
        let agreed = base.iter().filter_map(|(key, event)| {
            while next.next_if(|conflicted| **conflicted < *key).is_some() {}
            (next.peek() != Some(&key)).then_some(*event)
        });
        let difference = graph.difference(&sets, agreed);
        let conflicted: BTreeSet<i64> = sets.into_iter().flatten().collect();
        let conflicted: Vec<i64> = conflicted.into_iter().collect();
        let subgraph = if rules.is_some_and(|rules| rules.consider_conflicted_state_subgraph) {
            graph.between(&conflicted)
        } else {
            Vec::new()
        };
        let full: BTreeSet<i64> = conflicted
            .iter()
            .chain(&difference)
            .chain(&subgraph)
            .copied()
            .collect();
        Self {
            version: version.clone(),
            base,
            conflicts,
            difference,
            subgraph,
            full: full.into_iter().collect(),
        }
    }

    /// The full conflicted set: what has to be loaded first.
    pub fn events(&self) -> &[i64] {
        &self.full
    }

    /// The keys of the full conflicted set, and those that its authorization looks at; their numbers
    /// have to be had next.
    pub fn keys(&self, material: &Material) -> Vec<Key> {
        // Found by its key even where it stands in no auth_events (v12).
        let mut keys = BTreeSet::from([(StateEventType::RoomCreate, String::new())]);
        let loaded = self
            .full
            .iter()
            .filter_map(|event| material.events.get(event));
        for pdu in loaded {
            let key = pdu.state_key.as_deref();
            let types = auth::types(&pdu.kind, &pdu.sender, key, &pdu.content, &self.version);
            // An event whose content cannot be read fails authorization.
            keys.extend(types.unwrap_or_default());
            keys.insert(key_of(pdu));
        }
        keys.into_iter()
            .filter(|key| !material.keys.contains_key(key))
            .collect()
    }

    /// Events that the algorithm will ask for and that are not loaded: what states agree on at the
    /// keys above, auth events of the full conflicted set, and power levels down the mainline.
    /// Empty: it can be solved. More come with what is loaded, since only the events tell which of
    /// them are power levels.
    pub fn lacking(&self, graph: &AuthGraph, material: &Material) -> Vec<i64> {
        let mut lacking = BTreeSet::new();
        let mut queue = self.full.clone();
        let mut seen: HashSet<i64> = queue.iter().copied().collect();
        for event in material
            .keys
            .values()
            .flatten()
            .filter_map(|key| self.base.get(key))
        {
            match material.events.get(event) {
                None => {
                    lacking.insert(*event);
                }
                Some(pdu) if is_power_levels(pdu) && seen.insert(*event) => queue.push(*event),
                Some(_) => {}
            }
        }
        while let Some(event) = queue.pop() {
            for below in graph.auth_of(event) {
                match material.events.get(&below) {
                    None => {
                        lacking.insert(below);
                    }
                    Some(pdu) if is_power_levels(pdu) && seen.insert(below) => queue.push(below),
                    Some(_) => {}
                }
            }
        }
        lacking.into_iter().collect()
    }

    /// The resolved state.
    pub fn solve(&self, material: &Material) -> Result<Entries, Unsolved> {
        let rules = self.version.rules.state_res.v2_rules().copied();
        let rules = rules.ok_or_else(|| Unsolved::Failed("room version 1".to_owned()))?;
        let maps = self.maps(material)?;
        let difference = ids(&self.difference, material)?;
        let subgraph = ids(&self.subgraph, material)?;
        let missing = RefCell::new(BTreeSet::new());
        let fetch = |id: &EventId| -> Option<PduRef> {
            let pdu = material
                .nids
                .get(id)
                .and_then(|nid| material.events.get(nid));
            if pdu.is_none() && !material.absent.contains(id) {
                missing.borrow_mut().insert(id.to_owned());
            }
            pdu.cloned().map(PduRef)
        };
        let resolved = state_res::resolve(
            &self.version.rules.authorization,
            &rules,
            maps.iter(),
            // What is in one set and not in the other is the difference.
            vec![difference, EventIdSet::new()],
            fetch,
            |_: &StateMap<Vec<OwnedEventId>>| Some(subgraph.clone()),
        );
        let missing = missing.into_inner();
        if !missing.is_empty() {
            return Err(Unsolved::Missing(missing.into_iter().collect()));
        }
        let resolved = resolved.map_err(|error| Unsolved::Failed(error.to_string()))?;
        // Also keys that no state has: the difference of auth chains may bring back what an earlier
        // resolution dropped.
        let mut standing = HashMap::with_capacity(resolved.len());
        for (key, id) in &resolved {
            let number = material.keys.get(key).copied().flatten();
            let event = material.nids.get(id).copied();
            let (Some(number), Some(event)) = (number, event) else {
                return Err(Unsolved::Failed(format!("{id} has no key")));
            };
            standing.insert(number, event);
        }
        let mut entries = self.base.clone();
        for (key, _) in &self.conflicts {
            if !standing.contains_key(key) {
                entries.remove(key);
            }
        }
        for (key, event) in standing {
            if entries.get(&key) != Some(&event) {
                entries.insert(key, event);
            }
        }
        Ok(entries)
    }

    /// Maps with the same agreement and the same conflicts between them as the states, as far as
    /// the algorithm looks at them.
    fn maps(&self, material: &Material) -> Result<Vec<StateMap<OwnedEventId>>, Unsolved> {
        let most = self.conflicts.iter().map(|(_, events)| events.len()).max();
        // Of two maps at least one lacks what stands in one only.
        let count = most.unwrap_or_default().max(2);
        let mut agreed = StateMap::new();
        for (pair, key) in &material.keys {
            if let Some(key) = key
                && self
                    .conflicts
                    .binary_search_by_key(key, |(key, _)| *key)
                    .is_err()
                && let Some(event) = self.base.get(key)
            {
                let pdu = loaded(*event, material)?;
                agreed.insert(pair.clone(), pdu.event_id.clone());
            }
        }
        let mut maps = vec![agreed; count];
        for (_, events) in &self.conflicts {
            for (map, event) in maps.iter_mut().zip(events) {
                let pdu = loaded(*event, material)?;
                map.insert(key_of(pdu), pdu.event_id.clone());
            }
        }
        Ok(maps)
    }
}

/// Resolves states whose events, keys and graph are all in memory.
pub fn resolve_in_memory(
    version: &RoomVersion,
    states: &[Entries],
    graph: &AuthGraph,
    event: impl Fn(i64) -> Option<Arc<Pdu>>,
    number: impl Fn(&Key) -> Option<i64>,
) -> Result<Entries, Unsolved> {
    let keys = conflicted_keys(states);
    if keys.is_empty() {
        return Ok(states.first().cloned().unwrap_or_default());
    }
    let problem = Problem::new(version, states, &keys, graph);
    let mut material = Material::default();
    let mut wanted = problem.events().to_vec();
    let mut asked = false;
    while !wanted.is_empty() {
        for nid in wanted {
            let pdu = event(nid).ok_or_else(|| Unsolved::Failed(format!("no event {nid}")))?;
            material.add_event(nid, pdu);
        }
        if !std::mem::replace(&mut asked, true) {
            for key in problem.keys(&material) {
                let number = number(&key);
                material.add_key(key, number);
            }
        }
        wanted = problem.lacking(graph, &material);
    }
    problem.solve(&material)
}

fn is_power_levels(pdu: &Pdu) -> bool {
    pdu.kind == TimelineEventType::RoomPowerLevels
}

fn key_of(pdu: &Pdu) -> Key {
    (
        pdu.kind.to_string().into(),
        pdu.state_key.clone().unwrap_or_default(),
    )
}

fn loaded(event: i64, material: &Material) -> Result<&Pdu, Unsolved> {
    let pdu = material.events.get(&event).map(Arc::as_ref);
    pdu.ok_or_else(|| Unsolved::Failed(format!("event {event} is not loaded")))
}

fn ids(events: &[i64], material: &Material) -> Result<EventIdSet<OwnedEventId>, Unsolved> {
    events
        .iter()
        .map(|event| loaded(*event, material).map(|pdu| pdu.event_id.clone()))
        .collect()
}
