//! Receipts.

use sqlx::PgConnection;

use super::{Error, Pos, RoomNid, UserNid};

/// A receipt as stored.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Room.
    pub room_nid: i64,
    /// Reader.
    pub user_nid: i64,
    /// 1 `m.read`, 2 `m.read.private`.
    pub kind: i16,
    /// Empty: unthreaded.
    pub thread_id: String,
    /// Event read up to.
    pub event_id: String,
    /// When.
    pub ts: i64,
}

/// Sets a receipt. Log it afterwards, then [`update_pos`].
pub async fn upsert(
    conn: &mut PgConnection,
    (room, user): (RoomNid, UserNid),
    (kind, thread): (i16, &str),
    event_id: &str,
    ts: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO receipt (room_nid, user_nid, kind, thread_id, event_id, ts, pos)
         VALUES ($1, $2, $3, $4, $5, $6, 0)
         ON CONFLICT ON CONSTRAINT receipt_pkey
           DO UPDATE SET event_id = EXCLUDED.event_id, ts = EXCLUDED.ts",
        room.0,
        user.0,
        kind,
        thread,
        event_id,
        ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets the position of a change.
pub async fn update_pos(
    conn: &mut PgConnection,
    (room, user): (RoomNid, UserNid),
    (kind, thread): (i16, &str),
    pos: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE receipt SET pos = $5
         WHERE room_nid = $1 AND user_nid = $2 AND kind = $3 AND thread_id = $4",
        room.0,
        user.0,
        kind,
        thread,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Receipts of rooms that a user may see, everybody's public ones and the user's own private ones:
/// each room after its own position and up to another. From the beginning (0) only those at `events`
/// and the user's own, where that is said. In each room unthreaded ones come last, since they stand
/// where there is one of each for an event (MSC4102).
pub async fn list(
    conn: &mut PgConnection,
    user: UserNid,
    (rooms, upto): (&[(RoomNid, Pos)], Pos),
    events: Option<&[String]>,
) -> Result<Vec<Receipt>, Error> {
    let nids: Vec<i64> = rooms.iter().map(|(room, _)| room.0).collect();
    let since: Vec<i64> = rooms.iter().map(|(_, since)| *since).collect();
    Ok(sqlx::query_as!(
        Receipt,
        "SELECT r.room_nid, r.user_nid, r.kind, r.thread_id, r.event_id, r.ts
         FROM unnest($2::bigint[], $3::bigint[]) AS w (room, since)
         JOIN receipt r ON r.room_nid = w.room
         WHERE r.pos > w.since AND r.pos <= $4 AND (r.kind = 1 OR r.user_nid = $1)
           AND (w.since > 0 OR $5::text[] IS NULL OR r.user_nid = $1 OR r.event_id = ANY ($5))
         ORDER BY r.room_nid, r.thread_id DESC",
        user.0,
        &nids,
        &since,
        upto,
        events as Option<&[String]>
    )
    .fetch_all(conn)
    .await?)
}

/// Rooms in which a user read on, each after its own position.
pub async fn list_read(
    conn: &mut PgConnection,
    user: UserNid,
    rooms: &[(RoomNid, Pos)],
    upto: Pos,
) -> Result<Vec<i64>, Error> {
    let nids: Vec<i64> = rooms.iter().map(|(room, _)| room.0).collect();
    let since: Vec<i64> = rooms.iter().map(|(_, since)| *since).collect();
    Ok(sqlx::query_scalar!(
        "SELECT DISTINCT r.room_nid
         FROM unnest($2::bigint[], $3::bigint[]) AS w (room, since)
         JOIN receipt r ON r.room_nid = w.room AND r.user_nid = $1
         WHERE r.pos > w.since AND r.pos <= $4",
        user.0,
        &nids,
        &since,
        upto
    )
    .fetch_all(conn)
    .await?)
}

/// Receipts that rows of the log at those positions, or newer ones in their place, tell of.
pub async fn list_at(
    conn: &mut PgConnection,
    rooms: &[i64],
    users: &[i64],
    positions: &[i64],
) -> Result<Vec<Receipt>, Error> {
    Ok(sqlx::query_as!(
        Receipt,
        "SELECT DISTINCT r.room_nid, r.user_nid, r.kind, r.thread_id, r.event_id, r.ts
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (room, usr, pos)
         JOIN receipt r ON r.room_nid = w.room AND r.user_nid = w.usr AND r.pos >= w.pos",
        rooms,
        users,
        positions
    )
    .fetch_all(conn)
    .await?)
}
