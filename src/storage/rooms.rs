//! Rooms and their heads.

use ruma::{OwnedRoomId, RoomId, RoomVersionId};
use sqlx::PgConnection;

use super::{Error, RoomNid, codec::decode_nids};

/// What is known of a room apart from its events.
#[derive(Clone, Debug)]
pub struct Room {
    /// Room.
    pub nid: RoomNid,
    /// Its id.
    pub id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
}

/// A row of `room_head`.
#[derive(Clone, Debug)]
pub struct Head {
    /// Compare-and-set token.
    pub rev: i64,
    /// Newest `room_seq`.
    pub seq: i64,
    /// Largest depth of the extremities.
    pub depth: i64,
    /// Current state.
    pub snap: i64,
    /// Forward extremities.
    pub extremities: Vec<i64>,
    /// Position of the newest event.
    pub last_pos: i64,
    /// Its time.
    pub last_ts: i64,
}

/// A room with its head.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The room.
    pub room: Room,
    /// Where it stands.
    pub head: Head,
    /// Whether its state lacks members.
    pub partial: bool,
}

/// Gives a room a number, or returns the one it has.
pub async fn intern(
    conn: &mut PgConnection,
    id: &RoomId,
    version: &RoomVersionId,
    now_ms: i64,
) -> Result<RoomNid, Error> {
    let nid = sqlx::query_scalar!(
        r#"WITH fresh AS (
             INSERT INTO room (room_id, version, created_ts)
             SELECT $1, $2, $3
             WHERE NOT EXISTS (SELECT 1 FROM room WHERE room_id = $1)
             ON CONFLICT ON CONSTRAINT room_room_id_key DO UPDATE SET room_id = EXCLUDED.room_id
             RETURNING room_nid)
           SELECT room_nid AS "nid!" FROM fresh
           UNION ALL
           SELECT room_nid FROM room WHERE room_id = $1
           LIMIT 1"#,
        id.as_str(),
        version.as_str(),
        now_ms
    )
    .fetch_one(conn)
    .await?;
    Ok(RoomNid(nid))
}

/// Sets the version of a room of which we hold no events yet.
pub async fn update_version(
    conn: &mut PgConnection,
    nid: RoomNid,
    version: &RoomVersionId,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE room SET version = $2
         WHERE room_nid = $1 AND version <> $2
           AND NOT EXISTS (SELECT 1 FROM room_head WHERE room_nid = $1)",
        nid.0,
        version.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A room by number.
pub async fn find(conn: &mut PgConnection, nid: RoomNid) -> Result<Option<Room>, Error> {
    let row = sqlx::query!(
        "SELECT room_id, version FROM room WHERE room_nid = $1",
        nid.0
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| named(nid, &row.room_id, &row.version))
        .transpose()
}

fn named(nid: RoomNid, id: &str, version: &str) -> Result<Room, Error> {
    let broken = |what: &str| Error::Inconsistent {
        table: "room",
        what: what.to_owned(),
    };
    Ok(Room {
        nid,
        id: RoomId::parse(id).map_err(|_| broken(id))?,
        version: RoomVersionId::try_from(version).map_err(|_| broken(version))?,
    })
}

/// Rooms with their heads, in no order; those of which we hold no events (of an invite, say) are
/// left out.
pub async fn list_whole(conn: &mut PgConnection, nids: &[i64]) -> Result<Vec<Whole>, Error> {
    let rows = sqlx::query!(
        r#"SELECT r.room_nid, r.room_id, r.version, h.rev, h.head_seq, h.depth, h.snap_nid, h.extrem,
             h.last_pos, h.last_ts,
             EXISTS (SELECT 1 FROM partial_room p
               WHERE p.room_nid = r.room_nid AND p.whole_pos IS NULL) AS "partial!"
           FROM room r JOIN room_head h ON h.room_nid = r.room_nid
           WHERE r.room_nid = ANY ($1)"#,
        nids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Whole {
                room: named(RoomNid(row.room_nid), &row.room_id, &row.version)?,
                head: Head {
                    rev: row.rev,
                    seq: row.head_seq,
                    depth: row.depth,
                    snap: row.snap_nid,
                    extremities: decode_nids("room_head", &row.extrem)?,
                    last_pos: row.last_pos,
                    last_ts: row.last_ts,
                },
                partial: row.partial,
            })
        })
        .collect()
}

/// Publishes a room in the directory, or takes it out.
pub async fn update_listed(
    conn: &mut PgConnection,
    nid: RoomNid,
    listed: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE room SET listed = $2 WHERE room_nid = $1",
        nid.0,
        listed
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether a room is in the directory.
pub async fn is_listed(conn: &mut PgConnection, nid: RoomNid) -> Result<bool, Error> {
    let listed = sqlx::query_scalar!("SELECT listed FROM room WHERE room_nid = $1", nid.0)
        .fetch_optional(conn)
        .await?;
    Ok(listed.unwrap_or(false))
}

/// Of some rooms those that are in our directory.
pub async fn list_listed_of(
    conn: &mut PgConnection,
    rooms: &[RoomNid],
) -> Result<std::collections::HashSet<RoomNid>, Error> {
    let nids: Vec<i64> = rooms.iter().map(|room| room.0).collect();
    let listed = sqlx::query_scalar!(
        "SELECT room_nid FROM room WHERE room_nid = ANY ($1) AND listed",
        &nids
    );
    let listed = listed.fetch_all(conn).await?;
    Ok(listed.into_iter().map(RoomNid).collect())
}

/// Lists of the directory.
#[derive(Clone, Copy, Debug)]
pub enum Lists<'a> {
    /// Ours.
    Ours,
    /// Ours, and those of all networks.
    All,
    /// That of a network: application service, network.
    Of(&'a str, &'a str),
    /// None there is.
    None,
}

/// Rooms of the directory with their joined members, most members first.
pub async fn list_listed(
    conn: &mut PgConnection,
    lists: Lists<'_>,
    (offset, limit): (i64, i64),
) -> Result<Vec<(RoomNid, i64)>, Error> {
    let (ours, all) = match lists {
        Lists::Ours => (true, false),
        Lists::All => (true, true),
        Lists::Of(..) | Lists::None => (false, false),
    };
    let (service, network) = match lists {
        Lists::Of(service, network) => (Some(service), Some(network)),
        Lists::Ours | Lists::All | Lists::None => (None, None),
    };
    let rows = sqlx::query!(
        r#"WITH named AS (
             SELECT room_nid FROM room WHERE listed AND $3
             UNION
             SELECT room_nid FROM appservice_room
             WHERE $4 OR (appservice_id = $5 AND network_id = $6))
           SELECT n.room_nid AS "room_nid!", COALESCE(sum(s.joined), 0) AS "joined!"
           FROM named n
           LEFT JOIN room_server s ON s.room_nid = n.room_nid
           GROUP BY n.room_nid
           ORDER BY 2 DESC, 1
           OFFSET $1 LIMIT $2"#,
        offset,
        limit,
        ours,
        all,
        service,
        network
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (RoomNid(row.room_nid), row.joined))
        .collect())
}

/// Marks where our copy of a timeline has a hole below `seq`.
pub async fn insert_gap(conn: &mut PgConnection, nid: RoomNid, seq: i64) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO room_gap (room_nid, seq_hi) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        nid.0,
        seq
    )
    .execute(conn)
    .await?;
    Ok(())
}
