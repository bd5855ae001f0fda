//! Rendezvous of devices.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;

/// What a rendezvous holds.
#[derive(Clone, Debug)]
pub struct Held {
    /// Id.
    pub rendezvous_id: Uuid,
    /// Goes up with every change.
    pub version: i32,
    /// What was written last.
    pub data: String,
    /// When that was.
    pub modified_ts: i64,
    /// When it ends.
    pub expires_ts: i64,
}

/// Makes one, unless there are `most.0` already or `most.1` of this address; `None`: there are.
pub async fn insert(
    conn: &mut PgConnection,
    (id, address): (Uuid, &str),
    data: &str,
    (now, expires): (i64, i64),
    most: (i64, i64),
) -> Result<Option<Held>, Error> {
    Ok(sqlx::query_as!(
        Held,
        "INSERT INTO rendezvous (rendezvous_id, address, data, modified_ts, expires_ts)
         SELECT $1, $2, $3, $4, $5
         WHERE (SELECT count(*) FROM (SELECT FROM rendezvous WHERE expires_ts > $4 LIMIT $6) r) < $6
           AND (SELECT count(*) FROM (SELECT FROM rendezvous
                WHERE address = $2 AND expires_ts > $4 LIMIT $7) r) < $7
         RETURNING rendezvous_id, version, data, modified_ts, expires_ts",
        id,
        address,
        data,
        now,
        expires,
        most.0,
        most.1
    )
    .fetch_optional(conn)
    .await?)
}

/// One, if it has not ended.
pub async fn find(conn: &mut PgConnection, id: Uuid, now: i64) -> Result<Option<Held>, Error> {
    Ok(sqlx::query_as!(
        Held,
        "SELECT rendezvous_id, version, data, modified_ts, expires_ts FROM rendezvous
         WHERE rendezvous_id = $1 AND expires_ts > $2",
        id,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Writes over what somebody has read; `None`: it is not that any more.
pub async fn update(
    conn: &mut PgConnection,
    (id, version): (Uuid, i32),
    data: &str,
    now: i64,
) -> Result<Option<Held>, Error> {
    Ok(sqlx::query_as!(
        Held,
        "UPDATE rendezvous SET data = $3, version = version + 1, modified_ts = $4
         WHERE rendezvous_id = $1 AND version = $2 AND expires_ts > $4
         RETURNING rendezvous_id, version, data, modified_ts, expires_ts",
        id,
        version,
        data,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Ends one; `false`: there was none.
pub async fn delete(conn: &mut PgConnection, id: Uuid, now: i64) -> Result<bool, Error> {
    let ended = sqlx::query_scalar!(
        "DELETE FROM rendezvous WHERE rendezvous_id = $1 RETURNING expires_ts",
        id
    )
    .fetch_optional(conn)
    .await?;
    Ok(ended.is_some_and(|expires| expires > now))
}

/// Deletes those that have ended; returns how many.
pub async fn delete_expired(conn: &mut PgConnection, now: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM rendezvous WHERE rendezvous_id IN (
           SELECT rendezvous_id FROM rendezvous WHERE expires_ts <= $1 LIMIT $2)",
        now,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
