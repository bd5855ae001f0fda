//! Simplified sliding sync: what connections were told, and the rooms of a user in order.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::{
    Error, Pos, RoomNid, UserNid,
    codec::{decode_body, encode_body},
    events::{Row, Stored, collect},
    memberships::UserRoom,
};

/// Whose connection: user, device number, name.
pub type Key<'a> = (UserNid, i32, &'a str);

/// A version of a connection as JSON; `None`: it does not exist, or no more.
pub async fn find(
    conn: &mut PgConnection,
    (user, device, name): Key<'_>,
    version: i64,
    now: i64,
) -> Result<Option<String>, Error> {
    let body = sqlx::query_scalar!(
        "UPDATE sliding_connection SET used_ts = $5
         WHERE user_nid = $1 AND device_no = $2 AND name = $3 AND version = $4
         RETURNING body",
        user.0,
        device,
        name,
        version,
        now
    )
    .fetch_optional(conn)
    .await?;
    body.map(|body| decode_body("sliding_connection", &body))
        .transpose()
}

/// Writes a new version beside the one that the client has; all others of the connection go, and
/// of a device that has too many connections those that were not used for longest.
pub async fn insert(
    conn: &mut PgConnection,
    (user, device, name): Key<'_>,
    (base, version): (Option<i64>, i64),
    (json, now): (&str, i64),
    connections_max: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH gone AS (
           DELETE FROM sliding_connection
           WHERE user_nid = $1 AND device_no = $2 AND name = $3 AND version IS DISTINCT FROM $4
         ), surplus AS (
           DELETE FROM sliding_connection WHERE user_nid = $1 AND device_no = $2 AND name IN (
             SELECT name FROM sliding_connection
             WHERE user_nid = $1 AND device_no = $2 AND name <> $3
             GROUP BY name ORDER BY max(used_ts) DESC OFFSET $8)
         )
         INSERT INTO sliding_connection (user_nid, device_no, name, version, used_ts, body)
         VALUES ($1, $2, $3, $5, $6, $7)",
        user.0,
        device,
        name,
        base,
        version,
        now,
        encode_body(json),
        connections_max - 1
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes connections that were not used since `ts`; returns how many.
pub async fn delete_unused(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM sliding_connection WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM sliding_connection WHERE used_ts < $1 LIMIT $2))",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// A room of a user with what puts it in order.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The user's relation to it.
    pub mine: UserRoom,
    /// Position of what last moved it up; 0: we hold no events of it.
    pub bump: Pos,
    /// Position of its newest event.
    pub last: Pos,
}

/// The rooms of a local user that are not forgotten.
pub async fn list_rooms(conn: &mut PgConnection, user: UserNid) -> Result<Vec<Listed>, Error> {
    let rows = sqlx::query!(
        r#"SELECT u.room_nid, u.membership, u.event_nid, u.sender_nid, u.pos, u.stripped,
             COALESCE(h.bump_pos, 0) AS "bump!", COALESCE(h.last_pos, 0) AS "last!",
             (p.room_nid IS NOT NULL AND p.whole_pos IS NULL) AS "partial!",
             COALESCE(p.whole_pos, 0) AS "whole_pos!"
           FROM user_room u
           LEFT JOIN room_head h ON h.room_nid = u.room_nid
           LEFT JOIN partial_room p ON p.room_nid = u.room_nid
           WHERE u.user_nid = $1 AND NOT u.forgotten"#,
        user.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Listed {
                mine: UserRoom {
                    room: RoomNid(row.room_nid),
                    membership: row.membership,
                    event: row.event_nid,
                    sender: row.sender_nid.map(UserNid),
                    pos: row.pos,
                    forgotten: false,
                    stripped: row
                        .stripped
                        .map(|body| decode_body("user_room", &body))
                        .transpose()?,
                    partial: row.partial,
                    whole_pos: row.whole_pos,
                },
                bump: row.bump,
                last: row.last,
            })
        })
        .collect()
}

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

/// The newest live events of rooms, each in its own span, newest first within a room.
pub async fn newest(conn: &mut PgConnection, spans: &[Span]) -> Result<Vec<Stored>, Error> {
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

/// The states that were told of rooms, each at its own position, as `sync::last_told` gives them.
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

/// Account data of rooms, each after its own position: (room, type, content).
pub async fn account_data(
    conn: &mut PgConnection,
    user: UserNid,
    rooms: &[(RoomNid, Pos)],
    upto: Pos,
) -> Result<Vec<(RoomNid, String, String)>, Error> {
    let nids: Vec<i64> = rooms.iter().map(|(room, _)| room.0).collect();
    let since: Vec<i64> = rooms.iter().map(|(_, since)| *since).collect();
    let rows = sqlx::query!(
        "SELECT a.room_nid, a.type, a.content
         FROM unnest($2::bigint[], $3::bigint[]) AS w (room, since)
         JOIN account_data a ON a.user_nid = $1 AND a.room_nid = w.room
         WHERE a.pos > w.since AND a.pos <= $4
         ORDER BY a.pos",
        user.0,
        &nids,
        &since,
        upto
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (RoomNid(row.room_nid), row.r#type, row.content))
        .collect())
}

/// Receipts of rooms that a user may see, each room after its own position. From the beginning (0)
/// only those at some events, and the user's own.
pub async fn receipts(
    conn: &mut PgConnection,
    user: UserNid,
    rooms: &[(RoomNid, Pos)],
    upto: Pos,
    events: &[String],
) -> Result<Vec<super::receipts::Receipt>, Error> {
    let nids: Vec<i64> = rooms.iter().map(|(room, _)| room.0).collect();
    let since: Vec<i64> = rooms.iter().map(|(_, since)| *since).collect();
    Ok(sqlx::query_as!(
        super::receipts::Receipt,
        "SELECT r.room_nid, r.user_nid, r.kind, r.thread_id, r.event_id, r.ts
         FROM unnest($2::bigint[], $3::bigint[]) AS w (room, since)
         JOIN receipt r ON r.room_nid = w.room
         WHERE r.pos > w.since AND r.pos <= $4 AND (r.kind = 1 OR r.user_nid = $1)
           AND (w.since > 0 OR r.user_nid = $1 OR r.event_id = ANY ($5))
         ORDER BY r.room_nid, r.thread_id DESC",
        user.0,
        &nids,
        &since,
        upto,
        events
    )
    .fetch_all(conn)
    .await?)
}
