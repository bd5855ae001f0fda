//! Room state as a map from state key to event, and its snapshots.
//!
//! A map clones in O(1), and a snapshot is a delta on its parent with a checkpoint now and then, so
//! that storage follows what changes and not the size of the room (docs/adr/0003).

use std::collections::BTreeSet;

use imbl::ordmap::DiffItem;
use sqlx::PgConnection;

use crate::storage::{
    self, Error, RoomNid,
    append::{CkptRow, SnapRow},
    state::{Change, encode_checkpoint, encode_delta},
};

/// State key (`storage::SKeyNid`) to event (`storage::EventNid`). Of two maps of which one came from
/// the other, comparing skips what they share.
pub type Entries = imbl::OrdMap<i64, i64>;

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
        (next, Rows { snap: row, ckpt })
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
}

/// Loads the state of a snapshot: two queries, bounded by the checkpoint interval.
pub async fn load(conn: &mut PgConnection, room: RoomNid, snap: i64) -> Result<State, Error> {
    if snap == 0 {
        return Ok(State::default());
    }
    let mut found = load_along(conn, room, snap, &BTreeSet::from([snap])).await?;
    found.pop().ok_or_else(|| lost(room, snap))
}

/// Loads the state of a snapshot and of all `wanted` ones on its way down to a checkpoint, oldest
/// first: two queries, since events next to each other have states on one chain.
pub async fn load_along(
    conn: &mut PgConnection,
    room: RoomNid,
    newest: i64,
    wanted: &BTreeSet<i64>,
) -> Result<Vec<State>, Error> {
    let chain = storage::state::chain(conn, room, newest).await?;
    let Some(base) = chain.last() else {
        return Err(lost(room, newest));
    };
    let checkpoint = storage::state::checkpoint(conn, room, base.nid).await?;
    let mut skip_delta = checkpoint.is_some();
    let mut entries: Entries = checkpoint.into_iter().flatten().collect();
    let mut found = Vec::new();
    for snap in chain.iter().rev() {
        // A checkpoint holds what the delta of its own snapshot did.
        if !std::mem::take(&mut skip_delta) {
            apply(&mut entries, &snap.delta);
        }
        if wanted.contains(&snap.nid) {
            found.push(State {
                snap: snap.nid,
                generation: snap.generation,
                since: snap.since,
                entries: entries.clone(),
            });
        }
    }
    Ok(found)
}

fn apply(entries: &mut Entries, delta: &[Change]) {
    for (skey, _, event) in delta {
        if *event == 0 {
            entries.remove(skey);
        } else {
            entries.insert(*skey, *event);
        }
    }
}

fn lost(room: RoomNid, snap: i64) -> Error {
    Error::Inconsistent {
        table: "state_snap",
        what: format!("no snapshot {snap} of room {}", room.0),
    }
}

/// Keys at which two states differ: (state key, event in one, event in other), 0 for none. Sorted by
/// state key.
pub fn difference(one: &Entries, other: &Entries) -> Vec<Change> {
    one.diff(other)
        .map(|item| match item {
            DiffItem::Add(skey, event) => (*skey, 0, *event),
            DiffItem::Update { old, new } => (*new.0, *old.1, *new.1),
            DiffItem::Remove(skey, event) => (*skey, *event, 0),
        })
        .collect()
}
