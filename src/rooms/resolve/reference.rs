//! State resolution as the specification words it ("Room version 2" and "Room version 12", "State
//! resolution"), without regard for speed: what tests hold the quick one against.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::Value;

use super::problem::Key;
use crate::event::{auth, pdu::Pdu, version::RoomVersion};

/// A room state: for each key an event.
pub(super) type StateMap = BTreeMap<Key, OwnedEventId>;

pub(super) type Events = BTreeSet<OwnedEventId>;

/// A room with all its events.
pub(super) struct Reference {
    pub(super) version: RoomVersion,
    pub(super) events: HashMap<OwnedEventId, Arc<Pdu>>,
}

impl Reference {
    /// "The resolution of a set of states is obtained as follows"
    pub(super) fn resolve(&self, states: &[StateMap]) -> StateMap {
        let rules = self.version.rules.state_res.v2_rules().unwrap();
        let (unconflicted, conflicted) = split(states);
        let full = self.full_conflicted_set(states, &conflicted);

        // 1. Select the set X of all power events that appear in the full conflicted set. For each
        // such power event P, enlarge X by adding the events in the auth chain of P which also
        // belong to the full conflicted set.
        let mut x: Events = Events::new();
        for event in full.iter().filter(|event| self.is_power_event(event)) {
            x.insert(event.clone());
            x.extend(self.leads_to(event, &full));
        }
        let power = self.reverse_topological_power_ordering(&x);

        // 2. Apply the iterative auth checks algorithm, starting from the unconflicted state map
        // (version 12: from an empty state map).
        let start = if rules.begin_iterative_auth_checks_with_empty_state_map {
            StateMap::new()
        } else {
            unconflicted.clone()
        };
        let partial = self.iterative_auth_checks(start, &power);

        // 3. Take all remaining events that weren't picked in step 1 and order them by the mainline
        // ordering based on the power level in the partially resolved state.
        let remaining: Vec<OwnedEventId> = full.difference(&x).cloned().collect();
        let levels = partial.get(&(StateEventType::RoomPowerLevels, String::new()));
        let remaining = self.mainline_ordering(levels, remaining);

        // 4. Apply the iterative auth checks algorithm on the partial resolved state.
        let mut resolved = self.iterative_auth_checks(partial, &remaining);

        // 5. Update the result by replacing any event with the event with the same key from the
        // unconflicted state map.
        resolved.extend(unconflicted);
        resolved
    }

    fn event(&self, id: &EventId) -> &Arc<Pdu> {
        &self.events[id]
    }

    fn auth_events(&self, id: &EventId) -> impl Iterator<Item = &Arc<Pdu>> {
        self.event(id)
            .auth_events
            .iter()
            .map(|auth| self.event(auth))
    }

    /// "the set containing all of E's auth events, all of their auth events, and so on recursively"
    fn auth_chain(&self, id: &EventId) -> Events {
        let mut chain = Events::new();
        let mut queue: Vec<OwnedEventId> = self.event(id).auth_events.clone();
        while let Some(next) = queue.pop() {
            queue.extend(
                self.event(&next)
                    .auth_events
                    .iter()
                    .filter(|auth| !chain.contains(*auth))
                    .cloned(),
            );
            chain.insert(next);
        }
        chain
    }

    /// Events of a set that are reached from one without leaving the set. The specification's
    /// "events in the auth chain of P which also belong to the full conflicted set" would take in
    /// those on ways out of the set and back, too; all servers stay inside, and so do we.
    fn leads_to(&self, id: &EventId, set: &Events) -> Events {
        let mut reached = Events::new();
        let mut queue = vec![id.to_owned()];
        while let Some(next) = queue.pop() {
            for auth in &self.event(&next).auth_events {
                if set.contains(auth) && reached.insert(auth.clone()) {
                    queue.push(auth.clone());
                }
            }
        }
        reached
    }

    /// "If `C_i` is the full auth chain of `S_i`, then the auth difference is ∪ `C_i` − ∩ `C_i`."
    fn auth_difference(&self, states: &[StateMap]) -> Events {
        let chains: Vec<Events> = states
            .iter()
            .map(|state| {
                state
                    .values()
                    .flat_map(|event| self.auth_chain(event))
                    .collect()
            })
            .collect();
        let union: Events = chains.iter().flatten().cloned().collect();
        union
            .into_iter()
            .filter(|event| !chains.iter().all(|chain| chain.contains(event)))
            .collect()
    }

