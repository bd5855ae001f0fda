//! Who is typing: in memory only, and never for long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use ruma::{
    OwnedUserId, RoomId, UserId,
    api::federation::transactions::edu::{Edu, TypingContent},
    serde::Raw,
};
use tokio::sync::broadcast;

use super::{
    Error, Rooms,
    membership::{require_joined, require_plausible},
    presence,
};
use crate::{clock::now_ms, storage::RoomNid};

/// The longest that a client may claim to be typing for.
const TIMEOUT_MAX_MS: i64 = 120_000;
/// How long a peer's word counts.
const TIMEOUT_REMOTE_MS: i64 = 30_000;
/// Typing users kept for a room.
const USERS_MAX: usize = 200;

/// Who is typing in all rooms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Typing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: broadcast::Sender<RoomNid>,
}

#[derive(Debug, Default)]
struct State {
    serial: i64,
    rooms: HashMap<RoomNid, Room>,
}

#[derive(Debug, Default)]
struct Room {
    /// Serial of the last change.
    serial: i64,
    /// Until when each user is typing.
    users: HashMap<OwnedUserId, i64>,
}

impl Default for Typing {
    fn default() -> Self {
        // Serials of this process are above those of the one before, so that old tokens see news.
        let state = State {
            serial: now_ms(),
            rooms: HashMap::new(),
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            changed: broadcast::Sender::new(1_024),
        }))
    }
}

impl Rooms {
    /// Who is typing.
    pub fn typing(&self) -> &Typing {
        &self.0.typing
    }
}

impl Typing {
    /// The serial of the last change.
    pub fn serial(&self) -> i64 {
        self.0
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .serial
    }

    /// Rooms as they change.
    pub fn subscribe(&self) -> broadcast::Receiver<RoomNid> {
        self.0.changed.subscribe()
    }

    /// Of some rooms those that changed after a serial and not beyond another, with who is typing
    /// there.
    pub fn since(
        &self,
        rooms: &[RoomNid],
        (after, upto): (i64, i64),
    ) -> Vec<(RoomNid, Vec<OwnedUserId>)> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms();
        let mut changed = Vec::new();
        for nid in rooms {
            if let Some(room) = state.rooms.get_mut(nid)
                && room.serial > after
                && room.serial <= upto
            {
                room.users.retain(|_, until| *until > now);
                changed.push((*nid, room.users.keys().cloned().collect()));
            }
        }
        changed
    }

    /// Sets or ends a user's typing; whether that is news.
    fn set(&self, room: RoomNid, user: &UserId, until: Option<i64>) -> bool {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let serial = state.serial + 1;
        let entry = state.rooms.entry(room).or_default();
        let news = match until {
            Some(until) => {
                if entry.users.len() >= USERS_MAX && !entry.users.contains_key(user) {
                    return false;
                }
                entry.users.insert(user.to_owned(), until).is_none()
            }
            None => entry.users.remove(user).is_some(),
        };
        if news {
            entry.serial = serial;
            state.serial = serial;
            drop(state);
            // Nobody waiting is fine.
            let _ = self.0.changed.send(room);
        }
        news
    }

    /// Ends what ran out; called every second.
    pub fn expire(&self) {
        let now = now_ms();
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut serial = state.serial;
        let mut changed = Vec::new();
        for (nid, room) in &mut state.rooms {
            let before = room.users.len();
            room.users.retain(|_, until| *until > now);
            if room.users.len() != before {
                serial += 1;
                room.serial = serial;
                changed.push(*nid);
            }
        }
        state.serial = serial;
        // What nobody can ask about any more (a token is older than an hour) is forgotten.
        state
            .rooms
            .retain(|_, room| !room.users.is_empty() || room.serial > serial - 10_000);
        drop(state);
        for nid in changed {
            let _ = self.0.changed.send(nid);
        }
    }
}

/// A user of ours types, or stops (`None`).
pub async fn set(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    timeout_ms: Option<i64>,
) -> Result<(), Error> {
    require_joined(rooms, room_id, user).await?;
    presence::active(rooms, user).await;
    let room = rooms.by_id(room_id).await?;
    let until = timeout_ms.map(|timeout| now_ms() + timeout.clamp(0, TIMEOUT_MAX_MS));
    if rooms.typing().set(room.nid, user, until) {
        let content = TypingContent::new(room_id.to_owned(), user.to_owned(), until.is_some());
        if let Ok(edu) = Raw::new(&Edu::Typing(content)) {
            rooms.tell_peers(room.nid, format!("typing {room_id} {user}"), edu);
        }
    }
    Ok(())
}

/// A user of a peer types, or stops.
pub async fn set_remote(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    typing: bool,
) -> Result<(), Error> {
    require_plausible(rooms, room_id, user).await?;
    let room = rooms.by_id(room_id).await?;
    let until = typing.then(|| now_ms() + TIMEOUT_REMOTE_MS);
    rooms.typing().set(room.nid, user, until);
    Ok(())
}
