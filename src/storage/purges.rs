//! Deleting the rows of a room.

use sqlx::PgConnection;

use super::{Error, RoomNid, ServerNid, UserNid};

/// How far the deletion of a room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Wanted; given up when a local user is in the room again.
    Wanted = 0,
    /// The head is gone, nobody may enter.
    UnderWay = 1,
    /// Done but for events that peers are still owed.
    Owed = 2,
}

/// A room that is being deleted.
#[derive(Clone, Copy, Debug)]
pub struct Purge {
    /// Room.
    pub room: RoomNid,
    /// How far.
    pub stage: Stage,
    /// Goes ahead although local users are in the room.
    pub forced: bool,
    /// When it was wanted.
    pub since_ts: i64,
}

fn stage_of(code: i16) -> Stage {
    match code {
        0 => Stage::Wanted,
        1 => Stage::UnderWay,
        _ => Stage::Owed,
    }
}

/// Locks a room's row: of changes that depend on who else is in the room, one at a time.
pub async fn lock_room(conn: &mut PgConnection, room: RoomNid) -> Result<(), Error> {
    sqlx::query!(
        r#"SELECT 1 AS "one!" FROM room WHERE room_nid = $1 FOR UPDATE"#,
        room.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Whether every local user who ever had to do with a room has forgotten it.
pub async fn is_forgotten(conn: &mut PgConnection, room: RoomNid) -> Result<bool, Error> {
    let remembered = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM user_room
             WHERE room_nid = $1 AND NOT (forgotten AND membership IN (3, 4))) AS "found!""#,
        room.0
    );
    Ok(!remembered.fetch_one(conn).await?)
}

/// Whether a local user is joined, invited or knocking.
pub async fn has_local_users(conn: &mut PgConnection, room: RoomNid) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM user_room
             WHERE room_nid = $1 AND membership IN (1, 2, 5)) AS "found!""#,
        room.0
    );
    Ok(found.fetch_one(conn).await?)
}

/// Notes that a room is to be deleted; one whose deletion is under way stays there.
pub async fn want(
    conn: &mut PgConnection,
    room: RoomNid,
    forced: bool,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO room_purge AS p (room_nid, stage, forced, since_ts) VALUES ($1, 0, $2, $3)
         ON CONFLICT ON CONSTRAINT room_purge_pkey DO UPDATE SET
           stage = CASE WHEN p.stage = 1 THEN 1 ELSE 0 END, forced = p.forced OR EXCLUDED.forced,
           since_ts = EXCLUDED.since_ts",
        room.0,
        forced,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How far the deletion of a room is.
pub async fn find(conn: &mut PgConnection, room: RoomNid) -> Result<Option<Purge>, Error> {
    let row = sqlx::query!(
        "SELECT stage, forced, since_ts FROM room_purge WHERE room_nid = $1",
        room.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Purge {
        room,
        stage: stage_of(row.stage),
        forced: row.forced,
        since_ts: row.since_ts,
    }))
}

/// Rooms that are being deleted after one, in order of their numbers.
pub async fn list(
    conn: &mut PgConnection,
    after: RoomNid,
    limit: i64,
) -> Result<Vec<Purge>, Error> {
    let rows = sqlx::query!(
        "SELECT room_nid, stage, forced, since_ts FROM room_purge
         WHERE room_nid > $1 ORDER BY room_nid LIMIT $2",
        after.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Purge {
            room: RoomNid(row.room_nid),
            stage: stage_of(row.stage),
            forced: row.forced,
            since_ts: row.since_ts,
        })
        .collect())
}

/// Takes the head of a room away, and with it the room from everybody's sight.
pub async fn begin(conn: &mut PgConnection, room: RoomNid) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE room_purge SET stage = 1 WHERE room_nid = $1",
        room.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM room_head WHERE room_nid = $1", room.0)
        .execute(&mut *conn)
        .await?;
    super::rooms::update_listed(conn, room, false).await
}

/// Ends a deletion, or the attempt at one: what peers are owed is waited for.
pub async fn finish(conn: &mut PgConnection, room: RoomNid) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE room_purge SET stage = 2 WHERE room_nid = $1",
        room.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM room_purge p WHERE p.room_nid = $1 AND NOT EXISTS (
           SELECT 1 FROM fed_outbox o WHERE o.room_nid = p.room_nid AND NOT EXISTS (
             SELECT 1 FROM event e WHERE e.room_nid = o.room_nid AND e.event_nid = o.event_nid))",
        room.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the peers that are still owed an event into its outbox row, and deletes the rows that
