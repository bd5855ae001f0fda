//! What redacted events said, for a while.

use sqlx::PgConnection;

use super::{
    Error, RoomNid,
    codec::{decode_body, encode_body},
};

/// Keeps an event as it is before it is redacted; what is kept already stays.
pub async fn insert(
    conn: &mut PgConnection,
    room: RoomNid,
    (event, json): (i64, &str),
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO event_unredacted (event_nid, room_nid, body, kept_ts) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT event_unredacted_pkey DO NOTHING",
        event,
        room.0,
        encode_body(json),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An event as it was, as JSON, if it was kept after a time (milliseconds).
pub async fn find(
    conn: &mut PgConnection,
    event: i64,
    since: i64,
) -> Result<Option<String>, Error> {
    let body = sqlx::query_scalar!(
        "SELECT body FROM event_unredacted WHERE event_nid = $1 AND kept_ts > $2",
        event,
        since
    );
    let body = body.fetch_optional(conn).await?;
    body.map(|body| decode_body("event_unredacted", &body))
        .transpose()
}

/// Deletes what was kept before a time; returns how many.
pub async fn delete_before(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM event_unredacted WHERE event_nid IN (
           SELECT event_nid FROM event_unredacted WHERE kept_ts <= $1 ORDER BY kept_ts LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
