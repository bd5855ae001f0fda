//! Devices of local users.

use sqlx::PgConnection;

use super::{Error, UserNid, oauth::Grant, sso::Origin};

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Number.
    pub device_no: i32,
    /// Id.
    pub device_id: String,
    /// Name the user gave.
    pub display_name: Option<String>,
    /// Last request.
    pub last_seen_ts: Option<i64>,
    /// Address of that request.
    pub last_seen_ip: Option<String>,
    /// User agent of that request.
    pub last_seen_agent: Option<String>,
}

/// When and how a device was used.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Owner.
    pub user: UserNid,
    /// Device.
    pub device_no: i32,
    /// When.
    pub ts: i64,
    /// From where.
    pub ip: Option<String>,
    /// With what.
    pub agent: Option<String>,
}

/// Makes a device or finds it; returns its number.
pub async fn upsert(
    conn: &mut PgConnection,
    user: UserNid,
    device_id: &str,
    display_name: Option<&str>,
    now: i64,
) -> Result<i32, Error> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO device (user_nid, device_no, device_id, display_name, created_ts)
         VALUES ($1, nextval('device_no_seq')::int, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT device_id_key DO UPDATE SET device_id = EXCLUDED.device_id
         RETURNING device_no",
        user.0,
        device_id,
        display_name,
        now
    )
    .fetch_one(conn)
    .await?)
}

/// Notes what the session of a device comes of: the session at an identity provider, and the client of
/// OAuth 2.0; `None`: of none (any more).
pub async fn update_origin(
    conn: &mut PgConnection,
    (user, device_no): (UserNid, i32),
    (origin, grant): (Option<&Origin>, Option<Grant<'_>>),
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH no_provider AS (
           DELETE FROM sso_session WHERE user_nid = $1 AND device_no = $2 AND $3::text IS NULL
         ), no_client AS (
           DELETE FROM oauth_session WHERE user_nid = $1 AND device_no = $2 AND $6::text IS NULL
         ), provider AS (
           INSERT INTO sso_session (user_nid, device_no, provider, subject, sid)
           SELECT $1, $2, $3, $4, $5 WHERE $3::text IS NOT NULL
           ON CONFLICT ON CONSTRAINT sso_session_pkey DO UPDATE
             SET provider = EXCLUDED.provider, subject = EXCLUDED.subject, sid = EXCLUDED.sid
         )
         INSERT INTO oauth_session (user_nid, device_no, client_id, family_hash, granted_ts)
         SELECT $1, $2, $6, $7, $8 WHERE $6::text IS NOT NULL
         ON CONFLICT ON CONSTRAINT oauth_session_pkey DO UPDATE
           SET client_id = EXCLUDED.client_id, family_hash = EXCLUDED.family_hash,
               granted_ts = EXCLUDED.granted_ts",
        user.0,
        device_no,
        origin.map(|origin| &*origin.provider),
        origin.map(|origin| &*origin.subject),
        origin.and_then(|origin| origin.sid.as_deref()),
        grant.map(|grant| grant.client),
        grant.map(|grant| grant.family_hash),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Devices of a user, oldest first.
pub async fn list(conn: &mut PgConnection, user: UserNid) -> Result<Vec<Device>, Error> {
    Ok(sqlx::query_as!(
        Device,
        "SELECT device_no, device_id, display_name, last_seen_ts, last_seen_ip, last_seen_agent
         FROM device WHERE user_nid = $1 ORDER BY device_no",
        user.0
    )
    .fetch_all(conn)
    .await?)
}

/// Devices that somebody is or was logged in with: all but the dehydrated one.
pub async fn list_awake(conn: &mut PgConnection, user: UserNid) -> Result<Vec<i32>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT device_no FROM device d WHERE user_nid = $1 AND NOT EXISTS
           (SELECT 1 FROM dehydrated_device h
            WHERE h.user_nid = d.user_nid AND h.device_no = d.device_no)",
        user.0
    )
    .fetch_all(conn)
    .await?)
}

/// One device.
pub async fn find(
    conn: &mut PgConnection,
    user: UserNid,
    device_id: &str,
) -> Result<Option<Device>, Error> {
    Ok(sqlx::query_as!(
        Device,
        "SELECT device_no, device_id, display_name, last_seen_ts, last_seen_ip, last_seen_agent
         FROM device WHERE user_nid = $1 AND device_id = $2",
        user.0,
        device_id
    )
    .fetch_optional(conn)
    .await?)
}

/// Renames a device; `false`: there is none.
pub async fn update_name(
    conn: &mut PgConnection,
    user: UserNid,
    device_id: &str,
    name: Option<&str>,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE device SET display_name = COALESCE($3, display_name)
         WHERE user_nid = $1 AND device_id = $2",
        user.0,
        device_id,
        name
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes when and how devices were used.
pub async fn update_seen(conn: &mut PgConnection, seen: &[Seen]) -> Result<(), Error> {
    let users: Vec<i64> = seen.iter().map(|row| row.user.0).collect();
    let devices: Vec<i32> = seen.iter().map(|row| row.device_no).collect();
    let times: Vec<i64> = seen.iter().map(|row| row.ts).collect();
    let ips: Vec<Option<String>> = seen.iter().map(|row| row.ip.clone()).collect();
    let agents: Vec<Option<String>> = seen.iter().map(|row| row.agent.clone()).collect();
    sqlx::query!(
        "UPDATE device d SET last_seen_ts = w.ts, last_seen_ip = w.ip, last_seen_agent = w.agent
         FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::text[], $5::text[])
           AS w (user_nid, device_no, ts, ip, agent)
         WHERE d.user_nid = w.user_nid AND d.device_no = w.device_no
           AND COALESCE(d.last_seen_ts, 0) < w.ts",
        &users,
        &devices,
        &times,
        &ips as &[Option<String>],
        &agents as &[Option<String>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets from where and with what devices were used that were not used since; returns how many.
pub async fn forget_seen(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "UPDATE device SET last_seen_ip = NULL, last_seen_agent = NULL
         WHERE (user_nid, device_no) IN (
           SELECT user_nid, device_no FROM device
           WHERE last_seen_ts <= $1 AND (last_seen_ip IS NOT NULL OR last_seen_agent IS NOT NULL)
           LIMIT $2)",
        ts,
        limit
    );
    Ok(done.execute(conn).await?.rows_affected())
}

/// Deletes devices with all that waits for them, and their pushers. Their tokens go by
/// `tokens::delete_of_devices`, their keys by `device_keys::delete`.
pub async fn delete(conn: &mut PgConnection, user: UserNid, devices: &[i32]) -> Result<(), Error> {
    sqlx::query!(
        "WITH told AS (DELETE FROM sliding_connection WHERE user_nid = $1 AND device_no = ANY ($2)),
           pushers AS (DELETE FROM pusher WHERE user_nid = $1 AND device_no = ANY ($2)),
           origins AS (DELETE FROM sso_session WHERE user_nid = $1 AND device_no = ANY ($2)),
           grants AS (DELETE FROM oauth_session WHERE user_nid = $1 AND device_no = ANY ($2))
         DELETE FROM to_device WHERE user_nid = $1 AND device_no = ANY ($2)",
        user.0,
        devices
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM device WHERE user_nid = $1 AND device_no = ANY ($2)",
        user.0,
        devices
    )
    .execute(conn)
    .await?;
    Ok(())
}
