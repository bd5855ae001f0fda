//! Tokens that tell others who a user is.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// Keeps a token, by its hash.
pub async fn insert(
    conn: &mut PgConnection,
    hash: &[u8],
    user: UserNid,
    expires_ts: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO openid_token (hash, user_nid, expires_ts) VALUES ($1, $2, $3)",
        hash,
        user.0,
        expires_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whose token it is, if it is good now and the account is not closed.
pub async fn find(
    conn: &mut PgConnection,
    hash: &[u8],
    now: i64,
) -> Result<Option<UserNid>, Error> {
    let user = sqlx::query_scalar!(
        "SELECT t.user_nid FROM openid_token t
         JOIN account a ON a.user_nid = t.user_nid
         WHERE t.hash = $1 AND t.expires_ts > $2 AND NOT a.deactivated",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(user.map(UserNid))
}

/// Deletes tokens that ended before a time; returns how many.
pub async fn delete_expired(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM openid_token WHERE hash IN (
           SELECT hash FROM openid_token WHERE expires_ts <= $1 ORDER BY expires_ts LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
