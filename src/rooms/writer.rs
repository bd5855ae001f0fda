//! The writers: a few tasks, each with a connection of its own, that commit whatever is queued.
//!
//! A room always goes to the same writer, so its commits stay in order; several rooms share one
//! round trip and one flush. A task of its own, because a request that is cancelled must not leave
//! a statement behind whose commit nobody announces.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};

use super::resident::{Head, Room};
use crate::{
    clock::now_ms,
    storage::{
        Db, Error, Pos,
        append::{Batch, Outcome, append, log_rows, log_standing},
    },
};

/// Writers. More than a few do not help: PostgreSQL groups their flushes.
const WRITERS: usize = 3;
/// Commits that wait for one writer before senders have to wait themselves.
const QUEUE_MAX: usize = 1024;
/// Commits in one round trip; beyond this, latency grows without gain.
const BATCH_MAX: usize = 128;

/// What one accepted change writes.
#[derive(Debug)]
pub(super) struct Commit {
    /// The room, which is told its new head.
    pub(super) room: Arc<Room>,
    /// Its head after this commit.
    pub(super) head: Head,
    /// Rows; exactly one room row.
    pub(super) batch: Batch,
    /// Its timeline events, in order.
    pub(super) events: Vec<i64>,
    /// Who waits.
    pub(super) done: oneshot::Sender<Done>,
}

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Done {
    /// It is on disk; positions of its timeline events, in order.
    Written(Vec<Pos>),
    /// Somebody else changed the room meanwhile, or the client transaction of this or another
    /// commit was done before: look for that, else build it again.
    Stale,
    /// The database failed; nothing was written.
    Failed(String),
}

/// Handle to the writers.
#[derive(Clone, Debug)]
pub(super) struct Writers(Arc<[mpsc::Sender<Commit>]>);

impl Writers {
    pub(super) fn start(db: &Db) -> Self {
        let queues = (0..WRITERS).map(|_| {
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(run(db.clone(), queue));
            sender
        });
        Self(queues.collect())
    }

    /// Queues a commit behind those of its room. Waits when the queue is full.
    pub(super) async fn enqueue(&self, commit: Commit) {
        let writer = usize::try_from(commit.room.nid.0).unwrap_or(0) % self.0.len();
        if let Err(rejected) = self.0[writer].send(commit).await {
            // Shutting down; who waits sees the dropped sender.
            drop(rejected);
        }
    }
}

async fn run(db: Db, mut queue: mpsc::Receiver<Commit>) {
    let mut conn = None;
    let mut commits = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut commits, BATCH_MAX).await > 0 {
        write(&db, &mut conn, std::mem::take(&mut commits)).await;
    }
}

/// Writes commits together; where that fails, room by room, so that one cannot hurt the others.
async fn write(db: &Db, conn: &mut Option<PgConnection>, commits: Vec<Commit>) {
    let mut rooms: Vec<Vec<Commit>> = Vec::new();
    for commit in commits {
        match rooms
            .iter_mut()
            .find(|group| group[0].room.nid == commit.room.nid)
        {
            Some(group) => group.push(commit),
            None => rooms.push(vec![commit]),
        }
    }
    match attempt(db, conn, &mut rooms).await {
        Ok(outcome) => finish(rooms, &outcome),
        Err(error) if rooms.len() == 1 => fail(rooms, &error),
        Err(_) => {
            for group in rooms {
                let mut group = vec![group];
                match attempt(db, conn, &mut group).await {
                    Ok(outcome) => finish(group, &outcome),
                    Err(error) => fail(group, &error),
                }
            }
        }
    }
}

async fn attempt(
    db: &Db,
    conn: &mut Option<PgConnection>,
    rooms: &mut [Vec<Commit>],
) -> Result<Outcome, Error> {
    let mut connection = match conn.take() {
        Some(connection) => connection,
        None => db.dedicated().await?,
    };
    let batch = merge(rooms);
    let written = append(&mut connection, &batch, now_ms()).await;
    match &written {
        Ok(outcome) => {
            // Heads before the announcement: whoever is woken sees them.
            for group in rooms.iter() {
                if !is_dropped(outcome, group[0].room.nid.0)
                    && let Some(last) = group.last()
                {
                    let mine = |(nid, pos): &(i64, Pos)| {
                        group
                            .iter()
                            .any(|commit| commit.events.contains(nid))
                            .then_some(*pos)
                    };
                    let seen = outcome.written.iter().filter_map(mine).max();
                    last.room.publish(last.head.clone(), seen);
                }
            }
            db.stream.announce(log_rows(&batch, outcome));
            match log_standing(&mut connection, &batch, outcome).await {
                Ok(rows) => db.stream.announce(rows),
                Err(error) => tracing::warn!(%error, "memberships were not logged"),
            }
            *conn = Some(connection);
        }
        // After an error of the statement the connection is good; after any other it may not be.
        Err(Error::Sqlx(sqlx::Error::Database(_))) => *conn = Some(connection),
        Err(_) => {}
    }
    if written.is_err() {
        unmerge(rooms, batch);
    }
    written
}

