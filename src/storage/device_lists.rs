//! Device lists of users of peers, and the count of changes of our own.

use sqlx::PgConnection;

use super::{Error, UserNid, device_keys::DeviceKeys};

/// Lists that are asked for anew in one round.
const STALE_MAX: i64 = 500;
/// First pause after a failure to fetch a list.
const PAUSE_FIRST_MS: i64 = 60_000;
/// Longest pause.
const PAUSE_LONGEST_MS: i64 = 24 * 3_600_000;

/// How a copy of a list stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// How far it is by the count of the peer.
    pub stream_id: Option<i64>,
    /// Whether it may be served.
    pub fresh: bool,
    /// Changes with each update.
    pub rev: i32,
}

/// A list as a peer sent it, checked.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Its count; `None`: the peer did not say.
    pub stream_id: Option<i64>,
    /// Devices: (id, name, JSON).
    pub devices: Vec<(String, Option<String>, String)>,
    /// Cross-signing keys: (kind, JSON).
    pub cross: Vec<(&'static str, String)>,
}

/// Of some users of peers those whose devices we are kept up to date about: a user of ours is in a
/// room with them.
pub async fn is_tracked(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT nid AS "nid!" FROM tracked_users($1) AS nid"#,
        users
    )
    .fetch_all(conn)
    .await?)
}

/// Of some users those whose list may be served.
pub async fn list_fresh(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT user_nid FROM device_list WHERE user_nid = ANY ($1) AND fresh",
        users
    )
    .fetch_all(conn)
    .await?)
}

/// Devices of some users of peers: (user, device id, name, JSON).
pub async fn list_devices(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<DeviceKeys>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, device_id, display_name, body FROM remote_device
         WHERE user_nid = ANY ($1)",
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.user_nid, row.device_id, row.display_name, row.body))
        .collect())
}

/// Cross-signing keys of some users of peers: (user, kind, JSON).
pub async fn list_cross_keys(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<(i64, String, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, kind, body FROM remote_cross_key WHERE user_nid = ANY ($1)",
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.user_nid, row.kind, row.body)).collect())
}

/// How a list stands, before it is asked for: of a tracked user who has no row, one is made.
/// `None`: the user is not tracked.
pub async fn find_or_insert(
    conn: &mut PgConnection,
    user: UserNid,
) -> Result<Option<Standing>, Error> {
    sqlx::query!(
        "INSERT INTO device_list (user_nid) SELECT * FROM tracked_users(ARRAY[$1::bigint])
         ON CONFLICT DO NOTHING",
        user.0
    )
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query_as!(
        Standing,
        "SELECT stream_id, fresh, rev FROM device_list WHERE user_nid = $1",
        user.0
    )
    .fetch_optional(conn)
    .await?)
}

/// How a list stands, locked to the end of the transaction; `None`: there is no copy.
pub async fn lock(conn: &mut PgConnection, user: UserNid) -> Result<Option<Standing>, Error> {
    Ok(sqlx::query_as!(
        Standing,
        "SELECT stream_id, fresh, rev FROM device_list WHERE user_nid = $1 FOR UPDATE",
        user.0
    )
    .fetch_optional(conn)
    .await?)
}

/// Puts a fetched list in place of the copy, unless an update, or the end of tracking, came since
/// `rev` was read (`None`). `Some(true)`: earlier tries had failed.
pub async fn replace(
    conn: &mut PgConnection,
    user: UserNid,
    rev: i32,
    list: &List,
) -> Result<Option<bool>, Error> {
    let was = sqlx::query_scalar!(
        "SELECT pause_ms FROM device_list WHERE user_nid = $1 AND rev = $2 FOR UPDATE",
        user.0,
        rev
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(pause_ms) = was else {
        return Ok(None);
    };
    // The row may have been made while the membership that counted was about to end.
    if is_tracked(conn, &[user.0]).await?.is_empty() {
        sqlx::query!("DELETE FROM device_list WHERE user_nid = $1", user.0)
            .execute(conn)
            .await?;
        return Ok(None);
    }
    sqlx::query!(
        "UPDATE device_list SET stream_id = $2, fresh = true, retry_ts = 0, pause_ms = 0
         WHERE user_nid = $1",
        user.0,
        list.stream_id
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM remote_device WHERE user_nid = $1", user.0)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("DELETE FROM remote_cross_key WHERE user_nid = $1", user.0)
        .execute(&mut *conn)
        .await?;
    let ids: Vec<String> = list.devices.iter().map(|(id, ..)| id.clone()).collect();
    let names: Vec<Option<String>> = list.devices.iter().map(|(_, n, _)| n.clone()).collect();
    let bodies: Vec<String> = list.devices.iter().map(|(.., body)| body.clone()).collect();
    sqlx::query!(
        "INSERT INTO remote_device (user_nid, device_id, display_name, body)
         SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])
         ON CONFLICT DO NOTHING",
        user.0,
        &ids,
        &names as &[Option<String>],
        &bodies
    )
    .execute(&mut *conn)
    .await?;
    upsert_cross_keys(conn, user, &list.cross).await?;
    Ok(Some(pause_ms > 0))
}

