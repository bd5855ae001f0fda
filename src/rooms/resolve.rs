//! State resolution: one state out of several, with work that follows the conflict and not the
//! size of the room.
//!
//! `ruma::state_res::resolve` is given a projection of the states: the conflicted keys, and the
//! keys that authorization of the events in question looks at. Every other key is the same in all
//! states and is copied. The full auth chains are replaced by their differences, which is all that
//! the algorithm reads of them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    state_res::{self, StateMap, utils::event_id_set::EventIdSet},
};

use super::{
    Error, Rooms,
    resident::Room,
    state::{Entries, State, difference},
};
use crate::{
    event::{
        self, auth,
        pdu::{Pdu, PduRef},
    },
    storage::{self, SKeyNid},
};

/// Rounds in which the algorithm may ask for events that were not loaded yet.
const ROUNDS_MAX: usize = 200;

/// Auth graph of a room: event to its auth events.
pub(super) type Edges = HashMap<i64, Vec<i64>>;

/// Resolves states of one room. All their events are stored, but for those whose auth edges are
/// given in `fresh`, which are in memory.
pub(super) async fn resolve(
    rooms: &Rooms,
    room: &Room,
    states: &[State],
    fresh: &[(i64, Vec<i64>)],
) -> Result<Entries, Error> {
    let Some(first) = states.first() else {
        return Ok(Entries::new());
    };
    let keys = conflicted_keys(states);
    if keys.is_empty() {
        return Ok(first.entries.clone());
    }
    let Some(rules) = room.version.rules.state_res.v2_rules().copied() else {
        return resolve_v1(rooms, room, states, &keys).await;
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let mut edges: Edges = storage::events::auth_edges(&mut conn, room.nid)
        .await?
        .into_iter()
        .collect();
    drop(conn);
    edges.extend(fresh.iter().cloned());
    let sets = Sets::new(
        states,
        &keys,
        &edges,
        rules.consider_conflicted_state_subgraph,
    );
    let mut problem = Problem::load(rooms, room, states, &keys, &sets).await?;
    let resolved = problem.solve(rooms, room, &rules).await?;

    let mut entries = first.entries.clone();
    for (skey, pair) in keys.iter().zip(&problem.key_pairs) {
        match resolved.get(pair).and_then(|id| problem.nids.get(id)) {
            Some(nid) => entries.insert(*skey, *nid),
            None => entries.remove(skey),
        };
    }
    Ok(entries)
}

/// The same in room version 1, where a key that some states lack is no conflict.
async fn resolve_v1(
    rooms: &Rooms,
    room: &Room,
    states: &[State],
    keys: &[i64],
) -> Result<Entries, Error> {
    let mut entries = states[0].entries.clone();
    let mut disputed: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for skey in keys {
        let events: BTreeSet<i64> = states.iter().filter_map(|state| state.get(*skey)).collect();
        if let (1, Some(event)) = (events.len(), events.first()) {
            entries.insert(*skey, *event);
        } else {
            entries.remove(skey);
            disputed.insert(*skey, events);
        }
    }
    let all: Vec<i64> = disputed.values().flatten().copied().collect();
    let mut wanted = BTreeSet::new();
    let mut conflicted: BTreeMap<event::resolve_v1::Key, Vec<Arc<Pdu>>> = BTreeMap::new();
    let mut nids = HashMap::new();
    for (nid, pdu) in all.iter().zip(rooms.pdus(room, &all).await?) {
        let key = pdu.state_key.as_deref();
        let types = auth::types(&pdu.kind, &pdu.sender, key, &pdu.content, &room.version);
        wanted.extend(types.unwrap_or_default());
        nids.insert(pdu.event_id.clone(), *nid);
        if let Some(key) = key {
            let at = (pdu.kind.to_string().into(), key.to_owned());
            conflicted.entry(at).or_default().push(pdu);
        }
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    let slice = rooms.state_events(room, &entries, &wanted).await?;
    let settled = wanted
        .into_iter()
        .filter_map(|key| Some((key.clone(), slice.get(&key.0, &key.1)?)))
        .collect();
    for ((kind, key), pdu) in event::resolve_v1::resolve(&room.version, conflicted, settled) {
        let skey = rooms.ctx().db.ids.skey(&kind.to_string(), &key).await?;
        if let Some(nid) = nids.get(&pdu.event_id) {
            entries.insert(skey.0, *nid);
        }
    }
    Ok(entries)
}

/// Keys at which not all states agree; absent counts as a value.
fn conflicted_keys(states: &[State]) -> Vec<i64> {
    let mut keys = BTreeSet::new();
    if let Some((first, others)) = states.split_first() {
        for other in others {
            if other.snap != first.snap || other.snap == 0 {
                let changes = difference(&first.entries, &other.entries);
                keys.extend(changes.into_iter().map(|(skey, ..)| skey));
            }
        }
    }
    keys.into_iter().collect()
}

/// Sets of events that the algorithm is about.
struct Sets {
    /// Conflicted state set.
    conflicted: BTreeSet<i64>,
    /// For each state: its auth chain less what is in all of them.
    chains: Vec<BTreeSet<i64>>,
    /// Conflicted state subgraph (v12).
    subgraph: BTreeSet<i64>,
}

impl Sets {
    fn new(states: &[State], keys: &[i64], edges: &Edges, with_subgraph: bool) -> Self {
        let of_state = |state: &State| -> Vec<i64> {
            keys.iter().filter_map(|skey| state.get(*skey)).collect()
        };
        let conflicted: BTreeSet<i64> = states.iter().flat_map(of_state).collect();
        let key_set: HashSet<i64> = keys.iter().copied().collect();
        let unconflicted = states[0]
            .entries
            .iter()
            .filter(|(skey, _)| !key_set.contains(skey))
            .map(|(_, event)| *event);
        let common = closure(unconflicted, edges);
        let mut chains: Vec<BTreeSet<i64>> = states
            .iter()
            .map(|state| {
                closure(of_state(state), edges)
                    .into_iter()
                    .filter(|e| !common.contains(e))
                    .collect()
            })
            .collect();
        let in_all: BTreeSet<i64> = chains[0]
            .iter()
            .copied()
            .filter(|event| chains.iter().all(|chain| chain.contains(event)))
            .collect();
        for chain in &mut chains {
            chain.retain(|event| !in_all.contains(event));
        }
        let subgraph = if with_subgraph {
            between(&conflicted, edges)
        } else {
            BTreeSet::new()
        };
        Self {
            conflicted,
            chains,
            subgraph,
        }
    }

    fn full(&self) -> BTreeSet<i64> {
        let mut full = self.conflicted.clone();
        full.extend(self.chains.iter().flatten());
        full.extend(&self.subgraph);
        full
    }
}

/// Everything in the auth chains of some events, those events only where another leads to them.
pub(super) fn closure(events: impl IntoIterator<Item = i64>, edges: &Edges) -> HashSet<i64> {
    let mut seen = HashSet::new();
    let mut queue: Vec<i64> = events
        .into_iter()
        .flat_map(|event| edges.get(&event).into_iter().flatten().copied())
        .collect();
    while let Some(event) = queue.pop() {
        if seen.insert(event) {
            queue.extend(edges.get(&event).into_iter().flatten());
        }
    }
    seen
}

/// Events on a path of auth events from one of `ends` to another.
fn between(ends: &BTreeSet<i64>, edges: &Edges) -> BTreeSet<i64> {
    let mut below = closure(ends.iter().copied(), edges);
    below.extend(ends);
    let mut parents_of: HashMap<i64, Vec<i64>> = HashMap::new();
    for event in &below {
        for auth in edges.get(event).into_iter().flatten() {
            parents_of.entry(*auth).or_default().push(*event);
        }
    }
    let mut reached = BTreeSet::new();
    let mut queue: Vec<i64> = ends.iter().copied().collect();
    while let Some(event) = queue.pop() {
        if reached.insert(event) {
            queue.extend(parents_of.get(&event).into_iter().flatten());
        }
    }
    reached
}

/// Input of the algorithm, loaded.
struct Problem {
    maps: Vec<StateMap<OwnedEventId>>,
    chains: Vec<EventIdSet<OwnedEventId>>,
    subgraph: EventIdSet<OwnedEventId>,
    key_pairs: Vec<(StateEventType, String)>,
    pdus: HashMap<OwnedEventId, Arc<Pdu>>,
    nids: HashMap<OwnedEventId, i64>,
}

impl Problem {
    #[expect(
        clippy::too_many_lines,
        reason = "one look-up after the other, each for the next"
    )]
    async fn load(
        rooms: &Rooms,
        room: &Room,
        states: &[State],
        keys: &[i64],
        sets: &Sets,
    ) -> Result<Self, Error> {
        let ids = &rooms.ctx().db.ids;
        let full: Vec<i64> = sets.full().into_iter().collect();
        let mut by_nid: HashMap<i64, Arc<Pdu>> = full
            .iter()
            .copied()
            .zip(rooms.pdus(room, &full).await?)
            .collect();
        let skeys: Vec<SKeyNid> = keys.iter().map(|skey| SKeyNid(*skey)).collect();
        let key_pairs: Vec<(StateEventType, String)> = ids
            .skey_pairs_of(&skeys)
            .await?
            .into_iter()
            .map(|(kind, key)| (StateEventType::from(kind), key))
            .collect();
        let mut needed: HashMap<(StateEventType, String), i64> = key_pairs
            .iter()
            .cloned()
            .zip(keys.iter().copied())
            .collect();
        for pdu in by_nid.values() {
            let types = auth::types(
                &pdu.kind,
                &pdu.sender,
                pdu.state_key.as_deref(),
                &pdu.content,
                &room.version,
            );
            for pair in types.unwrap_or_default() {
                if !needed.contains_key(&pair)
                    && let Some(skey) = ids.find_skey(&pair.0.to_string(), &pair.1).await?
                {
                    needed.insert(pair, skey.0);
                }
            }
        }
        // Found by its key even where it stands in no auth_events (v12).
        if let Some(create) = ids.find_skey("m.room.create", "").await? {
            needed.insert((StateEventType::RoomCreate, String::new()), create.0);
        }
        let mut wanted: Vec<i64> = Vec::new();
        for state in states {
            let events = needed.values().filter_map(|skey| state.get(*skey));
            wanted.extend(events.filter(|event| !by_nid.contains_key(event)));
        }
        wanted.sort_unstable();
        wanted.dedup();
        by_nid.extend(wanted.iter().copied().zip(rooms.pdus(room, &wanted).await?));
        let maps = states
            .iter()
            .map(|state| {
                needed
                    .iter()
                    .filter_map(|(pair, skey)| {
                        let pdu = by_nid.get(&state.get(*skey)?)?;
                        Some((pair.clone(), pdu.event_id.clone()))
                    })
                    .collect()
            })
            .collect();
        let id_set = |nids: &BTreeSet<i64>| -> EventIdSet<OwnedEventId> {
            nids.iter()
                .filter_map(|nid| by_nid.get(nid))
                .map(|pdu| pdu.event_id.clone())
                .collect()
        };
        Ok(Self {
            maps,
            chains: sets.chains.iter().map(id_set).collect(),
            subgraph: id_set(&sets.subgraph),
            key_pairs,
            nids: by_nid
                .iter()
                .map(|(nid, pdu)| (pdu.event_id.clone(), *nid))
                .collect(),
            pdus: by_nid
                .into_values()
                .map(|pdu| (pdu.event_id.clone(), pdu))
                .collect(),
        })
    }

    /// Runs the algorithm; where it asks for events that are not loaded (the power level mainline,
    /// auth events of auth events), loads them and runs it again.
    async fn solve(
        &mut self,
        rooms: &Rooms,
        room: &Room,
        rules: &ruma::room_version_rules::StateResolutionV2Rules,
    ) -> Result<StateMap<OwnedEventId>, Error> {
        let mut unknown: HashSet<OwnedEventId> = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            let (resolved, missing) = self.attempt(room, *rules, &unknown);
            if missing.is_empty() {
                return resolved.map_err(|error| Error::Invalid(format!("resolution: {error}")));
            }
            let missing: Vec<OwnedEventId> = missing.into_iter().collect();
            let found = rooms.events_by_id(room, &missing).await?;
            unknown.extend(missing);
            for event in found {
                unknown.remove(&event.pdu.event_id);
                self.pdus.insert(event.pdu.event_id.clone(), event.pdu);
            }
        }
        Err(Error::Invalid(
            "resolution needs too many events".to_owned(),
        ))
    }

    fn attempt(
        &self,
        room: &Room,
        rules: ruma::room_version_rules::StateResolutionV2Rules,
        unknown: &HashSet<OwnedEventId>,
    ) -> (
        state_res::Result<StateMap<OwnedEventId>>,
        BTreeSet<OwnedEventId>,
    ) {
        let missing = RefCell::new(BTreeSet::new());
        let fetch = |id: &EventId| -> Option<PduRef> {
            let found = self.pdus.get(id).cloned().map(PduRef);
            if found.is_none() && !unknown.contains(id) {
                missing.borrow_mut().insert(id.to_owned());
            }
            found
        };
        let resolved = state_res::resolve(
            &room.version.rules.authorization,
            &rules,
            self.maps.iter(),
            self.chains.clone(),
            fetch,
            |_: &StateMap<Vec<OwnedEventId>>| Some(self.subgraph.clone()),
        );
        (resolved, missing.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Edges, between, closure};

    fn edges() -> Edges {
        // 1 <- 2 <- 3 <- 4, 2 <- 5
        [
            (1, vec![]),
            (2, vec![1]),
            (3, vec![2]),
            (4, vec![3]),
            (5, vec![2]),
        ]
        .into()
    }

    #[test]
    fn a_closure_leaves_out_its_seeds_unless_another_leads_there() {
        assert_eq!(closure([4], &edges()), [1, 2, 3].into());
        assert_eq!(closure([4, 3], &edges()), [1, 2, 3].into());
    }

    #[test]
    fn the_subgraph_is_what_lies_between() {
        let ends = BTreeSet::from([4, 2]);
        assert_eq!(between(&ends, &edges()), BTreeSet::from([2, 3, 4]));
        let apart = BTreeSet::from([3, 5]);
        assert_eq!(between(&apart, &edges()), apart);
    }
}
