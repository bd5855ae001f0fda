//! Login by OAuth 2.0: clients, sessions, and codes on their way.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// Keeps what a client says of itself, unless there are `most`; whether it did.
pub async fn insert_client(
    conn: &mut PgConnection,
    id: &str,
    metadata: &str,
    now: i64,
    most: i64,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO oauth_client (client_id, metadata, used_ts)
         SELECT $1, $2, $3
         WHERE EXISTS (SELECT FROM oauth_client WHERE client_id = $1)
           OR (SELECT count(*) FROM (SELECT FROM oauth_client LIMIT $4) c) < $4
         ON CONFLICT ON CONSTRAINT oauth_client_pkey DO UPDATE SET used_ts = EXCLUDED.used_ts",
        id,
        metadata,
        now,
        most
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// How exactly it is known when a client was used: one that many share would be written again and again.
const USED_MS: i64 = 3_600_000;

/// What a client says of itself. It was used by that.
pub async fn find_client(
    conn: &mut PgConnection,
    id: &str,
    now: i64,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "WITH used AS (
           UPDATE oauth_client SET used_ts = $2 WHERE client_id = $1 AND used_ts < $3
         )
         SELECT metadata FROM oauth_client WHERE client_id = $1",
        id,
        now,
        now - USED_MS
    )
    .fetch_optional(conn)
    .await?)
}

/// Deletes clients that were not used since `ts` and have no session; returns how many.
pub async fn delete_unused(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM oauth_client WHERE client_id IN (
           SELECT client_id FROM oauth_client c WHERE used_ts <= $1
             AND NOT EXISTS (SELECT FROM oauth_session s WHERE s.client_id = c.client_id)
           ORDER BY used_ts LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Of which client a session is, and what its refresh tokens begin with.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// Client.
    pub client: &'a str,
    /// Hash of what its refresh tokens begin with.
    pub family_hash: &'a [u8],
}

/// The device whose refresh tokens begin like that.
pub async fn find_family(
    conn: &mut PgConnection,
    family_hash: &[u8],
) -> Result<Option<(UserNid, i32)>, Error> {
    let row = sqlx::query!(
        "SELECT user_nid, device_no FROM oauth_session WHERE family_hash = $1",
        family_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (UserNid(row.user_nid), row.device_no)))
}

/// The device that an access token or a refresh token opens.
pub async fn find_device(
    conn: &mut PgConnection,
    token_hash: &[u8],
) -> Result<Option<(UserNid, i32)>, Error> {
    let row = sqlx::query!(
        r#"SELECT user_nid AS "user_nid!", device_no AS "device_no!" FROM (
             SELECT user_nid, device_no FROM access_token WHERE token_hash = $1
             UNION ALL
             SELECT user_nid, device_no FROM refresh_token WHERE token_hash = $1) t
           LIMIT 1"#,
        token_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (UserNid(row.user_nid), row.device_no)))
}

/// What a code stands for.
#[derive(Clone, Debug)]
pub struct Code {
    /// Client that it is for.
    pub client_id: String,
    /// Who is logged in by it.
    pub user_nid: i64,
    /// Device that is made.
    pub device_id: String,
    /// Scope that was granted.
    pub scope: String,
    /// Where the browser took it.
    pub redirect_uri: String,
    /// What the client proves by that it began.
    pub challenge: String,
    /// Browser that gave it.
    pub browser_hash: Vec<u8>,
    /// What the client wants repeated in an id token.
    pub nonce: Option<String>,
}

/// Keeps a code until a time.
pub async fn insert_code(
    conn: &mut PgConnection,
    hash: &[u8],
    code: &Code,
    expires_ts: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO oauth_code (code_hash, client_id, browser_hash, user_nid, device_id, scope,
           redirect_uri, challenge, expires_ts, nonce)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        hash,
        code.client_id,
        code.browser_hash,
        code.user_nid,
        code.device_id,
        code.scope,
        code.redirect_uri,
        code.challenge,
        expires_ts,
        code.nonce
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A code that is not over, and whether it was used.
pub async fn find_code(
    conn: &mut PgConnection,
    hash: &[u8],
    now: i64,
) -> Result<Option<(Code, bool)>, Error> {
    let row = sqlx::query!(
        "SELECT client_id, browser_hash, user_nid, device_id, scope, redirect_uri, challenge, nonce,
           used
         FROM oauth_code WHERE code_hash = $1 AND expires_ts > $2",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let code = Code {
            client_id: row.client_id,
            user_nid: row.user_nid,
            device_id: row.device_id,
            scope: row.scope,
            redirect_uri: row.redirect_uri,
            challenge: row.challenge,
            browser_hash: row.browser_hash,
            nonce: row.nonce,
        };
        (code, row.used)
    }))
}

/// Uses a code; `false`: somebody else did.
pub async fn use_code(conn: &mut PgConnection, hash: &[u8]) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE oauth_code SET used = true WHERE code_hash = $1 AND NOT used",
        hash
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The number of a device, where a client logged it in.
pub async fn find_session(
    conn: &mut PgConnection,
    user: UserNid,
    (device_id, client): (&str, &str),
) -> Result<Option<i32>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT d.device_no FROM device d
         JOIN oauth_session s ON s.user_nid = d.user_nid AND s.device_no = d.device_no
         WHERE d.user_nid = $1 AND d.device_id = $2 AND s.client_id = $3",
        user.0,
        device_id,
        client
    )
    .fetch_optional(conn)
    .await?)
}

