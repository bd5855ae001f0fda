//! What held for users and servers in a room at some events.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ruma::events::{
    TimelineEventType,
    room::{history_visibility::HistoryVisibility, member::MembershipState},
};

use super::{
    Error, Rooms,
    pdus::Event,
    resident::Room,
    state::State,
    visibility::{is_join, membership, of},
};
use crate::event::pdu::Pdu;

/// The states before some events, and the few events of them that decide.
pub(super) struct Moments {
    states: HashMap<i64, State>,
    pdus: HashMap<i64, Arc<Pdu>>,
    /// For events whose state is not known: the current state.
    head: State,
}

pub(super) type Moment = (HistoryVisibility, MembershipState);

impl Moments {
    /// `keys`: numbers of the state keys that are asked for.
    pub(super) async fn load(
        rooms: &Rooms,
        room: &Room,
        events: &[Event],
        keys: &[i64],
    ) -> Result<Self, Error> {
        let states = rooms.states_before(room, events).await?;
        let head = room.head().state.clone();
        let nids: BTreeSet<i64> = states
            .values()
            .chain([&head])
            .flat_map(|state| keys.iter().filter_map(|skey| state.get(*skey)))
            .collect();
        let nids: Vec<i64> = nids.into_iter().collect();
        let pdus = rooms.pdus(room, &nids).await?;
        Ok(Self {
            states,
            pdus: nids.into_iter().zip(pdus).collect(),
            head,
        })
    }

    /// Whether a user was in the room at an event, as far as that is known.
    pub(super) fn was_joined(&self, event: &Event, skey: i64) -> bool {
        let state = event.stored.snap.and_then(|snap| self.states.get(&snap));
        state.is_some_and(|state| is_join(self.event(state, skey)))
    }

    fn event(&self, state: &State, skey: i64) -> Option<&Arc<Pdu>> {
        self.pdus.get(&state.get(skey)?)
    }

    pub(super) fn before(&self, event: &Event, visibility_skey: i64, member_skey: i64) -> Moment {
        let state = event.stored.snap.and_then(|snap| self.states.get(&snap));
        match state {
            Some(state) => (
                of(self.event(state, visibility_skey)),
                membership(self.event(state, member_skey)),
            ),
            // Backfilled, state unknown: judged by the current visibility, and as if the user had
            // not been there. Strict where history is not open.
            None => (
                of(self.event(&self.head, visibility_skey)),
                MembershipState::Leave,
            ),
        }
    }

    pub(super) fn after(event: &Event, before: Moment, own: bool) -> Moment {
        if event.pdu.kind == TimelineEventType::RoomHistoryVisibility
            && event.pdu.state_key.as_deref() == Some("")
        {
            (of(Some(&event.pdu)), before.1)
        } else if own {
            (before.0, membership(Some(&event.pdu)))
        } else {
            before
        }
    }
}
