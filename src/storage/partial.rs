//! Rooms whose state is partial: joined, in use, and without the members that the peer left out.

use sqlx::PgConnection;

use super::{
    Error, LogEntry, LogKind, Pos, RoomNid, ServerNid, Tx, UserNid,
    append::flag,
    events::{Row, Stored, collect},
};

/// Begins a partial stay in a room that was joined through one server and that `servers` are said to
/// be in. A stay that had ended, begins anew; what servers are in the room by its state stays.
pub async fn insert(
    conn: &mut PgConnection,
    room: RoomNid,
    through: ServerNid,
    servers: &[i32],
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH begun AS (
           INSERT INTO partial_room (room_nid, since_pos, started_ts, through_nid)
           SELECT $1, last_value, $3, $4 FROM stream_pos_seq
           ON CONFLICT ON CONSTRAINT partial_room_pkey DO UPDATE SET whole_pos = NULL, tries = 0,
             through_nid = EXCLUDED.through_nid,
             since_pos = CASE WHEN partial_room.whole_pos IS NULL THEN partial_room.since_pos
                         ELSE EXCLUDED.since_pos END)
         INSERT INTO room_server (room_nid, server_nid, joined, since_pos, told)
         SELECT $1, w.server, 0, p.last_value, true
         FROM unnest($2::int[]) AS w (server), stream_pos_seq p
         ON CONFLICT ON CONSTRAINT room_server_pkey DO UPDATE SET told = true,
           since_pos = CASE WHEN room_server.joined = 0 AND NOT room_server.told
                       THEN EXCLUDED.since_pos ELSE room_server.since_pos END",
        room.0,
        servers,
        now,
        through.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Position of the join of a room whose state is partial; `None`: it is whole.
pub async fn find(conn: &mut PgConnection, room: RoomNid) -> Result<Option<Pos>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT since_pos FROM partial_room WHERE room_nid = $1 AND whole_pos IS NULL",
        room.0
    )
    .fetch_optional(conn)
    .await?)
}

/// The server that a room whose state is partial was joined through.
pub async fn joined_through(
    conn: &mut PgConnection,
    room: RoomNid,
) -> Result<Option<ServerNid>, Error> {
    let through = sqlx::query_scalar!(
        "SELECT through_nid FROM partial_room WHERE room_nid = $1 AND whole_pos IS NULL",
        room.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(through.flatten().map(ServerNid))
}

/// Rooms whose state is partial and that can be completed, longest first: those of ours are in, and
/// others that were not tried often.
pub async fn list(conn: &mut PgConnection, limit: i64) -> Result<Vec<RoomNid>, Error> {
    let rooms = sqlx::query_scalar!(
        "SELECT p.room_nid FROM partial_room p
         WHERE p.whole_pos IS NULL
           AND (p.tries < 5 OR EXISTS (SELECT 1 FROM user_room u
                                       WHERE u.room_nid = p.room_nid AND u.membership = 1))
         ORDER BY p.started_ts LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rooms.into_iter().map(RoomNid).collect())
}

/// Notes that the whole state was asked for in vain.
pub async fn update_tries(conn: &mut PgConnection, room: RoomNid) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE partial_room SET tries = tries + 1 WHERE room_nid = $1",
        room.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Events whose state before is partial ([`flag::PARTIAL`]) or that were accepted after all and
/// are not shown ([`flag::LATE`]), each after its predecessors.
pub async fn list_events(
    conn: &mut PgConnection,
    room: RoomNid,
    wanted: i32,
    limit: i64,
) -> Result<Vec<Stored>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT e.room_nid, e.event_nid, e.room_seq, e.pos, e.snap_nid, e.event_key, e.event_tail,
             e.flags, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
           FROM event e
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
           WHERE e.room_nid = $1 AND e.flags & 80 <> 0 AND e.flags & $2 <> 0
           ORDER BY e.depth, e.event_nid LIMIT $3"#,
        room.0,
        wanted,
        limit
    );
    collect(rows.fetch_all(conn).await?)
}

/// What is known of an event once the state before it is whole.
#[derive(Clone, Copy, Debug)]
pub struct Restated {
    /// Event.
    pub nid: i64,
    /// State before it.
    pub snap: i64,
    /// Whether it fails authorization now.
    pub rejected: bool,
}

