//! What users accepted, and secrets of the server.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// A version of a policy that a user accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Id of the policy.
    pub policy: String,
    /// Its version.
    pub version: String,
    /// When, in milliseconds.
    pub accepted_ts: i64,
}

/// Whether a user has yet to accept any of the policies of these ids and versions (as many of the
/// ones as of the others). Bots have not.
pub async fn is_owed(
    conn: &mut PgConnection,
    user: UserNid,
    policies: &[String],
    versions: &[String],
) -> Result<bool, Error> {
    let owed = sqlx::query_scalar!(
        r#"SELECT EXISTS (
             SELECT 1 FROM UNNEST($2::text[], $3::text[]) AS p (policy, version)
             WHERE NOT EXISTS (
               SELECT 1 FROM terms_accepted t
               WHERE t.user_nid = $1 AND t.policy = p.policy AND t.version = p.version))
           AND EXISTS (
             SELECT 1 FROM account WHERE user_nid = $1
               AND COALESCE(user_type, '') NOT IN ('bot', 'support')) AS "owed!""#,
        user.0,
        policies,
        versions
    );
    Ok(owed.fetch_one(conn).await?)
}

/// Notes what a user accepts; the first time counts.
pub async fn insert(
    conn: &mut PgConnection,
    user: UserNid,
    policies: &[String],
    versions: &[String],
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO terms_accepted (user_nid, policy, version, accepted_ts)
         SELECT $1, policy, version, $4 FROM UNNEST($2::text[], $3::text[]) AS p (policy, version)
         ON CONFLICT ON CONSTRAINT terms_accepted_pkey DO NOTHING",
        user.0,
        policies,
        versions,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a user accepted, the newest first.
pub async fn list(conn: &mut PgConnection, user: UserNid) -> Result<Vec<Accepted>, Error> {
    Ok(sqlx::query_as!(
        Accepted,
        "SELECT policy, version, accepted_ts FROM terms_accepted
         WHERE user_nid = $1 ORDER BY accepted_ts DESC, policy, version",
        user.0
    )
    .fetch_all(conn)
    .await?)
}

/// Forgets what a user accepted.
pub async fn delete(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!("DELETE FROM terms_accepted WHERE user_nid = $1", user.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether a notice told a user of these versions.
pub async fn is_told(
    conn: &mut PgConnection,
    user: UserNid,
    versions: &str,
) -> Result<bool, Error> {
    let told = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM account WHERE user_nid = $1 AND terms_told = $2)
           AS "told!""#,
        user.0,
        versions
    );
    Ok(told.fetch_one(conn).await?)
}

/// Notes that a notice told a user of these versions.
pub async fn update_told(
    conn: &mut PgConnection,
    user: UserNid,
    versions: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET terms_told = $2 WHERE user_nid = $1",
        user.0,
        versions
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The secret for a purpose: `fresh` where there was none.
pub async fn secret(
    conn: &mut PgConnection,
    purpose: &str,
    fresh: &[u8],
) -> Result<Vec<u8>, Error> {
    sqlx::query!(
        "INSERT INTO server_secret (purpose, secret) VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT server_secret_pkey DO NOTHING",
        purpose,
        fresh
    )
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query_scalar!(
        "SELECT secret FROM server_secret WHERE purpose = $1",
        purpose
    )
    .fetch_one(conn)
    .await?)
}
