//! Registration tokens.

use sqlx::PgConnection;

use super::Error;

/// A registration token.
#[derive(Clone, Debug)]
pub struct RegistrationToken {
    /// 1 to 64 of `[A-Za-z0-9._~-]`.
    pub token: String,
    /// How often it may be used; `None`: without end.
    pub uses_allowed: Option<i32>,
    /// Accounts made with it.
    pub completed: i32,
    /// End of its life.
    pub expires_ts: Option<i64>,
}

/// Most tokens in one answer.
const LIST_MAX: i64 = 10_000;

/// All tokens; with `valid`, those that can (or cannot) be used now.
pub async fn list(
    conn: &mut PgConnection,
    valid: Option<bool>,
    now: i64,
) -> Result<Vec<RegistrationToken>, Error> {
    Ok(sqlx::query_as!(
        RegistrationToken,
        "SELECT token, uses_allowed, completed, expires_ts FROM registration_token
         WHERE $1::boolean IS NULL
            OR $1 = ((uses_allowed IS NULL OR completed < uses_allowed)
                     AND (expires_ts IS NULL OR expires_ts > $2))
         ORDER BY token LIMIT $3",
        valid,
        now,
        LIST_MAX
    )
    .fetch_all(conn)
    .await?)
}

/// One token.
pub async fn find(
    conn: &mut PgConnection,
    token: &str,
) -> Result<Option<RegistrationToken>, Error> {
    Ok(sqlx::query_as!(
        RegistrationToken,
        "SELECT token, uses_allowed, completed, expires_ts FROM registration_token WHERE token = $1",
        token
    )
    .fetch_optional(conn)
    .await?)
}

/// Makes a token; `false`: there is one of that name.
pub async fn insert(
    conn: &mut PgConnection,
    token: &str,
    uses_allowed: Option<i32>,
    expires_ts: Option<i64>,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO registration_token (token, uses_allowed, expires_ts) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
        token,
        uses_allowed,
        expires_ts
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Sets the limits of a token; `None`: there is none of that name.
pub async fn update(
    conn: &mut PgConnection,
    token: &str,
    uses_allowed: Option<i32>,
    expires_ts: Option<i64>,
) -> Result<Option<RegistrationToken>, Error> {
    Ok(sqlx::query_as!(
        RegistrationToken,
        "UPDATE registration_token SET uses_allowed = $2, expires_ts = $3 WHERE token = $1
         RETURNING token, uses_allowed, completed, expires_ts",
        token,
        uses_allowed,
        expires_ts
    )
    .fetch_optional(conn)
    .await?)
}

/// Removes a token; `false`: there was none.
pub async fn delete(conn: &mut PgConnection, token: &str) -> Result<bool, Error> {
    let done = sqlx::query!("DELETE FROM registration_token WHERE token = $1", token)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Whether a registration token can be used now.
pub async fn is_valid(conn: &mut PgConnection, token: &str, now: i64) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM registration_token
             WHERE token = $1 AND (uses_allowed IS NULL OR completed < uses_allowed)
               AND (expires_ts IS NULL OR expires_ts > $2)) AS "found!""#,
        token,
        now
    );
    Ok(found.fetch_one(conn).await?)
}

/// Uses a registration token up by one; `false`: it cannot be used (any more).
pub async fn use_one(conn: &mut PgConnection, token: &str, now: i64) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE registration_token SET completed = completed + 1
         WHERE token = $1 AND (uses_allowed IS NULL OR completed < uses_allowed)
           AND (expires_ts IS NULL OR expires_ts > $2)",
        token,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}
