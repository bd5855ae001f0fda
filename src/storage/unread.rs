//! Unread counts: counters of rooms and threads, read positions, and rows for what deviates.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, RoomNid, UserNid};

/// Threads of a room that are looked at for one user, newest first.
const THREADS_MAX: i64 = 500;
/// Rows of a user in a room, and redacted events of a room, that are looked at, newest first.
const ROWS_MAX: i64 = 5_000;

/// A part of what is unread in a room: parts of the same thread add up.
#[derive(Clone, Debug)]
pub struct Part {
    /// Room.
    pub room: RoomNid,
    /// Root of the thread; `None`: what is in no thread.
    pub thread: Option<String>,
    /// Notifications; may be below zero.
    pub notify: i64,
    /// Highlights; may be below zero.
    pub high: i64,
}

/// What is unread for a user in some rooms: counters of the room and of its threads, less what is
/// redacted of that, and rows of the user's own.
#[expect(clippy::too_many_lines, reason = "one statement")]
pub async fn list(
    conn: &mut PgConnection,
    user: UserNid,
    rooms: &[i64],
) -> Result<Vec<Part>, Error> {
    let rows = sqlx::query!(
        r#"WITH mine AS MATERIALIZED (
             SELECT u.room_nid, u.read_seq, u.main_seq, greatest(u.base_seq, u.read_seq) AS floor_seq,
               u.base_seq, u.push_class IN (0, 2) AS counted, u.push_class = 0 AS all_of_it,
               h.notif_main - u.read_notif AS notify, h.high_main - u.read_high AS high
             FROM user_room u
             JOIN room_head h ON h.room_nid = u.room_nid
             WHERE u.user_nid = $1 AND u.room_nid = ANY($2)
           ), parts AS (
             SELECT m.room_nid, NULL::uuid AS thread_key,
               CASE WHEN m.all_of_it THEN m.notify ELSE m.high END::bigint AS notify, m.high::bigint AS high
             FROM mine m
             WHERE m.counted
             UNION ALL
             SELECT m.room_nid, t.root_key,
               CASE WHEN m.all_of_it THEN t.notif - coalesce(e.thread_notif, 0)
                 ELSE t.high - coalesce(e.thread_high, 0) END,
               t.high - coalesce(e.thread_high, 0)
             FROM mine m
             CROSS JOIN LATERAL (
               SELECT x.root_key, x.last_seq, x.notif, x.high FROM thread x
               WHERE x.room_nid = m.room_nid AND x.last_seq > m.floor_seq
               ORDER BY x.last_seq DESC
               LIMIT $3) t
             LEFT JOIN thread_read r
               ON r.user_nid = $1 AND r.room_nid = m.room_nid AND r.root_key = t.root_key
             LEFT JOIN LATERAL (
               SELECT v.thread_notif, v.thread_high FROM event v
               WHERE v.room_nid = m.room_nid AND v.thread_key = t.root_key AND v.pos IS NOT NULL
                 AND v.room_seq <= greatest(m.floor_seq, r.read_seq)
               ORDER BY v.room_seq DESC
               LIMIT 1) e ON true
             WHERE m.counted AND t.last_seq > coalesce(r.read_seq, 0)
             UNION ALL
             SELECT m.room_nid, v.thread_key, -(CASE WHEN m.all_of_it THEN v.notify ELSE v.high END), -v.high
             FROM mine m
             CROSS JOIN LATERAL (
               SELECT x.room_seq, x.thread_key, x.notify, x.high FROM unread_void x
               WHERE x.room_nid = m.room_nid AND x.room_seq > m.floor_seq
               ORDER BY x.room_seq DESC
               LIMIT $4) v
             LEFT JOIN thread_read r
               ON r.user_nid = $1 AND r.room_nid = m.room_nid AND r.root_key = v.thread_key
             WHERE m.counted AND v.room_seq > CASE WHEN v.thread_key IS NULL THEN m.main_seq
               ELSE coalesce(r.read_seq, 0) END
             UNION ALL
             SELECT m.room_nid, v.thread_key, v.notify, v.high
             FROM mine m
             CROSS JOIN LATERAL (
               SELECT x.room_seq, x.thread_key, x.notify, x.high FROM mention x
               WHERE x.user_nid = $1 AND x.room_nid = m.room_nid AND x.room_seq > m.read_seq
               ORDER BY x.room_seq DESC
               LIMIT $4) v
             LEFT JOIN thread_read r
               ON r.user_nid = $1 AND r.room_nid = m.room_nid AND r.root_key = v.thread_key
             WHERE v.room_seq > CASE WHEN v.thread_key IS NULL THEN m.main_seq
               ELSE coalesce(r.read_seq, 0) END
           )
           SELECT p.room_nid AS "room!", t.root_id AS "thread?", sum(p.notify)::bigint AS "notify!",
             sum(p.high)::bigint AS "high!"
           FROM parts p
           LEFT JOIN thread t ON t.room_nid = p.room_nid AND t.root_key = p.thread_key
           GROUP BY p.room_nid, t.root_id"#,
        user.0,
        rooms,
        THREADS_MAX,
        ROWS_MAX
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Part {
            room: RoomNid(row.room),
            thread: row.thread,
            notify: row.notify,
            high: row.high,
        })
        .collect())
}

