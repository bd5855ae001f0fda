//! Events as rows: narrow part and body together.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Error, EventNid, RoomNid,
    append::flag,
    codec::{decode_body, decode_nids},
};

/// A stored event, before it is parsed.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Event.
    pub nid: EventNid,
    /// Room.
    pub room: RoomNid,
    /// Place in the timeline; `None`: not part of it.
    pub seq: Option<i64>,
    /// Stream position; `None`: backfilled, or not part of the timeline.
    pub pos: Option<i64>,
    /// State before; `None`: not known.
    pub snap: Option<i64>,
    /// The 32 bytes of the event id.
    pub hash: [u8; 32],
    /// See [`flag`].
    pub flags: i32,
    /// When we stored it.
    pub received_ts: i64,
    /// Canonical federation JSON.
    pub json: String,
}

impl Stored {
    /// Whether the event failed authorization.
    pub fn is_rejected(&self) -> bool {
        self.flags & flag::REJECTED != 0
    }

    /// Whether the event is known, but no part of the graph.
    pub fn is_outlier(&self) -> bool {
        self.flags & flag::OUTLIER != 0
    }

    /// Whether the event is kept from clients.
    pub fn is_soft_failed(&self) -> bool {
        self.flags & flag::SOFT_FAILED != 0
    }

    /// Whether the state before it may lack members.
    pub fn is_partial(&self) -> bool {
        self.flags & flag::PARTIAL != 0
    }

    /// Whether what came right before it was missing.
    pub fn is_above_gap(&self) -> bool {
        self.flags & flag::GAP != 0
    }

    /// Whether the body is pruned.
    pub fn is_redacted(&self) -> bool {
        self.flags & flag::REDACTED != 0
    }
}

pub(super) struct Row {
    pub(super) room_nid: i64,
    pub(super) event_nid: i64,
    pub(super) room_seq: Option<i64>,
    pub(super) pos: Option<i64>,
    pub(super) snap_nid: Option<i64>,
    pub(super) event_key: Uuid,
    pub(super) event_tail: Uuid,
    pub(super) flags: i32,
    pub(super) recv_ts: i64,
    pub(super) body: Option<Vec<u8>>,
}

impl TryFrom<Row> for Stored {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let body = row.body.ok_or_else(|| Error::Inconsistent {
            table: "event_json",
            what: format!("no body for event {}", row.event_nid),
        })?;
        Ok(Self {
            nid: EventNid(row.event_nid),
            room: RoomNid(row.room_nid),
            seq: row.room_seq,
            pos: row.pos,
            snap: row.snap_nid,
            hash: join_hash(row.event_key, row.event_tail),
            flags: row.flags,
            received_ts: row.recv_ts,
            json: decode_body("event_json", &body)?,
        })
    }
}

/// The two columns that hold the 32 bytes of an event id.
pub fn split_hash(hash: &[u8; 32]) -> (Uuid, Uuid) {
    let (key, tail) = hash.split_at(16);
    // Both halves are 16 bytes long.
    (
        Uuid::from_slice(key).unwrap_or_default(),
        Uuid::from_slice(tail).unwrap_or_default(),
    )
}

fn join_hash(key: Uuid, tail: Uuid) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(key.as_bytes());
    hash[16..].copy_from_slice(tail.as_bytes());
    hash
}

pub(super) fn collect(rows: Vec<Row>) -> Result<Vec<Stored>, Error> {
    rows.into_iter().map(Stored::try_from).collect()
}

/// A fresh block of 1024 numbers for events and snapshots; the first of them.
pub async fn next_nid_block(conn: &mut PgConnection) -> Result<i64, Error> {
    let next = sqlx::query_scalar!(r#"SELECT nextval('event_nid_seq') AS "next!""#);
    Ok(next.fetch_one(conn).await?)
}

/// Events by number, in no order; those that do not exist are left out.
pub async fn list(
    conn: &mut PgConnection,
    room: RoomNid,
    nids: &[i64],
) -> Result<Vec<Stored>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT e.room_nid, e.event_nid, e.room_seq, e.pos, e.snap_nid, e.event_key, e.event_tail,
             e.flags, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
           FROM event e
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
           WHERE e.room_nid = $1 AND e.event_nid = ANY($2)"#,
        room.0,
        nids
    );
    collect(rows.fetch_all(conn).await?)
}

