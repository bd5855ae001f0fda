//! Simplified sliding sync: what connections were told.

use sqlx::PgConnection;

use super::{
    Error, Pos, RoomNid, UserNid,
    codec::{decode_body, encode_body},
};

/// Whose connection: user, device number, name.
pub type Key<'a> = (UserNid, i32, &'a str);

/// A version of a connection as JSON; `None`: it does not exist, or no more.
pub async fn find(
    conn: &mut PgConnection,
    (user, device, name): Key<'_>,
    version: i64,
    now: i64,
) -> Result<Option<String>, Error> {
    let body = sqlx::query_scalar!(
        "UPDATE sliding_connection SET used_ts = $5
         WHERE user_nid = $1 AND device_no = $2 AND name = $3 AND version = $4
         RETURNING body",
        user.0,
        device,
        name,
        version,
        now
    )
    .fetch_optional(conn)
    .await?;
    body.map(|body| decode_body("sliding_connection", &body))
        .transpose()
}

/// Writes a new version beside the one that the client has; all others of the connection go, and
/// of a device that has too many connections those that were not used for longest. It need not be on
/// disk when the client is answered: who names a version that was lost with a crash begins anew.
pub async fn insert(
    conn: &mut PgConnection,
    (user, device, name): Key<'_>,
    (base, version): (Option<i64>, i64),
    (json, now): (&str, i64),
    connections_max: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH soft AS MATERIALIZED (
           SELECT set_config('synchronous_commit', 'off', true)
         ), gone AS (
           DELETE FROM sliding_connection
           WHERE user_nid = $1 AND device_no = $2 AND name = $3 AND version IS DISTINCT FROM $4
         ), surplus AS (
           DELETE FROM sliding_connection WHERE user_nid = $1 AND device_no = $2 AND name IN (
             SELECT name FROM sliding_connection
             WHERE user_nid = $1 AND device_no = $2 AND name <> $3
             GROUP BY name ORDER BY max(used_ts) DESC OFFSET $8)
         )
         INSERT INTO sliding_connection (user_nid, device_no, name, version, used_ts, body)
         SELECT $1, $2, $3, $5::bigint, $6::bigint, $7::bytea FROM soft",
        user.0,
        device,
        name,
        base,
        version,
        now,
        encode_body(json),
        connections_max - 1
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes connections that were not used since `ts`; returns how many.
pub async fn delete_unused(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM sliding_connection WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM sliding_connection WHERE used_ts < $1 LIMIT $2))",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Account data of rooms, each after its own position: (room, type, content).
pub async fn account_data(
    conn: &mut PgConnection,
    user: UserNid,
    rooms: &[(RoomNid, Pos)],
    upto: Pos,
) -> Result<Vec<(RoomNid, String, String)>, Error> {
    let nids: Vec<i64> = rooms.iter().map(|(room, _)| room.0).collect();
    let since: Vec<i64> = rooms.iter().map(|(_, since)| *since).collect();
    let rows = sqlx::query!(
        "SELECT a.room_nid, a.type, a.content
         FROM unnest($2::bigint[], $3::bigint[]) AS w (room, since)
         JOIN account_data a ON a.user_nid = $1 AND a.room_nid = w.room
         WHERE a.pos > w.since AND a.pos <= $4 AND (w.since > 0 OR NOT a.gone)
         ORDER BY a.pos",
        user.0,
        &nids,
        &since,
        upto
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (RoomNid(row.room_nid), row.r#type, row.content))
        .collect())
}
