//! The only write path of events: one round trip, one commit, any number of rooms.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Error, RoomNid, UserNid,
    log::{LogEntry, LogKind, LogRow},
    memberships,
    relations::RelationRow,
    stream::{self, Pos},
};

/// `event.flags`.
pub mod flag {
    /// Known, but not part of the graph as we see it.
    pub const OUTLIER: i32 = 1;
    /// Fails the authorization rules against its auth events or the state before it.
    pub const REJECTED: i32 = 2;
    /// Fails them against the current state only.
    pub const SOFT_FAILED: i32 = 4;
    /// Its body is pruned.
    pub const REDACTED: i32 = 8;
    /// The state before it may lack members: the room was joined without them.
    pub const PARTIAL: i32 = 16;
    /// Sent by one of our users.
    pub const LOCAL: i32 = 32;
    /// Rejected at first, accepted once the state was whole, and not shown yet.
    pub const LATE: i32 = 64;
    /// Older than what we had when it came.
    pub const BACKFILLED: i32 = 128;
    /// Counts as unread by the default push rules.
    pub const NOTIFIES: i32 = 256;
    /// Highlights for everybody by the default push rules.
    pub const HIGHLIGHTS: i32 = 512;
    /// Moves the room up in lists of rooms (MSC4186).
    pub const BUMPS: i32 = 1024;
    /// Has words that can be searched.
    pub const SEARCHABLE: i32 = 4096;
    /// What came right before it was missing when it came.
    pub const GAP: i32 = 8192;
    /// Notifies those who are subscribed to its thread.
    pub const NOTIFIES_THREAD: i32 = 16_384;
}

/// What is written together. Every list may be empty.
#[derive(Debug, Default)]
pub struct Batch {
    /// New heads, one a room, each under compare-and-set.
    pub rooms: Vec<RoomRow>,
    /// New events, in timeline order within a room.
    pub events: Vec<EventRow>,
    /// New state snapshots.
    pub snaps: Vec<SnapRow>,
    /// New checkpoints.
    pub ckpts: Vec<CkptRow>,
    /// Current memberships that change, one for each pair of room and user.
    pub members: Vec<MemberRow>,
    /// Client transactions: (hash, room, event).
    pub txns: Vec<(Uuid, i64, i64)>,
    /// What single users are notified of.
    pub counted: Vec<CountRow>,
    /// Unknown predecessors: (room, event id, child).
    pub missing: Vec<(i64, String, i64)>,
    /// Redactions: (room, target id, redaction event, applied).
    pub redactions: Vec<(i64, String, i64, bool)>,
    /// Bodies to replace: (room, event, is a state event, encoded body).
    pub pruned: Vec<(i64, i64, bool, Vec<u8>)>,
    /// Sticky events: (room, event, until when).
    pub sticky: Vec<(i64, i64, i64)>,
}

/// A row of `room_head`.
#[derive(Debug)]
pub struct RoomRow {
    /// Room.
    pub room: i64,
    /// Expected `rev`; -1: the room has no head yet.
    pub rev: i64,
    /// New `rev`.
    pub new_rev: i64,
    /// Newest `room_seq`.
    pub seq: i64,
    /// Largest depth of the extremities.
    pub depth: i64,
    /// Current state.
    pub snap: i64,
    /// Forward extremities, encoded.
    pub extrem: Vec<u8>,
    /// Time of the newest event.
    pub ts: i64,
}

/// A row of `event` and what hangs on it.
#[derive(Debug)]
pub struct EventRow {
    /// Event.
    pub nid: i64,
    /// Room.
    pub room: i64,
    /// Place in the timeline.
    pub seq: Option<i64>,
    /// Depth.
    pub depth: i64,
    /// `origin_server_ts`.
    pub ts: i64,
    /// Sender.
    pub sender: i64,
    /// User that the log row names: target of a membership, else the sender.
    pub user: i64,
    /// State key.
    pub skey: Option<i64>,
    /// State before the event.
    pub snap: Option<i64>,
    /// Event id, first half.
    pub key: Uuid,
    /// Event id, second half.
    pub tail: Uuid,
    /// Type.
    pub kind: i32,
    /// See [`flag`].
    pub flags: i32,
    /// How it relates to another.
    pub relation: Option<RelationRow>,
    /// What it names that may be media of ours: (our server, media id).
    pub media: Vec<(i32, String)>,
    /// Known predecessors, encoded.
    pub prev: Vec<u8>,
    /// Auth events, encoded (state events).
    pub auth: Vec<u8>,
    /// Encoded body.
    pub body: Vec<u8>,
    /// The event is stored already (as an outlier): update its row.
    pub known: bool,
    /// Owed to peers: `None` no, `Some(0)` to those in the room, else to that server as well.
    pub out: Option<i32>,
}

