//! Rooms in memory: head, current state, and the lock that puts changes in order.
//!
//! Memory is a cache only. The compare-and-set on `room_head.rev` is what makes a change valid;
//! a room that lost it is buried, and loaded again by whoever asks next.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use ruma::{OwnedEventId, OwnedRoomId};
use tokio::sync::watch;

use super::{notify::Customs, state::State};
use crate::{event::version::RoomVersion, storage::RoomNid};

/// A loaded room.
#[derive(Debug)]
pub struct Room {
    /// Interned id.
    pub nid: RoomNid,
    /// Room id.
    pub id: OwnedRoomId,
    /// Version with its rules.
    pub version: RoomVersion,
    /// Whether the state lacks members that the peer we joined through left out.
    pub partial: bool,
    /// The newest committed head.
    head: ArcSwap<Head>,
    /// The head that the next change builds on; may be ahead of what is committed.
    pub(super) tip: tokio::sync::Mutex<Head>,
    dead: AtomicBool,
    /// Its rows are being deleted.
    deleted: AtomicBool,
    /// Position of the newest event that this process committed or loaded.
    seen: AtomicI64,
    /// `rev` of the newest committed head.
    rev: watch::Sender<i64>,
    /// `rev` of the newest head that was queued.
    queued: AtomicI64,
    /// `rev` of the newest head with other members.
    members_rev: AtomicI64,
    /// Until when there are sticky events that the state did not allow, and whether the database was
    /// asked for those that were there before. Who adds one changes the head: another node that does
    /// makes this copy void.
    refused_until: AtomicI64,
    refused_known: AtomicBool,
    /// Who in it is counted by rules of their own, as far as that is known.
    pub(super) customs: ArcSwapOption<Customs>,
}

/// Where a room stands.
#[derive(Clone, Debug)]
pub struct Head {
    /// Compare-and-set token; -1: nothing is stored yet.
    pub rev: i64,
    /// Newest `room_seq`.
    pub seq: i64,
    /// Largest depth of the extremities.
    pub depth: i64,
    /// Forward extremities, at least one.
    pub extremities: Vec<(i64, OwnedEventId)>,
    /// Current state.
    pub state: State,
    /// Time of the newest event.
    pub last_ts: i64,
}

impl Room {
    pub(super) fn new(
        nid: RoomNid,
        id: OwnedRoomId,
        version: RoomVersion,
        partial: bool,
        head: Head,
        seen: i64,
    ) -> Self {
        Self {
            nid,
            id,
            version,
            partial,
            rev: watch::Sender::new(head.rev),
            queued: AtomicI64::new(head.rev),
            members_rev: AtomicI64::new(head.rev),
            refused_until: AtomicI64::new(0),
            // Of a room that is not stored yet there is nothing.
            refused_known: AtomicBool::new(head.rev < 0),
            customs: ArcSwapOption::empty(),
            head: ArcSwap::from_pointee(head.clone()),
            tip: tokio::sync::Mutex::new(head),
            dead: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            seen: AtomicI64::new(seen),
        }
    }

    /// The newest committed head.
    pub fn head(&self) -> Arc<Head> {
        self.head.load_full()
    }

    /// Called by the writer, in order.
    pub(super) fn publish(&self, head: Head, seen: Option<i64>) {
        let rev = head.rev;
        self.head.store(Arc::new(head));
        self.rev.send_replace(rev);
        if let Some(seen) = seen {
            self.seen.fetch_max(seen, Ordering::AcqRel);
        }
    }

    /// Position of the newest event that the head takes in.
    pub(super) fn seen_pos(&self) -> i64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Whether the head takes in what was committed at that position.
    pub(super) fn has_seen(&self, pos: i64) -> bool {
        self.seen.load(Ordering::Acquire) >= pos
    }

    /// A commit failed: what was built on it is void.
    pub(super) fn bury(&self) {
        self.dead.store(true, Ordering::Release);
        self.rev.send_replace(i64::MAX);
    }

    /// The rows of the room are being deleted: nothing may be added to it.
    pub(super) fn bury_for_good(&self) {
        self.deleted.store(true, Ordering::Release);
        self.bury();
    }

    /// Whether the rows of the room are being deleted.
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// A head is about to be queued.
    pub(super) fn queue(&self, rev: i64) {
        self.queued.fetch_max(rev, Ordering::AcqRel);
    }

    /// A head with other members is about to be queued.
    pub(super) fn change_members(&self, rev: i64) {
        self.members_rev.fetch_max(rev, Ordering::AcqRel);
    }

    /// `rev` of the newest head with other members.
    pub(super) fn members_rev(&self) -> i64 {
        self.members_rev.load(Ordering::Acquire)
    }

    /// The state does not allow an event that is sticky until then.
    pub(super) fn refuse_until(&self, ends_ts: i64) {
        self.refused_until.fetch_max(ends_ts, Ordering::AcqRel);
    }

    /// What the database says of such events.
    pub(super) fn knows_refused(&self, ends_ts: i64) {
        self.refuse_until(ends_ts);
        self.refused_known.store(true, Ordering::Release);
    }

    /// Until when there are such events; `None`: ask the database.
    pub(super) fn refused_until(&self) -> Option<i64> {
        let is_known = self.refused_known.load(Ordering::Acquire);
        is_known.then(|| self.refused_until.load(Ordering::Acquire))
    }

    /// Waits until everything that was queued is on disk, or the room is dead; `false`: there was
    /// nothing to wait for.
    pub(super) async fn settled(&self) -> bool {
        let queued = self.queued.load(Ordering::Acquire);
        if *self.rev.borrow() >= queued {
            return false;
        }
        self.committed(queued).await;
        true
    }

    /// Waits until what was queued up to that `rev` is on disk, or the room is dead.
    pub(super) async fn committed(&self, rev: i64) {
        let mut watch = self.rev.subscribe();
        // The sender lives as long as self.
        let _ = watch.wait_for(|committed| *committed >= rev).await;
    }

    /// Whether this copy must not be used any more.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
}