/// Events of any rooms by (room, number), in no order; those that do not exist are left out.
pub async fn list_pairs(
    conn: &mut PgConnection,
    pairs: &[(i64, i64)],
) -> Result<Vec<Stored>, Error> {
    let (rooms, nids): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT e.room_nid, e.event_nid, e.room_seq, e.pos, e.snap_nid, e.event_key, e.event_tail,
             e.flags, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
           FROM unnest($1::bigint[], $2::bigint[]) AS w (room, nid)
           JOIN event e ON e.room_nid = w.room AND e.event_nid = w.nid
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid"#,
        &rooms,
        &nids
    );
    collect(rows.fetch_all(conn).await?)
}

/// Events by the first half of their id, in no order. The caller compares the whole hash.
pub async fn list_by_hash(
    conn: &mut PgConnection,
    room: RoomNid,
    keys: &[Uuid],
) -> Result<Vec<Stored>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT e.room_nid, e.event_nid, e.room_seq, e.pos, e.snap_nid, e.event_key, e.event_tail,
             e.flags, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
           FROM event e
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
           WHERE e.room_nid = $1 AND e.event_key = ANY($2)"#,
        room.0,
        keys
    );
    collect(rows.fetch_all(conn).await?)
}

/// An event by id in any of those rooms, for requests that name no room.
pub async fn find_in_rooms(
    conn: &mut PgConnection,
    rooms: &[i64],
    key: Uuid,
) -> Result<Option<Stored>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT e.room_nid, e.event_nid, e.room_seq, e.pos, e.snap_nid, e.event_key, e.event_tail,
             e.flags, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
           FROM event e
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
           WHERE e.room_nid = ANY($1) AND e.event_key = $2
           LIMIT 1"#,
        rooms,
        key
    );
    row.fetch_optional(conn)
        .await?
        .map(Stored::try_from)
        .transpose()
}

/// A page of a timeline: events with `after < room_seq < before`, newest first when `backwards`,
/// else oldest first.
pub async fn page(
    conn: &mut PgConnection,
    room: RoomNid,
    (after, before): (i64, i64),
    backwards: bool,
    limit: i64,
) -> Result<Vec<Stored>, Error> {
    let rows = if backwards {
        sqlx::query_as!(
            Row,
            r#"SELECT e.room_nid, e.event_nid, e.room_seq, e.pos, e.snap_nid, e.event_key,
                 e.event_tail, e.flags, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
               FROM event e
               LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
               LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
               WHERE e.room_nid = $1 AND e.room_seq > $2 AND e.room_seq < $3
               ORDER BY e.room_seq DESC
               LIMIT $4"#,
            room.0,
            after,
            before,
            limit
        )
        .fetch_all(conn)
        .await?
    } else {
        sqlx::query_as!(
            Row,
            r#"SELECT e.room_nid, e.event_nid, e.room_seq, e.pos, e.snap_nid, e.event_key,
                 e.event_tail, e.flags, e.recv_ts, COALESCE(s.body, j.body) AS "body?"
               FROM event e
               LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
               LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
               WHERE e.room_nid = $1 AND e.room_seq > $2 AND e.room_seq < $3
               ORDER BY e.room_seq
               LIMIT $4"#,
            room.0,
            after,
            before,
            limit
        )
        .fetch_all(conn)
        .await?
    };
    collect(rows)
}

/// Numbers and ids' first halves of events that exist, in no order: what of a list we have.
pub async fn known(
    conn: &mut PgConnection,
    room: RoomNid,
    keys: &[Uuid],
) -> Result<Vec<(EventNid, Uuid, i32)>, Error> {
    let rows = sqlx::query!(
        "SELECT event_nid, event_key, flags FROM event WHERE room_nid = $1 AND event_key = ANY($2)",
        room.0,
        keys
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (EventNid(row.event_nid), row.event_key, row.flags))
        .collect())
}

/// State keys of state events that are not rejected: (state key, event).
pub async fn list_state_keys(
    conn: &mut PgConnection,
    room: RoomNid,
    nids: &[i64],
) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT skey_nid AS "skey!", event_nid FROM event
           WHERE room_nid = $1 AND event_nid = ANY($2) AND skey_nid IS NOT NULL AND flags & 2 = 0"#,
        room.0,
        nids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.skey, row.event_nid))
        .collect())
}

/// Canonical JSON of state events, in the order of their numbers.
pub async fn list_state_json(conn: &mut PgConnection, nids: &[i64]) -> Result<Vec<String>, Error> {
    let bodies = sqlx::query_scalar!(
        "SELECT body FROM state_json WHERE event_nid = ANY($1) ORDER BY event_nid",
        nids
    )
    .fetch_all(conn)
    .await?;
    let decode = |body: &Vec<u8>| super::codec::decode_body("state_json", body);
    bodies.iter().map(decode).collect()
}

