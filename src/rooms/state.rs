//! Room state as a map from state key to event, and its snapshots.
//!
//! A map clones in O(1), and a snapshot is a delta on its parent with a checkpoint now and then, so
//! that storage follows what changes and not the size of the room (docs/adr/0003).

use std::{
    collections::{BTreeSet, HashMap},
    ops::{Deref, DerefMut},
    sync::Arc,
};

use imbl::OrdMap;
use sqlx::PgConnection;

use crate::storage::{
    self, Error, RoomNid,
    append::{CkptRow, SnapRow},
    state::{Change, Snap, encode_checkpoint, encode_delta},
};

/// State key (`storage::SKeyNid`) to event (`storage::EventNid`), sorted by state key.
///
/// A type of its own because of how two are compared: what imbl 6.1 does for that skips parts that
/// the maps do not share (a property test below found it), so both are gone through here.
#[derive(Clone, Debug, Default)]
pub struct Entries(OrdMap<i64, i64>);

impl Entries {
    /// The empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The map with this entry.
    #[must_use]
    pub fn with(&self, skey: i64, event: i64) -> Self {
        Self(self.0.update(skey, event))
    }
}

impl Deref for Entries {
    type Target = OrdMap<i64, i64>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Entries {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
            || (self.0.len() == other.0.len() && self.0.iter().eq(other.0.iter()))
    }
}

impl Eq for Entries {}

impl FromIterator<(i64, i64)> for Entries {
    fn from_iter<I: IntoIterator<Item = (i64, i64)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// A state with the snapshot that holds it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Snapshot; 0: the empty state, which has no row.
    pub snap: i64,
    /// Distance from the root.
    pub generation: i32,
    /// Deltas since the last checkpoint.
    pub since: i32,
    /// The map.
    pub entries: Entries,
}

impl State {
    fn at(snap: &Snap, entries: Entries) -> Self {
        Self {
            snap: snap.nid,
            generation: snap.generation,
            since: snap.since,
            entries,
        }
    }

    /// The event at a state key.
    pub fn get(&self, skey: i64) -> Option<i64> {
        self.entries.get(&skey).copied()
    }

    /// The state with `changes` applied, and the rows to store for it. `snap` is a fresh number.
    /// `changes` are (state key, new event).
    pub fn advance(&self, room: i64, snap: i64, changes: &[(i64, i64)]) -> (Self, Rows) {
        let mut entries = self.entries.clone();
        let delta: Vec<Change> = changes
            .iter()
            .map(|(skey, event)| {
                let old = entries.insert(*skey, *event).unwrap_or(0);
                (*skey, old, *event)
            })
            .collect();
        self.stored(room, snap, &delta, entries)
    }

    /// The same for a state that may lack keys which this one has, as resolution can give it.
    pub fn replace(&self, room: i64, snap: i64, entries: Entries) -> (Self, Rows) {
        let delta = difference(&self.entries, &entries);
        self.stored(room, snap, &delta, entries)
    }

    fn stored(&self, room: i64, snap: i64, delta: &[Change], entries: Entries) -> (Self, Rows) {
        let is_root = self.snap == 0;
        let mut next = Self {
            snap,
            generation: if is_root { 0 } else { self.generation + 1 },
            since: if is_root { 0 } else { self.since + 1 },
            entries,
        };
        let checkpoint = next.since >= interval(next.entries.len())
            || (is_root && delta.len() >= CHECKPOINT_ROOT_FROM);
        if checkpoint {
            next.since = 0;
        }
        let row = SnapRow {
            room,
            nid: snap,
            parent: (!is_root).then_some(self.snap),
            generation: next.generation,
            since: next.since,
            // A root with a checkpoint needs no delta: there is nothing to go back to.
            delta: if is_root && checkpoint {
                Vec::new()
            } else {
                encode_delta(delta)
            },
        };
        let ckpt = checkpoint.then(|| {
            let sorted: Vec<(i64, i64)> = next.entries.iter().map(|(k, v)| (*k, *v)).collect();
            CkptRow {
                room,
                nid: snap,
                n: i32::try_from(sorted.len()).unwrap_or(i32::MAX),
                body: encode_checkpoint(&sorted),
            }
        });
        let meta = Arc::new(Snap {
            nid: snap,
            parent: row.parent,
            generation: next.generation,
            since: next.since,
            delta: delta.to_vec(),
        });
        (
            next,
            Rows {
                snap: row,
                ckpt,
                meta,
            },
        )
    }
}

