//! What peers are owed, and how far each of them is.

use sqlx::PgConnection;

use super::{Error, ServerNid, codec::decode_body};

/// How far a peer is.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Outbox positions up to this are delivered or not owed.
    pub acked_pos: i64,
    /// Not before.
    pub retry_at_ts: i64,
    /// Current pause.
    pub backoff_ms: i64,
}

/// A peer's row; made with `acked_pos` when it is new, which is what it is not owed.
pub async fn find_or_insert(
    conn: &mut PgConnection,
    server: ServerNid,
    acked_pos: i64,
) -> Result<Destination, Error> {
    sqlx::query!(
        "INSERT INTO fed_dest (server_nid, acked_pos) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        server.0,
        acked_pos
    )
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query_as!(
        Destination,
        "SELECT acked_pos, retry_at_ts, backoff_ms FROM fed_dest WHERE server_nid = $1",
        server.0
    )
    .fetch_one(conn)
    .await?)
}

/// Notes a success up to a position.
pub async fn update_acked(
    conn: &mut PgConnection,
    server: ServerNid,
    pos: i64,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE fed_dest SET acked_pos = GREATEST(acked_pos, $2), failing_since_ts = NULL,
           retry_at_ts = 0, backoff_ms = 0, last_ok_ts = $3
         WHERE server_nid = $1",
        server.0,
        pos,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes a failure.
pub async fn update_failed(
    conn: &mut PgConnection,
    server: ServerNid,
    (now, retry_at, backoff_ms): (i64, i64, i64),
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE fed_dest SET failing_since_ts = COALESCE(failing_since_ts, $2), retry_at_ts = $3,
           backoff_ms = $4
         WHERE server_nid = $1",
        server.0,
        now,
        retry_at,
        backoff_ms
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a peer is owed after a position up to the horizon, in order: (position, PDU as JSON).
pub async fn list_owed(
    conn: &mut PgConnection,
    server: ServerNid,
    (after, upto): (i64, i64),
    limit: i64,
) -> Result<Vec<(i64, String)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT o.pos AS "pos!", COALESCE(s.body, j.body) AS "body!"
           FROM (
             SELECT f.pos, f.event_nid FROM fed_outbox f
             JOIN room_server r ON r.room_nid = f.room_nid AND r.server_nid = $1
             WHERE f.pos > $2 AND f.pos <= $3 AND (r.joined > 0 OR r.told)
               AND f.pos > r.since_pos AND NOT EXISTS (
                 -- What we sent on for a user of that server, it has.
                 SELECT 1 FROM event e JOIN mx_user u ON u.user_nid = e.sender_nid
                 WHERE e.room_nid = f.room_nid AND e.event_nid = f.event_nid
                   AND u.server_nid = $1)
             UNION
             SELECT f.pos, f.event_nid FROM fed_outbox f
             WHERE f.pos > $2 AND f.pos <= $3 AND $1 = ANY (f.extra)
             ORDER BY 1
             LIMIT $4) o
           LEFT JOIN state_json s ON s.event_nid = o.event_nid
           LEFT JOIN event_json j ON j.event_nid = o.event_nid
           ORDER BY o.pos"#,
        server.0,
        after,
        upto,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.pos, decode_body("event_json", &row.body)?)))
        .collect()
}

/// Peers that an event is owed to: those in the room and those beyond.
pub async fn list_destinations(
    conn: &mut PgConnection,
    after: i64,
    upto: i64,
) -> Result<Vec<ServerNid>, Error> {
    let servers = sqlx::query_scalar!(
        r#"SELECT DISTINCT w.server AS "server!" FROM (
             SELECT r.server_nid AS server FROM fed_outbox f
             JOIN room_server r ON r.room_nid = f.room_nid
             WHERE f.pos > $1 AND f.pos <= $2 AND (r.joined > 0 OR r.told)
               AND f.pos > r.since_pos
             UNION ALL
             SELECT unnest(f.extra) FROM fed_outbox f WHERE f.pos > $1 AND f.pos <= $2) w"#,
        after,
        upto
    )
    .fetch_all(conn)
    .await?;
    Ok(servers.into_iter().map(ServerNid).collect())
}

/// Peers that are behind at start: the least position that any of them has, and all of them.
pub async fn list_behind(conn: &mut PgConnection) -> Result<Vec<ServerNid>, Error> {
    let servers = sqlx::query_scalar!(
        r#"SELECT d.server_nid FROM fed_dest d
           WHERE d.acked_pos < (SELECT COALESCE(max(pos), 0) FROM fed_outbox)"#
    )
    .fetch_all(conn)
    .await?;
    Ok(servers.into_iter().map(ServerNid).collect())
}

/// The newest position of the outbox that had been looked at for new destinations when we stopped:
/// the largest that any destination has acknowledged.
pub async fn newest_acked(conn: &mut PgConnection) -> Result<i64, Error> {
    let pos = sqlx::query_scalar!(r#"SELECT COALESCE(max(acked_pos), 0) AS "pos!" FROM fed_dest"#);
    Ok(pos.fetch_one(conn).await?)
}

/// Our answer to a transaction of a peer that we took before.
pub async fn find_received(
    conn: &mut PgConnection,
    origin: &str,
    id: &str,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT response FROM fed_txn_in WHERE origin = $1 AND txn_id = $2",
        origin,
        id
    )
    .fetch_optional(conn)
    .await?)
}

/// Remembers our answer to a transaction.
pub async fn insert_received(
    conn: &mut PgConnection,
    (origin, id): (&str, &str),
    response: &str,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO fed_txn_in (origin, txn_id, ts, response) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
        origin,
        id,
        now,
        response
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets transactions of before `ts`; returns how many.
pub async fn delete_received(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM fed_txn_in WHERE (origin, txn_id) IN
           (SELECT origin, txn_id FROM fed_txn_in WHERE ts < $1 LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
