//! Sticky events (MSC4354), as long as they are sticky, and servers that are owed them.

use sqlx::PgConnection;

use super::{Error, Pos, RoomNid};

/// Sticky events of a room that are told to who has just come, the newest.
const ROOM_MAX: i64 = 1_000;
/// The same of all rooms.
const FRESH_MAX: i64 = 10_000;
/// Events and servers that are taken at once.
const DUE_MAX: i64 = 1_000;

/// A sticky event that a user is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Room.
    pub room: RoomNid,
    /// Event.
    pub event: i64,
    /// Position.
    pub pos: Pos,
}

/// What is still sticky: in rooms that are new to the user all of it, in others what came in
/// `(since, upto]`, of these the oldest. In the order in which it came.
pub async fn list(
    conn: &mut PgConnection,
    (fresh, known): (&[i64], &[i64]),
    (since, upto): (Pos, Pos),
    now: i64,
    limit: i64,
) -> Result<Vec<Sticky>, Error> {
    let rows = sqlx::query!(
        r#"(SELECT s.room_nid AS "room!", s.event_nid AS "event!", s.pos AS "pos!"
            FROM unnest($1::bigint[]) AS w (room)
            CROSS JOIN LATERAL (
              SELECT * FROM sticky_event x
              WHERE x.room_nid = w.room AND x.pos <= $4 AND x.ends_ts > $5
              ORDER BY x.pos DESC
              LIMIT $7) s
            LIMIT $8)
           UNION ALL
           (SELECT s.room_nid, s.event_nid, s.pos
            FROM sticky_event s
            WHERE s.room_nid = ANY ($2) AND s.pos > $3 AND s.pos <= $4 AND s.ends_ts > $5
            ORDER BY s.pos
            LIMIT $6)
           ORDER BY 3"#,
        fresh,
        known,
        since,
        upto,
        now,
        limit,
        ROOM_MAX,
        FRESH_MAX
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Sticky {
        room: RoomNid(row.room),
        event: row.event,
        pos: row.pos,
    });
    Ok(rows.collect())
}

/// Sticky events of some senders in a room that the state of the room did not allow when they came.
pub async fn list_soft_failed(
    conn: &mut PgConnection,
    room: RoomNid,
    senders: &[i64],
    now: i64,
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT event_nid FROM sticky_event
         WHERE room_nid = $1 AND pos IS NULL AND sender_nid = ANY ($2) AND ends_ts > $3
         ORDER BY event_nid
         LIMIT $4",
        room.0,
        senders,
        now,
        DUE_MAX
    )
    .fetch_all(conn)
    .await?)
}

/// Until when there may be sticky events in a room that its state did not allow when they came; 0: there
/// is none.
pub async fn find_soft_failed_end(conn: &mut PgConnection, room: RoomNid) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT COALESCE(max(ends_ts), 0) AS "ends!" FROM sticky_event
           WHERE room_nid = $1 AND pos IS NULL"#,
        room.0
    )
    .fetch_one(conn)
    .await?)
}

/// Takes servers that have come into rooms some time ago, with what of ours is sticky there: (room,
/// event, servers).
pub async fn take_due(
    conn: &mut PgConnection,
    now: i64,
) -> Result<Vec<(RoomNid, i64, Vec<i32>)>, Error> {
    let rows = sqlx::query!(
        r#"WITH due AS (
             DELETE FROM sticky_todo WHERE ctid = ANY (ARRAY(
               SELECT ctid FROM sticky_todo WHERE due_ts <= $1
               LIMIT $2 FOR UPDATE SKIP LOCKED))
             RETURNING room_nid, server_nid)
           SELECT s.room_nid, s.event_nid, array_agg(DISTINCT d.server_nid) AS "servers!"
           FROM due d
           JOIN sticky_event s ON s.room_nid = d.room_nid
           WHERE s.own AND s.pos IS NOT NULL AND s.ends_ts > $1
           GROUP BY s.room_nid, s.event_nid, s.pos
           ORDER BY s.pos"#,
        now,
        DUE_MAX
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (RoomNid(row.room_nid), row.event_nid, row.servers))
        .collect())
}

/// Owes events to servers once more, each at a position. No room is named: others in it have them.
pub async fn insert_owed(
    conn: &mut PgConnection,
    owed: &[(RoomNid, i64, Vec<i32>)],
    positions: &[Pos],
) -> Result<(), Error> {
    let mut rows: (Vec<Pos>, Vec<i64>, Vec<i32>) = Default::default();
    for ((_, event, servers), pos) in owed.iter().zip(positions) {
        for server in servers {
            rows.0.push(*pos);
            rows.1.push(*event);
            rows.2.push(*server);
        }
    }
    sqlx::query!(
        "INSERT INTO fed_outbox (pos, room_nid, event_nid, extra)
         SELECT w.pos, 0, w.event, array_agg(w.server)
         FROM unnest($1::bigint[], $2::bigint[], $3::int[]) AS w (pos, event, server)
         GROUP BY w.pos, w.event",
        &rows.0,
        &rows.1,
        &rows.2
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what is not sticky any more; returns how many.
pub async fn delete_over(conn: &mut PgConnection, now: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM sticky_event WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM sticky_event WHERE ends_ts <= $1 LIMIT $2))",
        now,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
