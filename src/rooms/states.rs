//! States of old snapshots, one or many at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sqlx::PgConnection;

use super::{
    Error, Rooms, loading::ROOMS_AT_ONCE, pdus::Event, resident::Room, state, state::State,
};
use crate::storage::{self, RoomNid, state::Snap};

/// Bytes of deltas in memory.
pub(super) const SNAP_BYTES_MAX: u64 = 32 << 20;

/// Branches of the history of rooms whose states are made for all rooms together.
const BRANCHES_MAX: usize = 12;

/// What a snapshot weighs in memory.
pub(super) fn weight(snap: &Snap) -> u32 {
    u32::try_from(150 + snap.delta.len() * 24).unwrap_or(u32::MAX)
}

/// How a state is made: snapshots down to the nearest one with a checkpoint, newest first, and the
/// state there, sorted by state key.
pub(super) type Way = (Vec<Arc<Snap>>, Option<Vec<(i64, i64)>>);

/// States by snapshot.
pub(super) type States = HashMap<i64, State>;

impl Rooms {
    /// The state of an old snapshot.
    pub async fn state_of(&self, room: RoomNid, snap: i64) -> Result<State, Error> {
        if snap == 0 {
            return Ok(State::default());
        }
        if let Some(state) = self.0.states.get(&snap) {
            return Ok(state);
        }
        let resident = self.0.resident.get(&room).await;
        let head = resident.map(|room| room.head().state.clone());
        let near = head.as_ref().and_then(|head| self.state_from(head, snap));
        let state = if let Some(state) = near {
            state
        } else {
            self.load_state(room, head.as_ref(), snap).await?
        };
        self.0.states.insert(snap, state.clone());
        Ok(state)
    }

    async fn load_state(
        &self,
        room: RoomNid,
        head: Option<&State>,
        snap: i64,
    ) -> Result<State, Error> {
        let mut conn = self.ctx().db.conn().await?;
        let chain = self.chain(&mut conn, room, snap).await?;
        // Now the way from the current state may be known.
        if let Some(state) = head.and_then(|head| self.state_from(head, snap)) {
            return Ok(state);
        }
        load(&mut conn, room, &chain, snap).await
    }

    /// A state made from another one of the same room, if the way is in memory.
    fn state_from(&self, from: &State, snap: i64) -> Option<State> {
        state::walk(from, snap, |snap| self.0.snaps.get(&snap))
    }

    /// Keeps a snapshot in memory: states next to it are made from it.
    pub(super) fn remember_snap(&self, snap: Arc<Snap>) {
        self.0.snaps.insert(snap.nid, snap);
    }

    /// The chain of snapshots down to one with a checkpoint, newest first.
    async fn chain(
        &self,
        conn: &mut PgConnection,
        room: RoomNid,
        snap: i64,
    ) -> Result<Vec<Arc<Snap>>, Error> {
        let mut chain = storage::state::chain(conn, room, snap).await?;
        if chain.is_empty()
            && let Some(resident) = self.0.resident.get(&room).await
            && resident.settled().await
        {
            chain = storage::state::chain(conn, room, snap).await?;
        }
        let chain: Vec<Arc<Snap>> = chain.into_iter().map(Arc::new).collect();
        for snap in &chain {
            self.remember_snap(snap.clone());
        }
        Ok(chain)
    }

    /// For each of some (room, snapshot), one of a room, by room: how its state is made. Two queries.
    pub(super) async fn ways(
        &self,
        conn: &mut PgConnection,
        snaps: &[(i64, i64)],
    ) -> Result<HashMap<i64, Way>, Error> {
        let chains = storage::state::chains(conn, snaps).await?;
        let bases = chains.iter();
        let bases = bases.filter_map(|(room, chain)| Some((*room, chain.last()?.nid)));
        let bases: Vec<(i64, i64)> = bases.collect();
        let mut checkpoints = storage::state::checkpoints(conn, &bases).await?;
        let ways = chains.into_iter().map(|(room, chain)| {
            let chain: Vec<Arc<Snap>> = chain.into_iter().map(Arc::new).collect();
            for snap in &chain {
                self.remember_snap(snap.clone());
            }
            (room, (chain, checkpoints.remove(&room)))
        });
        Ok(ways.collect())
    }

