//! Browsers that are logged in to our pages.

use sqlx::PgConnection;

use super::{
    Error, UserNid,
    sso::{Ended, Origin},
};

/// A browser that is logged in.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who is logged in.
    pub user: UserNid,
    /// The session at an identity provider that it comes of.
    pub origin: Option<Origin>,
}

/// Notes that a browser is logged in. What the user has more than `most` of ends, oldest first.
pub async fn insert(
    conn: &mut PgConnection,
    hash: &[u8],
    user: UserNid,
    expires_ts: i64,
    origin: Option<&Origin>,
    most: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH surplus AS (
           DELETE FROM browser_session WHERE token_hash IN (
             SELECT token_hash FROM browser_session WHERE user_nid = $2
             ORDER BY expires_ts DESC OFFSET $7)
         )
         INSERT INTO browser_session
           (token_hash, user_nid, expires_ts, sso_provider, sso_subject, sso_sid)
         VALUES ($1, $2, $3, $4, $5, $6)",
        hash,
        user.0,
        expires_ts,
        origin.map(|origin| &*origin.provider),
        origin.map(|origin| &*origin.subject),
        origin.and_then(|origin| origin.sid.as_deref()),
        most - 1
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Who is logged in, if the account is open.
pub async fn find(conn: &mut PgConnection, hash: &[u8], now: i64) -> Result<Option<Found>, Error> {
    let row = sqlx::query!(
        "SELECT b.user_nid, b.sso_provider, b.sso_subject, b.sso_sid
         FROM browser_session b JOIN account a ON a.user_nid = b.user_nid
         WHERE b.token_hash = $1 AND b.expires_ts > $2 AND NOT a.deactivated AND a.locked_ts IS NULL",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Found {
        user: UserNid(row.user_nid),
        origin: Origin::of(row.sso_provider, row.sso_subject, row.sso_sid),
    }))
}

/// Ends one.
pub async fn delete(conn: &mut PgConnection, hash: &[u8]) -> Result<(), Error> {
    sqlx::query!("DELETE FROM browser_session WHERE token_hash = $1", hash)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends those of a user.
pub async fn delete_of_user(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!("DELETE FROM browser_session WHERE user_nid = $1", user.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends those of who is logged out now at an identity provider.
pub async fn delete_ended(conn: &mut PgConnection, ended: Ended<'_>) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM browser_session
         WHERE sso_provider = $1 AND ($2::text IS NULL OR sso_subject = $2)
           AND ($3::text IS NULL OR sso_sid = $3)",
        ended.provider,
        ended.subject,
        ended.sid
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes those that are over; returns how many.
pub async fn delete_expired(conn: &mut PgConnection, now: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM browser_session WHERE token_hash IN (
           SELECT token_hash FROM browser_session WHERE expires_ts <= $1
           ORDER BY expires_ts LIMIT $2)",
        now,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
