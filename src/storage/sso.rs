//! Logins through identity providers: who is who there, logins under way, and the devices that came
//! of them.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// Who a user is at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalId {
    /// Id of the provider.
    pub provider: String,
    /// Id of the person there.
    pub subject: String,
}

/// The session at a provider that a session here comes of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Id of the provider.
    pub provider: String,
    /// Id of the person there.
    pub subject: String,
    /// Session there, where the provider names it.
    pub sid: Option<String>,
}

impl Origin {
    /// Out of columns that may all be null.
    pub(super) fn of(
        provider: Option<String>,
        subject: Option<String>,
        sid: Option<String>,
    ) -> Option<Self> {
        let (provider, subject) = provider.zip(subject)?;
        Some(Self {
            provider,
            subject,
            sid,
        })
    }
}

/// A login under way.
#[derive(Clone)]
pub struct Login {
    /// Id of the provider.
    pub provider: String,
    /// What the provider has to repeat.
    pub nonce: String,
    /// What proves who began (PKCE).
    pub verifier: String,
    /// Where the client waits.
    pub redirect_url: Option<String>,
    /// The session of user-interactive authentication that it is for.
    pub uia_session: Option<String>,
}

/// Whose login it is.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// Hash of the state.
    pub state_hash: &'a [u8],
    /// Hash of the cookie.
    pub cookie_hash: &'a [u8],
}

/// Whom a provider logs out: a session there, or a person with all of them.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Id of the provider.
    pub provider: &'a str,
    /// The person.
    pub subject: Option<&'a str>,
    /// The session.
    pub sid: Option<&'a str>,
}

/// Notes a login that begins, unless there are `most` under way; whether it did.
pub async fn insert_login(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    login: &Login,
    (expires_ts, now): (i64, i64),
    most: i64,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO sso_login
           (state_hash, cookie_hash, provider, nonce, verifier, redirect_url, uia_session, expires_ts)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8
         WHERE (SELECT count(*) FROM (SELECT FROM sso_login WHERE expires_ts > $9 LIMIT $10) l) < $10",
        keys.state_hash,
        keys.cookie_hash,
        login.provider,
        login.nonce,
        login.verifier,
        login.redirect_url,
        login.uia_session,
        expires_ts,
        now,
        most
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes a login out, if it is not over and the browser is the one that began it.
pub async fn take_login(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    now: i64,
) -> Result<Option<Login>, Error> {
    Ok(sqlx::query_as!(
        Login,
        "DELETE FROM sso_login WHERE state_hash = $1 AND cookie_hash = $2 AND expires_ts > $3
         RETURNING provider, nonce, verifier, redirect_url, uia_session",
        keys.state_hash,
        keys.cookie_hash,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// The user who is that person at a provider.
pub async fn find_user(
    conn: &mut PgConnection,
    provider: &str,
    subject: &str,
) -> Result<Option<UserNid>, Error> {
    let user = sqlx::query_scalar!(
        "SELECT user_nid FROM external_id WHERE provider = $1 AND subject = $2",
        provider,
        subject
    );
    Ok(user.fetch_optional(conn).await?.map(UserNid))
}

/// Who a user is at all providers.
pub async fn list_ids(
    conn: &mut PgConnection,
    user: UserNid,
    limit: i64,
) -> Result<Vec<ExternalId>, Error> {
    Ok(sqlx::query_as!(
        ExternalId,
        "SELECT provider, subject FROM external_id WHERE user_nid = $1
         ORDER BY provider, subject LIMIT $2",
        user.0,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Says who a user is at a provider; violates `external_id_pkey` when another is that already.
pub async fn insert_id(
    conn: &mut PgConnection,
    user: UserNid,
    (provider, subject): (&str, &str),
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO external_id (provider, subject, user_nid, added_ts) VALUES ($1, $2, $3, $4)",
        provider,
        subject,
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets who a user is anywhere.
pub async fn delete_ids(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!("DELETE FROM external_id WHERE user_nid = $1", user.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// The session at a provider of which a device was logged in.
pub async fn find_session(
    conn: &mut PgConnection,
    (user, device_no): (UserNid, i32),
) -> Result<Option<Origin>, Error> {
    Ok(sqlx::query_as!(
        Origin,
        "SELECT provider, subject, sid FROM sso_session WHERE user_nid = $1 AND device_no = $2",
        user.0,
        device_no
    )
    .fetch_optional(conn)
    .await?)
}

/// Devices that were logged in by who is logged out now.
pub async fn list_devices(
    conn: &mut PgConnection,
    ended: Ended<'_>,
    limit: i64,
) -> Result<Vec<(UserNid, i32)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, device_no FROM sso_session
         WHERE provider = $1 AND ($2::text IS NULL OR subject = $2) AND ($3::text IS NULL OR sid = $3)
         ORDER BY user_nid, device_no LIMIT $4",
        ended.provider,
        ended.subject,
        ended.sid,
        limit
    )
    .fetch_all(conn)
    .await?;
    let devices = rows.into_iter();
    Ok(devices
        .map(|row| (UserNid(row.user_nid), row.device_no))
        .collect())
}

/// Deletes tokens by which who is logged out now has not logged in yet.
pub async fn delete_login_tokens(conn: &mut PgConnection, ended: Ended<'_>) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM login_token
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

/// Whether a logout token was obeyed already.
pub async fn has_logout(
    conn: &mut PgConnection,
    provider: &str,
    jti_hash: &[u8],
) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM sso_logout WHERE provider = $1 AND jti_hash = $2) AS "found!""#,
        provider,
        jti_hash
    );
    Ok(found.fetch_one(conn).await?)
}

/// Notes that a logout token was obeyed.
pub async fn insert_logout(
    conn: &mut PgConnection,
    provider: &str,
    jti_hash: &[u8],
    expires_ts: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO sso_logout (provider, jti_hash, expires_ts) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT sso_logout_pkey DO NOTHING",
        provider,
        jti_hash,
        expires_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes logins and logout tokens that are over; returns how many.
pub async fn delete_expired(conn: &mut PgConnection, now: i64, limit: i64) -> Result<u64, Error> {
    let logins = sqlx::query!(
        "DELETE FROM sso_login WHERE state_hash IN (
           SELECT state_hash FROM sso_login WHERE expires_ts <= $1 ORDER BY expires_ts LIMIT $2)",
        now,
        limit
    )
    .execute(&mut *conn)
    .await?;
    let logouts = sqlx::query!(
        "DELETE FROM sso_logout WHERE (provider, jti_hash) IN (
           SELECT provider, jti_hash FROM sso_logout WHERE expires_ts <= $1
           ORDER BY expires_ts LIMIT $2)",
        now,
        limit
    )
    .execute(conn)
    .await?;
    Ok(logins.rows_affected() + logouts.rows_affected())
}
