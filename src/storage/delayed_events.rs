//! Delayed events (MSC4140).

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, UserNid};

/// A delayed event.
#[derive(Clone, Debug, Default)]
pub struct Delayed {
    /// Order; 0 before it is scheduled.
    pub delay_no: i64,
    /// Id.
    pub delay_id: String,
    /// Who sends it.
    pub user_nid: i64,
    /// Where.
    pub room_nid: i64,
    /// Type.
    pub kind: String,
    /// State key; `None`: no state.
    pub state_key: Option<String>,
    /// Content, JSON.
    pub content: String,
    /// Time that an application service says it is of.
    pub claimed_ts: Option<i64>,
    /// For how long it is sticky.
    pub sticky_ms: Option<i64>,
    /// State event that stood in its place.
    pub seen_event: Option<String>,
    /// How long it waits, in milliseconds.
    pub delay_ms: i64,
    /// Since when.
    pub running_ts: i64,
    /// A node has begun to send it.
    pub sending: bool,
    /// When it was sent or cancelled; `None`: it is scheduled.
    pub finalised_ts: Option<i64>,
    /// Event, if it was sent.
    pub event_id: Option<String>,
    /// Why it could not be.
    pub error: Option<String>,
}

/// Schedules an event of a client transaction, unless its user has as many already, or the transaction
/// is known; `false`: it is not scheduled. Requests at the same time may get one or two past the
/// limit.
pub async fn insert(
    conn: &mut PgConnection,
    new: &Delayed,
    txn: Option<Uuid>,
    most: i64,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO delayed_event (delay_id, user_nid, room_nid, txn, kind, state_key, content,
           claimed_ts, sticky_ms, seen_event, delay_ms, running_ts, due_ts)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::bigint, $12::bigint,
           $11::bigint + $12::bigint
         WHERE (SELECT count(*) FROM delayed_event WHERE user_nid = $2 AND due_ts IS NOT NULL) < $13
         ON CONFLICT ON CONSTRAINT delayed_event_txn_key DO NOTHING",
        new.delay_id,
        new.user_nid,
        new.room_nid,
        txn,
        new.kind,
        new.state_key,
        new.content,
        new.claimed_ts,
        new.sticky_ms,
        new.seen_event,
        new.delay_ms,
        new.running_ts,
        most
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// What a transaction scheduled.
pub async fn find_by_txn(conn: &mut PgConnection, txn: Uuid) -> Result<Option<String>, Error> {
    let found = sqlx::query_scalar!("SELECT delay_id FROM delayed_event WHERE txn = $1", txn);
    Ok(found.fetch_optional(conn).await?)
}

/// One.
pub async fn find(conn: &mut PgConnection, delay_id: &str) -> Result<Option<Delayed>, Error> {
    Ok(sqlx::query_as!(
        Delayed,
        "SELECT delay_no, delay_id, user_nid, room_nid, kind, state_key, content, claimed_ts,
           sticky_ms, seen_event, delay_ms, running_ts, sending, finalised_ts, event_id, error
         FROM delayed_event WHERE delay_id = $1",
        delay_id
    )
    .fetch_optional(conn)
    .await?)
}

/// Scheduled ones of a user, the oldest first, after one of them.
pub async fn list_scheduled(
    conn: &mut PgConnection,
    user: UserNid,
    (after, limit): (i64, i64),
) -> Result<Vec<Delayed>, Error> {
    Ok(sqlx::query_as!(
        Delayed,
        "SELECT delay_no, delay_id, user_nid, room_nid, kind, state_key, content, claimed_ts,
           sticky_ms, seen_event, delay_ms, running_ts, sending, finalised_ts, event_id, error
         FROM delayed_event WHERE user_nid = $1 AND delay_no > $2 AND due_ts IS NOT NULL
         ORDER BY delay_no LIMIT $3",
        user.0,
        after,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Those of a user that were sent or cancelled, the newest first, before one of them.
pub async fn list_finalised(
    conn: &mut PgConnection,
    user: UserNid,
    (before, limit): (i64, i64),
) -> Result<Vec<Delayed>, Error> {
    Ok(sqlx::query_as!(
        Delayed,
        "SELECT delay_no, delay_id, user_nid, room_nid, kind, state_key, content, claimed_ts,
           sticky_ms, seen_event, delay_ms, running_ts, sending, finalised_ts, event_id, error
         FROM delayed_event WHERE user_nid = $1 AND delay_no < $2 AND due_ts IS NULL
         ORDER BY delay_no DESC LIMIT $3",
        user.0,
        before,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Takes those whose time has come, for the caller to send before `until`, in the order in which they
/// are due. Each goes to one node.
pub async fn claim_due(
    conn: &mut PgConnection,
    (now, until): (i64, i64),
    limit: i64,
) -> Result<Vec<Delayed>, Error> {
    Ok(sqlx::query_as!(
        Delayed,
        r#"WITH due AS (
             SELECT delay_no, due_ts FROM delayed_event WHERE due_ts <= $1
             ORDER BY due_ts LIMIT $3 FOR UPDATE SKIP LOCKED
           ), taken AS (
             UPDATE delayed_event e SET due_ts = $2, sending = true
             FROM due WHERE e.delay_no = due.delay_no
             RETURNING e.*, due.due_ts AS was_due_ts)
           SELECT delay_no AS "delay_no!", delay_id AS "delay_id!", user_nid AS "user_nid!",
             room_nid AS "room_nid!", kind AS "kind!", state_key, content AS "content!",
             claimed_ts, sticky_ms, seen_event, delay_ms AS "delay_ms!",
             running_ts AS "running_ts!", sending AS "sending!", finalised_ts, event_id, error
           FROM taken ORDER BY was_due_ts, delay_no"#,
        now,
        until,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Takes one that nobody sends yet.
pub async fn claim(
    conn: &mut PgConnection,
    delay_id: &str,
    until: i64,
) -> Result<Option<Delayed>, Error> {
    Ok(sqlx::query_as!(
        Delayed,
        "UPDATE delayed_event SET due_ts = $2, sending = true
         WHERE delay_id = $1 AND due_ts IS NOT NULL AND NOT sending
         RETURNING delay_no, delay_id, user_nid, room_nid, kind, state_key, content, claimed_ts,
           sticky_ms, seen_event, delay_ms, running_ts, sending, finalised_ts, event_id, error",
        delay_id,
        until
    )
    .fetch_optional(conn)
    .await?)
}

/// Cancels one that nobody sends yet; `false`: there is no such.
pub async fn cancel(conn: &mut PgConnection, delay_id: &str, now: i64) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE delayed_event SET due_ts = NULL, finalised_ts = $2
         WHERE delay_id = $1 AND due_ts IS NOT NULL AND NOT sending",
        delay_id,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Has one wait anew that nobody sends yet; `false`: there is no such.
pub async fn restart(conn: &mut PgConnection, delay_id: &str, now: i64) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE delayed_event SET running_ts = $2::bigint, due_ts = $2::bigint + delay_ms
         WHERE delay_id = $1 AND due_ts IS NOT NULL AND NOT sending",
        delay_id,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes how one ended: as an event, with an error, or as cancelled.
pub async fn update_finalised(
    conn: &mut PgConnection,
    delay_no: i64,
    (event_id, error): (Option<&str>, Option<&str>),
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE delayed_event
         SET due_ts = NULL, sending = false, finalised_ts = $4, event_id = $2, error = $3
         WHERE delay_no = $1 AND due_ts IS NOT NULL",
        delay_no,
        event_id,
        error,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Tries one again at a time. It may have been sent.
pub async fn update_due(conn: &mut PgConnection, delay_no: i64, due_ts: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE delayed_event SET due_ts = $2 WHERE delay_no = $1 AND due_ts IS NOT NULL",
        delay_no,
        due_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// When the next one is due.
pub async fn find_next_due(conn: &mut PgConnection) -> Result<Option<i64>, Error> {
    let due = sqlx::query_scalar!("SELECT min(due_ts) FROM delayed_event WHERE due_ts IS NOT NULL");
    Ok(due.fetch_one(conn).await?)
}

/// Forgets those that were sent or cancelled before `ts`; returns how many.
pub async fn delete_finalised(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM delayed_event WHERE delay_no IN
           (SELECT delay_no FROM delayed_event WHERE finalised_ts < $1 LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