/// Gives events the whole state before them. Who failed and does not any more is marked as late,
/// who did not and does now is taken out of the timeline.
pub async fn update_events(
    conn: &mut PgConnection,
    room: RoomNid,
    events: &[Restated],
) -> Result<(), Error> {
    let nids: Vec<i64> = events.iter().map(|event| event.nid).collect();
    let snaps: Vec<i64> = events.iter().map(|event| event.snap).collect();
    let rejected: Vec<bool> = events.iter().map(|event| event.rejected).collect();
    sqlx::query!(
        "UPDATE event e SET snap_nid = w.snap,
           room_seq = CASE WHEN w.rejected THEN NULL ELSE e.room_seq END,
           flags = CASE WHEN w.rejected THEN e.flags & ~$5::int | $6
                   WHEN e.flags & $6 <> 0 THEN e.flags & ~($5 | $6) | $7
                   ELSE e.flags & ~$5 END
         FROM unnest($2::bigint[], $3::bigint[], $4::boolean[]) AS w (nid, snap, rejected)
         WHERE e.room_nid = $1 AND e.event_nid = w.nid",
        room.0,
        &nids,
        &snaps,
        &rejected,
        flag::PARTIAL,
        flag::REJECTED,
        flag::LATE
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a partial stay: syncs and other nodes see it in the log.
pub async fn finish(tx: &mut Tx, room: RoomNid) -> Result<Pos, Error> {
    sqlx::query!(
        "UPDATE room_server SET told = false WHERE room_nid = $1 AND told",
        room.0
    )
    .execute(&mut **tx)
    .await?;
    let entry = LogEntry {
        kind: LogKind::Whole,
        room: room.0,
        user: 0,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    sqlx::query!(
        "UPDATE partial_room SET whole_pos = $2 WHERE room_nid = $1",
        room.0,
        pos
    )
    .execute(&mut **tx)
    .await?;
    Ok(pos)
}

/// Servers with members in a room, or said to have: (server, joined users, said, since).
pub async fn list_servers(
    conn: &mut PgConnection,
    room: RoomNid,
) -> Result<Vec<(ServerNid, i32, bool, Pos)>, Error> {
    let rows = sqlx::query!(
        "SELECT server_nid, joined, told, since_pos FROM room_server WHERE room_nid = $1",
        room.0
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                ServerNid(row.server_nid),
                row.joined,
                row.told,
                row.since_pos,
            )
        })
        .collect())
}

/// Users of ours in a room with the position at which their devices last changed, where that was
/// after `since`.
pub async fn list_changed_own(
    conn: &mut PgConnection,
    room: RoomNid,
    since: Pos,
    limit: i64,
) -> Result<Vec<(UserNid, Pos)>, Error> {
    let rows = sqlx::query!(
        "SELECT c.user_nid, c.pos FROM user_room u
         JOIN device_change c ON c.user_nid = u.user_nid
         WHERE u.room_nid = $1 AND u.membership = 1 AND c.pos > $2 LIMIT $3",
        room.0,
        since,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (UserNid(row.user_nid), row.pos)).collect())
}

/// Members of a room who are not ours and whose devices changed after `since`.
pub async fn list_changed_members(
    conn: &mut PgConnection,
    room: RoomNid,
    since: Pos,
    limit: i64,
) -> Result<Vec<UserNid>, Error> {
    let users = sqlx::query_scalar!(
        "SELECT c.user_nid FROM device_change c
         JOIN member m ON m.room_nid = $1 AND m.user_nid = c.user_nid AND m.membership = 1
         WHERE c.pos > $2 AND NOT EXISTS (SELECT 1 FROM user_room u
                                          WHERE u.room_nid = $1 AND u.user_nid = c.user_nid)
         LIMIT $3",
        room.0,
        since,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(users.into_iter().map(UserNid).collect())
}

/// Servers that had a user in a room at some time since `since`: those in it now, and those of
/// members whose membership changed after that.
pub async fn list_servers_since(
    conn: &mut PgConnection,
    room: RoomNid,
    since: Pos,
) -> Result<Vec<ServerNid>, Error> {
    let servers = sqlx::query_scalar!(
        r#"SELECT server_nid AS "server!" FROM room_server WHERE room_nid = $1 AND joined > 0
           UNION
           SELECT u.server_nid FROM event e JOIN mx_user u ON u.user_nid = -e.skey_nid
           WHERE e.room_nid = $1 AND e.pos > $2 AND e.type_nid = 1 AND e.skey_nid < 0"#,
        room.0,
        since
    )
    .fetch_all(conn)
    .await?;
    Ok(servers.into_iter().map(ServerNid).collect())
}

/// Whether a server is said to be in a room whose members are not known.
pub async fn is_told(conn: &mut PgConnection, server: ServerNid) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM room_server WHERE server_nid = $1 AND told) AS "found!""#,
        server.0
    );
    Ok(found.fetch_one(conn).await?)
}