    /// The states of several snapshots. Those that lie on one chain, as they do for events of one
    /// page, cost two queries together.
    pub async fn states_of(
        &self,
        room: &Room,
        snaps: impl IntoIterator<Item = i64>,
    ) -> Result<States, Error> {
        let head = room.head();
        let mut found = States::new();
        let mut missing = BTreeSet::new();
        for snap in snaps {
            if snap == 0 {
                found.insert(snap, State::default());
            } else if snap == head.state.snap {
                found.insert(snap, head.state.clone());
            } else if let Some(state) = self.0.states.get(&snap) {
                found.insert(snap, state);
            } else {
                missing.insert(snap);
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let mut conn = self.ctx().db.conn().await?;
        // Each turn takes at least one off, mostly all; more turns come only with forks.
        while let Some(newest) = missing.last().copied() {
            let near = |snap: &i64| self.state_from(&head.state, *snap);
            let mut states: Vec<State> = missing.iter().filter_map(near).collect();
            if states.is_empty() {
                let chain = self.chain(&mut conn, room.nid, newest).await?;
                states.extend(missing.iter().filter_map(near));
                if states.is_empty() {
                    states = state::load_along(&mut conn, room.nid, &chain, &missing).await?;
                }
            }
            for state in states {
                missing.remove(&state.snap);
                self.0.states.insert(state.snap, state.clone());
                found.insert(state.snap, state);
            }
        }
        Ok(found)
    }

    /// Brings states of snapshots of many rooms into memory: two queries for a hundred rooms where the
    /// way there from the current state is not known, and two more for each branch where the history
    /// of rooms forks. What is left after so many is for who asks for it.
    pub async fn prepare_states(&self, wanted: &[(&Room, BTreeSet<i64>)]) -> Result<(), Error> {
        let mut missing: Vec<(&Room, BTreeSet<i64>)> = Vec::new();
        for (room, snaps) in wanted {
            let mut snaps = snaps.clone();
            self.keep_known(room, &mut snaps);
            if !snaps.is_empty() {
                missing.push((*room, snaps));
            }
        }
        for _ in 0..BRANCHES_MAX {
            let mut left = Vec::new();
            for missing in missing.chunks(ROOMS_AT_ONCE) {
                left.extend(self.make_states(missing).await?);
            }
            missing = left;
            if missing.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Takes out the states that are in memory, or next to the current one.
    fn keep_known(&self, room: &Room, snaps: &mut BTreeSet<i64>) {
        let head = room.head();
        snaps.retain(|snap| {
            let is_known = matches!(*snap, 0) || *snap == head.state.snap;
            if is_known || self.0.states.contains_key(snap) {
                return false;
            }
            let near = self.state_from(&head.state, *snap);
            let is_far = near.is_none();
            if let Some(state) = near {
                self.0.states.insert(*snap, state);
            }
            is_far
        });
    }

    /// Makes the states that lie on the way to the newest one of each room. The rest, of rooms where
    /// there was one.
    async fn make_states<'a>(
        &self,
        missing: &[(&'a Room, BTreeSet<i64>)],
    ) -> Result<Vec<(&'a Room, BTreeSet<i64>)>, Error> {
        let newest = missing.iter();
        let newest = newest.filter_map(|(room, snaps)| Some((room.nid.0, *snaps.last()?)));
        let newest: Vec<(i64, i64)> = newest.collect();
        let mut conn = self.ctx().db.conn().await?;
        let mut ways = self.ways(&mut conn, &newest).await?;
        drop(conn);
        let mut left = Vec::new();
        for (room, snaps) in missing {
            let (chain, checkpoint) = ways.remove(&room.nid.0).unwrap_or_default();
            let mut rest = snaps.clone();
            for state in state::build(&chain, checkpoint, snaps) {
                rest.remove(&state.snap);
                self.0.states.insert(state.snap, state);
            }
            let is_better = rest.len() < snaps.len();
            self.keep_known(room, &mut rest);
            if is_better && !rest.is_empty() {
                left.push((*room, rest));
            }
        }
        Ok(left)
    }

    /// The states before several events; those not known are left out.
    pub async fn states_before(&self, room: &Room, events: &[Event]) -> Result<States, Error> {
        let snaps = events.iter().filter_map(|event| event.stored.snap);
        self.states_of(room, snaps).await
    }
}

async fn load(
    conn: &mut PgConnection,
    room: RoomNid,
    chain: &[Arc<Snap>],
    snap: i64,
) -> Result<State, Error> {
    let mut found = state::load_along(conn, room, chain, &BTreeSet::from([snap])).await?;
    let lost = || storage::Error::Inconsistent {
        table: "state_snap",
        what: format!("no snapshot {snap} of room {}", room.0),
    };
    Ok(found.pop().ok_or_else(lost)?)
}
