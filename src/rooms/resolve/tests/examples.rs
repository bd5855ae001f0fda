//! Examples that were published with the algorithm: problems A and B of MSC4297, and conflicts that
//! every description of it walks through.

use ruma::RoomVersionId;
use serde_json::{Value, json};

use super::{
    super::reference::StateMap,
    told, unprojected,
    world::{ALICE, BOB, CHARLIE, World},
};

const EVE: &str = "@eve:e.example";
const ZARA: &str = "@zara:z.example";

fn join(name: &str) -> Value {
    json!({ "membership": "join", "displayname": name })
}

fn at(state: &StateMap, kind: &str, key: &str) -> Option<String> {
    let id = state.get(&(kind.into(), key.to_owned()));
    id.map(ToString::to_string)
}

/// Our answer, which the reference and the whole of ruma's algorithm have to give, too.
fn resolve(world: &World, states: &[StateMap]) -> StateMap {
    let ours = world.resolve(states);
    let expected = world.reference.resolve(states);
    assert_eq!(told(world, &ours), told(world, &expected));
    assert_eq!(ours, unprojected(world, states));
    ours
}

/// A peer tells outdated join rules, though all agree that Alice, who set them, has left: what is
/// in conflict is not allowed by what is not.
fn problem_a(version: &RoomVersionId) -> (Option<String>, Option<String>) {
    let (mut world, mut state) = World::opened(version, &[BOB, CHARLIE]);
    let old_rules = at(&state, "m.room.join_rules", "");
    let invite = json!({ "join_rule": "invite" });
    world.must(&mut state, "m.room.join_rules", "", ALICE, invite);
    let new_rules = at(&state, "m.room.join_rules", "");
    let leave = json!({ "membership": "leave" });
    world.must(&mut state, "m.room.member", ALICE, ALICE, leave);

    let mut of_bob = state.clone();
    let renamed = join("bob++");
    world.must(&mut of_bob, "m.room.member", BOB, BOB, renamed);
    let mut of_charlie = state.clone();
    let renamed = join("charlie++");
    world.must(&mut of_charlie, "m.room.member", CHARLIE, CHARLIE, renamed);
    let outdated = old_rules.unwrap().try_into().unwrap();
    of_charlie.insert(("m.room.join_rules".into(), String::new()), outdated);

    let resolved = resolve(&world, &[of_bob.clone(), of_charlie.clone()]);
    for (user, from) in [(BOB, &of_bob), (CHARLIE, &of_charlie), (ALICE, &state)] {
        let key: &str = user;
        assert_eq!(
            at(&resolved, "m.room.member", key),
            at(from, "m.room.member", key)
        );
    }
    (at(&resolved, "m.room.join_rules", ""), new_rules)
}

#[test]
fn problem_a_loses_the_join_rules_up_to_version_11() {
    assert_eq!(problem_a(&RoomVersionId::V11).0, None);
    assert_eq!(problem_a(&RoomVersionId::V6).0, None);
}

#[test]
fn problem_a_is_solved_in_version_12() {
    let (resolved, expected) = problem_a(&RoomVersionId::V12);
    assert_eq!(resolved, expected);
}

/// A peer tells outdated power levels, though auth chains on both sides know of the newer ones: the
/// step between is in no difference of auth chains.
fn problem_b(version: &RoomVersionId) -> [Option<String>; 3] {
    let (mut world, mut state) = World::opened(version, &[BOB, CHARLIE]);
    let first = at(&state, "m.room.power_levels", "");
    let levels = world.levels(&[(BOB, 50)]);
    world.must(&mut state, "m.room.power_levels", "", ALICE, levels);
    let levels = world.levels(&[(BOB, 50), (CHARLIE, 50)]);
    world.must(&mut state, "m.room.power_levels", "", BOB, levels);
    let last = at(&state, "m.room.power_levels", "");

    let mut of_zara = state.clone();
    world.must(&mut of_zara, "m.room.member", ZARA, ZARA, join("zara"));
    let mut of_eve = state;
    world.must(&mut of_eve, "m.room.member", EVE, EVE, join("eve"));
    world.must(&mut of_eve, "m.room.member", EVE, EVE, join("eve++"));
    let outdated = first.clone().unwrap().try_into().unwrap();
    of_eve.insert(("m.room.power_levels".into(), String::new()), outdated);

    let resolved = resolve(&world, &[of_eve.clone(), of_zara.clone()]);
    for (user, from) in [(EVE, &of_eve), (ZARA, &of_zara)] {
        let key: &str = user;
        assert_eq!(
            at(&resolved, "m.room.member", key),
            at(from, "m.room.member", key)
        );
    }
    [at(&resolved, "m.room.power_levels", ""), first, last]
}