/// Numbers and ids' hashes of events, in the order of their numbers.
pub async fn list_hashes(
    conn: &mut PgConnection,
    room: RoomNid,
    nids: &[i64],
) -> Result<Vec<(i64, [u8; 32])>, Error> {
    let rows = sqlx::query!(
        "SELECT event_nid, event_key, event_tail FROM event
         WHERE room_nid = $1 AND event_nid = ANY($2) ORDER BY event_nid",
        room.0,
        nids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.event_nid, join_hash(row.event_key, row.event_tail)))
        .collect())
}

/// The auth graph of a room, up to `limit` events: (event, its auth events).
pub async fn auth_edges(
    conn: &mut PgConnection,
    room: RoomNid,
    limit: i64,
) -> Result<Vec<(i64, Vec<i64>)>, Error> {
    let rows = sqlx::query!(
        "SELECT event_nid, auth FROM auth_edge WHERE room_nid = $1 LIMIT $2",
        room.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.event_nid, decode_nids("auth_edge", &row.auth)?)))
        .collect()
}

/// The auth events of some events, in no order: (event, its auth events). Those that have no row are
/// left out.
pub async fn auth_edges_of(
    conn: &mut PgConnection,
    room: RoomNid,
    nids: &[i64],
) -> Result<Vec<(i64, Vec<i64>)>, Error> {
    let rows = sqlx::query!(
        "SELECT event_nid, auth FROM auth_edge WHERE room_nid = $1 AND event_nid = ANY($2)",
        room.0,
        nids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.event_nid, decode_nids("auth_edge", &row.auth)?)))
        .collect()
}

/// Known predecessors of events: (event, its prev events, depth).
pub async fn prev_edges(
    conn: &mut PgConnection,
    room: RoomNid,
    nids: &[i64],
) -> Result<Vec<(i64, Vec<i64>, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT event_nid, prev, depth FROM event WHERE room_nid = $1 AND event_nid = ANY($2)",
        room.0,
        nids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.event_nid, decode_nids("event", &row.prev)?, row.depth)))
        .collect()
}

/// The event that a client transaction made within the last two days.
pub async fn find_by_txn(
    conn: &mut PgConnection,
    hash: Uuid,
) -> Result<Option<(RoomNid, EventNid)>, Error> {
    let row = sqlx::query!(
        "SELECT room_nid, event_nid FROM client_txn WHERE txn_hash = $1",
        hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (RoomNid(row.room_nid), EventNid(row.event_nid))))
}

/// Client transactions of events, for `unsigned.transaction_id`; kept by the caller's cache.
pub async fn delete_old_txns(
    conn: &mut PgConnection,
    before_ts: i64,
    limit: i64,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM client_txn
         WHERE txn_hash IN (SELECT txn_hash FROM client_txn WHERE ts < $1 LIMIT $2)",
        before_ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Redactions of an event that have come, applied or not: (redaction event, applied).
pub async fn redactions_of(
    conn: &mut PgConnection,
    room: RoomNid,
    target_ids: &[String],
) -> Result<Vec<(String, i64, bool)>, Error> {
    let rows = sqlx::query!(
        "SELECT target_id, redaction_nid, applied FROM redaction
         WHERE room_nid = $1 AND target_id = ANY($2)",
        room.0,
        target_ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.target_id, row.redaction_nid, row.applied))
        .collect())
}

/// Redactions in force of events by id, with the room of each: (room, id of the event, redaction).
pub async fn applied_redactions(
    conn: &mut PgConnection,
    rooms: &[i64],
    target_ids: &[String],
) -> Result<Vec<(i64, String, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT r.room_nid, r.target_id, r.redaction_nid
         FROM unnest($1::bigint[], $2::text[]) AS w (room, target)
         JOIN redaction r ON r.room_nid = w.room AND r.target_id = w.target
         WHERE r.applied",
        rooms,
        target_ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.room_nid, row.target_id, row.redaction_nid))
        .collect())
}

/// The smallest `room_seq` of a room, and the event there.
pub async fn oldest(
    conn: &mut PgConnection,
    room: RoomNid,
) -> Result<Option<(i64, EventNid)>, Error> {
    let row = sqlx::query!(
        r#"SELECT room_seq AS "seq!", event_nid FROM event
           WHERE room_nid = $1 AND room_seq IS NOT NULL
           ORDER BY room_seq LIMIT 1"#,
        room.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.seq, EventNid(row.event_nid))))
}

/// Unknown predecessors that are known now, or given up.
pub async fn delete_missing(
    conn: &mut PgConnection,
    room: RoomNid,
    ids: &[String],
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM missing_prev WHERE room_nid = $1 AND event_id = ANY($2)",
        room.0,
        ids
    )
    .execute(conn)
    .await?;
    Ok(())
}