fn is_dropped(outcome: &Outcome, room: i64) -> bool {
    outcome.stale.contains(&room)
        || outcome
            .repeated
            .iter()
            .any(|(repeated, _)| *repeated == room)
}

/// One batch out of many. Of several commits of a room the first says what is expected, the last
/// what becomes of it.
fn merge(rooms: &mut [Vec<Commit>]) -> Batch {
    let mut all = Batch::default();
    for group in rooms {
        let mut head = None;
        for commit in group {
            let batch = &mut commit.batch;
            let mut row = batch.rooms.pop();
            if let (Some(row), Some(earlier)) = (row.as_mut(), head.take()) {
                let earlier: crate::storage::append::RoomRow = earlier;
                row.rev = earlier.rev;
            }
            head = row;
            all.events.append(&mut batch.events);
            all.snaps.append(&mut batch.snaps);
            all.ckpts.append(&mut batch.ckpts);
            for member in batch.members.drain(..) {
                // ON CONFLICT may not meet a row twice; the last one stands.
                all.members
                    .retain(|m| (m.room, m.user) != (member.room, member.user));
                all.members.push(member);
            }
            all.txns.append(&mut batch.txns);
            all.counted.append(&mut batch.counted);
            all.missing.append(&mut batch.missing);
            all.redactions.append(&mut batch.redactions);
            all.pruned.append(&mut batch.pruned);
            all.sticky.append(&mut batch.sticky);
        }
        all.rooms.extend(head);
    }
    all
}

/// Gives the rows back to the first commit of each room, for the attempt room by room.
fn unmerge(rooms: &mut [Vec<Commit>], all: Batch) {
    let mut by_room: std::collections::HashMap<i64, Batch> = std::collections::HashMap::new();
    macro_rules! deal {
        ($list:ident, $room:expr) => {
            for row in all.$list {
                let room: i64 = $room(&row);
                by_room.entry(room).or_default().$list.push(row);
            }
        };
    }
    deal!(rooms, |row: &crate::storage::append::RoomRow| row.room);
    deal!(events, |row: &crate::storage::append::EventRow| row.room);
    deal!(snaps, |row: &crate::storage::append::SnapRow| row.room);
    deal!(ckpts, |row: &crate::storage::append::CkptRow| row.room);
    deal!(members, |row: &crate::storage::append::MemberRow| row.room);
    deal!(txns, |row: &(uuid::Uuid, i64, i64)| row.1);
    deal!(counted, |row: &crate::storage::append::CountRow| row.room);
    deal!(missing, |row: &(i64, String, i64)| row.0);
    deal!(redactions, |row: &(i64, String, i64, bool)| row.0);
    deal!(pruned, |row: &(i64, i64, bool, Vec<u8>)| row.0);
    deal!(sticky, |row: &(i64, i64, i64)| row.0);
    for group in rooms {
        let room = group[0].room.nid.0;
        if let (Some(batch), Some(last)) = (by_room.remove(&room), group.last_mut()) {
            last.batch = batch;
        }
    }
}

fn finish(rooms: Vec<Vec<Commit>>, outcome: &Outcome) {
    let positions: std::collections::HashMap<i64, Pos> = outcome.written.iter().copied().collect();
    for group in rooms {
        let room = group[0].room.nid.0;
        let dropped = is_dropped(outcome, room);
        if dropped {
            group[0].room.bury();
        }
        for commit in group {
            let done = if dropped {
                Done::Stale
            } else {
                let written = commit
                    .events
                    .iter()
                    .filter_map(|nid| positions.get(nid).copied());
                Done::Written(written.collect())
            };
            // A caller that went away needs no answer.
            let _ = commit.done.send(done);
        }
    }
}

fn fail(rooms: Vec<Vec<Commit>>, error: &Error) {
    tracing::error!(%error, "a batch of events was not written");
    for commit in rooms.into_iter().flatten() {
        commit.room.bury();
        let _ = commit.done.send(Done::Failed(error.to_string()));
    }
}
