//! Rooms whose state is partial: joined, in use, and without the members that the peer left out.

use sqlx::PgConnection;

use super::{
    Error, LogEntry, LogKind, Pos, RoomNid, ServerNid, Tx,
    append::flag,
    events::{Row, Stored, collect},
};

/// Begins a partial stay in a room that `servers` are said to be in. A stay that had ended, begins
/// anew; what servers are in the room by its state stays.
pub async fn insert(
    conn: &mut PgConnection,
    room: RoomNid,
    servers: &[i32],
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH begun AS (
           INSERT INTO partial_room (room_nid, since_pos, started_ts)
           SELECT $1, last_value, $3 FROM stream_pos_seq
           ON CONFLICT ON CONSTRAINT partial_room_pkey DO UPDATE SET whole_pos = NULL, tries = 0,
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
        now
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
             e.flags, e.notif_all, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
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
