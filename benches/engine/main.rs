//! Benchmarks of what needs no database: `cargo bench`.

mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use amtsbote::{
    event::{
        auth, check,
        pdu::Pdu,
        push::{
            Rules, defaults,
            subject::{Place, Reader, Subject},
        },
    },
    rooms::state::{Entries, State, build as build_states, difference, walk},
    storage::state::{Snap, decode_checkpoint, encode_checkpoint},
};
use divan::{Bencher, black_box};
use room::prepared;
use ruma::{
    CanonicalJsonObject,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet},
};

fn main() {
    divan::main();
}

const MEMBERS: [usize; 3] = [100, 5_000, 50_000];

/// Branches by members.
const FORKS: [(usize, usize); 12] = [
    (100, 2),
    (100, 10),
    (100, 50),
    (100, 200),
    (5_000, 2),
    (5_000, 10),
    (5_000, 50),
    (5_000, 200),
    (50_000, 2),
    (50_000, 10),
    (50_000, 50),
    (50_000, 200),
];

/// One state out of those of many branches: (members, branches).
#[divan::bench(args = FORKS, max_time = 4)]
fn resolve(bencher: Bencher<'_, '_>, (members, forks): (usize, usize)) {
    let prepared = prepared(members, forks);
    let (room, states) = prepared.as_ref();
    bencher.bench_local(|| room.resolve(black_box(states)));
}

/// The same where the states were loaded apart and share nothing in memory.
#[divan::bench(args = [(5_000, 2), (5_000, 200), (50_000, 2)], max_time = 4)]
fn resolve_states_that_share_nothing(bencher: Bencher<'_, '_>, (members, forks): (usize, usize)) {
    let prepared = prepared(members, forks);
    let (room, states) = prepared.as_ref();
    let apart: Vec<Entries> = states
        .iter()
        .map(|state| state.iter().map(|(key, event)| (*key, *event)).collect())
        .collect();
    bencher.bench_local(|| room.resolve(black_box(&apart)));
}

/// Keys at which two states differ that come from the same one.
#[divan::bench(args = MEMBERS)]
fn difference_of_states(bencher: Bencher<'_, '_>, members: usize) {
    let prepared = prepared(members, 2);
    let states = &prepared.1;
    bencher.bench_local(|| difference(black_box(&states[0]), black_box(&states[1])));
}

/// Authorization of a message against the state before it.
#[divan::bench(args = MEMBERS)]
fn authorize_a_message(bencher: Bencher<'_, '_>, members: usize) {
    let prepared = prepared(members, 2);
    let room = &prepared.0;
    let message = Arc::new(room.message(&room::member(7), &room::signing_keys()));
    bencher.bench_local(|| {
        auth::check(&room.version, black_box(&message), |kind, key| {
            room.at(kind, key)
        })
    });
}

/// A peer's event: JSON, form, content hash, signature, event id.
#[divan::bench]
fn check_an_event(bencher: Bencher<'_, '_>) {
    let prepared = prepared(100, 2);
    let room = &prepared.0;
    let keys = room::signing_keys();
    let message = room.message("@somebody:a.example", &keys);
    let set = PublicKeySet::from([(keys.key_id(), Base64::new(keys.public_key().to_vec()))]);
    let known = PublicKeyMap::from([(keys.server_name.to_string(), set)]);
    bencher.bench_local(|| {
        let object: CanonicalJsonObject =
            serde_json::from_str(black_box(&message.json)).expect("JSON");
        check::format(&object, &room.version).expect("good form");
        let object = check::verify(object, &known, &room.version).expect("a good signature");
        Pdu::from_object(object, &room.version).expect("an event")
    });
}

/// An event of ours: canonical JSON, hash, signature, event id.
#[divan::bench]
fn build_an_event(bencher: Bencher<'_, '_>) {
    let prepared = prepared(100, 2);
    let keys = room::signing_keys();
    bencher.bench_local(|| prepared.0.message("@somebody:a.example", black_box(&keys)));
}

/// Push rules of users against one message: the default ones, and with keywords.
#[divan::bench(args = [0, 10, 100])]
fn evaluate_push_rules(bencher: Bencher<'_, '_>, keywords: usize) {
    let prepared = prepared(100, 2);
    let message = prepared
        .0
        .message("@somebody:a.example", &room::signing_keys());
    let reader = Reader {
        user_id: ruma::user_id!("@reader:a.example"),
        display_name: None,
        subscribed: false,
    };
    let mut set = serde_json::json!(defaults::of(reader.user_id, defaults::Added::default()));
    let rule = |at: usize| {
        serde_json::json!({
            "rule_id": format!("k{at}"), "default": false, "enabled": true, "actions": ["notify"],
            "pattern": if at.is_multiple_of(2) { format!("word{at}") } else { format!("w*rd{at}?") },
        })
    };
    set["content"] = (0..keywords).map(rule).collect();
    let rules = Rules::new(&serde_json::from_value(set).expect("rules"));
    let place = Place::default();
    bencher.bench_local(|| rules.effect(&Subject::new(black_box(&message)), &place, reader));
}

/// Snapshots of one change each, from a checkpoint of the room's state on: newest first.
fn chain(state: &Entries, length: i64) -> Vec<Arc<Snap>> {
    let keys: Vec<i64> = state.keys().copied().collect();
    let snap = |nid: i64| {
        let at = usize::try_from(nid * 37).expect("small") % keys.len();
        Arc::new(Snap {
            nid,
            parent: (nid > 1).then_some(nid - 1),
            generation: i32::try_from(nid).expect("small"),
            since: i32::try_from(nid - 1).expect("small"),
            delta: vec![(keys[at], 1, 1_000_000 + nid)],
        })
    };
    (1..=length).rev().map(snap).collect()
}

/// Deltas between the checkpoint and an old snapshot.
const DELTAS: i64 = 500;

/// The state of an old snapshot, from the checkpoint below it.
#[divan::bench(args = MEMBERS)]
fn state_from_a_checkpoint(bencher: Bencher<'_, '_>, members: usize) {
    let prepared = prepared(members, 2);
    let state = &prepared.0.state;
    let sorted: Vec<(i64, i64)> = state.iter().map(|(key, event)| (*key, *event)).collect();
    let checkpoint = encode_checkpoint(&sorted);
    let chain = chain(state, DELTAS);
    let wanted = BTreeSet::from([DELTAS]);
    bencher.bench_local(|| {
        let checkpoint = decode_checkpoint(black_box(&checkpoint));
        build_states(&chain, checkpoint, &wanted)
    });
}

/// The state of an old snapshot, from the current state.
#[divan::bench(args = MEMBERS)]
fn state_from_the_current_one(bencher: Bencher<'_, '_>, members: usize) {
    let prepared = prepared(members, 2);
    let chain = chain(&prepared.0.state, DELTAS);
    let by_nid: BTreeMap<i64, Arc<Snap>> =
        chain.iter().map(|snap| (snap.nid, snap.clone())).collect();
    let head = State {
        snap: DELTAS,
        generation: i32::try_from(DELTAS).expect("small"),
        since: 0,
        entries: prepared.0.state.clone(),
    };
    bencher.bench_local(|| {
        walk(black_box(&head), DELTAS / 2, |snap| {
            by_nid.get(&snap).cloned()
        })
    });
}