    /// "Starting from an event in the conflicted state set and following `auth_events` edges may lead
    /// to another event in the conflicted state set. The union of all such paths […] (including
    /// endpoints)"
    pub(super) fn conflicted_state_subgraph(&self, conflicted: &Events) -> Events {
        let mut subgraph = Events::new();
        for from in conflicted {
            let chain = self.auth_chain(from);
            for to in conflicted.iter().filter(|to| chain.contains(*to)) {
                subgraph.extend([from.clone(), to.clone()]);
                let between = chain.iter().filter(|e| self.auth_chain(e).contains(to));
                subgraph.extend(between.cloned());
            }
        }
        subgraph
    }

    fn full_conflicted_set(&self, states: &[StateMap], conflicted: &Events) -> Events {
        let rules = self.version.rules.state_res.v2_rules().unwrap();
        let mut full = conflicted.clone();
        full.extend(self.auth_difference(states));
        if rules.consider_conflicted_state_subgraph {
            full.extend(self.conflicted_state_subgraph(conflicted));
        }
        full
    }

    /// "A power event is a state event with type `m.room.power_levels` or `m.room.join_rules`, or a
    /// state event with type `m.room.member` where the membership is leave or ban and the sender does
    /// not match the `state_key`."
    fn is_power_event(&self, id: &EventId) -> bool {
        let event = self.event(id);
        match event.kind {
            TimelineEventType::RoomPowerLevels | TimelineEventType::RoomJoinRules => true,
            TimelineEventType::RoomMember => {
                let removes = [MembershipState::Leave, MembershipState::Ban];
                event
                    .membership()
                    .is_some_and(|membership| removes.contains(&membership))
                    && event.state_key.as_deref() != Some(event.sender.as_str())
            }
            _ => false,
        }
    }

    /// "the lexicographically smallest topological ordering based on the DAG formed by auth events
    /// […] found by sorting the events using Kahn's algorithm"
    fn reverse_topological_power_ordering(&self, events: &Events) -> Vec<OwnedEventId> {
        let mut left = events.clone();
        let mut sorted = Vec::new();
        while !left.is_empty() {
            let next = left
                .iter()
                .filter(|event| {
                    !self
                        .event(event)
                        .auth_events
                        .iter()
                        .any(|auth| left.contains(auth))
                })
                .min_by_key(|event| {
                    let pdu = self.event(event);
                    let power = self.power_of_sender(event);
                    (
                        std::cmp::Reverse(power),
                        pdu.origin_server_ts,
                        (*event).clone(),
                    )
                });
            let next = next.unwrap().clone();
            left.remove(&next);
            sorted.push(next);
        }
        sorted
    }

    fn create_of(&self, id: &EventId) -> Arc<Pdu> {
        let is_create = |event: &&Arc<Pdu>| event.kind == TimelineEventType::RoomCreate;
        if self.version.has_hashed_room_id() {
            return self.events.values().find(is_create).unwrap().clone();
        }
        let event = self.event(id);
        if event.kind == TimelineEventType::RoomCreate {
            return event.clone();
        }
        self.auth_events(id).find(is_create).unwrap().clone()
    }

    /// Power of an event's sender by the event's own auth events; creators of version 12 have the
    /// most.
    fn power_of_sender(&self, id: &EventId) -> i64 {
        let sender = &self.event(id).sender;
        let create = self.create_of(id);
        let is_creator = self.creators(&create).contains(sender);
        if is_creator && self.version.has_hashed_room_id() {
            return i64::MAX;
        }
        let levels = self
            .auth_events(id)
            .find(|event| event.kind == TimelineEventType::RoomPowerLevels);
        match levels {
            Some(levels) => level_in(levels, sender),
            // Ours alone: a create event has no auth events to say who created the room.
            None if is_creator && !self.event(id).auth_events.is_empty() => 100,
            None => 0,
        }
    }

