//! What peers are owed, and how far each of them is.

use sqlx::PgConnection;

use super::{Error, ServerNid, codec::decode_body};

/// How far a peer is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Outbox positions up to this are delivered or not owed.
    pub acked_pos: i64,
    /// First failure in a row; `None`: it is well.
    pub failing_since_ts: Option<i64>,
    /// Not before.
    pub retry_at_ts: i64,
    /// Current pause.
    pub backoff_ms: i64,
    /// Last success.
    pub last_ok_ts: Option<i64>,
}

impl Progress {
    /// Of a peer that is well and has everything up to a position.
    pub fn at(acked_pos: i64) -> Self {
        Self {
            acked_pos,
            failing_since_ts: None,
            retry_at_ts: 0,
            backoff_ms: 0,
            last_ok_ts: None,
        }
    }

    /// When a peer that fails was last tried; 0: it is well.
    pub fn tried_ts(&self) -> i64 {
        self.retry_at_ts - self.backoff_ms
    }
}

/// Every peer that was ever sent something.
pub async fn list_progress(conn: &mut PgConnection) -> Result<Vec<(ServerNid, Progress)>, Error> {
    let rows = sqlx::query!(
        "SELECT server_nid, acked_pos, failing_since_ts, retry_at_ts, backoff_ms, last_ok_ts
         FROM fed_dest"
    );
    let rows = rows.fetch_all(conn).await?.into_iter();
    let progress = rows.map(|row| {
        let progress = Progress {
            acked_pos: row.acked_pos,
            failing_since_ts: row.failing_since_ts,
            retry_at_ts: row.retry_at_ts,
            backoff_ms: row.backoff_ms,
            last_ok_ts: row.last_ok_ts,
        };
        (ServerNid(row.server_nid), progress)
    });
    Ok(progress.collect())
}

/// Up to which position a peer has everything, and whether it fails; `None`: it was never sent
/// anything.
pub async fn find_progress(
    conn: &mut PgConnection,
    server: ServerNid,
) -> Result<Option<(i64, bool)>, Error> {
    let row = sqlx::query!(
        r#"SELECT acked_pos, failing_since_ts IS NOT NULL AS "fails!" FROM fed_dest
           WHERE server_nid = $1"#,
        server.0
    );
    let row = row.fetch_optional(conn).await?;
    Ok(row.map(|row| (row.acked_pos, row.fails)))
}

