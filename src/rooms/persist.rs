//! From accepted events to rows: the only way an event is written.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
};

use ruma::{OwnedEventId, UserId};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Error, Rooms, notify,
    pdus::hash_of,
    relations,
    resident::{Head, Room},
    search,
    state::State,
    writer::{Commit, Done},
};
use crate::{
    clock::now_ms,
    event::{media, pdu::Pdu, sticky},
    storage::{
        self,
        append::{Batch, CountRow, EventRow, MemberRow, RoomRow, append, flag},
        codec::{encode_body, encode_nids},
        events::split_hash,
        memberships,
    },
};

/// Numbers taken from the database at once.
const NID_BLOCK: i64 = 1024;

/// Rows of one change of a room, put together event by event.
pub(super) struct Plan {
    room: Arc<Room>,
    rev: i64,
    /// The head as it will be.
    pub(super) head: Head,
    batch: Batch,
    timeline: Vec<i64>,
    remember: Vec<(i64, Arc<Pdu>)>,
    forget: Vec<i64>,
}

/// An event with all that its rows need.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The event.
    pub(super) pdu: Arc<Pdu>,
    /// Its number.
    pub(super) nid: i64,
    /// Already stored as an outlier.
    pub(super) known: bool,
    /// See [`flag`].
    pub(super) flags: i32,
    /// State before it; `None`: not known.
    pub(super) snap: Option<i64>,
    /// Known predecessors.
    pub(super) prev: Vec<i64>,
    /// Auth events.
    pub(super) auth: Vec<i64>,
    /// Owed to peers.
    pub(super) out: Option<i32>,
    /// Place in the timeline for what is older than all we have; `None`: the next one.
    pub(super) seq: Option<i64>,
    /// Whether it is sticky where it says so (MSC4354): not what a policy server refused.
    pub(super) sticks: bool,
}

impl Plan {
    /// Builds on `tip`, the head after what is queued already.
    pub(super) fn new(room: &Arc<Room>, tip: &Head) -> Self {
        Self {
            room: room.clone(),
            rev: tip.rev,
            head: tip.clone(),
            batch: Batch::default(),
            timeline: Vec::new(),
            remember: Vec::new(),
            forget: Vec::new(),
        }
    }

    /// Adds an event: to the timeline, unless it is an outlier, rejected or soft-failed.
    pub(super) async fn add(&mut self, rooms: &Rooms, event: Accepted) -> Result<(), Error> {
        let Accepted {
            pdu,
            nid,
            known,
            mut flags,
            snap,
            prev,
            auth,
            out,
            seq: given_seq,
            sticks,
        } = event;
        let ids = &rooms.ctx().db.ids;
        let sender = ids.user(&pdu.sender).await?.0;
        let kind = pdu.kind.to_string();
        let skey = match &pdu.state_key {
            Some(key) => Some(ids.skey(&kind, key).await?.0),
            None => None,
        };
        let user = match pdu.target() {
            Some(target) => ids.user(target).await?.0,
            None => sender,
        };
        let in_timeline = flags & (flag::OUTLIER | flag::REJECTED | flag::SOFT_FAILED) == 0;
        let seq = in_timeline.then(|| {
            given_seq.unwrap_or_else(|| {
                self.head.seq += 1;
                self.head.seq
            })
        });
        if let Some(seq) = seq.filter(|_| given_seq.is_none() && flags & flag::REDACTED == 0) {
            flags |= self.count(rooms, &pdu, seq).await?;
        }
        flags |= moves_up(&kind) | search::flags(&kind);
        if sticks && given_seq.is_none() && flags & (flag::OUTLIER | flag::REJECTED) == 0 {
            self.stick(&pdu, nid, flags);
        }
        let (key, tail) = halves(&pdu)?;
        self.batch.events.push(EventRow {
            nid,
            room: self.room.nid.0,
            seq,
            depth: pdu.depth,
            ts: pdu.origin_server_ts,
            sender,
            user,
            skey,
            snap,
            key,
            tail,
            kind: ids.event_type(&kind).await?.0,
            flags,
            relation: relations::row(rooms, nid, &pdu).await?,
            media: named_media(rooms, &pdu).await?,
            prev: encode_nids(prev),
            auth: encode_nids(auth),
            body: encode_body(&pdu.json),
            known,
            out,
        });
        if seq.is_some() && given_seq.is_none() {
            self.timeline.push(nid);
            self.head.last_ts = pdu.origin_server_ts;
        }
        // Events that follow in this plan look it up.
        rooms.remember(nid, &pdu);
        self.remember.push((nid, pdu));
        Ok(())
    }

