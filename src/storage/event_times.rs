//! Events by the time that their senders claim.

use sqlx::PgConnection;

use super::{Error, RoomNid};

/// Timeline events at or after a time (`backwards`: at or before), nearest first.
pub async fn list_near(
    conn: &mut PgConnection,
    room: RoomNid,
    (ts, backwards): (i64, bool),
    limit: i64,
) -> Result<Vec<i64>, Error> {
    let found = if backwards {
        sqlx::query_scalar!(
            "SELECT event_nid FROM event
             WHERE room_nid = $1 AND origin_ts <= $2 AND room_seq IS NOT NULL
             ORDER BY origin_ts DESC, room_seq DESC LIMIT $3",
            room.0,
            ts,
            limit
        )
        .fetch_all(conn)
        .await?
    } else {
        sqlx::query_scalar!(
            "SELECT event_nid FROM event
             WHERE room_nid = $1 AND origin_ts >= $2 AND room_seq IS NOT NULL
             ORDER BY origin_ts, room_seq LIMIT $3",
            room.0,
            ts,
            limit
        )
        .fetch_all(conn)
        .await?
    };
    Ok(found)
}
