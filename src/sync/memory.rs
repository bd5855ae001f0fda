//! What syncs have read and use again, so that a sync that has nothing to say asks the database nothing.
//!
//! Why this is right, with any number of nodes on one database:
//!
//! 1. All that a sync tells lies in a span of positions `(since, upto]`, and `upto` is the horizon of
//!    this node. The horizon passes no position whose row of the log this node has not heard of.
//! 2. Whatever is told at a position is logged at it, in the same transaction, with the room or user that
//!    it is about. [`Recent`] notes a row before the horizon passes it. So where it knows nothing of a
//!    room or user after `since`, and the horizon was taken before it was asked, the database has
//!    nothing in the span either, and the statement that would look for it is left out. Each part of
//!    an answer is decided on its own: what cannot be left out is read as ever.
//! 3. What is kept here was read when the horizon was at `read_at`, and so has in it all up to there. It is
//!    used as long as nothing is logged after `read_at` that could change it. (It may have in it what is
//!    beyond `read_at`, as anything that is read; that is no reason to use it longer.) What changes
//!    without a position of its own, that a room is forgotten, or whose membership the resolution of
//!    states changed, logs [`LogKind::Standing`](crate::storage::LogKind::Standing).
//! 4. A token that this node gives is never ahead of its horizon, so that the next sync starts where
//!    this one ended, whatever node it comes to. Who is woken looks up to a horizon that has passed
//!    what woke it.
//!
//! Typing and presence are in memory anyway, or asked only where somebody's changed.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use moka::sync::Cache;
use ruma::OwnedRoomId;
use serde_json::Value;

use super::filter::Loaded;
use crate::{
    storage::{Pos, Recent, Topic, UserNid, memberships::UserRoom},
    users::{invite_permission::Wishes, tokens::Session},
};

/// Rooms of users who sync that are kept, all together, and how long: 40 MB.
const ROOMS_MAX: u64 = 250_000;
/// Devices of which something is kept.
const DEVICES_MAX: u64 = 50_000;
/// Rooms whose members are counted.
const COUNTS_MAX: u64 = 100_000;
/// Stored filters that are kept: clients of one kind store the same for each user.
const FILTERS_MAX: u64 = 10_000;
/// Nothing is kept longer.
const LIFE: Duration = Duration::from_mins(10);

/// Direct chats that are kept with the rooms of a user.
pub(super) const DIRECT_MAX: usize = 1_000;
/// Bytes of an invitation that count as one more room.
const BYTES_A_ROOM: usize = 200;

/// What is kept. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    known: Cache<UserNid, Arc<Known>>,
    keys: Cache<(UserNid, i32), Arc<Keys>>,
    /// Positions up to which no message waits for a device.
    emptied: Cache<(UserNid, i32), Pos>,
    filters: Cache<(UserNid, String), Arc<Loaded>>,
    /// Joined and invited members of rooms, and when they were counted.
    counts: Cache<i64, (Counts, Pos)>,
}

/// Joined and invited members of a room.
pub(super) type Counts = (i64, i64);

/// The rooms of a user.
#[derive(Debug)]
pub(super) struct Known {
    /// All of them, in order of position, but invitations that the user is not told of.
    pub(super) rooms: Vec<UserRoom>,
    /// What the user has said of others.
    pub(super) wishes: Wishes,
    /// Which of them are direct chats, if that was looked up.
    pub(super) direct: OnceLock<HashSet<OwnedRoomId>>,
    pub(super) read_at: Pos,
}

/// Keys of a device that wait to be claimed.
#[derive(Debug)]
pub(super) struct Keys {
    /// By algorithm.
    pub(super) counts: Value,
    /// Algorithms with a fallback key that was not used.
    pub(super) unused_fallback: Vec<String>,
    pub(super) read_at: Pos,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            known: Cache::builder()
                .max_capacity(ROOMS_MAX)
                .weigher(|_, known: &Arc<Known>| known.weight())
                .time_to_live(LIFE)
                .build(),
            keys: Cache::builder()
                .max_capacity(DEVICES_MAX)
                .time_to_live(LIFE)
                .build(),
            emptied: Cache::new(DEVICES_MAX),
            counts: Cache::builder()
                .max_capacity(COUNTS_MAX)
                .time_to_live(LIFE)
                .build(),
            filters: Cache::builder()
                .max_capacity(FILTERS_MAX)
                .time_to_idle(LIFE)
                .build(),
        }
    }
}

impl Known {
    fn weight(&self) -> u32 {
        let shown = self.rooms.iter().filter_map(|row| row.stripped.as_ref());
        let bytes: usize = shown.map(String::len).sum();
        let rooms = self.rooms.len() + bytes / BYTES_A_ROOM;
        u32::try_from(10 + rooms + self.wishes.count()).unwrap_or(u32::MAX)
    }

    fn holds(&self, user: UserNid, recent: &Recent) -> bool {
        let own = [Topic::Rooms, Topic::Account];
        !own.iter()
            .any(|topic| recent.has_since(*topic, user.0, self.read_at))
            && !has_events(&self.rooms, recent, self.read_at)
    }
}

/// Whether there may be an event after a position in one of the rooms that a user is in.
pub(super) fn has_events(rooms: &[UserRoom], recent: &Recent, since: Pos) -> bool {
    let mut joined = rooms.iter().filter(|row| row.membership == 1);
    joined.any(|row| recent.has_since(Topic::Events, row.room.0, since))
}

impl Memory {
    /// The rooms of a user, where they are what they were. Take the horizon before.
    pub(super) fn known(&self, user: UserNid, recent: &Recent) -> Option<Arc<Known>> {
        let known = self.known.get(&user);
        known.filter(|known| known.holds(user, recent))
    }

    pub(super) fn keep_known(&self, user: UserNid, known: Arc<Known>) {
        self.known.insert(user, known);
    }

    /// The keys of a device, where they are what they were.
    pub(super) fn keys(&self, session: &Session, recent: &Recent) -> Option<Arc<Keys>> {
        let keys = self.keys.get(&(session.user_nid, session.device_no));
        keys.filter(|keys| !recent.has_since(Topic::Keys, session.user_nid.0, keys.read_at))
    }

    pub(super) fn keep_keys(&self, session: &Session, keys: Arc<Keys>) {
        self.keys
            .insert((session.user_nid, session.device_no), keys);
    }

    /// Up to where no message waits for a device.
    pub(super) fn emptied_upto(&self, session: &Session) -> Pos {
        let emptied = self.emptied.get(&(session.user_nid, session.device_no));
        emptied.unwrap_or(0)
    }

    /// No message up to a position waits for a device.
    pub(super) fn emptied(&self, session: &Session, upto: Pos) {
        self.emptied
            .insert((session.user_nid, session.device_no), upto);
    }

    /// A stored filter; what one says never changes.
    pub(super) fn filter(&self, user: UserNid, id: &str) -> Option<Arc<Loaded>> {
        self.filters.get(&(user, id.to_owned()))
    }

    pub(super) fn keep_filter(&self, user: UserNid, id: &str, filter: Arc<Loaded>) {
        self.filters.insert((user, id.to_owned()), filter);
    }

    /// How many members a room has, where nothing happened in it since they were counted.
    pub(super) fn counts(&self, room: i64, recent: &Recent) -> Option<Counts> {
        let (counts, read_at) = self.counts.get(&room)?;
        (!recent.has_since(Topic::Events, room, read_at)).then_some(counts)
    }

    pub(super) fn keep_counts(&self, room: i64, counts: Counts, read_at: Pos) {
        self.counts.insert(room, (counts, read_at));
    }
}