/// Sets cross-signing keys.
pub async fn upsert_cross_keys(
    conn: &mut PgConnection,
    user: UserNid,
    keys: &[(&'static str, String)],
) -> Result<(), Error> {
    let kinds: Vec<String> = keys.iter().map(|(kind, _)| (*kind).to_owned()).collect();
    let bodies: Vec<String> = keys.iter().map(|(_, body)| body.clone()).collect();
    sqlx::query!(
        "INSERT INTO remote_cross_key (user_nid, kind, body)
         SELECT $1, * FROM unnest($2::text[], $3::text[])
         ON CONFLICT ON CONSTRAINT remote_cross_key_pkey DO UPDATE SET body = EXCLUDED.body",
        user.0,
        &kinds,
        &bodies
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets one device, where the list has room for it; `false`: it has not.
pub async fn upsert_device(
    conn: &mut PgConnection,
    user: UserNid,
    (id, name, body): (&str, Option<&str>, &str),
    devices_max: i64,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO remote_device (user_nid, device_id, display_name, body)
         SELECT $1, $2, $3, $4
         WHERE (SELECT count(*) FROM remote_device WHERE user_nid = $1 AND device_id <> $2) < $5
         ON CONFLICT ON CONSTRAINT remote_device_pkey
           DO UPDATE SET display_name = EXCLUDED.display_name, body = EXCLUDED.body",
        user.0,
        id,
        name,
        body,
        devices_max
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes a device.
pub async fn delete_device(conn: &mut PgConnection, user: UserNid, id: &str) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM remote_device WHERE user_nid = $1 AND device_id = $2",
        user.0,
        id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that an update was put into the copy, which is then at `stream_id` (`None`: as before).
pub async fn update_stream(
    conn: &mut PgConnection,
    user: UserNid,
    stream_id: Option<i64>,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE device_list SET stream_id = COALESCE($2, stream_id), rev = rev + 1
         WHERE user_nid = $1",
        user.0,
        stream_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the copy is old: it is served no more, and asked for anew at once.
pub async fn update_stale(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE device_list SET fresh = false, rev = rev + 1, retry_ts = 0 WHERE user_nid = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that lists could not be fetched; the pause doubles each time.
pub async fn update_failed(conn: &mut PgConnection, users: &[i64], now: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE device_list SET pause_ms = LEAST(GREATEST(pause_ms * 2, $3), $4),
           retry_ts = $2 + LEAST(GREATEST(pause_ms * 2, $3), $4)
         WHERE user_nid = ANY ($1) AND NOT fresh",
        users,
        now,
        PAUSE_FIRST_MS,
        PAUSE_LONGEST_MS
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Users whose list is old and may be asked for now, longest waiting first.
pub async fn list_stale(conn: &mut PgConnection, now: i64) -> Result<Vec<UserNid>, Error> {
    let users = sqlx::query_scalar!(
        "SELECT user_nid FROM device_list WHERE NOT fresh AND retry_ts <= $1
         ORDER BY retry_ts, user_nid LIMIT $2",
        now,
        STALE_MAX
    )
    .fetch_all(conn)
    .await?;
    Ok(users.into_iter().map(UserNid).collect())
}

/// `stream_id` of the last update of a user of ours; 0: there was none.
pub async fn find_own_stream(conn: &mut PgConnection, user: UserNid) -> Result<i64, Error> {
    let found = sqlx::query_scalar!(
        "SELECT stream_id FROM device_stream WHERE user_nid = $1",
        user.0
    );
    Ok(found.fetch_optional(conn).await?.unwrap_or(0))
}

/// Counts `by` updates of a user of ours; the number of the last. Others wait for the commit.
pub async fn advance_own_stream(
    conn: &mut PgConnection,
    user: UserNid,
    by: i64,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO device_stream (user_nid, stream_id) VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT device_stream_pkey
           DO UPDATE SET stream_id = device_stream.stream_id + EXCLUDED.stream_id
         RETURNING stream_id",
        user.0,
        by
    )
    .fetch_one(conn)
    .await?)
}

/// Servers in a room that share no other room with a user, most users first.
pub async fn list_new_servers(
    conn: &mut PgConnection,
    user: UserNid,
    room: super::RoomNid,
    limit: i64,
) -> Result<Vec<i32>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT r.server_nid FROM room_server r
         WHERE r.room_nid = $1 AND r.joined > 0 AND NOT EXISTS (
           SELECT 1 FROM member m
           JOIN room_server o ON o.room_nid = m.room_nid AND o.server_nid = r.server_nid
             AND o.joined > 0
           WHERE m.user_nid = $2 AND m.membership = 1 AND m.room_nid <> $1)
         ORDER BY r.joined DESC, r.server_nid LIMIT $3",
        room.0,
        user.0,
        limit
    )
    .fetch_all(conn)
    .await?)
}
