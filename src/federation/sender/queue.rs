//! What waits in memory for one peer.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ruma::{api::federation::transactions::edu::Edu, serde::Raw};
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::storage::Pos;

/// Events that wait in memory; a peer that is slower is brought up from disk.
const PDUS_MAX: usize = 200;
/// EDUs that wait, each about something else.
const EDUS_MAX: usize = 500;

/// EDUs by what they are about: a newer one takes the place of an older one.
pub(super) type Edus = BTreeMap<String, Raw<Edu>>;

/// An event with its position.
pub(super) type Owed = (Pos, Arc<RawValue>);

/// What waits for one peer, and what its task waits on.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
    alive: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    pdus: VecDeque<Owed>,
    edus: Edus,
    /// More is owed than waits here.
    is_behind: bool,
    /// Up to this position it was read from disk.
    read_upto: Pos,
    /// There may be durable EDUs on disk.
    durable: bool,
}

impl Queue {
    pub(super) fn new(is_behind: bool) -> Self {
        let waiting = Waiting {
            is_behind,
            // Nobody looked.
            durable: true,
            ..Waiting::default()
        };
        Self {
            waiting: Mutex::new(waiting),
            wake: Notify::new(),
            alive: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event that the peer is owed. Events come in order.
    pub(super) fn push(&self, pos: Pos, body: &Arc<RawValue>) {
        let mut waiting = self.waiting();
        if waiting.is_behind || pos <= waiting.read_upto {
            return;
        }
        if waiting.pdus.len() < PDUS_MAX {
            waiting.pdus.push_back((pos, body.clone()));
        } else {
            waiting.fall_behind();
        }
        drop(waiting);
        self.wake.notify_one();
    }

    pub(super) fn push_edu(&self, about: &str, edu: &Raw<Edu>) {
        let mut waiting = self.waiting();
        if waiting.edus.len() < EDUS_MAX || waiting.edus.contains_key(about) {
            waiting.edus.insert(about.to_owned(), edu.clone());
        }
        drop(waiting);
        self.wake.notify_one();
    }

    pub(super) fn look_for_durable(&self) {
        self.waiting().durable = true;
        self.wake.notify_one();
    }

    /// The peer lives: a pause is cut short.
    pub(super) fn alive(&self) {
        self.alive.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.waiting();
        waiting.pdus.is_empty() && waiting.edus.is_empty() && !waiting.is_behind && !waiting.durable
    }

    /// How much waits in memory.
    pub(super) fn len(&self) -> usize {
        let waiting = self.waiting();
        waiting.pdus.len() + waiting.edus.len()
    }

    /// Ends being behind: what is owed up to the position that `seen` gives is read from disk by
    /// the caller. `None`: the peer is not behind.
    pub(super) fn begin_reading(&self, seen: impl FnOnce() -> Pos) -> Option<Pos> {
        let mut waiting = self.waiting();
        if !waiting.is_behind {
            return None;
        }
        waiting.is_behind = false;
        waiting.read_upto = seen();
        Some(waiting.read_upto)
    }

    /// There is more on disk than was read.
    pub(super) fn fall_behind(&self) {
        self.waiting().fall_behind();
    }

    /// Another node sends what the peer is owed, unless `is_ours` says that it is ours after all.
    /// Asked under the lock, so that nothing that comes with the peer is dropped.
    pub(super) fn drop_owed(&self, is_ours: impl FnOnce() -> bool) -> bool {
        let mut waiting = self.waiting();
        if is_ours() {
            return false;
        }
        waiting.pdus.clear();
        waiting.is_behind = false;
        waiting.durable = false;
        true
    }

    /// This node sends from now on what the peer is owed.
    pub(super) fn take_over(&self) {
        let mut waiting = self.waiting();
        waiting.fall_behind();
        waiting.durable = true;
        drop(waiting);
        self.wake.notify_one();
    }

    /// The next events in order.
    pub(super) fn take_pdus(&self, limit: usize) -> Vec<Owed> {
        let mut waiting = self.waiting();
        let count = waiting.pdus.len().min(limit);
        waiting.pdus.drain(..count).collect()
    }

    pub(super) fn take_edus(&self, limit: usize) -> Edus {
        let mut waiting = self.waiting();
        let mut taken = Edus::new();
        while taken.len() < limit
            && let Some((about, edu)) = waiting.edus.pop_first()
        {
            taken.insert(about, edu);
        }
        taken
    }

    /// Whether durable EDUs are to be looked for; the next time only if somebody says so.
    pub(super) fn take_durable(&self) -> bool {
        std::mem::take(&mut self.waiting().durable)
    }

    /// Waits until there may be something to send; `false`: nothing for so long.
    pub(super) async fn wait(&self, longest: Duration) -> bool {
        tokio::time::timeout(longest, self.wake.notified())
            .await
            .is_ok()
    }

    /// Waits until a pause is over, or the peer speaks.
    pub(super) async fn rest(&self, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.alive.notified()).await;
    }
}

impl Waiting {
    fn fall_behind(&mut self) {
        self.is_behind = true;
        self.pdus.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::value::RawValue;

    use super::{PDUS_MAX, Queue};

    fn body() -> Arc<RawValue> {
        RawValue::from_string("{}".to_owned()).unwrap().into()
    }

    fn positions(queue: &Queue) -> Vec<i64> {
        let taken = queue.take_pdus(usize::MAX);
        taken.into_iter().map(|(pos, _)| pos).collect()
    }

    #[test]
    fn who_is_behind_gets_from_memory_only_what_was_not_read_from_disk() {
        let queue = Queue::new(true);
        queue.push(1, &body());
        assert!(positions(&queue).is_empty());
        assert_eq!(queue.begin_reading(|| 5), Some(5));
        for pos in [4, 5, 6] {
            queue.push(pos, &body());
        }
        assert_eq!(positions(&queue), [6]);
        assert_eq!(queue.begin_reading(|| 9), None);
    }

    #[test]
    fn who_is_too_slow_falls_behind() {
        let queue = Queue::new(false);
        let many = i64::try_from(PDUS_MAX).unwrap();
        for pos in 1..=many + 1 {
            queue.push(pos, &body());
        }
        assert!(positions(&queue).is_empty());
        assert_eq!(queue.begin_reading(|| many + 1), Some(many + 1));
    }
}
