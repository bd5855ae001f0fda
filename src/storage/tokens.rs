//! Access and refresh tokens, as hashes.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// The session that an access token opens.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "columns, each for itself")]
pub struct Session {
    /// Owner.
    pub user_nid: i64,
    /// Device number.
    pub device_no: i32,
    /// Device id.
    pub device_id: String,
    /// End of life.
    pub expires_ts: Option<i64>,
    /// Server administrator.
    pub admin: bool,
    /// The account is locked.
    pub locked: bool,
    /// The account is suspended.
    pub suspended: bool,
    /// The account is one of a guest.
    pub guest: bool,
    /// It was opened by OAuth 2.0.
    pub oauth: bool,
    /// When the account ends, in milliseconds; `None`: never, or not counted yet.
    pub valid_until_ts: Option<i64>,
    /// Events a second that it may send, where that is not as for everybody.
    pub limit_per_second: Option<i32>,
    /// Events that it may send at once.
    pub limit_burst: Option<i32>,
}

/// The session of an access token, if its account is open.
pub async fn find(conn: &mut PgConnection, hash: &[u8]) -> Result<Option<Session>, Error> {
    Ok(sqlx::query_as!(
        Session,
        r#"SELECT t.user_nid, t.device_no, d.device_id, t.expires_ts, a.admin, a.guest, a.valid_until_ts,
           a.limit_per_second, a.limit_burst,
           a.locked_ts IS NOT NULL AS "locked!", a.suspended_ts IS NOT NULL AS "suspended!",
           o.client_id IS NOT NULL AS "oauth!"
         FROM access_token t
         JOIN device d ON d.user_nid = t.user_nid AND d.device_no = t.device_no
         JOIN account a ON a.user_nid = t.user_nid
         LEFT JOIN oauth_session o ON o.user_nid = t.user_nid AND o.device_no = t.device_no
         WHERE t.token_hash = $1 AND NOT a.deactivated"#,
        hash
    )
    .fetch_optional(conn)
    .await?)
}

/// Whether a device still has a session, and its account may use it; with `now`, also whether the
/// account has not ended by then (milliseconds).
pub async fn is_open(
    conn: &mut PgConnection,
    (user, device_no): (UserNid, i32),
    now: Option<i64>,
) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (
             SELECT 1 FROM access_token t
             JOIN account a ON a.user_nid = t.user_nid
             WHERE t.user_nid = $1 AND t.device_no = $2 AND NOT a.deactivated
               AND a.locked_ts IS NULL
               AND ($3::bigint IS NULL OR a.valid_until_ts IS NULL OR a.valid_until_ts > $3))
           AS "found!""#,
        user.0,
        device_no,
        now
    );
    Ok(found.fetch_one(conn).await?)
}

/// Stores an access token.
pub async fn insert(
    conn: &mut PgConnection,
    hash: &[u8],
    (user, device_no): (UserNid, i32),
    expires_ts: Option<i64>,
    refresh_id: Option<i64>,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO access_token (token_hash, user_nid, device_no, expires_ts, refresh_id)
         VALUES ($1, $2, $3, $4, $5)",
        hash,
        user.0,
        device_no,
        expires_ts,
        refresh_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores a refresh token; returns its number.
pub async fn insert_refresh(
    conn: &mut PgConnection,
    hash: &[u8],
    (user, device_no): (UserNid, i32),
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO refresh_token (token_hash, user_nid, device_no) VALUES ($1, $2, $3)
         RETURNING refresh_id",
        hash,
        user.0,
        device_no
    )
    .fetch_one(conn)
    .await?)
}

/// A refresh token.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// Number.
    pub refresh_id: i64,
    /// Owner.
    pub user_nid: i64,
    /// Device number.
    pub device_no: i32,
    /// The token it was exchanged for.
    pub next_id: Option<i64>,
    /// Whether that one, or its access token, was used.
    pub next_used: bool,
    /// The client of OAuth 2.0 whose it is.
    pub client_id: Option<String>,
}

/// A refresh token by hash, locked until the transaction ends.
pub async fn find_refresh(conn: &mut PgConnection, hash: &[u8]) -> Result<Option<Refresh>, Error> {
    Ok(sqlx::query_as!(
        Refresh,
        r#"SELECT r.refresh_id, r.user_nid, r.device_no, r.next_id,
             COALESCE((SELECT n.used FROM refresh_token n WHERE n.refresh_id = r.next_id), false)
               AS "next_used!", o.client_id AS "client_id?"
           FROM refresh_token r
           JOIN account a ON a.user_nid = r.user_nid AND NOT a.deactivated
           LEFT JOIN oauth_session o ON o.user_nid = r.user_nid AND o.device_no = r.device_no
           WHERE r.token_hash = $1
           FOR UPDATE OF r"#,
        hash
    )
    .fetch_optional(conn)
    .await?)
}

/// Notes what a refresh token was exchanged for; what it was exchanged for before is void.
pub async fn update_refresh(
    conn: &mut PgConnection,
    refresh: &Refresh,
    next_id: i64,
) -> Result<(), Error> {
    if let Some(unused) = refresh.next_id {
        sqlx::query!("DELETE FROM access_token WHERE refresh_id = $1", unused)
            .execute(&mut *conn)
            .await?;
        sqlx::query!("DELETE FROM refresh_token WHERE refresh_id = $1", unused)
            .execute(&mut *conn)
            .await?;
    }
    sqlx::query!(
        "UPDATE refresh_token SET next_id = $2, used = true WHERE refresh_id = $1",
        refresh.refresh_id,
        next_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An access token that came with a refresh token was used: the refresh tokens before it are dead, and
/// what of the device's other access tokens was over before a time (milliseconds) goes.
pub async fn update_used(conn: &mut PgConnection, hash: &[u8], over_ts: i64) -> Result<(), Error> {
    sqlx::query!(
        "WITH mine AS (
           UPDATE refresh_token r SET used = true
           FROM access_token t
           WHERE t.token_hash = $1 AND t.refresh_id = r.refresh_id AND NOT r.used
           RETURNING r.refresh_id, r.user_nid, r.device_no
         ), stale AS (
           DELETE FROM access_token t USING mine
           WHERE t.user_nid = mine.user_nid AND t.device_no = mine.device_no
             AND t.expires_ts <= $2 AND t.refresh_id <> mine.refresh_id
         )
         DELETE FROM refresh_token o USING mine
         WHERE o.user_nid = mine.user_nid AND o.device_no = mine.device_no
           AND o.used AND o.refresh_id <> mine.refresh_id",
        hash,
        over_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends the sessions of devices.
pub async fn delete_of_devices(
    conn: &mut PgConnection,
    user: UserNid,
    devices: &[i32],
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM access_token WHERE user_nid = $1 AND device_no = ANY ($2)",
        user.0,
        devices
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM refresh_token WHERE user_nid = $1 AND device_no = ANY ($2)",
        user.0,
        devices
    )
    .execute(conn)
    .await?;
    Ok(())
}
