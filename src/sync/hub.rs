//! Waiting clients: woken when something for them happened, and only then.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use tokio::sync::{
    Notify,
    broadcast::error::{RecvError, TryRecvError},
};

use super::memory::Memory;
use crate::{
    rooms::Rooms,
    storage::{self, LogKind, Pos, RoomNid, UserNid},
};

/// In rooms where more clients wait presence wakes nobody: it goes with the next answer, which
/// clients do not wait long for.
const PRESENCE_WAITERS_MAX: usize = 200;
/// Users who did something lately that are remembered, and how long.
const ACTED_MAX: u64 = 100_000;
const ACTED_LIFE: Duration = Duration::from_mins(10);
/// Changes of presence that come within this time wake clients once.
const PRESENCE_PAUSE: Duration = Duration::from_millis(200);

/// All waiting clients of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    waiters: Arc<Mutex<Waiters>>,
    /// The newest event of users, by number.
    acted: Cache<i64, Pos>,
    /// What syncs have read.
    pub(super) memory: Memory,
}

impl Default for Hub {
    fn default() -> Self {
        let acted = Cache::builder()
            .max_capacity(ACTED_MAX)
            .time_to_live(ACTED_LIFE)
            .build();
        Self {
            waiters: Arc::default(),
            acted,
            memory: Memory::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    wakes: HashMap<u64, Arc<Notify>>,
    by_user: HashMap<i64, HashSet<u64>>,
    by_room: HashMap<i64, HashSet<u64>>,
    /// Those who want to know of profiles.
    for_profiles: HashSet<u64>,
}

/// A waiting client; dropped, it waits no more.
#[derive(Debug)]
pub(super) struct Waiter {
    hub: Hub,
    id: u64,
    user: i64,
    rooms: Vec<i64>,
    wake: Arc<Notify>,
}

impl Hub {
    /// Starts to follow the log and typing.
    pub fn start(rooms: Rooms) -> Self {
        let hub = Self::default();
        tokio::spawn(follow_log(hub.clone(), rooms.clone()));
        tokio::spawn(follow_typing(hub.clone(), rooms.clone()));
        if rooms.ctx().config.presence.enabled {
            tokio::spawn(follow_presence(hub.clone(), rooms));
        }
        hub
    }

    /// Registers a client. Do it before looking: what happens in between wakes it.
    pub(super) fn register(&self, user: UserNid) -> Waiter {
        let wake = Arc::new(Notify::new());
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.next += 1;
        let id = waiters.next;
        waiters.wakes.insert(id, wake.clone());
        waiters.by_user.entry(user.0).or_default().insert(id);
        waiters.count();
        drop(waiters);
        Waiter {
            hub: self.clone(),
            id,
            user: user.0,
            rooms: Vec::new(),
            wake,
        }
    }

    /// Whether a user has sent an event lately that is in `(since, upto]`, or one is about their
    /// membership.
    pub(super) fn has_acted(&self, user: UserNid, (since, upto): (Pos, Pos)) -> bool {
        let last = self.acted.get(&user.0);
        last.is_some_and(|pos| pos > since && pos <= upto)
    }

    fn wake(&self, rooms: &HashSet<i64>, users: &HashSet<i64>) {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.wake(waiters.concerned(rooms, users));
    }

    /// Wakes clients in rooms where not too many wait, and those of some users.
    fn wake_few(&self, rooms: Vec<i64>, users: &HashSet<i64>) {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let few = |room: &i64| {
            let waiting = waiters.by_room.get(room);
            waiting.is_some_and(|ids| ids.len() <= PRESENCE_WAITERS_MAX)
        };
        let rooms = rooms.into_iter().filter(few).collect();
        drop(waiters);
        self.wake(&rooms, users);
    }

    /// Rooms whose members are told that a user's profile changed; none where nobody waits for that.
    async fn rooms_of_profile(&self, rooms: &Rooms, user: i64) -> Vec<i64> {
        let is_watched = {
            let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            !waiters.for_profiles.is_empty()
        };
        if is_watched {
            rooms_of(rooms, user).await
        } else {
            Vec::new()
        }
    }

    /// Wakes those of users, and those in some rooms, who wait for profiles.
    fn wake_for_profiles(&self, rooms: &HashSet<i64>, users: &HashSet<i64>) {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ids = waiters.concerned(rooms, users);
        ids.retain(|id| waiters.for_profiles.contains(id));
        waiters.wake(ids);
    }

    fn wake_all(&self) {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.wake(waiters.wakes.keys().copied());
    }
}

impl Waiters {
    /// Clients in some rooms, and those of some users.
    fn concerned(&self, rooms: &HashSet<i64>, users: &HashSet<i64>) -> HashSet<u64> {
        let of_rooms = rooms.iter().filter_map(|room| self.by_room.get(room));
        let of_users = users.iter().filter_map(|user| self.by_user.get(user));
        of_rooms.chain(of_users).flatten().copied().collect()
    }

    fn wake(&self, ids: impl IntoIterator<Item = u64>) {
        let wakes = ids.into_iter().filter_map(|id| self.wakes.get(&id));
        let mut count = 0;
        for wake in wakes {
            wake.notify_one();
            count += 1;
        }
        metrics::counter!("sync_woken_total").increment(count);
    }

    /// Tells how many wait.
    fn count(&self) {
        let count = u32::try_from(self.wakes.len()).unwrap_or(u32::MAX);
        metrics::gauge!("sync_waiting").set(count);
    }
}

impl Waiter {
    /// Also wakes for these rooms.
    pub(super) fn watch(&mut self, rooms: impl Iterator<Item = RoomNid>) {
        let mut waiters = self
            .hub
            .waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for room in rooms {
            if waiters.by_room.entry(room.0).or_default().insert(self.id) {
                self.rooms.push(room.0);
            }
        }
    }

    /// Also wakes for profiles of who is in the rooms.
    pub(super) fn watch_profiles(&self) {
        let mut waiters = self
            .hub
            .waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiters.for_profiles.insert(self.id);
    }

    /// Waits for the next wake; one that came since registration counts.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self
            .hub
            .waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiters.wakes.remove(&self.id);
        waiters.for_profiles.remove(&self.id);
        waiters.count();
        let waiters = &mut *waiters;
        remove(&mut waiters.by_user, self.user, self.id);
        for room in &self.rooms {
            remove(&mut waiters.by_room, *room, self.id);
        }
    }
}

fn remove(map: &mut HashMap<i64, HashSet<u64>>, key: i64, id: u64) {
    if let Some(ids) = map.get_mut(&key) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(&key);
        }
    }
}

