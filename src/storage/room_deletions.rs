//! Deletions of rooms that administrators ordered.

use ruma::RoomId;
use sqlx::PgConnection;

use super::{Error, UserNid};

/// A deletion as its row tells.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Its id.
    pub delete_id: String,
    /// Room.
    pub room_id: String,
    /// Administrator.
    pub user_nid: i64,
    /// What was ordered, JSON.
    pub order_json: String,
    /// `scheduled`, `active`, `complete` or `failed`.
    pub status: String,
    /// What was done, JSON.
    pub result_json: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// Notes a deletion; `false`: another one of the same room has not ended.
pub async fn insert(
    conn: &mut PgConnection,
    delete_id: &str,
    room: &RoomId,
    user: UserNid,
    (order, result): (&str, &str),
    now: i64,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO room_deletion (delete_id, room_id, user_nid, order_json, status, result_json,
           created_ts)
         SELECT $1, $2, $3, $4, 'scheduled', $5, $6
         WHERE NOT EXISTS (
           SELECT 1 FROM room_deletion WHERE room_id = $2 AND done_ts IS NULL)",
        delete_id,
        room.as_str(),
        user.0,
        order,
        result,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A deletion by its id.
pub async fn find(conn: &mut PgConnection, delete_id: &str) -> Result<Option<Deletion>, Error> {
    Ok(sqlx::query_as!(
        Deletion,
        "SELECT delete_id, room_id, user_nid, order_json, status, result_json, error
         FROM room_deletion WHERE delete_id = $1",
        delete_id
    )
    .fetch_optional(conn)
    .await?)
}

/// Deletions of a room, the oldest first.
pub async fn list_of_room(
    conn: &mut PgConnection,
    room: &RoomId,
    limit: i64,
) -> Result<Vec<Deletion>, Error> {
    Ok(sqlx::query_as!(
        Deletion,
        "SELECT delete_id, room_id, user_nid, order_json, status, result_json, error
         FROM room_deletion WHERE room_id = $1 ORDER BY created_ts, delete_id LIMIT $2",
        room.as_str(),
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// The oldest deletion that has not ended.
pub async fn find_next(conn: &mut PgConnection) -> Result<Option<Deletion>, Error> {
    Ok(sqlx::query_as!(
        Deletion,
        "SELECT delete_id, room_id, user_nid, order_json, status, result_json, error
         FROM room_deletion WHERE done_ts IS NULL ORDER BY created_ts, delete_id LIMIT 1"
    )
    .fetch_optional(conn)
    .await?)
}

/// Notes how far a deletion is.
pub async fn update_active(
    conn: &mut PgConnection,
    delete_id: &str,
    result: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE room_deletion SET status = 'active', result_json = $2 WHERE delete_id = $1",
        delete_id,
        result
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes the end of a deletion: it is complete, or failed for a reason.
pub async fn update_done(
    conn: &mut PgConnection,
    delete_id: &str,
    error: Option<&str>,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE room_deletion SET error = $2, done_ts = $3,
           status = CASE WHEN $2::text IS NULL THEN 'complete' ELSE 'failed' END
         WHERE delete_id = $1",
        delete_id,
        error,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets deletions that ended before `ts`.
pub async fn delete_done(conn: &mut PgConnection, ts: i64) -> Result<(), Error> {
    sqlx::query!("DELETE FROM room_deletion WHERE done_ts < $1", ts)
        .execute(conn)
        .await?;
    Ok(())
}
