//! Proof of state resolution: random histories against the reference, and the examples that were
//! published with the algorithm.

mod examples;
mod world;

use proptest::prelude::*;
use ruma::{
    OwnedEventId, RoomVersionId,
    state_res::{self, StateMap as RumaMap, utils::event_id_set::EventIdSet},
};
use serde_json::{Value, json};

use self::world::{ALICE, BOB, CHARLIE, Wish, World};
use super::{problem::Key, reference::StateMap};
use crate::event::pdu::PduRef;

const BRANCHES_MAX: usize = 4;

fn users() -> Vec<String> {
    let named = [ALICE, BOB, CHARLIE].map(ToOwned::to_owned);
    let more = ["dora", "emil", "frida"];
    let more = more.map(|name| format!("@{name}:d.example"));
    named.into_iter().chain(more).collect()
}

/// One thing that happens: on which branch, what, by whom, to whom, when, and a choice.
type Deed = (usize, u8, usize, usize, i64, u8);

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = (
        0..BRANCHES_MAX,
        0..20_u8,
        0..6_usize,
        0..6_usize,
        0..12_i64,
        any::<u8>(),
    );
    prop::collection::vec(deed, 5..45)
}

fn versions() -> impl Strategy<Value = RoomVersionId> {
    prop::sample::select(vec![
        RoomVersionId::V3,
        RoomVersionId::V6,
        RoomVersionId::V10,
        RoomVersionId::V11,
        RoomVersionId::V12,
    ])
}

/// A history of branches that part and meet.
struct History {
    world: World,
    branches: Vec<StateMap>,
    users: Vec<String>,
}

impl History {
    fn new(version: &RoomVersionId, deeds: &[Deed]) -> Self {
        let (mut world, mut state) = World::opened(version, &[BOB, CHARLIE]);
        let levels = world.levels(&[(BOB, 100), (CHARLIE, 50)]);
        world.must(&mut state, "m.room.power_levels", "", ALICE, levels);
        let mut history = Self {
            world,
            branches: vec![state.clone(), state],
            users: users(),
        };
        for deed in deeds {
            history.happens(*deed);
        }
        history
    }

    fn happens(&mut self, deed: Deed) {
        let (branch, what, who, whom, time, choice) = deed;
        let branch = branch % self.branches.len();
        let (who, whom) = (self.users[who].clone(), self.users[whom].clone());
        let member = |membership: &str| json!({ "membership": membership, "n": choice });
        let (kind, key, content) = match what {
            0 if self.branches.len() < BRANCHES_MAX => {
                self.branches.push(self.branches[branch].clone());
                return;
            }
            1 if self.branches.len() > 2 => return self.meet(branch),
            0..=3 => ("m.room.member", who.as_str(), member("join")),
            4 => ("m.room.member", who.as_str(), member("leave")),
            5 => ("m.room.member", whom.as_str(), member("invite")),
            6 | 7 => ("m.room.member", whom.as_str(), member("leave")),
            8 | 9 => ("m.room.member", whom.as_str(), member("ban")),
            10 => ("m.room.member", who.as_str(), member("knock")),
            11..=13 => (
                "m.room.power_levels",
                "",
                self.new_levels(branch, &whom, choice),
            ),
            14 | 15 => ("m.room.join_rules", "", join_rules(choice)),
            16 | 17 => ("m.room.topic", "", json!({ "topic": choice.to_string() })),
            18 => ("m.room.name", "", json!({ "name": choice.to_string() })),
            _ => ("org.example.thing", whom.trim_start_matches('@'), json!({})),
        };
        let wish = Wish {
            kind,
            key,
            sender: &who,
            content,
            time,
        };
        self.world.send(&mut self.branches[branch], &wish);
    }

    /// The branch ends where the first goes on.
    fn meet(&mut self, branch: usize) {
        let states = [self.branches[0].clone(), self.branches[branch].clone()];
        self.branches[0] = self.world.reference.resolve(&states);
        if branch > 0 {
            self.branches.remove(branch);
        }
    }

    fn new_levels(&self, branch: usize, whom: &str, choice: u8) -> Value {
        let key = ("m.room.power_levels".into(), String::new());
        let standing = self.branches[branch].get(&key);
        let standing = standing.map(|id| self.world.reference.events[id].content.get());
        let mut levels: Value = standing.map_or(json!({}), |c| serde_json::from_str(c).unwrap());
        let level = i64::from(choice % 5) * 25;
        match choice % 9 {
            7 => levels["state_default"] = level.into(),
            8 => levels["ban"] = level.into(),
            _ => levels["users"][whom] = level.into(),
        }
        levels
    }

