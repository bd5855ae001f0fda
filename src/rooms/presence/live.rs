//! What a node knows of users of ours whose clients speak to it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::{GONE_MS, WRITE_EVERY_MS};
use crate::{
    clock::now_ms,
    storage::{
        LogKind, LogRow, Pos, UserNid,
        presence::{Change, Presence, State},
    },
};

/// How often peers are told that nothing has changed: they take a user of whom they hear nothing
/// for half an hour to be gone.
const REPEAT_EVERY_MS: i64 = 1_200_000;

/// What a client says of its user.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// By a sync.
    Sync(State),
    /// With what the user says about it.
    Set(State, Option<String>),
}

/// Users whose clients speak to this node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Presences(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    /// Who writes: one at a time, so that the last word is the last to be written.
    writing: tokio::sync::Mutex<()>,
    wake: Notify,
    /// Numbers of what goes to peers.
    serial: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    users: HashMap<UserNid, User>,
    /// Whose row is not what it should be.
    due: BTreeSet<UserNid>,
    /// Of whom peers have to be told.
    outgoing: BTreeSet<UserNid>,
}

#[derive(Debug, Default)]
struct User {
    /// What others are told, or are about to be.
    presence: Presence,
    /// Position at which this node wrote it.
    pos: Pos,
    /// Another node may have written since.
    is_stale: bool,
    /// When a client last spoke to us.
    seen_ts: i64,
    /// When the row last learned of it.
    written_ts: i64,
    /// When peers were last told.
    told_ts: i64,
    /// What each device said last, and when.
    words: HashMap<i32, (State, i64)>,
    /// Syncs under way.
    syncing: u32,
}

/// A client is there while this lives.
#[derive(Debug)]
pub struct Syncing {
    presences: Presences,
    user: UserNid,
    device: i32,
}

impl Drop for Syncing {
    fn drop(&mut self) {
        let now = now_ms();
        if let Some(user) = self.presences.table().users.get_mut(&self.user) {
            user.syncing = user.syncing.saturating_sub(1);
            user.seen_ts = now;
            if let Some((_, said_ts)) = user.words.get_mut(&self.device) {
                *said_ts = now;
            }
        }
    }
}

impl User {
    /// A device said something; whether that changes what others are told.
    ///
    /// Only a device that changes its mind counts, or one that comes when nobody was there: an idle
    /// user stays idle although clients sync on and on with the default, and a second device does
    /// not argue with the first.
    fn says(&mut self, device: i32, said: Said, now: i64) -> bool {
        let before = self.presence.clone();
        let was_seen = now - self.seen_ts < GONE_MS;
        self.seen_ts = now;
        match said {
            Said::Set(state, status_msg) => {
                self.words.insert(device, (state, now));
                self.presence.status_msg = status_msg;
                self.turns(state, now);
                self.presence.last_active_ts = now;
            }
            Said::Sync(word) => {
                let fresh = |(_, said_ts): &(State, i64)| now - said_ts < GONE_MS;
                let last = self.words.insert(device, (word, now));
                let last = last.filter(fresh).map(|(word, _)| word);
                self.words.retain(|_, said| fresh(said));
                let state = self.presence.state;
                let is_new = last != Some(word) && (last.is_some() || !was_seen);
                if is_new || state == State::Offline {
                    let best = self.words.values().map(|(word, _)| *word).max();
                    self.turns(best.unwrap_or(word), now);
                }
            }
        }
        !before.looks_like(&self.presence)
    }

    fn turns(&mut self, state: State, now: i64) {
        self.presence.state = state;
        self.presence.currently_active = state == State::Online;
        if state == State::Online {
            self.presence.last_active_ts = now;
        }
    }

    fn is_here(&self, now: i64) -> bool {
        self.syncing > 0 || now - self.seen_ts < GONE_MS
    }
}

