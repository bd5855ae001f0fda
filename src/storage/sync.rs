//! Reads that sync makes over many rooms at once.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::{
    Error, Pos, RoomNid, UserNid,
    events::{Row, Stored, collect},
};

/// What is asked of a timeline: room, events after this position (0: from the beginning), up to
/// this one, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Room.
    pub room: RoomNid,
    /// After.
    pub since: Pos,
    /// Up to.
    pub upto: Pos,
    /// How many.
    pub limit: i64,
}

/// The newest live events of rooms, each in its own span, newest first within a room. One query.
pub async fn newest(conn: &mut PgConnection, spans: &[Span]) -> Result<Vec<Stored>, Error> {
    // Within a room positions rise with room_seq, so the index on room_seq serves and the filter
    // on pos cuts off at the first older event of the page.
    let column = |of: fn(&Span) -> i64| -> Vec<i64> { spans.iter().map(of).collect() };
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT e.room_nid, e.event_nid, e.room_seq, e.pos, e.snap_nid, e.event_key, e.event_tail,
             e.flags, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
           FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
             AS w (room, since, upto, most)
           CROSS JOIN LATERAL (
             SELECT * FROM event v
             WHERE v.room_nid = w.room AND v.room_seq IS NOT NULL
               AND (v.pos IS NULL OR v.pos <= w.upto)
             ORDER BY v.room_seq DESC
             LIMIT w.most) e
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
           WHERE COALESCE(e.pos, 0) > w.since OR w.since = 0
           ORDER BY e.room_nid, e.room_seq DESC"#,
        &column(|span| span.room.0),
        &column(|span| span.since),
        &column(|span| span.upto),
        &column(|span| span.limit)
    );
    collect(rows.fetch_all(conn).await?)
}

/// The states that were told of rooms, each at its own position, as (state before the last
/// event up to it, that event's own change (state key, event)).
pub async fn last_told(
    conn: &mut PgConnection,
    rooms: &[(RoomNid, Pos)],
) -> Result<HashMap<RoomNid, (i64, Option<(i64, i64)>)>, Error> {
    let nids: Vec<i64> = rooms.iter().map(|(room, _)| room.0).collect();
    let since: Vec<i64> = rooms.iter().map(|(_, since)| *since).collect();
    let rows = sqlx::query!(
        r#"SELECT w.room AS "room!", e.event_nid, e.snap_nid AS "snap_nid!", e.skey_nid
           FROM unnest($1::bigint[], $2::bigint[]) AS w (room, since)
           CROSS JOIN LATERAL (
             SELECT v.event_nid, v.snap_nid, v.skey_nid FROM event v
             WHERE v.room_nid = w.room AND v.room_seq IS NOT NULL AND v.pos <= w.since
             ORDER BY v.room_seq DESC
             LIMIT 1) e
           WHERE e.snap_nid IS NOT NULL"#,
        &nids,
        &since
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let change = row.skey_nid.map(|skey| (skey, row.event_nid));
        (RoomNid(row.room), (row.snap_nid, change))
    });
    Ok(rows.collect())
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
