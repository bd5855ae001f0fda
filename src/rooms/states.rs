//! States of many old snapshots at once.

use std::collections::{BTreeSet, HashMap};

use super::{Error, Rooms, pdus::Event, resident::Room, state, state::State};

/// States by snapshot.
pub(super) type States = HashMap<i64, State>;

impl Rooms {
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
        // Each turn takes at least the newest off; more turns come only with forks.
        while let Some(newest) = missing.last().copied() {
            for state in state::load_along(&mut conn, room.nid, newest, &missing).await? {
                missing.remove(&state.snap);
                self.0.states.insert(state.snap, state.clone());
                found.insert(state.snap, state);
            }
        }
        Ok(found)
    }

    /// The states before several events; those not known are left out.
    pub async fn states_before(&self, room: &Room, events: &[Event]) -> Result<States, Error> {
        let snaps = events.iter().filter_map(|event| event.stored.snap);
        self.states_of(room, snaps).await
    }
}