/// What a user of ours is notified of by an event: those who are mentioned, and all whose own rules
/// count, also where it is nothing.
#[derive(Clone, Copy, Debug)]
pub struct CountRow {
    /// User.
    pub user: i64,
    /// Room.
    pub room: i64,
    /// `room_seq` of the event.
    pub seq: i64,
    /// 1: it notifies.
    pub notify: i16,
    /// 1: it highlights.
    pub high: i16,
}

/// A row of `state_snap`.
#[derive(Debug)]
pub struct SnapRow {
    /// Room.
    pub room: i64,
    /// Snapshot.
    pub nid: i64,
    /// Parent.
    pub parent: Option<i64>,
    /// Distance from the root.
    pub generation: i32,
    /// Deltas since the last checkpoint.
    pub since: i32,
    /// Encoded delta.
    pub delta: Vec<u8>,
}

/// A row of `state_ckpt`.
#[derive(Debug)]
pub struct CkptRow {
    /// Room.
    pub room: i64,
    /// Snapshot.
    pub nid: i64,
    /// Entries.
    pub n: i32,
    /// Encoded state.
    pub body: Vec<u8>,
}

/// A row of `member`, and of `user_room` for our users.
#[derive(Debug)]
pub struct MemberRow {
    /// Room.
    pub room: i64,
    /// User.
    pub user: i64,
    /// Its server.
    pub server: i32,
    /// See `member.membership`.
    pub membership: i16,
    /// Membership event.
    pub event: i64,
    /// Who set it.
    pub sender: i64,
    /// Whether the user is ours.
    pub local: bool,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rooms that somebody else changed meanwhile: nothing of them was written.
    pub stale: Vec<i64>,
    /// Repeated client transactions: (room, event made then). Nothing of the room was written.
    pub repeated: Vec<(i64, i64)>,
    /// Written timeline events: (event, position).
    pub written: Vec<(i64, Pos)>,
}

macro_rules! column {
    ($rows:expr, |$row:ident| $value:expr) => {
        &$rows.iter().map(|$row| $value).collect::<Vec<_>>() as &[_]
    };
    ($rows:expr, $field:tt) => {
        &$rows
            .iter()
            .map(|row| row.$field.clone())
            .collect::<Vec<_>>() as &[_]
    };
}