/// nobody is owed, but for those of an earlier deletion ([`delete_delivered`] has their bodies go,
/// too); `after` is a position. Returns the last position looked at.
pub async fn address_outbox(
    conn: &mut PgConnection,
    room: RoomNid,
    own: ServerNid,
    after: i64,
    limit: i64,
) -> Result<Option<i64>, Error> {
    let last = sqlx::query_scalar!(
        "WITH batch AS (
           SELECT pos, extra FROM fed_outbox
           WHERE room_nid = $1 AND pos > $2 ORDER BY pos LIMIT $3
         ), owed AS (
           SELECT b.pos,
             array_agg(s.server_nid) FILTER (WHERE s.server_nid IS NOT NULL) AS servers
           FROM batch b
           LEFT JOIN LATERAL (
             SELECT r.server_nid FROM room_server r
             WHERE r.room_nid = $1 AND (r.joined > 0 OR r.told) AND b.pos > r.since_pos
             UNION
             SELECT unnest(b.extra)) s
             ON s.server_nid <> $4 AND NOT EXISTS (
               SELECT 1 FROM fed_dest d
               WHERE d.server_nid = s.server_nid AND d.acked_pos >= b.pos)
           GROUP BY b.pos
         ), gone AS (
           DELETE FROM fed_outbox o USING owed w
           WHERE o.pos = w.pos AND w.servers IS NULL AND EXISTS (
             SELECT 1 FROM event e WHERE e.room_nid = $1 AND e.event_nid = o.event_nid)
         ), kept AS (
           UPDATE fed_outbox o SET extra = w.servers FROM owed w
           WHERE o.pos = w.pos AND w.servers IS NOT NULL
         )
         SELECT max(pos) FROM batch",
        room.0,
        after,
        limit,
        own.0
    )
    .fetch_one(conn)
    .await?;
    Ok(last)
}

/// Deletes outbox rows of deleted events that every peer has (`all`: whoever has them), with the
/// bodies of the events; returns how many.
pub async fn delete_delivered(
    conn: &mut PgConnection,
    room: RoomNid,
    all: bool,
    limit: i64,
) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"WITH done AS (
             SELECT o.pos, o.event_nid FROM fed_outbox o
             WHERE o.room_nid = $1
               AND NOT EXISTS (
                 SELECT 1 FROM event e
                 WHERE e.room_nid = o.room_nid AND e.event_nid = o.event_nid)
               AND ($2 OR NOT EXISTS (
                 SELECT 1 FROM unnest(o.extra) AS x (server)
                 WHERE NOT EXISTS (
                   SELECT 1 FROM fed_dest d
                   WHERE d.server_nid = x.server AND d.acked_pos >= o.pos)))
             ORDER BY o.pos LIMIT $3
           ), outbox AS (
             DELETE FROM fed_outbox WHERE pos IN (SELECT pos FROM done)
           ), messages AS (
             DELETE FROM event_json WHERE event_nid IN (SELECT event_nid FROM done)
           ), states AS (
             DELETE FROM state_json WHERE event_nid IN (SELECT event_nid FROM done)
           )
           SELECT count(*) AS "count!" FROM done"#,
        room.0,
        all,
        limit
    )
    .fetch_one(conn)
    .await?;
    Ok(count)
}

/// Deletes events with their bodies, but for bodies that peers are owed; their numbers.
pub async fn delete_events(
    conn: &mut PgConnection,
    room: RoomNid,
    limit: i64,
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        r#"WITH gone AS (
             DELETE FROM event
             WHERE ctid = ANY (ARRAY(SELECT ctid FROM event WHERE room_nid = $1 LIMIT $2))
             RETURNING event_nid
           ), bodies AS (
             SELECT event_nid FROM gone
             EXCEPT SELECT event_nid FROM fed_outbox WHERE room_nid = $1
           ), messages AS (
             DELETE FROM event_json WHERE event_nid IN (SELECT event_nid FROM bodies)
           ), states AS (
             DELETE FROM state_json WHERE event_nid IN (SELECT event_nid FROM bodies)
           )
           SELECT event_nid AS "nid!" FROM gone"#,
        room.0,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Deletes state snapshots; their numbers.