    /// Notes until when an event is sticky, if it is.
    fn stick(&mut self, pdu: &Pdu, nid: i64, flags: i32) {
        let now = now_ms();
        let ends = sticky::ends_ts(pdu, now).filter(|ends| *ends > now);
        let is_refused = flags & (flag::SOFT_FAILED | flag::REDACTED) != 0;
        if is_refused && let Some(ends) = ends {
            self.room.refuse_until(ends);
        }
        let row = ends.map(|ends| (self.room.nid.0, nid, ends));
        self.batch.sticky.extend(row);
    }

    /// What an event does to unread counts: flags for all, rows for single users.
    async fn count(&mut self, rooms: &Rooms, pdu: &Pdu, seq: i64) -> Result<i32, Error> {
        let state = &self.head.state.entries;
        let notice = notify::look(rooms, &self.room, state, pdu).await?;
        let room = self.room.nid.0;
        let row = |(user, notify, high)| CountRow {
            user,
            room,
            seq,
            notify: i16::from(notify),
            high: i16::from(high),
        };
        self.batch.counted.extend(notice.users.into_iter().map(row));
        Ok(notice.flags)
    }

    /// Whether the state of the room lacks members.
    pub(super) fn is_partial(&self) -> bool {
        self.room.partial
    }

    /// Makes an event the only extremity above those it names.
    pub(super) fn extend(&mut self, nid: i64, pdu: &Pdu) {
        self.head
            .extremities
            .retain(|(_, id)| !pdu.prev_events.contains(id));
        self.head.extremities.push((nid, pdu.event_id.clone()));
        self.head.depth = self.head.depth.max(pdu.depth);
    }

    /// Makes `state` the current state; membership rows follow what changed.
    pub(super) async fn set_state(&mut self, rooms: &Rooms, state: State) -> Result<(), Error> {
        let changed: Vec<(i64, i64)> =
            super::state::difference(&self.head.state.entries, &state.entries)
                .into_iter()
                .filter(|(skey, ..)| *skey < 0)
                .map(|(skey, _, event)| (skey, event))
                .collect();
        self.head.state = state;
        self.set_members(rooms, &changed).await
    }

    /// The same where the caller knows what changed: (state key, event).
    pub(super) async fn advance_state(
        &mut self,
        rooms: &Rooms,
        snap: i64,
        changes: &[(i64, i64)],
    ) -> Result<(), Error> {
        let (state, stored) = self.head.state.advance(self.room.nid.0, snap, changes);
        // A number that is not committed is never used again, so this can come before.
        rooms.remember_snap(stored.meta.clone());
        self.store_state(stored);
        self.head.state = state;
        let members: Vec<(i64, i64)> = changes
            .iter()
            .copied()
            .filter(|(skey, _)| *skey < 0)
            .collect();
        self.set_members(rooms, &members).await
    }

    /// Stores a snapshot without making it current.
    pub(super) fn store_state(&mut self, rows: super::state::Rows) {
        self.batch.snaps.push(rows.snap);
        self.batch.ckpts.extend(rows.ckpt);
    }