/// A user has read everything up to a place in the timeline. Never moves back.
pub async fn read_all(
    conn: &mut PgConnection,
    (room, user): (RoomNid, UserNid),
    seq: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH rows AS (
           DELETE FROM mention WHERE user_nid = $1 AND room_nid = $2 AND room_seq <= $3
         ), threads AS (
           DELETE FROM thread_read WHERE user_nid = $1 AND room_nid = $2 AND read_seq <= $3)
         UPDATE user_room SET read_seq = $3
         WHERE user_nid = $1 AND room_nid = $2 AND read_seq < $3",
        user.0,
        room.0,
        seq
    )
    .execute(&mut *conn)
    .await?;
    read_main(conn, (room, user), seq).await
}

/// A user has read what is in no thread up to a place in the timeline. Never moves back.
pub async fn read_main(
    conn: &mut PgConnection,
    (room, user): (RoomNid, UserNid),
    seq: i64,
) -> Result<(), Error> {
    // Backfilled events have no counters: the ones of the last event that came in its time.
    sqlx::query!(
        "WITH there AS (
           SELECT notif_main, high_main FROM event
           WHERE room_nid = $2 AND room_seq <= $3 AND pos IS NOT NULL
           ORDER BY room_seq DESC
           LIMIT 1)
         UPDATE user_room u SET main_seq = $3,
           read_notif = CASE WHEN $3 > u.base_seq
             THEN coalesce((SELECT notif_main FROM there), u.read_notif) ELSE u.read_notif END,
           read_high = CASE WHEN $3 > u.base_seq
             THEN coalesce((SELECT high_main FROM there), u.read_high) ELSE u.read_high END
         WHERE u.user_nid = $1 AND u.room_nid = $2 AND u.main_seq < $3",
        user.0,
        room.0,
        seq
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM mention
         WHERE user_nid = $1 AND room_nid = $2 AND room_seq <= $3 AND thread_key IS NULL",
        user.0,
        room.0,
        seq
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A user has read a thread up to a place in the timeline. Never moves back; nothing happens where
/// there is no such thread, or all of it is read.
pub async fn read_thread(
    conn: &mut PgConnection,
    (room, user): (RoomNid, UserNid),
    (root_key, seq): (Uuid, i64),
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO thread_read AS r (user_nid, room_nid, root_key, read_seq)
         SELECT u.user_nid, u.room_nid, t.root_key, $4
         FROM user_room u
         JOIN thread t ON t.room_nid = u.room_nid AND t.root_key = $3
         WHERE u.user_nid = $1 AND u.room_nid = $2 AND u.read_seq < $4
         ON CONFLICT ON CONSTRAINT thread_read_pkey
           DO UPDATE SET read_seq = greatest(r.read_seq, EXCLUDED.read_seq)",
        user.0,
        room.0,
        root_key,
        seq
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM mention
         WHERE user_nid = $1 AND room_nid = $2 AND room_seq <= $4 AND thread_key = $3",
        user.0,
        room.0,
        root_key,
        seq
    )
    .execute(conn)
    .await?;
    Ok(())
}
