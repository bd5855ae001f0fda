//! Stream positions: one sequence for everything that clients and peers are told, and a horizon
//! below which nothing can appear any more.
//!
//! `nextval` order is not commit order, so whoever follows `max(pos)` skips rows. The horizon waits
//! until every position below is known to be committed or void (docs/adr/0004).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{PgConnection, PgPool};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    log::{LogEntry, LogKind, LogRow},
    recent::Recent,
};
use crate::clock::now_ms;

/// A stream position.
pub type Pos = i64;

/// Log batches that a slow follower may lag behind before it must read the table.
const BATCHES_MAX: usize = 4096;
/// Rows read by one poll.
const POLL_ROWS_MAX: i64 = 10_000;
/// How often other nodes' rows are looked for when nobody gave a hint.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How long a gap may stand before PostgreSQL is asked about it: most close by themselves.
const GAP_GRACE: Duration = Duration::from_millis(20);
/// Who has not read the log for so long may have missed rows: they are deleted after two days.
const BLIND_MAX_MS: i64 = 3_600_000;
/// How far positions jump when the database was restarted or restored.
const EPOCH_JUMP: i64 = 1 << 20;

/// Follows the log and knows the horizon. One for each process; cheap to clone.
#[derive(Clone, Debug)]
pub struct StreamClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    horizon: watch::Sender<Pos>,
    /// Last change of presence below the horizon; what was there at the start is not known.
    presence: AtomicI64,
    /// Changes of push rules that we have heard of.
    rules: AtomicU64,
    /// What was logged last of rooms and users.
    recent: RwLock<Recent>,
    rows: broadcast::Sender<Arc<[LogRow]>>,
    gap: Notify,
    stop: CancellationToken,
}

#[derive(Debug)]
struct State {
    horizon: Pos,
    /// Committed rows above the horizon, by position.
    pending: BTreeMap<Pos, LogRow>,
    /// (position, xid): every owner of a missing position below the first is older than the second.
    bound: Option<(Pos, i64)>,
    /// When the log was read last, and whether that was too long after the time before.
    polled_ms: i64,
    was_blind: bool,
}

impl StreamClock {
    /// Jumps to a new epoch where PostgreSQL was restarted, waits until every drawn position is
    /// settled, and starts to follow.
    pub(super) async fn start(pool: PgPool) -> Result<Self, Error> {
        let mut conn = pool.acquire().await?;
        check_epoch(&mut conn).await?;
        let horizon = settle(&mut conn).await?;
        drop(conn);
        let clock = Self(Arc::new(Inner {
            state: Mutex::new(State {
                horizon,
                pending: BTreeMap::new(),
                bound: None,
                polled_ms: now_ms(),
                was_blind: false,
            }),
            horizon: watch::Sender::new(horizon),
            presence: AtomicI64::new(horizon),
            rules: AtomicU64::new(0),
            recent: RwLock::new(Recent::new(horizon)),
            rows: broadcast::Sender::new(BATCHES_MAX),
            gap: Notify::new(),
            stop: CancellationToken::new(),
        }));
        tokio::spawn(follow(clock.clone(), pool));
        Ok(clock)
    }

    /// All positions up to this one are committed and visible, or void.
    pub fn horizon(&self) -> Pos {
        *self.0.horizon.borrow()
    }

    /// Whether somebody's presence may have changed after `pos` and up to the horizon: saves most
    /// syncs a look.
    pub fn has_presence_after(&self, pos: Pos) -> bool {
        self.0.presence.load(Ordering::Acquire) > pos
    }