/// The client that logged a device in, and what it says of itself.
pub async fn find_client_of(
    conn: &mut PgConnection,
    (user, device_no): (UserNid, i32),
) -> Result<Option<(String, String)>, Error> {
    let row = sqlx::query!(
        "SELECT c.client_id, c.metadata FROM oauth_session s
         JOIN oauth_client c ON c.client_id = s.client_id
         WHERE s.user_nid = $1 AND s.device_no = $2",
        user.0,
        device_no
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.client_id, row.metadata)))
}

/// A device that waits.
#[derive(Clone, Debug)]
pub struct Link {
    /// Client that waits.
    pub client_id: String,
    /// Device that is made.
    pub device_id: String,
    /// Scope that is asked for.
    pub scope: String,
    /// Until when it waits.
    pub expires_ts: i64,
    /// Browser in which it was allowed.
    pub browser_hash: Option<Vec<u8>>,
    /// Who allowed it.
    pub user_nid: Option<i64>,
    /// Whether somebody said no.
    pub denied: bool,
}

/// Notes that a device waits; `false`: the code of the user is another's.
pub async fn insert_link(
    conn: &mut PgConnection,
    (hash, user_code): (&[u8], &str),
    link: &Link,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO oauth_link (code_hash, user_code, client_id, device_id, scope, expires_ts)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT ON CONSTRAINT oauth_link_user_code_key DO NOTHING",
        hash,
        user_code,
        link.client_id,
        link.device_id,
        link.scope,
        link.expires_ts
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The device that a user names by its code, if nobody has answered yet.
pub async fn find_link(
    conn: &mut PgConnection,
    user_code: &str,
    now: i64,
) -> Result<Option<Link>, Error> {
    Ok(sqlx::query_as!(
        Link,
        "SELECT client_id, device_id, scope, expires_ts, browser_hash, user_nid, denied
         FROM oauth_link
         WHERE user_code = $1 AND expires_ts > $2 AND user_nid IS NULL AND NOT denied",
        user_code,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Answers a device, as a user in a browser (`None`: no); `false`: it does not wait any more.
pub async fn answer_link(
    conn: &mut PgConnection,
    user_code: &str,
    allowed: Option<(UserNid, &[u8])>,
    now: i64,
) -> Result<bool, Error> {
    let (user, browser) = allowed.unzip();
    let done = sqlx::query!(
        "UPDATE oauth_link SET user_nid = $2, browser_hash = $3, denied = $2::bigint IS NULL
         WHERE user_code = $1 AND expires_ts > $4 AND user_nid IS NULL AND NOT denied",
        user_code,
        user.map(|user| user.0),
        browser,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A device asks what came of it; when it asked before, in milliseconds.
pub async fn poll_link(
    conn: &mut PgConnection,
    hash: &[u8],
    now: i64,
) -> Result<Option<(Link, i64)>, Error> {
    let row = sqlx::query!(
        "UPDATE oauth_link l SET polled_ts = $2
         FROM (SELECT code_hash, polled_ts FROM oauth_link WHERE code_hash = $1 FOR UPDATE) before
         WHERE l.code_hash = before.code_hash
         RETURNING l.client_id, l.device_id, l.scope, l.expires_ts, l.browser_hash, l.user_nid,
           l.denied, before.polled_ts",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let link = Link {
            client_id: row.client_id,
            device_id: row.device_id,
            scope: row.scope,
            expires_ts: row.expires_ts,
            browser_hash: row.browser_hash,
            user_nid: row.user_nid,
            denied: row.denied,
        };
        (link, row.polled_ts)
    }))
}

/// Takes a device out; `false`: somebody else did.
pub async fn delete_link(conn: &mut PgConnection, hash: &[u8]) -> Result<bool, Error> {
    let done = sqlx::query!("DELETE FROM oauth_link WHERE code_hash = $1", hash)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes codes and devices that waited, some time after they were over; returns how many.
pub async fn delete_expired(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let codes = sqlx::query!(
        "DELETE FROM oauth_code WHERE code_hash IN (
           SELECT code_hash FROM oauth_code WHERE expires_ts <= $1 ORDER BY expires_ts LIMIT $2)",
        ts,
        limit
    )
    .execute(&mut *conn)
    .await?;
    let links = sqlx::query!(
        "DELETE FROM oauth_link WHERE code_hash IN (
           SELECT code_hash FROM oauth_link WHERE expires_ts <= $1 ORDER BY expires_ts LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(codes.rows_affected() + links.rows_affected())
}

/// Lets a user's sessions of OAuth 2.0 replace the cross-signing keys once, until a time.
pub async fn update_cross_signing(
    conn: &mut PgConnection,
    user: UserNid,
    until: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET cross_signing_until_ts = $2 WHERE user_nid = $1",
        user.0,
        until
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes that up; `false`: it was not allowed, or is not any more.
pub async fn take_cross_signing(
    conn: &mut PgConnection,
    user: UserNid,
    now: i64,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE account SET cross_signing_until_ts = NULL
         WHERE user_nid = $1 AND cross_signing_until_ts > $2",
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}
