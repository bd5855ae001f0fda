//! Accounts that wait until whoever makes one has proved to read an address.

use sqlx::PgConnection;

use super::Error;

/// What is asked for. It holds what a password is checked by: it is not shown.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Proof of the address that is under way.
    pub sid: &'a str,
    /// Name.
    pub localpart: &'a str,
    /// The password, hashed.
    pub password_hash: &'a str,
    /// Registration token.
    pub token: Option<&'a str>,
    /// Versions of the terms that were agreed to.
    pub terms: Option<&'a str>,
}

/// An account that waits. It holds what a password is checked by: it is not shown.
#[derive(Clone)]
pub struct Pending {
    /// Proof of the address that is under way.
    pub sid: String,
    /// Name.
    pub localpart: String,
    /// The password, hashed.
    pub password_hash: String,
    /// Registration token.
    pub token: Option<String>,
    /// Versions of the terms that were agreed to.
    pub terms: Option<String>,
    /// The address.
    pub address: String,
    /// Number of the newest mail.
    pub attempt: i64,
    /// Wrong codes since that mail.
    pub tries: i32,
}

/// Keeps what a browser asks for; what it asked for before is forgotten.
pub async fn upsert(
    conn: &mut PgConnection,
    secret_hash: &[u8],
    wanted: Wanted<'_>,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO pending_account (secret_hash, sid, localpart, password_hash, token, terms)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT ON CONSTRAINT pending_account_pkey DO UPDATE SET
           sid = EXCLUDED.sid, localpart = EXCLUDED.localpart,
           password_hash = EXCLUDED.password_hash, token = EXCLUDED.token, terms = EXCLUDED.terms",
        secret_hash,
        wanted.sid,
        wanted.localpart,
        wanted.password_hash,
        wanted.token,
        wanted.terms
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a browser asked for; `None`: nothing, or it is over.
pub async fn find(
    conn: &mut PgConnection,
    secret_hash: &[u8],
    now: i64,
) -> Result<Option<Pending>, Error> {
    Ok(sqlx::query_as!(
        Pending,
        "SELECT p.sid, p.localpart, p.password_hash, p.token, p.terms, v.address, v.attempt, v.tries
         FROM pending_account p JOIN validation v ON v.sid = p.sid
         WHERE p.secret_hash = $1 AND v.expires_ts > $2",
        secret_hash,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Forgets what a browser asked for.
pub async fn delete(conn: &mut PgConnection, secret_hash: &[u8]) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM pending_account WHERE secret_hash = $1",
        secret_hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what is over; returns how much.
pub async fn delete_over(conn: &mut PgConnection, now: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM pending_account WHERE secret_hash IN (
           SELECT secret_hash FROM pending_account p
           WHERE NOT EXISTS (SELECT FROM validation v WHERE v.sid = p.sid AND v.expires_ts > $1)
           LIMIT $2)",
        now,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
