//! Peers as administrators see them.

use sqlx::PgConnection;

use super::{Error, ServerNid};

/// A peer.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its number.
    pub server: i32,
    /// Its name.
    pub name: String,
    /// Outbox positions up to this are delivered or not owed.
    pub acked_pos: i64,
    /// First failure in a row; `None`: it is well.
    pub failing_since_ts: Option<i64>,
    /// Not before.
    pub retry_at_ts: i64,
    /// Current pause in milliseconds.
    pub backoff_ms: i64,
    /// Last success.
    pub last_ok_ts: Option<i64>,
}

/// Which peers, and in which order.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Part of the name.
    pub search: Option<&'a str>,
    /// Only those that fail.
    pub failing: bool,
    /// `destination`, `retry_last_ts`, `retry_interval`, `failure_ts` or
    /// `last_successful_stream_ordering`.
    pub order_by: &'a str,
    /// Large to small.
    pub descending: bool,
    /// Peers left out at the beginning.
    pub offset: i64,
    /// Peers at most.
    pub limit: i64,
}

/// A page of peers, and how many there are in all.
pub async fn list(
    conn: &mut PgConnection,
    query: Query<'_>,
) -> Result<(Vec<Destination>, i64), Error> {
    let search = query.search.map(str::to_lowercase);
    let rows = sqlx::query!(
        r#"SELECT d.server_nid, s.name, d.acked_pos, d.failing_since_ts, d.retry_at_ts,
             d.backoff_ms, d.last_ok_ts, count(*) OVER () AS "total!"
           FROM fed_dest d
           JOIN server s ON s.server_nid = d.server_nid
           CROSS JOIN LATERAL (SELECT CASE $1
               WHEN 'retry_last_ts' THEN d.retry_at_ts - d.backoff_ms
               WHEN 'retry_interval' THEN d.backoff_ms
               WHEN 'failure_ts' THEN d.failing_since_ts
               WHEN 'last_successful_stream_ordering' THEN d.acked_pos END AS key) k
           WHERE ($2::text IS NULL OR position($2 IN lower(s.name)) > 0)
             AND (NOT $3 OR d.failing_since_ts IS NOT NULL)
           ORDER BY CASE WHEN $4 THEN -k.key ELSE k.key END,
             CASE WHEN $4 THEN NULL ELSE s.name END,
             CASE WHEN $4 THEN s.name END DESC
           OFFSET $5 LIMIT $6"#,
        query.order_by,
        search,
        query.failing,
        query.descending,
        query.offset,
        query.limit
    )
    .fetch_all(&mut *conn)
    .await?;
    let total = match rows.first() {
        Some(row) => row.total,
        None => count(conn, search.as_deref(), query.failing).await?,
    };
    let rows = rows.into_iter().map(|row| Destination {
        server: row.server_nid,
        name: row.name,
        acked_pos: row.acked_pos,
        failing_since_ts: row.failing_since_ts,
        retry_at_ts: row.retry_at_ts,
        backoff_ms: row.backoff_ms,
        last_ok_ts: row.last_ok_ts,
    });
    Ok((rows.collect(), total))
}

/// How many there are, for a page beyond the last.
async fn count(conn: &mut PgConnection, search: Option<&str>, failing: bool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "total!" FROM fed_dest d JOIN server s ON s.server_nid = d.server_nid
           WHERE ($1::text IS NULL OR position($1 IN lower(s.name)) > 0)
             AND (NOT $2 OR d.failing_since_ts IS NOT NULL)"#,
        search,
        failing
    )
    .fetch_one(conn)
    .await?)
}

/// One peer.
pub async fn find(conn: &mut PgConnection, name: &str) -> Result<Option<Destination>, Error> {
    Ok(sqlx::query_as!(
        Destination,
        "SELECT d.server_nid AS server, s.name, d.acked_pos, d.failing_since_ts, d.retry_at_ts,
           d.backoff_ms, d.last_ok_ts
         FROM fed_dest d JOIN server s ON s.server_nid = d.server_nid
         WHERE s.name = $1",
        name
    )
    .fetch_optional(conn)
    .await?)
}

/// Rooms that are shared with a peer, by number: (room id, position of the newest event that it is
/// or was owed), and how many there are in all.
pub async fn list_rooms(
    conn: &mut PgConnection,
    server: ServerNid,
    descending: bool,
    (offset, limit): (i64, i64),
) -> Result<(Vec<(String, i64)>, i64), Error> {
    let rows = sqlx::query!(
        r#"SELECT o.room_id, COALESCE(p.pos, r.since_pos) AS "pos!", count(*) OVER () AS "total!"
           FROM room_server r
           JOIN room o ON o.room_nid = r.room_nid
           LEFT JOIN LATERAL (SELECT f.pos FROM fed_outbox f WHERE f.room_nid = r.room_nid
                              ORDER BY f.pos DESC LIMIT 1) p ON true
           WHERE r.server_nid = $1 AND (r.joined > 0 OR r.told)
           ORDER BY CASE WHEN $2 THEN -r.room_nid ELSE r.room_nid END
           OFFSET $3 LIMIT $4"#,
        server.0,
        descending,
        offset,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    let total = match rows.first() {
        Some(row) => row.total,
        None => {
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "total!" FROM room_server
               WHERE server_nid = $1 AND (joined > 0 OR told)"#,
                server.0
            )
            .fetch_one(conn)
            .await?
        }
    };
    let rows = rows.into_iter().map(|row| (row.room_id, row.pos));
    Ok((rows.collect(), total))
}