/// Rooms whose members are told that something about a user changed.
async fn rooms_of(rooms: &Rooms, user: i64) -> Vec<i64> {
    let found = async {
        let mut conn = rooms.ctx().db.conn().await?;
        storage::to_device::list_rooms(&mut conn, user).await
    };
    found.await.unwrap_or_else(|error: storage::Error| {
        tracing::warn!(%error, "who shares a room could not be read");
        Vec::new()
    })
}

async fn follow_log(hub: Hub, rooms: Rooms) {
    let mut rows = rooms.ctx().db.stream.subscribe();
    loop {
        match rows.recv().await {
            Ok(batch) => {
                let (mut in_rooms, mut users) = (HashSet::new(), HashSet::new());
                let (mut near_profiles, mut profiles) = (HashSet::new(), HashSet::new());
                for row in batch.iter() {
                    match row.kind {
                        LogKind::Event => {
                            in_rooms.insert(row.room);
                            users.insert(row.user);
                            hub.acted.insert(row.user, row.pos);
                        }
                        LogKind::Receipt | LogKind::Whole => {
                            in_rooms.insert(row.room);
                        }
                        LogKind::AccountData
                        | LogKind::ToDevice
                        | LogKind::PushRules
                        | LogKind::Signatures
                        | LogKind::OutOfBand
                        | LogKind::ThreadSubscription => {
                            users.insert(row.user);
                        }
                        LogKind::DeviceList => {
                            users.insert(row.user);
                            in_rooms.extend(rooms_of(&rooms, row.user).await);
                        }
                        LogKind::Profile => {
                            profiles.insert(row.user);
                            near_profiles.extend(hub.rooms_of_profile(&rooms, row.user).await);
                        }
                        LogKind::KeyCounts
                        | LogKind::Standing
                        | LogKind::Invalidate
                        | LogKind::ServerRule
                        | LogKind::Presence
                        | LogKind::Owed
                        | LogKind::PeerAlive
                        | LogKind::Erased => {}
                    }
                }
                hub.wake(&in_rooms, &users);
                hub.wake_for_profiles(&near_profiles, &profiles);
            }
            Err(RecvError::Lagged(_)) => hub.wake_all(),
            Err(RecvError::Closed) => return,
        }
    }
}

async fn follow_typing(hub: Hub, rooms: Rooms) {
    let mut changed = rooms.typing().subscribe();
    loop {
        match changed.recv().await {
            Ok(room) => hub.wake(&HashSet::from([room.0]), &HashSet::new()),
            Err(RecvError::Lagged(_)) => hub.wake_all(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Who shares a room is looked up here, once for all who wait: one statement for each batch.
async fn follow_presence(hub: Hub, rooms: Rooms) {
    let mut rows = rooms.ctx().db.stream.subscribe();
    loop {
        let mut users = HashSet::new();
        let mut next = rows.recv().await;
        loop {
            match next {
                Ok(batch) => {
                    let changed = batch.iter().filter(|row| row.kind == LogKind::Presence);
                    users.extend(changed.map(|row| row.user));
                }
                // Whoever was missed goes with the next answer.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
            next = match rows.try_recv() {
                Ok(batch) => Ok(batch),
                Err(TryRecvError::Lagged(lost)) => Err(RecvError::Lagged(lost)),
                Err(TryRecvError::Closed) => Err(RecvError::Closed),
                Err(TryRecvError::Empty) => break,
            };
        }
        if users.is_empty() {
            continue;
        }
        let nids: Vec<i64> = users.iter().copied().collect();
        let found = async {
            let mut conn = rooms.ctx().db.conn().await?;
            storage::presence::list_rooms(&mut conn, &nids).await
        };
        match found.await {
            Ok(in_rooms) => hub.wake_few(in_rooms, &users),
            Err(error) => tracing::warn!(%error, "who shares a room could not be read"),
        }
        tokio::time::sleep(PRESENCE_PAUSE).await;
    }
}