    fn creators(&self, create: &Pdu) -> BTreeSet<OwnedUserId> {
        let content: Value = serde_json::from_str(create.content.get()).unwrap();
        let mut creators = BTreeSet::new();
        if self.version.rules.authorization.use_room_create_sender {
            creators.insert(create.sender.clone());
        } else {
            creators.insert(content["creator"].as_str().unwrap().try_into().unwrap());
        }
        for creator in content["additional_creators"]
            .as_array()
            .into_iter()
            .flatten()
        {
            creators.insert(creator.as_str().unwrap().try_into().unwrap());
        }
        creators
    }

    /// The power levels event in an event's auth events.
    fn levels_above(&self, id: &EventId) -> Option<OwnedEventId> {
        self.auth_events(id)
            .find(|event| event.kind == TimelineEventType::RoomPowerLevels)
            .map(|event| event.event_id.clone())
    }

    /// "the ordering, from smallest to largest, using the following comparison relation"
    fn mainline_ordering(
        &self,
        levels: Option<&OwnedEventId>,
        mut events: Vec<OwnedEventId>,
    ) -> Vec<OwnedEventId> {
        let mut mainline = Vec::new();
        let mut next = levels.cloned();
        while let Some(levels) = next {
            next = self.levels_above(&levels);
            mainline.push(levels);
        }
        let position = |event: &OwnedEventId| -> usize {
            let mut above = self.levels_above(event);
            while let Some(levels) = above {
                if let Some(position) = mainline.iter().position(|at| *at == levels) {
                    return position;
                }
                above = self.levels_above(&levels);
            }
            usize::MAX
        };
        events.sort_by_cached_key(|event| {
            let time = self.event(event).origin_server_ts;
            (std::cmp::Reverse(position(event)), time, event.clone())
        });
        events
    }

    /// "iterating through the event list and applying the state event to the room state if the state
    /// event is allowed by the authorisation rules"
    fn iterative_auth_checks(&self, mut state: StateMap, events: &[OwnedEventId]) -> StateMap {
        for id in events {
            let event = self.event(id);
            // "If a (event_type, state_key) key that is required for checking the authorisation
            // rules is not present in the state, then the appropriate state event from the event's
            // auth_events is used if the auth event is not rejected."
            let allowed = auth::check(&self.version, event, |kind, key| {
                let at = (kind.clone(), key.to_owned());
                if let Some(standing) = state.get(&at) {
                    return Some(self.event(standing).clone());
                }
                if *kind == StateEventType::RoomCreate && self.version.has_hashed_room_id() {
                    return Some(self.create_of(id));
                }
                self.auth_events(id)
                    .find(|auth| key_of(auth) == at && !auth.rejected)
                    .cloned()
            });
            if allowed.is_ok() {
                state.insert(key_of(event), id.clone());
            }
        }
        state
    }
}

pub(super) fn key_of(event: &Pdu) -> Key {
    (
        event.kind.to_string().into(),
        event.state_key.clone().unwrap(),
    )
}

fn level_in(levels: &Pdu, user: &UserId) -> i64 {
    let content: Value = serde_json::from_str(levels.content.get()).unwrap();
    content["users"][user.as_str()]
        .as_i64()
        .or(content["users_default"].as_i64())
        .unwrap_or(0)
}

/// "If a given key K is present in every `S_i` with the same value V in each state map, then the pair
/// (K, V) belongs to the unconflicted state map. Otherwise, V belongs to the conflicted state set."
fn split(states: &[StateMap]) -> (StateMap, Events) {
    let keys: BTreeSet<&Key> = states.iter().flat_map(BTreeMap::keys).collect();
    let mut unconflicted = StateMap::new();
    let mut conflicted = Events::new();
    for key in keys {
        let values: BTreeSet<Option<&OwnedEventId>> = states.iter().map(|s| s.get(key)).collect();
        let values: Vec<_> = values.into_iter().collect();
        match values.as_slice() {
            [Some(only)] => {
                unconflicted.insert(key.clone(), (*only).clone());
            }
            several => conflicted.extend(several.iter().copied().flatten().cloned()),
        }
    }
    (unconflicted, conflicted)
}
