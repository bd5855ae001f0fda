//! Events from before relations were kept: rooms that are still to be looked through for them.

use sqlx::PgConnection;

use super::{Error, RoomNid, append::flag, codec::decode_body, relations::RelationRow};

/// A room that is to be looked through, and after which event; nobody else looks through it while the
/// transaction lasts, or redacts in it.
pub async fn lock(conn: &mut PgConnection) -> Result<Option<(RoomNid, i64)>, Error> {
    let row = sqlx::query!(
        "SELECT room_nid, after_nid FROM relation_todo ORDER BY room_nid
         LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    sqlx::query!(
        r#"SELECT 1 AS "one!" FROM room_head WHERE room_nid = $1 FOR UPDATE"#,
        row.room_nid
    )
    .fetch_optional(conn)
    .await?;
    Ok(Some((RoomNid(row.room_nid), row.after_nid)))
}

/// A message event that may relate to another.
#[derive(Clone, Debug)]
pub struct Old {
    /// Event.
    pub nid: i64,
    /// Place in the timeline.
    pub seq: i64,
    /// Sender.
    pub sender: i64,
    /// Type.
    pub kind: i32,
    /// Canonical federation JSON.
    pub json: String,
}

/// Message events of a timeline in the order of their numbers, without redacted ones.
pub async fn list(
    conn: &mut PgConnection,
    room: RoomNid,
    after: i64,
    limit: i64,
) -> Result<Vec<Old>, Error> {
    let rows = sqlx::query!(
        r#"SELECT e.event_nid, e.room_seq AS "seq!", e.sender_nid, e.type_nid, j.body
           FROM event e
           JOIN event_json j ON j.event_nid = e.event_nid
           WHERE e.room_nid = $1 AND e.event_nid > $2 AND e.skey_nid IS NULL
             AND e.room_seq IS NOT NULL AND e.flags & $4 = 0
           ORDER BY e.event_nid LIMIT $3"#,
        room.0,
        after,
        limit,
        flag::REDACTED
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        Ok(Old {
            nid: row.event_nid,
            seq: row.seq,
            sender: row.sender_nid,
            kind: row.type_nid,
            json: decode_body("event_json", &row.body)?,
        })
    });
    rows.collect()
}

/// Writes relations of such events; those that are there already stay.
pub async fn insert(
    conn: &mut PgConnection,
    room: RoomNid,
    rows: &[(&Old, RelationRow)],
) -> Result<(), Error> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            &rows.iter().map(|$row| $value).collect::<Vec<_>>() as &[_]
        };
    }
    sqlx::query!(
        "SELECT relate($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &vec![room.0; rows.len()],
        column!(row => row.0.nid),
        column!(row => row.0.seq),
        column!(row => row.0.sender),
        column!(row => row.0.kind),
        column!(row => row.1.parent),
        column!(row => row.1.rel),
        column!(row => row.1.root.clone()) as &[Option<String>],
        column!(row => row.1.key) as &[Option<uuid::Uuid>],
        column!(row => row.1.edit_ts) as &[Option<i64>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how far a room is looked through; `None`: to its end.
pub async fn advance(
    conn: &mut PgConnection,
    room: RoomNid,
    upto: Option<i64>,
) -> Result<(), Error> {
    match upto {
        Some(upto) => sqlx::query!(
            "UPDATE relation_todo SET after_nid = $2 WHERE room_nid = $1",
            room.0,
            upto
        ),
        None => sqlx::query!("DELETE FROM relation_todo WHERE room_nid = $1", room.0),
    }
    .execute(conn)
    .await?;
    Ok(())
}
