//! Tokens that are good for one login.

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
        "INSERT INTO login_token (token_hash, user_nid, expires_ts) VALUES ($1, $2, $3)",
        hash,
        user.0,
        expires_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a token out; whose it was, if it was good and the account is not closed.
pub async fn take(
    conn: &mut PgConnection,
    hash: &[u8],
    now: i64,
) -> Result<Option<UserNid>, Error> {
    let user = sqlx::query_scalar!(
        "DELETE FROM login_token t USING account a
         WHERE t.token_hash = $1 AND t.expires_ts > $2 AND a.user_nid = t.user_nid
           AND NOT a.deactivated
         RETURNING t.user_nid",
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
        "DELETE FROM login_token WHERE token_hash IN (
           SELECT token_hash FROM login_token WHERE expires_ts <= $1 ORDER BY expires_ts LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