/// Notes peers that are owed something for the first time, and nothing up to a position. Those
/// that are known stay as they are.
pub async fn insert_new(
    conn: &mut PgConnection,
    servers: &[i32],
    acked_pos: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO fed_dest (server_nid, acked_pos)
         SELECT w.server, $2 FROM unnest($1::int[]) AS w (server) ON CONFLICT DO NOTHING",
        servers,
        acked_pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how far peers are. Nobody falls behind what another node has delivered.
pub async fn update_progress(
    conn: &mut PgConnection,
    peers: &[(ServerNid, Progress)],
) -> Result<(), Error> {
    let column = |of: fn(&Progress) -> i64| -> Vec<i64> {
        peers.iter().map(|(_, progress)| of(progress)).collect()
    };
    let optional = |of: fn(&Progress) -> Option<i64>| -> Vec<Option<i64>> {
        peers.iter().map(|(_, progress)| of(progress)).collect()
    };
    let servers: Vec<i32> = peers.iter().map(|(server, _)| server.0).collect();
    sqlx::query!(
        "UPDATE fed_dest d SET acked_pos = GREATEST(d.acked_pos, w.acked),
           failing_since_ts = w.failing, retry_at_ts = w.retry, backoff_ms = w.backoff,
           last_ok_ts = COALESCE(w.ok, d.last_ok_ts)
         FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
           AS w (server, acked, failing, retry, backoff, ok)
         WHERE d.server_nid = w.server",
        &servers,
        &column(|progress| progress.acked_pos),
        &optional(|progress| progress.failing_since_ts) as &[Option<i64>],
        &column(|progress| progress.retry_at_ts),
        &column(|progress| progress.backoff_ms),
        &optional(|progress| progress.last_ok_ts) as &[Option<i64>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An event that peers are owed.
#[derive(Clone, Debug)]
pub struct News {
    /// Position.
    pub pos: i64,
    /// PDU as JSON.
    pub body: String,
    /// To whom.
    pub servers: Vec<ServerNid>,
}

/// Events that peers are owed after a position up to another, in order: those in the room get them
/// and those named beyond; who sent an event has it.
pub async fn list_news(
    conn: &mut PgConnection,
    (after, upto): (i64, i64),
    limit: i64,
) -> Result<Vec<News>, Error> {
    let rows = sqlx::query!(
        r#"SELECT o.pos AS "pos!", w.servers, COALESCE(s.body, j.body) AS body
           FROM (SELECT * FROM fed_outbox WHERE pos > $1 AND pos <= $2 ORDER BY pos LIMIT $3) o
           LEFT JOIN event e ON e.room_nid = o.room_nid AND e.event_nid = o.event_nid
           LEFT JOIN mx_user u ON u.user_nid = e.sender_nid
           LEFT JOIN state_json s ON s.event_nid = o.event_nid
           LEFT JOIN event_json j ON j.event_nid = o.event_nid
           CROSS JOIN LATERAL (
             SELECT array_agg(DISTINCT x.server) AS servers FROM (
               SELECT r.server_nid AS server FROM room_server r
               WHERE r.room_nid = o.room_nid AND (r.joined > 0 OR r.told) AND o.pos > r.since_pos
                 AND r.server_nid IS DISTINCT FROM u.server_nid
               UNION ALL SELECT unnest(o.extra)) x) w
           ORDER BY o.pos"#,
        after,
        upto,
        limit
    );
    let mut news = Vec::new();
    for row in rows.fetch_all(conn).await? {
        let body = match &row.body {
            Some(body) => decode_body("event_json", body)?,
            // The room is gone, and nobody is owed what was said there.
            None => String::new(),
        };
        let servers = if body.is_empty() { None } else { row.servers };
        let servers = servers.unwrap_or_default().into_iter().map(ServerNid);
        news.push(News {
            pos: row.pos,
            body,
            servers: servers.collect(),
        });
    }
    Ok(news)
}

struct Owed {
    pos: i64,
    body: Vec<u8>,
}

impl Owed {
    fn decoded(self) -> Result<(i64, String), Error> {
        Ok((self.pos, decode_body("event_json", &self.body)?))
    }
}

/// What a peer is owed after a position up to another, in order: (position, PDU as JSON).
pub async fn list_owed(
    conn: &mut PgConnection,
    server: ServerNid,
    (after, upto): (i64, i64),
    limit: i64,
) -> Result<Vec<(i64, String)>, Error> {
    let rows = sqlx::query_as!(
        Owed,
        r#"SELECT o.pos AS "pos!", COALESCE(s.body, j.body) AS "body!"
           FROM (
             SELECT f.pos, f.event_nid FROM room_server r
             CROSS JOIN LATERAL (
               SELECT f.pos, f.event_nid FROM fed_outbox f
               WHERE f.room_nid = r.room_nid AND f.pos > GREATEST($2, r.since_pos) AND f.pos <= $3
                 AND NOT EXISTS (
                   -- What we sent on for a user of that server, it has.
                   SELECT 1 FROM event e JOIN mx_user u ON u.user_nid = e.sender_nid
                   WHERE e.room_nid = f.room_nid AND e.event_nid = f.event_nid
                     AND u.server_nid = $1)
               ORDER BY f.pos LIMIT $4) f
             WHERE r.server_nid = $1 AND (r.joined > 0 OR r.told)
             UNION
             SELECT f.pos, f.event_nid FROM fed_outbox f
             WHERE f.pos > $2 AND f.pos <= $3 AND f.extra <> '{}' AND $1 = ANY (f.extra)
             ORDER BY 1
             LIMIT $4) o
           LEFT JOIN state_json s ON s.event_nid = o.event_nid
           LEFT JOIN event_json j ON j.event_nid = o.event_nid
           WHERE COALESCE(s.body, j.body) IS NOT NULL
           ORDER BY o.pos"#,
        server.0,
        after,
        upto,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Owed::decoded).collect()
}

/// The newest event of each room that a peer is owed after a position up to another, those rooms
/// first where nothing happened for longest: (position, PDU as JSON). Who has these asks for what
/// is between.
pub async fn list_newest_owed(
    conn: &mut PgConnection,
    server: ServerNid,
    (after, upto): (i64, i64),
    limit: i64,
) -> Result<Vec<(i64, String)>, Error> {
    let rows = sqlx::query_as!(
        Owed,
        r#"SELECT o.pos AS "pos!", COALESCE(s.body, j.body) AS "body!"
           FROM (
             SELECT f.pos, f.event_nid FROM room_server r
             CROSS JOIN LATERAL (
               SELECT f.pos, f.event_nid FROM fed_outbox f
               WHERE f.room_nid = r.room_nid AND f.pos > GREATEST($2, r.since_pos) AND f.pos <= $3
               ORDER BY f.pos DESC LIMIT 1) f
             WHERE r.server_nid = $1 AND (r.joined > 0 OR r.told)
             UNION
             SELECT max(f.pos), (array_agg(f.event_nid ORDER BY f.pos DESC))[1]
             FROM fed_outbox f
             WHERE f.pos > $2 AND f.pos <= $3 AND f.extra <> '{}' AND $1 = ANY (f.extra)
             GROUP BY f.room_nid
             ORDER BY 1
             LIMIT $4) o
           LEFT JOIN state_json s ON s.event_nid = o.event_nid
           LEFT JOIN event_json j ON j.event_nid = o.event_nid
           WHERE COALESCE(s.body, j.body) IS NOT NULL
           ORDER BY o.pos"#,
        server.0,
        after,
        upto,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Owed::decoded).collect()
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