    /// What was logged last of rooms and users. Take the horizon first: all up to it is in there.
    pub fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        let recent = self.0.recent.read();
        recent.unwrap_or_else(PoisonError::into_inner)
    }

    /// Differs from what it was before as soon as anybody's push rules have changed; own changes
    /// are in it once they are committed.
    pub fn rules_epoch(&self) -> u64 {
        self.0.rules.load(Ordering::Acquire)
    }

    /// The horizon as a value to wait on.
    pub fn watch(&self) -> watch::Receiver<Pos> {
        self.0.horizon.subscribe()
    }

    /// Rows in order, as the horizon passes them. Who lags reads [`list`] from its own cursor.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<[LogRow]>> {
        self.0.rows.subscribe()
    }

    /// Waits until the horizon has reached `pos`: what is written there can be read by a sync.
    pub async fn reached(&self, pos: Pos) {
        let mut watch = self.watch();
        // The sender lives as long as self.
        let _ = watch.wait_for(|horizon| *horizon >= pos).await;
    }

    /// Rows that this process has just committed.
    pub fn announce(&self, rows: impl IntoIterator<Item = LogRow>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rows: Vec<LogRow> = rows.into_iter().collect();
        let rules = rows.iter().any(|row| row.kind == LogKind::PushRules);
        if rules {
            self.0.rules.fetch_add(1, Ordering::AcqRel);
        }
        self.hear_of(&mut state, rows);
        self.advance(&mut state);
        if !state.pending.is_empty() {
            self.0.gap.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Cancelled when this process lets go of the database.
    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Keeps rows until the horizon passes them; what they are about is known from now on.
    fn hear_of(&self, state: &mut State, rows: Vec<LogRow>) {
        let mut recent = self
            .0
            .recent
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if row.pos > state.horizon {
                recent.note(&row);
                state.pending.insert(row.pos, row);
            }
        }
    }

    /// Moves the horizon over what is settled. Sent under the lock, so that rows stay in order.
    fn advance(&self, state: &mut State) {
        let mut batch = Vec::new();
        while let Some(row) = state.pending.remove(&(state.horizon + 1)) {
            state.horizon = row.pos;
            if row.kind == LogKind::Presence {
                self.0.presence.store(row.pos, Ordering::Release);
            }
            if row.kind == LogKind::PushRules {
                self.0.rules.fetch_add(1, Ordering::AcqRel);
            }
            batch.push(row);
        }
        // The horizon first: who is woken by a row looks up to the horizon, and must find it there.
        self.0.horizon.send_if_modified(|horizon| {
            let moved = *horizon != state.horizon;
            *horizon = state.horizon;
            moved
        });
        if !batch.is_empty() {
            // No follower is not an error.
            let _ = self.0.rows.send(batch.into());
        }
    }

    /// Reads what other processes committed, and voids gaps whose owners have ended.
    async fn poll(&self, conn: &mut PgConnection) -> Result<(), Error> {
        // The order of the three statements is what makes this right (docs/adr/0004).
        let xmin = oldest_running(conn).await?;
        let after = self.horizon();
        let rows = list(conn, after, POLL_ROWS_MAX).await?;
        let next = newest_started(conn).await?;

        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms();
        let polled = std::mem::replace(&mut state.polled_ms, now);
        state.was_blind |= now - polled > BLIND_MAX_MS;
        // What was missed is older than any row that is there.
        if state.was_blind
            && let Some(newest) = rows.last()
        {
            let mut recent = self
                .0
                .recent
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            recent.lose(newest.pos);
            state.was_blind = false;
        }
        self.hear_of(&mut state, rows);
        self.advance(&mut state);
        if let Some((covered, bound)) = state.bound
            && xmin >= bound
        {
            self.void_below(&mut state, covered);
            state.bound = None;
        }
        if state.bound.is_none() {
            state.bound = state.pending.last_key_value().map(|(pos, _)| (*pos, next));
        }
        Ok(())
    }

    /// Gaps below `covered` belong to transactions that ended without a row: step over them.
    fn void_below(&self, state: &mut State, covered: Pos) {
        while let Some((&first, _)) = state.pending.first_key_value() {
            if first > covered {
                break;
            }
            state.horizon = first - 1;
            self.advance(state);
        }
    }

    fn has_gap(&self) -> bool {
        !self
            .0
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pending
            .is_empty()
    }
}