/// Writes a batch in one statement, which is its own transaction. All of a room or nothing of it.
#[expect(
    clippy::too_many_lines,
    reason = "one statement with a parameter for each column"
)]
pub async fn append(conn: &mut PgConnection, batch: &Batch, now_ms: i64) -> Result<Outcome, Error> {
    let Batch {
        rooms,
        events,
        snaps,
        ckpts,
        members,
        txns,
        ..
    } = batch;
    let Batch {
        counted,
        missing,
        redactions,
        pruned,
        sticky,
        ..
    } = batch;
    let relations: Vec<&RelationRow> = events
        .iter()
        .filter_map(|event| event.relation.as_ref())
        .collect();
    let media: Vec<(&EventRow, &(i32, String))> = events
        .iter()
        .flat_map(|event| event.media.iter().map(move |named| (event, named)))
        .collect();
    let rows = sqlx::query!(
        r#"SELECT what AS "what!", a AS "a!", b AS "b!"
           FROM append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
             $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33,
             $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50,
             $51, $52, $53, $54, $55, $56, $57, $58, $59, $60, $61, $62, $63, $64, $65, $66, $67,
             $68, $69, $70, $71, $72, $73, $74, $75, $76, $77, $78, $79)"#,
        now_ms,
        column!(rooms, room),
        column!(rooms, rev),
        column!(rooms, new_rev),
        column!(rooms, seq),
        column!(rooms, depth),
        column!(rooms, snap),
        column!(rooms, extrem),
        column!(rooms, ts),
        column!(events, nid),
        column!(events, room),
        column!(events, seq) as &[Option<i64>],
        column!(events, depth),
        column!(events, ts),
        column!(events, sender),
        column!(events, user),
        column!(events, skey) as &[Option<i64>],
        column!(events, snap) as &[Option<i64>],
        column!(events, key),
        column!(events, tail),
        column!(events, kind),
        column!(events, flags),
        column!(events, |row| row
            .relation
            .as_ref()
            .and_then(RelationRow::thread)) as &[Option<Uuid>],
        column!(events, |row| row
            .relation
            .as_ref()
            .and_then(|row| row.root.clone())) as &[Option<String>],
        column!(events, |row| row
            .relation
            .as_ref()
            .and_then(RelationRow::outside)) as &[Option<Uuid>],
        column!(events, prev),
        column!(events, auth),
        column!(events, body),
        column!(events, known),
        column!(events, out) as &[Option<i32>],
        column!(snaps, room),
        column!(snaps, nid),
        column!(snaps, parent) as &[Option<i64>],
        column!(snaps, generation),
        column!(snaps, since),
        column!(snaps, delta),
        column!(ckpts, room),
        column!(ckpts, nid),
        column!(ckpts, n),
        column!(ckpts, body),
        column!(members, room),
        column!(members, user),
        column!(members, server),
        column!(members, membership),
        column!(members, event),
        column!(members, sender),
        column!(members, local),
        column!(txns, 0),
        column!(txns, 1),
        column!(txns, 2),
        column!(counted, user),
        column!(counted, room),
        column!(counted, seq),
        column!(counted, notify),
        column!(counted, high),
        column!(missing, 0),
        column!(missing, 1),
        column!(missing, 2),
        column!(redactions, 0),
        column!(redactions, 1),
        column!(redactions, 2),
        column!(redactions, 3),
        column!(pruned, 0),
        column!(pruned, 1),
        column!(pruned, 2),
        column!(pruned, 3),
        column!(relations, child),
        column!(relations, parent),
        column!(relations, rel),
        column!(relations, root) as &[Option<String>],
        column!(relations, key) as &[Option<Uuid>],
        column!(relations, edit_ts) as &[Option<i64>],
        column!(sticky, 0),
        column!(sticky, 1),
        column!(sticky, 2),
        column!(media, |row| row.0.room),
        column!(media, |row| row.0.nid),
        column!(media, |row| row.1.0),
        column!(media, |row| row.1.1.clone())
    )
    .fetch_all(conn)
    .await?;
    let mut outcome = Outcome::default();
    for row in rows {
        match row.what {
            0 => outcome.stale.push(row.a),
            1 => outcome.repeated.push((row.b, row.a)),
            _ => outcome.written.push((row.a, row.b)),
        }
    }
    Ok(outcome)
}

/// The log rows that [`append`] wrote, for the stream clock.
pub fn log_rows(batch: &Batch, outcome: &Outcome) -> Vec<LogRow> {
    let by_nid: std::collections::HashMap<i64, &EventRow> = batch
        .events
        .iter()
        .map(|event| (event.nid, event))
        .collect();
    let rows = outcome.written.iter().filter_map(|(nid, pos)| {
        let event = by_nid.get(nid)?;
        let entry = LogEntry {
            kind: LogKind::Event,
            room: event.room,
            user: event.user,
            reference: *nid,
        };
        Some(entry.at(*pos))
    });
    rows.collect()
}

/// Logs memberships of local users that changed without an event of the batch, by the resolution of
/// states. Apart from [`append`]: it happens hardly ever, and whoever is not told because this process
/// ends in between lets go of what it knows after some minutes.
pub async fn log_standing(
    conn: &mut PgConnection,
    batch: &Batch,
    outcome: &Outcome,
) -> Result<Vec<LogRow>, Error> {
    let is_dropped = |room: i64| {
        let mut repeated = outcome.repeated.iter();
        outcome.stale.contains(&room) || repeated.any(|(repeated, _)| *repeated == room)
    };
    let local = batch.members.iter().filter(|row| row.local);
    let silent = local.filter(|row| {
        let mut written = outcome.written.iter();
        !written.any(|(nid, _)| *nid == row.event) && !is_dropped(row.room)
    });
    let entries: Vec<LogEntry> = silent
        .map(|row| memberships::standing(UserNid(row.user), RoomNid(row.room)))
        .collect();
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let positions = stream::append(conn, &entries).await?;
    let rows = positions.into_iter().zip(entries);
    Ok(rows.map(|(pos, entry)| entry.at(pos)).collect())
}