    async fn set_members(&mut self, rooms: &Rooms, changed: &[(i64, i64)]) -> Result<(), Error> {
        if changed.is_empty() {
            return Ok(());
        }
        let ids = &rooms.ctx().db.ids;
        let own = rooms.ctx().server_name();
        let fresh: HashMap<i64, Arc<Pdu>> = self.remember.iter().cloned().collect();
        let missing: Vec<i64> = changed
            .iter()
            .map(|(_, event)| *event)
            .filter(|event| *event != 0 && !fresh.contains_key(event))
            .collect();
        let loaded = rooms.pdus(&self.room, &missing).await?;
        let loaded: HashMap<i64, Arc<Pdu>> = missing.into_iter().zip(loaded).collect();
        // ON CONFLICT may not meet a row twice; the last one stands.
        let users: HashSet<i64> = changed.iter().map(|(skey, _)| -skey).collect();
        self.batch.members.retain(|row| !users.contains(&row.user));
        for (skey, event) in changed {
            let user = crate::storage::UserNid(-skey);
            let user_id = ids.user_id(user).await?;
            let pdu = fresh.get(event).or_else(|| loaded.get(event));
            let membership = pdu.and_then(|pdu| pdu.membership());
            let sender = match pdu {
                Some(pdu) => ids.user(&pdu.sender).await?.0,
                None => user.0,
            };
            self.batch.members.push(MemberRow {
                room: self.room.nid.0,
                user: user.0,
                server: ids.server(user_id.server_name()).await?.0,
                membership: membership.as_ref().map_or(3, memberships::code),
                event: *event,
                sender,
                local: user_id.server_name() == own,
            });
        }
        Ok(())
    }

    /// Remembers a client transaction with the event it makes.
    pub(super) fn txn(&mut self, hash: Uuid, nid: i64) {
        self.batch.txns.push((hash, self.room.nid.0, nid));
    }

    /// Notes predecessors that we do not have.
    pub(super) fn missing(&mut self, child: i64, ids: &[OwnedEventId]) {
        let room = self.room.nid.0;
        self.batch
            .missing
            .extend(ids.iter().map(|id| (room, id.to_string(), child)));
    }

    /// Notes a redaction; where it is allowed and its target is here, `pruned` is the target.
    pub(super) fn redact(&mut self, redaction: i64, target: &str, pruned: Option<(i64, &Pdu)>) {
        let room = self.room.nid.0;
        self.batch
            .redactions
            .push((room, target.to_owned(), redaction, pruned.is_some()));
        if let Some((nid, pdu)) = pruned {
            self.batch
                .pruned
                .push((room, nid, pdu.is_state(), encode_body(&pdu.json)));
            self.forget.push(nid);
        }
    }

    /// A plan for outliers only: it changes no head and needs no lock.
    pub(super) fn outliers(room: &Arc<Room>) -> Self {
        Self::new(room, &Head::empty())
    }

    /// Writes what [`Plan::outliers`] gathered, in one statement.
    pub(super) async fn write_outliers(self, rooms: &Rooms) -> Result<(), Error> {
        let mut conn = rooms.ctx().db.planning().await?;
        // Nothing may be added to a room that is being deleted.
        if self.room.is_deleted() {
            return Err(Error::Busy);
        }
        append(&mut conn, &self.batch, now_ms()).await?;
        Ok(())
    }

    /// Queues the change. Call under the lock of the room's tip, then store `head` there.
    pub(super) async fn commit(mut self, rooms: &Rooms) -> Result<(Head, Pending), Error> {
        self.head.rev = self.rev.max(0) + 1;
        self.batch.rooms.push(RoomRow {
            room: self.room.nid.0,
            rev: self.rev,
            new_rev: self.head.rev,
            seq: self.head.seq,
            depth: self.head.depth,
            snap: self.head.state.snap,
            extrem: encode_nids(self.head.extremities.iter().map(|(nid, _)| *nid)),
            ts: self.head.last_ts,
        });
        if !self.batch.members.is_empty() {
            self.room.change_members(self.head.rev);
        }
        self.room.queue(self.head.rev);
        let (done, wait) = oneshot::channel();
        let pending = Pending {
            wait,
            forget: self.forget,
            room: self.room.clone(),
            members: self.batch.members.iter().map(|row| row.user).collect(),
        };
        rooms
            .0
            .writers
            .enqueue(Commit {
                room: self.room,
                head: self.head.clone(),
                batch: self.batch,
                events: self.timeline,
                done,
            })
            .await;
        Ok((self.head, pending))
    }
}