#[test]
fn problem_b_resets_the_power_levels_up_to_version_11() {
    let [resolved, first, _] = problem_b(&RoomVersionId::V11);
    assert_eq!(resolved, first);
}

#[test]
fn problem_b_is_solved_in_version_12() {
    let [resolved, _, last] = problem_b(&RoomVersionId::V12);
    assert_eq!(resolved, last);
}

const VERSIONS: [RoomVersionId; 5] = [
    RoomVersionId::V3,
    RoomVersionId::V6,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

#[test]
fn a_ban_voids_what_the_banned_did_meanwhile() {
    for version in VERSIONS {
        let (mut world, mut state) = World::opened(&version, &[BOB, CHARLIE]);
        let levels = world.levels(&[(BOB, 50)]);
        world.must(&mut state, "m.room.power_levels", "", ALICE, levels);
        let mut of_alice = state.clone();
        let ban = json!({ "membership": "ban" });
        world.must(&mut of_alice, "m.room.member", BOB, ALICE, ban);
        let mut of_bob = state;
        let levels = world.levels(&[(BOB, 50), (CHARLIE, 50)]);
        world.must(&mut of_bob, "m.room.power_levels", "", BOB, levels);
        let topic = json!({ "topic": "of bob" });
        world.must(&mut of_bob, "m.room.topic", "", BOB, topic);

        assert_eq!(
            resolve(&world, &[of_bob, of_alice.clone()]),
            of_alice,
            "{version}"
        );
    }
}

#[test]
fn a_join_does_not_pass_rules_that_closed_the_room_meanwhile() {
    for version in VERSIONS {
        let (mut world, state) = World::opened(&version, &[BOB]);
        let mut of_alice = state.clone();
        let invite = json!({ "join_rule": "invite" });
        world.must(&mut of_alice, "m.room.join_rules", "", ALICE, invite);
        let mut of_eve = state;
        world.must(&mut of_eve, "m.room.member", EVE, EVE, join("eve"));

        assert_eq!(
            resolve(&world, &[of_eve, of_alice.clone()]),
            of_alice,
            "{version}"
        );
    }
}

#[test]
fn joins_at_the_same_time_all_stand() {
    for version in VERSIONS {
        let (mut world, state) = World::opened(&version, &[BOB]);
        let mut states = Vec::new();
        // More branches than one pass of the auth graph tells apart.
        for number in 0..70 {
            let user = format!("@u{number}:d.example");
            let mut branch = state.clone();
            world.must(&mut branch, "m.room.member", &user, &user, join("u"));
            states.push(branch);
        }
        let all: StateMap = states
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        assert_eq!(world.resolve(&states), all, "{version}");
        assert_eq!(unprojected(&world, &states), all, "{version}");
    }
}

#[test]
fn of_equal_power_the_later_change_stands() {
    for version in VERSIONS {
        let (mut world, mut state) = World::opened(&version, &[BOB]);
        let levels = world.levels(&[(BOB, 100)]);
        world.must(&mut state, "m.room.power_levels", "", ALICE, levels);
        let (mut one, mut other) = (state.clone(), state);
        world.must(
            &mut one,
            "m.room.topic",
            "",
            ALICE,
            json!({ "topic": "first" }),
        );
        world.must(
            &mut other,
            "m.room.topic",
            "",
            BOB,
            json!({ "topic": "second" }),
        );

        assert_eq!(resolve(&world, &[other.clone(), one]), other, "{version}");
    }
}
