//! Reads that sync makes over many rooms at once.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::{Error, RoomNid, UserNid};

/// Of some rooms those with events in `(since, upto]`.
pub async fn changed(
    conn: &mut PgConnection,
    rooms: &[i64],
    since: i64,
) -> Result<Vec<RoomNid>, Error> {
    let rooms = sqlx::query_scalar!(
        "SELECT room_nid FROM room_head WHERE room_nid = ANY($1) AND last_pos > $2",
        rooms,
        since
    )
    .fetch_all(conn)
    .await?;
    Ok(rooms.into_iter().map(RoomNid).collect())
}

/// The state that was told of some rooms at a position: the state before the last event up to it,
/// and that event's own change (state key, event).
pub async fn last_told(
    conn: &mut PgConnection,
    rooms: &[i64],
    since: i64,
) -> Result<HashMap<RoomNid, (i64, Option<(i64, i64)>)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT w.room AS "room!", e.event_nid, e.snap_nid AS "snap_nid!", e.skey_nid
           FROM unnest($1::bigint[]) AS w (room)
           CROSS JOIN LATERAL (
             SELECT v.event_nid, v.snap_nid, v.skey_nid FROM event v
             WHERE v.room_nid = w.room AND v.room_seq IS NOT NULL AND v.pos <= $2
             ORDER BY v.room_seq DESC
             LIMIT 1) e
           WHERE e.snap_nid IS NOT NULL"#,
        rooms,
        since
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let change = row.skey_nid.map(|skey| (skey, row.event_nid));
            (RoomNid(row.room), (row.snap_nid, change))
        })
        .collect())
}

/// Joined and invited members of rooms, by room.
pub async fn member_counts(
    conn: &mut PgConnection,
    rooms: &[i64],
) -> Result<HashMap<RoomNid, (i64, i64)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT room_nid, count(*) FILTER (WHERE membership = 1) AS "joined!",
             count(*) FILTER (WHERE membership = 2) AS "invited!"
           FROM member WHERE room_nid = ANY ($1) GROUP BY room_nid"#,
        rooms
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (RoomNid(row.room_nid), (row.joined, row.invited)))
        .collect())
}

/// Of each room the first five members but for one: joined and invited ones, or those who left
/// where there is nobody else; with the number of their membership event.
pub async fn heroes(
    conn: &mut PgConnection,
    rooms: &[i64],
    but: UserNid,
) -> Result<HashMap<RoomNid, Vec<(UserNid, i64)>>, Error> {
    let rows = sqlx::query!(
        r#"SELECT w.room AS "room!", m.user_nid, m.event_nid
           FROM unnest($1::bigint[]) AS w (room)
           CROSS JOIN LATERAL (
             SELECT v.user_nid, v.event_nid, v.membership FROM member v
             WHERE v.room_nid = w.room AND v.user_nid <> $2
             ORDER BY v.membership NOT IN (1, 2), v.event_nid
             LIMIT 5) m
           ORDER BY w.room, m.membership NOT IN (1, 2), m.event_nid"#,
        rooms,
        but.0
    )
    .fetch_all(conn)
    .await?;
    let mut heroes: HashMap<RoomNid, Vec<(UserNid, i64)>> = HashMap::new();
    for row in rows {
        let of_room = heroes.entry(RoomNid(row.room)).or_default();
        of_room.push((UserNid(row.user_nid), row.event_nid));
    }
    Ok(heroes)
}

/// `room_seq` of the newest live event of a room up to a position.
pub async fn seq_at(
    conn: &mut PgConnection,
    room: RoomNid,
    pos: i64,
) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT room_seq AS "seq!" FROM event
           WHERE room_nid = $1 AND room_seq IS NOT NULL AND pos <= $2
           ORDER BY room_seq DESC LIMIT 1"#,
        room.0,
        pos
    )
    .fetch_optional(conn)
    .await?)
}