/// A queued change.
pub(super) struct Pending {
    wait: oneshot::Receiver<Done>,
    forget: Vec<i64>,
    room: Arc<Room>,
    /// Whose membership it changes.
    members: Vec<i64>,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Written {
    /// On disk; the last position, if it has any.
    Yes(Option<i64>),
    /// The room changed meanwhile: build it again.
    Stale,
}

impl Pending {
    pub(super) async fn written(self, rooms: &Rooms) -> Result<Written, Error> {
        let done = self
            .wait
            .await
            .unwrap_or(Done::Failed("shutting down".to_owned()));
        for nid in self.forget {
            rooms.forget_pdu(nid);
        }
        match done {
            Done::Written(positions) => {
                super::sticky::members_changed(rooms, self.room, self.members);
                Ok(Written::Yes(positions.last().copied()))
            }
            Done::Stale => Ok(Written::Stale),
            Done::Failed(why) => Err(Error::NotWritten(why)),
        }
    }
}

/// Events that move a room up in lists of rooms (MSC4186), with names from before they were in the
/// specification.
const BUMPING: [&str; 9] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.beacon_info",
    "org.matrix.msc3672.beacon_info",
];

fn moves_up(kind: &str) -> i32 {
    if BUMPING.contains(&kind) {
        flag::BUMPS
    } else {
        0
    }
}

/// The two columns of an event id.
fn halves(pdu: &Pdu) -> Result<(Uuid, Uuid), Error> {
    let hash = hash_of(&pdu.event_id);
    let hash = hash.ok_or_else(|| Error::Invalid("event id of an old room version".to_owned()))?;
    Ok(split_hash(&hash))
}

/// Which media of ours an event names, whatever becomes of it: as long as we hold it, somebody may show them.
async fn named_media(rooms: &Rooms, pdu: &Pdu) -> Result<Vec<(i32, String)>, Error> {
    let own = rooms.ctx().server_name();
    let ids = media::named(own, &pdu.json);
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let server = rooms.ctx().db.ids.server(own).await?.0;
    Ok(ids.into_iter().map(|id| (server, id.to_owned())).collect())
}

/// Whether a user is one of ours.
pub(super) fn is_local(rooms: &Rooms, user: &UserId) -> bool {
    user.server_name() == rooms.ctx().server_name()
}

impl Rooms {
    /// `count` fresh numbers for events and snapshots.
    pub(super) async fn take_nids(&self, count: i64) -> Result<std::ops::Range<i64>, Error> {
        if let Some(taken) = self.split_nids(count) {
            return Ok(taken);
        }
        let blocks = count.div_euclid(NID_BLOCK) + 1;
        let mut conn = self.ctx().db.conn().await?;
        for _ in 0..blocks {
            let start = storage::events::next_nid_block(&mut conn).await?;
            let mut nids = self.0.nids.lock().unwrap_or_else(PoisonError::into_inner);
            if nids.end == start {
                nids.end += NID_BLOCK;
            } else if nids.end - nids.start < NID_BLOCK {
                // What was left of the old block is never used: numbers are plenty.
                *nids = start..start + NID_BLOCK;
            }
        }
        match self.split_nids(count) {
            Some(taken) => Ok(taken),
            // Another task took from the block meanwhile, or several nodes draw in turn.
            None => Box::pin(self.take_nids(count)).await,
        }
    }

    fn split_nids(&self, count: i64) -> Option<std::ops::Range<i64>> {
        let mut nids = self.0.nids.lock().unwrap_or_else(PoisonError::into_inner);
        if nids.end - nids.start < count {
            return None;
        }
        let start = nids.start;
        nids.start += count;
        Some(start..start + count)
    }
}