    /// States as a peer may tell them that has forgotten something: older events at some keys, or
    /// none.
    fn forgotten(&self, deeds: &[Deed]) -> Vec<StateMap> {
        let mut states = self.branches.clone();
        for (branch, what, _, _, pick, choice) in deeds.iter().take(6) {
            let count = states.len();
            let state = &mut states[branch % count];
            let Some(key) = state
                .keys()
                .nth(usize::from(*choice) % state.len().max(1))
                .cloned()
            else {
                continue;
            };
            let create = key.0.to_string() == "m.room.create";
            if *what < 4 && !create {
                state.remove(&key);
            } else {
                let history = self.world.history(&key);
                let at = usize::try_from(*pick).unwrap() % history.len();
                state.insert(key, history[at].clone());
            }
        }
        states
    }
}

fn join_rules(choice: u8) -> Value {
    let rule = ["public", "invite", "knock", "restricted"][usize::from(choice % 4)];
    json!({ "join_rule": rule, "n": choice })
}

/// The algorithm of ruma, given everything: all of the states, all of the auth chains.
fn unprojected(world: &World, states: &[StateMap]) -> StateMap {
    let version = world.version();
    let events = &world.reference.events;
    let maps: Vec<RumaMap<OwnedEventId>> = states
        .iter()
        .map(|state| {
            state
                .iter()
                .map(|(key, id)| (key.clone(), id.clone()))
                .collect()
        })
        .collect();
    let chain = |state: &StateMap| -> EventIdSet<OwnedEventId> {
        let mut chain = EventIdSet::new();
        let mut queue: Vec<&OwnedEventId> = state
            .values()
            .flat_map(|id| &events[id].auth_events)
            .collect();
        while let Some(id) = queue.pop() {
            if chain.insert(id.clone()) {
                queue.extend(&events[id].auth_events);
            }
        }
        chain
    };
    let resolved = state_res::resolve(
        &version.rules.authorization,
        version.rules.state_res.v2_rules().unwrap(),
        maps.iter(),
        states.iter().map(chain).collect(),
        |id| events.get(id).cloned().map(PduRef),
        |conflicted: &RumaMap<Vec<OwnedEventId>>| {
            let conflicted = conflicted.values().flatten().cloned().collect();
            let subgraph = world.reference.conflicted_state_subgraph(&conflicted);
            Some(subgraph.into_iter().collect())
        },
    );
    resolved.unwrap().into_iter().collect()
}

/// For reading when a test fails.
fn told(world: &World, state: &StateMap) -> Vec<String> {
    let line = |(key, id): (&Key, &OwnedEventId)| {
        let event = &world.reference.events[id];
        format!(
            "{} {:?} {} {}",
            key.0,
            key.1,
            event.sender,
            event.content.get()
        )
    };
    state.iter().map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn our_answer_is_that_of_the_specification(version in versions(), deeds in deeds()) {
        let History { world, branches, .. } = History::new(&version, &deeds);
        let ours = world.resolve(&branches);
        let expected = world.reference.resolve(&branches);
        prop_assert_eq!(told(&world, &ours), told(&world, &expected));
        prop_assert_eq!(ours, expected);
    }

    #[test]
    fn so_it_is_where_states_are_not_what_history_makes_them(
        version in versions(), deeds in deeds(), lapses in deeds(),
    ) {
        let history = History::new(&version, &deeds);
        let states = history.forgotten(&lapses);
        let ours = history.world.resolve(&states);
        let expected = history.world.reference.resolve(&states);
        prop_assert_eq!(told(&history.world, &ours), told(&history.world, &expected));
        prop_assert_eq!(&ours, &unprojected(&history.world, &states));
    }

    #[test]
    fn order_does_not_matter_and_doing_it_again_changes_nothing(
        version in versions(), deeds in deeds(), turn in 0..4_usize,
    ) {
        let History { world, mut branches, .. } = History::new(&version, &deeds);
        let resolved = world.resolve(&branches);
        prop_assert_eq!(&resolved, &unprojected(&world, &branches));
        let turn = turn % branches.len();
        branches.rotate_left(turn);
        prop_assert_eq!(&world.resolve(&branches), &resolved);
        branches.reverse();
        prop_assert_eq!(&world.resolve(&branches), &resolved);
        branches.push(branches[0].clone());
        prop_assert_eq!(&world.resolve(&branches), &resolved);
        prop_assert_eq!(&world.resolve(&[resolved.clone(), resolved.clone()]), &resolved);
        prop_assert_eq!(&world.resolve(std::slice::from_ref(&resolved)), &resolved);
    }
}