/// The loop behind the clock: a second of quiet, or a gap that does not close.
async fn follow(clock: StreamClock, pool: PgPool) {
    loop {
        tokio::select! {
            () = clock.0.stop.cancelled() => return,
            () = clock.0.gap.notified() => tokio::time::sleep(GAP_GRACE).await,
            () = tokio::time::sleep(if clock.has_gap() { GAP_GRACE } else { POLL_EVERY }) => (),
        }
        let polled = match pool.acquire().await {
            Ok(mut conn) => clock.poll(&mut conn).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = polled
            && !clock.0.stop.is_cancelled()
        {
            tracing::warn!(%error, "cannot follow the stream log");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// Draws positions and inserts the rows; the last statement of its transaction.
pub(super) async fn append(
    conn: &mut PgConnection,
    entries: &[LogEntry],
) -> Result<Vec<Pos>, Error> {
    let kinds: Vec<i16> = entries.iter().map(|entry| entry.kind as i16).collect();
    let rooms: Vec<i64> = entries.iter().map(|entry| entry.room).collect();
    let users: Vec<i64> = entries.iter().map(|entry| entry.user).collect();
    let references: Vec<i64> = entries.iter().map(|entry| entry.reference).collect();
    Ok(sqlx::query_scalar!(
        r#"SELECT pos AS "pos!" FROM log_append($1, $2, $3, $4) AS pos"#,
        &kinds,
        &rooms,
        &users,
        &references
    )
    .fetch_all(conn)
    .await?)
}

/// Committed rows after a position, in order; unknown kinds (of a newer version) are left out.
pub async fn list(conn: &mut PgConnection, after: Pos, limit: i64) -> Result<Vec<LogRow>, Error> {
    let rows = sqlx::query!(
        "SELECT pos, kind, room_nid, user_nid, ref
         FROM stream_log
         WHERE pos > $1
         ORDER BY pos
         LIMIT $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    let known = rows.into_iter().filter_map(|row| {
        let kind = LogKind::of(row.kind)?;
        Some(LogRow {
            pos: row.pos,
            kind,
            room: row.room_nid,
            user: row.user_nid,
            reference: row.r#ref,
        })
    });
    Ok(known.collect())
}

/// Deletes rows up to a position; returns how many.
pub async fn delete_before(conn: &mut PgConnection, pos: Pos, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM stream_log
         WHERE pos IN (SELECT pos FROM stream_log WHERE pos < $1 ORDER BY pos LIMIT $2)",
        pos,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

async fn oldest_running(conn: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "xmin!""#
    )
    .fetch_one(conn)
    .await?)
}

async fn newest_started(conn: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS "xmax!""#
    )
    .fetch_one(conn)
    .await?)
}

/// After a crash, a failover or a restore the sequence may have gone back: jump over whatever a
/// client may have seen. Once for each start of PostgreSQL.
async fn check_epoch(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("SELECT epoch_check($1)", EPOCH_JUMP)
        .execute(conn)
        .await?;
    Ok(())
}

/// Waits until all transactions that could hold a drawn position have ended; the horizon is then
/// the last value of the sequence.
async fn settle(conn: &mut PgConnection) -> Result<Pos, Error> {
    let last = sqlx::query_scalar!(r#"SELECT last_value AS "last!" FROM stream_pos_seq"#)
        .fetch_one(&mut *conn)
        .await?;
    running_ended(conn).await?;
    Ok(last)
}

/// Waits until every transaction that runs now has ended, as long as one may run.
pub async fn running_ended(conn: &mut PgConnection) -> Result<(), Error> {
    let bound = newest_started(conn).await?;
    // At most idle_in_transaction_session_timeout plus statement_timeout of another node.
    for _ in 0..4_000 {
        if oldest_running(conn).await? >= bound {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