/// A root this large (a joined room) gets its checkpoint at once.
const CHECKPOINT_ROOT_FROM: usize = 64;

/// Deltas between checkpoints: rare enough to cost little per change, often enough that any
/// snapshot is a short walk away.
fn interval(entries: usize) -> i32 {
    i32::try_from(entries.isqrt() * 8)
        .unwrap_or(i32::MAX)
        .clamp(64, 2048)
}

/// What to store for a new snapshot.
#[derive(Debug)]
pub struct Rows {
    /// The snapshot.
    pub snap: SnapRow,
    /// Its checkpoint, if it is time for one.
    pub ckpt: Option<CkptRow>,
    /// The snapshot as it is read again.
    pub meta: Arc<Snap>,
}

/// The states of all `wanted` snapshots of a chain, oldest first. The chain goes down (newest first)
/// to a root or to the snapshot of the checkpoint.
pub fn build(
    chain: &[Arc<Snap>],
    checkpoint: Option<Vec<(i64, i64)>>,
    wanted: &BTreeSet<i64>,
) -> Vec<State> {
    let mut skip_delta = checkpoint.is_some();
    let mut entries: Entries = checkpoint.into_iter().flatten().collect();
    let mut found = Vec::new();
    for snap in chain.iter().rev() {
        // A checkpoint holds what the delta of its own snapshot did.
        if !std::mem::take(&mut skip_delta) {
            apply(&mut entries, &snap.delta);
        }
        if wanted.contains(&snap.nid) {
            found.push(State::at(snap, entries.clone()));
        }
    }
    found
}

/// Loads the states of all `wanted` snapshots of a chain, oldest first: one query.
pub async fn load_along(
    conn: &mut PgConnection,
    room: RoomNid,
    chain: &[Arc<Snap>],
    wanted: &BTreeSet<i64>,
) -> Result<Vec<State>, Error> {
    let Some(base) = chain.last() else {
        return Err(lost(room, wanted.last().copied().unwrap_or_default()));
    };
    let checkpoint = storage::state::checkpoint(conn, room, base.nid).await?;
    Ok(build(chain, checkpoint, wanted))
}

/// Deltas walked from one snapshot to another; a state that is farther away is loaded.
const STEPS_MAX: usize = 4_096;

/// The state of snapshot `to`, made from one of the same room by going back to where both come from
/// and forth again: work follows what differs, and the maps share the rest. `None`: not all snapshots
/// on the way are in memory, or it is too far.
pub fn walk(from: &State, to: i64, snap: impl Fn(i64) -> Option<Arc<Snap>>) -> Option<State> {
    let target = snap(to)?;
    let (mut here, mut there) = (snap(from.snap)?, target.clone());
    let mut back: HashMap<i64, i64> = HashMap::new();
    let mut forth: HashMap<i64, i64> = HashMap::new();
    for _ in 0..STEPS_MAX {
        if here.nid == there.nid {
            // Where both sides touched a key, the far side has the say.
            back.extend(forth);
            let mut entries = from.entries.clone();
            for (key, event) in back {
                put(&mut entries, key, event);
            }
            return Some(State::at(&target, entries));
        }
        // A delta may change a key twice.
        if here.generation >= there.generation {
            for (key, old, _) in here.delta.iter().rev() {
                back.insert(*key, *old);
            }
            here = snap(here.parent?)?;
        } else {
            for (key, _, new) in there.delta.iter().rev() {
                forth.entry(*key).or_insert(*new);
            }
            there = snap(there.parent?)?;
        }
    }
    None
}

fn apply(entries: &mut Entries, delta: &[Change]) {
    for (skey, _, event) in delta {
        put(entries, *skey, *event);
    }
}

fn put(entries: &mut Entries, skey: i64, event: i64) {
    if event == 0 {
        entries.remove(&skey);
    } else {
        entries.insert(skey, event);
    }
}

fn lost(room: RoomNid, snap: i64) -> Error {
    Error::Inconsistent {
        table: "state_snap",
        what: format!("no snapshot {snap} of room {}", room.0),
    }
}

