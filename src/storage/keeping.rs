//! What is kept for a time only: the log, the outbox, and marks that tell how old they are.

use sqlx::PgConnection;

use super::{Error, Pos};

/// Notes which position is settled now.
pub async fn insert_mark(conn: &mut PgConnection, now: i64, pos: Pos) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO stream_mark (ts, pos) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        now,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The newest position that was settled at a time.
pub async fn find_mark(conn: &mut PgConnection, ts: i64) -> Result<Option<Pos>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT pos FROM stream_mark WHERE ts <= $1 ORDER BY ts DESC LIMIT 1",
        ts
    )
    .fetch_optional(conn)
    .await?)
}

/// Forgets marks of before `ts`.
pub async fn delete_marks(conn: &mut PgConnection, ts: i64) -> Result<(), Error> {
    sqlx::query!("DELETE FROM stream_mark WHERE ts < $1", ts)
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes outbox rows up to a position that every peer which is well has; returns how many. The
/// newest row of each room stays: with it, who was away for long finds back into the room.
pub async fn delete_outbox(conn: &mut PgConnection, pos: Pos, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM fed_outbox WHERE pos IN (
           SELECT o.pos FROM fed_outbox o
           WHERE o.pos < $1
             AND EXISTS (SELECT 1 FROM fed_outbox n WHERE n.room_nid = o.room_nid AND n.pos > o.pos)
           ORDER BY o.pos LIMIT $2)",
        pos,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
