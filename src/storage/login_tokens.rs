//! Tokens that are good for one login.

use sqlx::PgConnection;

use super::{Error, UserNid, sso::Origin};

/// Keeps a token, by its hash; `origin`: the session at an identity provider that it comes of.
pub async fn insert(
    conn: &mut PgConnection,
    hash: &[u8],
    user: UserNid,
    expires_ts: i64,
    origin: Option<&Origin>,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO login_token
           (token_hash, user_nid, expires_ts, sso_provider, sso_subject, sso_sid)
         VALUES ($1, $2, $3, $4, $5, $6)",
        hash,
        user.0,
        expires_ts,
        origin.map(|origin| &*origin.provider),
        origin.map(|origin| &*origin.subject),
        origin.and_then(|origin| origin.sid.as_deref())
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a token out; whose it was and what it comes of, if it was good and the account is not closed.
pub async fn take(
    conn: &mut PgConnection,
    hash: &[u8],
    now: i64,
) -> Result<Option<(UserNid, Option<Origin>)>, Error> {
    let row = sqlx::query!(
        "DELETE FROM login_token t USING account a
         WHERE t.token_hash = $1 AND t.expires_ts > $2 AND a.user_nid = t.user_nid
           AND NOT a.deactivated
         RETURNING t.user_nid, t.sso_provider, t.sso_subject, t.sso_sid",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let origin = Origin::of(row.sso_provider, row.sso_subject, row.sso_sid);
        (UserNid(row.user_nid), origin)
    }))
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
