//! Subscriptions to threads (MSC4306).

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Pos, RoomNid, UserNid};

/// Subscribers of a thread that are looked at for an event: as many as a large room has members.
const SUBSCRIBERS_MAX: i64 = 50_000;

/// A thread of a room, for a user.
pub type Key = (UserNid, RoomNid, Uuid);

/// What became of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is written: log it, then [`update_pos`].
    Changed,
    /// There was one that is worth as much.
    Same,
    /// The user ended an earlier one after what would be the reason for this one.
    Ended,
}

/// A subscription, or the end of one, that users are told of.
#[derive(Clone, Debug)]
pub struct Change {
    /// Room.
    pub room: RoomNid,
    /// Event id of the root.
    pub root: String,
    /// `None`: it ended; else whether a client made it by itself.
    pub automatic: Option<bool>,
    /// Position.
    pub pos: Pos,
}

/// Whether a user is subscribed to a thread, and whether a client did that by itself.
pub async fn find(
    conn: &mut PgConnection,
    (user, room, thread): Key,
) -> Result<Option<bool>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT automatic FROM thread_sub
         WHERE user_nid = $1 AND room_nid = $2 AND root_key = $3 AND subscribed",
        user.0,
        room.0,
        thread
    )
    .fetch_optional(conn)
    .await?)
}

/// Subscribes a user. `cause`: the place of the event for which a client does so by itself.
pub async fn subscribe(
    conn: &mut PgConnection,
    (user, room, thread): Key,
    root_id: &str,
    cause: Option<i64>,
) -> Result<Outcome, Error> {
    let written = sqlx::query!(
        "INSERT INTO thread_sub AS s (user_nid, room_nid, root_key, root_id, subscribed, automatic, pos)
         VALUES ($1, $2, $3, $4, true, $5::bigint IS NOT NULL, 0)
         ON CONFLICT ON CONSTRAINT thread_sub_pkey DO UPDATE
           SET subscribed = true, automatic = EXCLUDED.automatic, ended_seq = NULL
           WHERE CASE WHEN s.subscribed THEN s.automatic AND NOT EXCLUDED.automatic
             ELSE $5 IS NULL OR $5 > s.ended_seq END",
        user.0,
        room.0,
        thread,
        root_id,
        cause
    )
    .execute(&mut *conn)
    .await?;
    if written.rows_affected() > 0 {
        return Ok(Outcome::Changed);
    }
    let subscribed = find(conn, (user, room, thread)).await?.is_some();
    Ok(if subscribed {
        Outcome::Same
    } else {
        Outcome::Ended
    })
}

/// Ends a subscription; `false`: there is none. Log it afterwards, then [`update_pos`].
pub async fn unsubscribe(
    conn: &mut PgConnection,
    (user, room, thread): Key,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE thread_sub SET subscribed = false,
           ended_seq = (SELECT head_seq FROM room_head WHERE room_nid = $2)
         WHERE user_nid = $1 AND room_nid = $2 AND root_key = $3 AND subscribed",
        user.0,
        room.0,
        thread
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Sets the position of a change.
pub async fn update_pos(
    conn: &mut PgConnection,
    (user, room, thread): Key,
    pos: Pos,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE thread_sub SET pos = $4 WHERE user_nid = $1 AND room_nid = $2 AND root_key = $3",
        user.0,
        room.0,
        thread,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What changed for a user in `(since, upto]` in rooms that they are in, newest first.
pub async fn list(
    conn: &mut PgConnection,
    user: UserNid,
    (since, upto): (Pos, Pos),
    limit: i64,
) -> Result<Vec<Change>, Error> {
    let rows = sqlx::query!(
        "SELECT s.room_nid, s.root_id, s.subscribed, s.automatic, s.pos
         FROM thread_sub s
         JOIN user_room u ON u.user_nid = s.user_nid AND u.room_nid = s.room_nid AND u.membership = 1
         WHERE s.user_nid = $1 AND s.pos > $2 AND s.pos <= $3
         ORDER BY s.pos DESC
         LIMIT $4",
        user.0,
        since,
        upto,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Change {
        room: RoomNid(row.room_nid),
        root: row.root_id,
        automatic: row.subscribed.then_some(row.automatic),
        pos: row.pos,
    });
    Ok(rows.collect())
}

/// Who is subscribed to the thread of an event that is not written yet: the one that it names, or
/// that of the event that it relates to. `None`: it is in no thread.
pub async fn list_subscribers(
    conn: &mut PgConnection,
    room: RoomNid,
    (thread, parent): (Option<Uuid>, Option<Uuid>),
) -> Result<Option<Vec<i64>>, Error> {
    let row = sqlx::query!(
        r#"WITH place AS (
             SELECT coalesce($2::uuid, (
               SELECT t.root_key FROM event e
               JOIN thread t ON t.room_nid = e.room_nid AND t.root_key = e.thread_key
               WHERE e.room_nid = $1 AND e.event_key = $3
               LIMIT 1)) AS root)
           SELECT ARRAY(
             SELECT s.user_nid FROM thread_sub s
             WHERE s.room_nid = $1 AND s.root_key = p.root AND s.subscribed
             LIMIT $4) AS "users!"
           FROM place p
           WHERE p.root IS NOT NULL"#,
        room.0,
        thread,
        parent,
        SUBSCRIBERS_MAX
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| row.users))
}

/// Those of some events that are in a thread, each with those of some users who are subscribed to it.
pub async fn list_of_events(
    conn: &mut PgConnection,
    events: &[(i64, i64)],
    users: &[i64],
) -> Result<Vec<(i64, Vec<i64>)>, Error> {
    let (rooms, nids): (Vec<i64>, Vec<i64>) = events.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"SELECT e.event_nid, ARRAY(
             SELECT s.user_nid FROM thread_sub s
             WHERE s.room_nid = e.room_nid AND s.root_key = e.thread_key AND s.subscribed
               AND s.user_nid = ANY ($3)) AS "users!"
           FROM unnest($1::bigint[], $2::bigint[]) AS w (room, nid)
           JOIN event e ON e.room_nid = w.room AND e.event_nid = w.nid
           WHERE e.thread_key IS NOT NULL"#,
        &rooms,
        &nids,
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.event_nid, row.users)).collect())
}
