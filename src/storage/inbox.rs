//! Events of peers that are checked and wait for what they lean on.

use sqlx::PgConnection;

use super::{
    Error, RoomNid,
    codec::{decode_body, encode_body},
};

/// An event that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its number, in order of arrival.
    pub number: i64,
    /// How often placing it failed.
    pub tries: i32,
    /// Canonical federation JSON; form, signatures and hash are checked.
    pub json: String,
}

/// Puts events of one room into the inbox, in order; those that wait already stay as they are.
/// Shape: (event id, JSON).
pub async fn insert(
    conn: &mut PgConnection,
    room: RoomNid,
    origin: &str,
    events: &[(String, String)],
    now: i64,
) -> Result<(), Error> {
    let ids: Vec<String> = events.iter().map(|(id, _)| id.clone()).collect();
    let bodies: Vec<Vec<u8>> = events.iter().map(|(_, json)| encode_body(json)).collect();
    sqlx::query!(
        "INSERT INTO fed_inbox (room_nid, origin, event_id, recv_ts, body)
         SELECT $1, $2, w.id, $5, w.body
         FROM unnest($3::text[], $4::bytea[]) WITH ORDINALITY AS w (id, body, ord)
         ORDER BY w.ord
         ON CONFLICT ON CONSTRAINT fed_inbox_event_key DO NOTHING",
        room.0,
        origin,
        &ids,
        &bodies,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The oldest events of a peer that wait in a room.
pub async fn list(
    conn: &mut PgConnection,
    room: RoomNid,
    origin: &str,
    limit: i64,
) -> Result<Vec<Waiting>, Error> {
    let rows = sqlx::query!(
        "SELECT inbox_no, tries, body FROM fed_inbox
         WHERE room_nid = $1 AND origin = $2 ORDER BY inbox_no LIMIT $3",
        room.0,
        origin,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Waiting {
                number: row.inbox_no,
                tries: row.tries,
                json: decode_body("fed_inbox", &row.body)?,
            })
        })
        .collect()
}

/// Rooms in which events wait, with the peer that sent them.
pub async fn list_pairs(
    conn: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(RoomNid, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT DISTINCT room_nid, origin FROM fed_inbox LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (RoomNid(row.room_nid), row.origin))
        .collect())
}

/// How many events of a peer wait in a room, counted up to `limit`.
pub async fn count(
    conn: &mut PgConnection,
    room: RoomNid,
    origin: &str,
    limit: i64,
) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM
             (SELECT 1 FROM fed_inbox WHERE room_nid = $1 AND origin = $2 LIMIT $3) w"#,
        room.0,
        origin,
        limit
    );
    Ok(count.fetch_one(conn).await?)
}

/// Takes events out of the inbox.
pub async fn delete(conn: &mut PgConnection, numbers: &[i64]) -> Result<(), Error> {
    sqlx::query!("DELETE FROM fed_inbox WHERE inbox_no = ANY($1)", numbers)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes that an event could not be placed for now.
pub async fn update_tries(conn: &mut PgConnection, number: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE fed_inbox SET tries = tries + 1 WHERE inbox_no = $1",
        number
    )
    .execute(conn)
    .await?;
    Ok(())
}