pub async fn delete_snaps(
    conn: &mut PgConnection,
    room: RoomNid,
    limit: i64,
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "DELETE FROM state_snap
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM state_snap WHERE room_nid = $1 LIMIT $2))
         RETURNING snap_nid",
        room.0,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Deletes rows of a table that has a `room_nid`, a batch.
macro_rules! delete_batch {
    ($conn:ident, $room:ident, $limit:ident, $($table:tt),+) => {
        0 $(+ sqlx::query!(
            "DELETE FROM " + $table + " WHERE ctid = ANY (ARRAY(SELECT ctid FROM " + $table
                + " WHERE room_nid = $1 LIMIT $2))",
            $room.0,
            $limit
        )
        .execute(&mut *$conn)
        .await?
        .rows_affected())+
    };
}

/// Deletes what else hangs on a room, a batch of each table; how many rows.
pub async fn delete_rest(conn: &mut PgConnection, room: RoomNid, limit: i64) -> Result<u64, Error> {
    let deleted = delete_batch!(
        conn,
        room,
        limit,
        "auth_edge",
        "state_ckpt",
        "missing_prev",
        "redaction",
        "room_gap",
        "room_summary",
        "receipt",
        "account_data",
        "room_alias",
        "member",
        "room_server",
        "fed_inbox",
        "partial_room",
        "public_room",
        "directory_todo",
        "mention",
        "thread",
        "thread_read",
        "thread_part",
        "thread_sub",
        "sticky_event",
        "sticky_todo",
        "relation",
        "relation_todo",
        "redact_todo",
        "unread_void",
        "appservice_queue",
        "appservice_invite",
        "appservice_room",
        "event_unredacted",
        "search_doc",
        "search_todo",
        "push_queue",
        "mail_room",
        "delayed_event",
        "media_ref",
        "media_ref_todo"
    );
    Ok(deleted)
}

/// Deletes the client transactions of a room. They are few, since they live for two days, and they
/// have no index by room, since every message would pay for it.
pub async fn delete_txns(conn: &mut PgConnection, room: RoomNid) -> Result<(), Error> {
    sqlx::query!("DELETE FROM client_txn WHERE room_nid = $1", room.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes what users have forgotten of a room, and takes from the others' memory what names its
/// events; returns those who were in it until now (a forced deletion), whose clients are to be told.
pub async fn detach_users(conn: &mut PgConnection, room: RoomNid) -> Result<Vec<UserNid>, Error> {
    sqlx::query!(
        "DELETE FROM user_room WHERE room_nid = $1 AND forgotten AND membership IN (3, 4)",
        room.0
    )
    .execute(&mut *conn)
    .await?;
    // Out-of-band invites and knocks name no event, and stay as they are.
    let inside = sqlx::query_scalar!(
        "SELECT user_nid FROM user_room
         WHERE room_nid = $1 AND event_nid IS NOT NULL AND membership IN (1, 2, 5)
         ORDER BY user_nid FOR UPDATE",
        room.0
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE user_room SET membership = CASE WHEN membership = 4 THEN 4 ELSE 3 END,
           event_nid = NULL, stripped = NULL, read_seq = 0, main_seq = 0,
           base_seq = 0, read_notif = 0, read_high = 0, push_class = 0
         WHERE room_nid = $1 AND event_nid IS NOT NULL",
        room.0
    )
    .execute(conn)
    .await?;
    Ok(inside.into_iter().map(UserNid).collect())
}

/// Sets the positions of the changes that [`detach_users`] made.
pub async fn update_positions(
    conn: &mut PgConnection,
    room: RoomNid,
    users: &[UserNid],
    positions: &[i64],
) -> Result<(), Error> {
    let users: Vec<i64> = users.iter().map(|user| user.0).collect();
    sqlx::query!(
        "UPDATE user_room u SET pos = w.pos
         FROM unnest($2::bigint[], $3::bigint[]) AS w (usr, pos)
         WHERE u.user_nid = w.usr AND u.room_nid = $1",
        room.0,
        &users,
        positions
    )
    .execute(conn)
    .await?;
    Ok(())
}