/// Events of a state that an earlier one does not have.
pub fn now_other(earlier: &Entries, now: &Entries) -> impl Iterator<Item = i64> {
    let changes = difference(earlier, now).into_iter();
    changes
        .map(|(_, _, event)| event)
        .filter(|event| *event != 0)
}

/// Keys at which two states differ: (state key, event in one, event in other), 0 for none. Sorted by
/// state key.
pub fn difference(one: &Entries, other: &Entries) -> Vec<Change> {
    if one.ptr_eq(other) {
        return Vec::new();
    }
    let (mut ones, mut others) = (one.iter().peekable(), other.iter().peekable());
    let mut changes = Vec::new();
    loop {
        match (ones.peek().copied(), others.peek().copied()) {
            (Some((skey, event)), Some((other_skey, other_event))) if skey == other_skey => {
                if event != other_event {
                    changes.push((*skey, *event, *other_event));
                }
                ones.next();
                others.next();
            }
            (Some((skey, event)), ahead)
                if ahead.is_none_or(|(other_skey, _)| skey < other_skey) =>
            {
                changes.push((*skey, *event, 0));
                ones.next();
            }
            (_, Some((skey, event))) => {
                changes.push((*skey, 0, *event));
                others.next();
            }
            (_, None) => return changes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet, HashMap},
        sync::Arc,
    };

    use proptest::prelude::*;

    use super::{Entries, Snap, State, build, difference, walk};

    proptest! {
        #[test]
        fn what_differs_is_found_whatever_is_shared(
            start in prop::collection::btree_map(0..500_i64, 1..9_i64, 0..400),
            one in prop::collection::vec((0..500_i64, 0..9_i64), 0..40),
            other in prop::collection::vec((0..500_i64, 0..9_i64), 0..40),
        ) {
            let start: Entries = start.into_iter().collect();
            let change = |changes: &[(i64, i64)]| {
                let mut entries = start.clone();
                for (key, event) in changes {
                    super::put(&mut entries, *key, *event);
                }
                entries
            };
            let (one, other) = (change(&one), change(&other));
            let keys: BTreeSet<i64> = one.keys().chain(other.keys()).copied().collect();
            let at = |entries: &Entries, key: i64| entries.get(&key).copied().unwrap_or(0);
            let expected: Vec<_> = keys
                .into_iter()
                .map(|key| (key, at(&one, key), at(&other, key)))
                .filter(|(_, one, other)| one != other)
                .collect();
            prop_assert_eq!(difference(&one, &other), expected);
        }

        /// Snapshots grow from any that are there; from each to each leads a walk.
        #[test]
        fn any_state_is_reached_from_any_other(
            steps in prop::collection::vec(
                (0..100_usize, prop::collection::vec((0..20_i64, 0..9_i64), 0..4)), 1..25,
            ),
        ) {
            let root = vec![(1, 1), (2, 1), (3, 1)];
            let (first, rows) = State::default().advance(1, 1, &root);
            let mut states = vec![first];
            let mut snaps: HashMap<i64, Arc<Snap>> = HashMap::from([(1, rows.meta)]);
            for (from, changes) in steps {
                let from = &states[from % states.len()];
                let snap = i64::try_from(states.len() + 1).unwrap();
                let (next, rows) = if changes.iter().any(|(_, event)| *event == 0) {
                    let mut entries = from.entries.clone();
                    for (key, event) in &changes {
                        super::put(&mut entries, *key, *event);
                    }
                    from.replace(1, snap, entries)
                } else {
                    from.advance(1, snap, &changes)
                };
                states.push(next);
                snaps.insert(snap, rows.meta);
            }
            for from in &states {
                for to in &states {
                    let reached = walk(from, to.snap, |snap| snaps.get(&snap).cloned()).unwrap();
                    prop_assert_eq!(&reached.entries, &to.entries);
                    prop_assert_eq!(reached.since, to.since);
                }
                let mut chain = vec![snaps[&from.snap].clone()];
                while let Some(parent) = chain.last().and_then(|snap| snap.parent) {
                    chain.push(snaps[&parent].clone());
                }
                let built = build(&chain, None, &BTreeSet::from([from.snap]));
                let plain: BTreeMap<_, _> = built[0].entries.iter().collect();
                prop_assert_eq!(plain, from.entries.iter().collect::<BTreeMap<_, _>>());
            }
        }
    }
}
