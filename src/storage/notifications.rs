//! What a user was notified of, found in the newest events of their rooms.

use sqlx::PgConnection;

use super::{Error, Pos, RoomNid, UserNid};

/// Rooms that are looked at, those where something happened last.
const ROOMS_MAX: i64 = 200;
/// Events that are looked at in each, the newest.
const EVENTS_MAX: i64 = 300;

/// An event that may notify the user.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Stream position.
    pub pos: Pos,
    /// Room.
    pub room: RoomNid,
    /// Event.
    pub event: i64,
    /// The user has read it.
    pub read: bool,
    /// It invites the user, who is not in the room.
    pub is_invite: bool,
}

/// Events before a position that came after `since` and may notify a user, newest first: what the
/// counters count, of who has rules of their own everything, of threads that the user is subscribed
/// to what notifies there, and invitations.
pub async fn list(
    conn: &mut PgConnection,
    user: UserNid,
    (before, since): (Pos, i64),
    limit: i64,
) -> Result<Vec<Candidate>, Error> {
    let rows = sqlx::query!(
        r#"WITH mine AS MATERIALIZED (
             SELECT u.room_nid, u.push_class, u.read_seq, u.main_seq
             FROM user_room u
             JOIN room_head h ON h.room_nid = u.room_nid
             WHERE u.user_nid = $1 AND u.membership = 1 AND u.push_class <> 1
             ORDER BY h.last_pos DESC
             LIMIT $5)
           SELECT e.pos AS "pos!", e.room_nid AS "room!", e.event_nid AS "event!",
             (e.room_seq <= CASE WHEN e.thread_key IS NULL THEN m.main_seq
               ELSE greatest(m.read_seq, r.read_seq) END) AS "read!",
             false AS "is_invite!"
           FROM mine m
           CROSS JOIN LATERAL (
             SELECT v.pos, v.room_nid, v.event_nid, v.room_seq, v.thread_key, v.flags, v.sender_nid,
               v.recv_ts
             FROM event v
             WHERE v.room_nid = m.room_nid AND v.room_seq IS NOT NULL
             ORDER BY v.room_seq DESC
             LIMIT $6) e
           LEFT JOIN thread_read r
             ON r.user_nid = $1 AND r.room_nid = e.room_nid AND r.root_key = e.thread_key
           WHERE e.pos < $2 AND e.recv_ts > $3 AND e.sender_nid <> $1 AND e.flags & 8 = 0
             AND (e.flags & 768 <> 0 OR m.push_class = 9 OR EXISTS (
               SELECT 1 FROM mention x
               WHERE x.user_nid = $1 AND x.room_nid = e.room_nid AND x.room_seq = e.room_seq)
               OR (e.flags & 16384 <> 0 AND EXISTS (
                 SELECT 1 FROM thread_sub s
                 WHERE s.user_nid = $1 AND s.room_nid = e.room_nid AND s.root_key = e.thread_key
                   AND s.subscribed)))
           UNION ALL
           SELECT i.pos, i.room_nid, i.event_nid, false, true
           FROM user_room u
           JOIN event i ON i.room_nid = u.room_nid AND i.event_nid = u.event_nid
           WHERE u.user_nid = $1 AND u.membership = 2 AND i.pos < $2 AND i.recv_ts > $3
           ORDER BY 1 DESC
           LIMIT $4"#,
        user.0,
        before,
        since,
        limit,
        ROOMS_MAX,
        EVENTS_MAX
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Candidate {
        pos: row.pos,
        room: RoomNid(row.room),
        event: row.event,
        read: row.read,
        is_invite: row.is_invite,
    });
    Ok(rows.collect())
}