impl Presences {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to write.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.writing.lock().await
    }

    /// Waits until there is something to write that nobody waits for.
    pub(super) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// The presence of a user, where this node knows it best.
    pub(super) fn find(&self, user: UserNid) -> Option<Presence> {
        let table = self.table();
        let user = table.users.get(&user).filter(|user| !user.is_stale)?;
        Some(user.presence.clone())
    }

    pub(super) fn is_loaded(&self, user: UserNid) -> bool {
        self.table()
            .users
            .get(&user)
            .is_some_and(|user| !user.is_stale)
    }

    pub(super) fn is_stale(&self, user: UserNid) -> bool {
        self.table()
            .users
            .get(&user)
            .is_some_and(|user| user.is_stale)
    }

    /// Takes over what is on disk, with when the user was seen, unless there is something newer.
    pub(super) fn load(&self, user: UserNid, found: Option<(Presence, i64)>) {
        let mut table = self.table();
        if table.due.contains(&user) {
            return;
        }
        let user = table.users.entry(user).or_default();
        user.is_stale = false;
        let (presence, seen_ts) = found.unwrap_or_default();
        user.presence = presence;
        user.seen_ts = user.seen_ts.max(seen_ts);
        user.written_ts = user.written_ts.max(seen_ts);
    }

    /// A device says how its user is; whether that has to be written.
    pub(super) fn says(&self, (user, device): (UserNid, i32), said: Said, now: i64) -> bool {
        let mut table = self.table();
        let is_news = table.users.entry(user).or_default().says(device, said, now);
        if is_news {
            table.due.insert(user);
        }
        is_news
    }

    /// Counts a sync as under way.
    pub(super) fn begin(&self, user: UserNid, device: i32) -> Option<Syncing> {
        self.table().users.get_mut(&user)?.syncing += 1;
        Some(Syncing {
            presences: self.clone(),
            user,
            device,
        })
    }

    /// A user who is not hiding did something.
    pub(super) fn active(&self, nid: UserNid, now: i64) {
        let mut table = self.table();
        let Some(user) = table.users.get_mut(&nid) else {
            return;
        };
        let was = user.presence.state;
        if was == State::Offline {
            return;
        }
        user.turns(State::Online, now);
        if was != State::Online {
            table.due.insert(nid);
            drop(table);
            self.0.wake.notify_one();
        }
    }

    /// What has to be written, still due until [`Presences::written`] says that it is.
    pub(super) fn due(&self, max: usize) -> Vec<Change> {
        let table = self.table();
        let due = table.due.iter().take(max).filter_map(|nid| {
            let user = table.users.get(nid)?;
            Some(Change {
                user: *nid,
                local: true,
                presence: user.presence.clone(),
                seen_ts: user.seen_ts,
            })
        });
        due.collect()
    }

    pub(super) fn is_due(&self, user: UserNid) -> bool {
        self.table().due.contains(&user)
    }

    /// Changes of ours are on disk.
    pub(super) fn written(&self, changes: &[Change], positions: &[Pos], now: i64) {
        let mut table = self.table();
        for (change, pos) in changes.iter().zip(positions) {
            let nid = change.user;
            table.outgoing.insert(nid);
            let Some(user) = table.users.get_mut(&nid) else {
                continue;
            };
            user.pos = *pos;
            user.is_stale = false;
            user.written_ts = now;
            user.told_ts = now;
            let (is, was) = (&user.presence, &change.presence);
            // What it did since then, the next minute tells.
            if is.state == was.state && is.status_msg == was.status_msg {
                table.due.remove(&nid);
            }
        }
    }

    /// Rows fell back by themselves.
    pub(super) fn replaced(&self, changes: &[Change], positions: &[Pos]) {
        let mut table = self.table();
        for (change, pos) in changes
            .iter()
            .zip(positions)
            .filter(|(change, _)| change.local)
        {
            table.outgoing.insert(change.user);
            if let Some(user) = table.users.get_mut(&change.user) {
                user.presence = change.presence.clone();
                user.pos = *pos;
                user.is_stale = false;
            }
        }
    }

    /// Heeds what other nodes wrote.
    pub(super) fn heed(&self, rows: &[LogRow]) {
        let rows = rows.iter().filter(|row| row.kind == LogKind::Presence);
        let mut table = self.table();
        for row in rows {
            if let Some(user) = table.users.get_mut(&UserNid(row.user)) {
                user.is_stale |= user.pos != row.pos;
            }
        }
    }

    /// Rows were missed.
    pub(super) fn all_stale(&self) {
        for user in self.table().users.values_mut() {
            user.is_stale = true;
        }
    }

    /// Users whose row has to learn that they are still there, as (user, seen, active). Peers are
    /// told again of those of whom they have not heard for long; who is gone is forgotten.
    pub(super) fn tick(&self, now: i64, tells_peers: bool) -> Vec<(UserNid, i64, i64)> {
        let mut table = self.table();
        let Table {
            users,
            due,
            outgoing,
        } = &mut *table;
        if !tells_peers {
            outgoing.clear();
        }
        users.retain(|nid, user| user.is_here(now) || due.contains(nid));
        let mut seen = Vec::new();
        for (nid, user) in users {
            if user.syncing > 0 {
                user.seen_ts = now;
            }
            let active_ts = user.presence.last_active_ts;
            let is_news = user.seen_ts.max(active_ts) > user.written_ts;
            if is_news && now - user.written_ts >= WRITE_EVERY_MS {
                user.written_ts = now;
                seen.push((*nid, user.seen_ts, active_ts));
            }
            let is_there = user.presence.state != State::Offline;
            if tells_peers && is_there && now - user.told_ts >= REPEAT_EVERY_MS {
                user.told_ts = now;
                outgoing.insert(*nid);
            }
        }
        seen
    }

    /// Takes users of whom peers have to be told.
    pub(super) fn take_outgoing(&self, max: usize) -> Vec<UserNid> {
        let mut table = self.table();
        let taken: Vec<UserNid> = table.outgoing.iter().take(max).copied().collect();
        for user in &taken {
            table.outgoing.remove(user);
        }
        taken
    }

    /// Peers have to be told of a user, if it is here.
    pub(super) fn tell_of(&self, nid: UserNid) {
        let mut table = self.table();
        let user = table.users.get(&nid);
        if user.is_some_and(|user| user.presence.state != State::Offline) {
            table.outgoing.insert(nid);
        }
    }

    /// A number greater than all before.
    pub(super) fn next_serial(&self) -> u64 {
        self.0.serial.fetch_add(1, Ordering::Relaxed)
    }
}
