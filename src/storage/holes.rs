//! Holes in a timeline: events whose predecessors we do not have.

use sqlx::PgConnection;

use super::{Error, RoomNid};

/// A hole right below an event.
#[derive(Clone, Copy, Debug)]
pub struct Hole {
    /// The event above it.
    pub child: i64,
    /// Its `room_seq`.
    pub seq: i64,
    /// Its depth.
    pub depth: i64,
    /// Its time.
    pub ts: i64,
    /// The timeline event next below; `None`: the hole is at the beginning.
    pub below: Option<Below>,
}

/// The event below a hole.
#[derive(Clone, Copy, Debug)]
pub struct Below {
    /// Its `room_seq`.
    pub seq: i64,
    /// Its depth.
    pub depth: i64,
    /// Its time.
    pub ts: i64,
}

/// Holes below events with `lo <= room_seq <= hi`, from the newest on.
pub async fn list(
    conn: &mut PgConnection,
    room: RoomNid,
    (lo, hi): (i64, i64),
    limit: i64,
) -> Result<Vec<Hole>, Error> {
    let rows = sqlx::query!(
        r#"SELECT e.event_nid, e.room_seq AS "seq!", e.depth, e.origin_ts,
             b.room_seq AS "below_seq?", b.depth AS "below_depth?", b.origin_ts AS "below_ts?"
           FROM event e
           LEFT JOIN LATERAL (
             SELECT v.room_seq, v.depth, v.origin_ts FROM event v
             WHERE v.room_nid = $1 AND v.room_seq < e.room_seq
             ORDER BY v.room_seq DESC LIMIT 1) b ON true
           WHERE e.room_nid = $1 AND e.room_seq BETWEEN $2 AND $3
             AND e.event_nid IN (SELECT child_nid FROM missing_prev WHERE room_nid = $1)
           ORDER BY e.room_seq DESC LIMIT $4"#,
        room.0,
        lo,
        hi,
        limit
    )
    .fetch_all(conn)
    .await?;
    let hole = |child, seq, depth, ts, below| Hole {
        child,
        seq,
        depth,
        ts,
        below,
    };
    Ok(rows
        .into_iter()
        .map(|row| {
            let below = row.below_seq.zip(row.below_depth).zip(row.below_ts);
            let below = below.map(|((seq, depth), ts)| Below { seq, depth, ts });
            hole(row.event_nid, row.seq, row.depth, row.origin_ts, below)
        })
        .collect())
}

/// The missing predecessors of an event.
pub async fn list_missing(
    conn: &mut PgConnection,
    room: RoomNid,
    child: i64,
    limit: i64,
) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT event_id FROM missing_prev WHERE room_nid = $1 AND child_nid = $2
         ORDER BY event_id LIMIT $3",
        room.0,
        child,
        limit
    )
    .fetch_all(conn)
    .await?)
}
