//! Devices of local users.

use sqlx::PgConnection;

use super::{Error, UserNid};

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

/// Devices of a user, oldest first.
pub async fn list(conn: &mut PgConnection, user: UserNid) -> Result<Vec<Device>, Error> {
    Ok(sqlx::query_as!(
        Device,
        "SELECT device_no, device_id, display_name, last_seen_ts, last_seen_ip
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
        "SELECT device_no, device_id, display_name, last_seen_ts, last_seen_ip
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

/// Notes when and from where a device was used; at most once a minute.
pub async fn update_seen(
    conn: &mut PgConnection,
    user: UserNid,
    device_no: i32,
    (now, ip): (i64, Option<&str>),
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE device SET last_seen_ts = $3, last_seen_ip = $4
         WHERE user_nid = $1 AND device_no = $2 AND COALESCE(last_seen_ts, 0) < $3::bigint - 60000",
        user.0,
        device_no,
        now,
        ip
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes devices with all that waits for them, and their pushers. Their tokens go by
/// `tokens::delete_of_devices`, their keys by `device_keys::delete`.
pub async fn delete(conn: &mut PgConnection, user: UserNid, devices: &[i32]) -> Result<(), Error> {
    sqlx::query!(
        "WITH told AS (DELETE FROM sliding_connection WHERE user_nid = $1 AND device_no = ANY ($2)),
           pushers AS (DELETE FROM pusher WHERE user_nid = $1 AND device_no = ANY ($2))
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
