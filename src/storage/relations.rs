//! Relations of events: what relates to an event, threads and who wrote in them, and what is told of
//! all that beside an event.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, RoomNid, UserNid};

/// Replacements with the same, latest time that are looked at.
const EDITS_MAX: i64 = 8;
/// Relations that are followed to find what relates to an event in a roundabout way.
const FOLLOWED_MAX: i64 = 10_000;

/// A row of `relation` that an event makes.
#[derive(Clone, Debug)]
pub struct RelationRow {
    /// The event that relates to another.
    pub child: i64,
    /// First half of the id of the other.
    pub parent: Uuid,
    /// Relation type.
    pub rel: i32,
    /// Id of the root, where it is in a thread.
    pub root: Option<String>,
    /// Hash of the key of an annotation.
    pub key: Option<Uuid>,
    /// Time of what has the form of a replacement.
    pub edit_ts: Option<i64>,
}

impl RelationRow {
    /// Root of the thread that the event says it is in.
    pub fn thread(&self) -> Option<Uuid> {
        self.root.as_ref().map(|_| self.parent)
    }

    /// What it relates to in another way.
    pub fn outside(&self) -> Option<Uuid> {
        self.root.is_none().then_some(self.parent)
    }
}

/// What is asked for of the relations of an event.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// First half of its id.
    pub parent: Uuid,
    /// Only of this relation type.
    pub rel: Option<i32>,
    /// Only events of this type.
    pub kind: Option<i32>,
    /// Not of these senders.
    pub ignored: &'a [i64],
    /// Only with `room_seq` between these.
    pub range: (i64, i64),
    /// The newest first.
    pub backwards: bool,
    /// How many.
    pub limit: i64,
}

/// Events that relate to an event, in order.
pub async fn list(
    conn: &mut PgConnection,
    room: RoomNid,
    wanted: Wanted<'_>,
) -> Result<Vec<i64>, Error> {
    let (after, before) = wanted.range;
    let nids = if wanted.backwards {
        sqlx::query_scalar!(
            "SELECT child_nid FROM relation
             WHERE room_nid = $1 AND parent_key = $2 AND ($3::int IS NULL OR rel_nid = $3)
               AND ($4::int IS NULL OR type_nid = $4) AND NOT sender_nid = ANY($5)
               AND room_seq > $6 AND room_seq < $7
             ORDER BY room_seq DESC LIMIT $8",
            room.0,
            wanted.parent,
            wanted.rel,
            wanted.kind,
            wanted.ignored,
            after,
            before,
            wanted.limit
        )
        .fetch_all(conn)
        .await?
    } else {
        sqlx::query_scalar!(
            "SELECT child_nid FROM relation
             WHERE room_nid = $1 AND parent_key = $2 AND ($3::int IS NULL OR rel_nid = $3)
               AND ($4::int IS NULL OR type_nid = $4) AND NOT sender_nid = ANY($5)
               AND room_seq > $6 AND room_seq < $7
             ORDER BY room_seq LIMIT $8",
            room.0,
            wanted.parent,
            wanted.rel,
            wanted.kind,
            wanted.ignored,
            after,
            before,
            wanted.limit
        )
        .fetch_all(conn)
        .await?
    };
    Ok(nids)
}

/// The same with events that relate to such events, up to `depth` steps away. What is in between need
/// not be what is wanted.
pub async fn list_recursive(
    conn: &mut PgConnection,
    room: RoomNid,
    wanted: Wanted<'_>,
    depth: i32,
) -> Result<Vec<i64>, Error> {
    let (after, before) = wanted.range;
    Ok(sqlx::query_scalar!(
        r#"WITH RECURSIVE found AS (
             SELECT r.child_nid, r.rel_nid, r.type_nid, r.sender_nid, r.room_seq, 1 AS depth FROM relation r
             WHERE r.room_nid = $1 AND r.parent_key = $2
             UNION ALL
             SELECT r.child_nid, r.rel_nid, r.type_nid, r.sender_nid, r.room_seq, f.depth + 1
             FROM found f
             JOIN event e ON e.room_nid = $1 AND e.event_nid = f.child_nid
             JOIN relation r ON r.room_nid = $1 AND r.parent_key = e.event_key
             WHERE f.depth < $3
           ), bounded AS (
             SELECT * FROM found LIMIT $4)
           SELECT child_nid AS "nid!" FROM bounded
           WHERE ($5::int IS NULL OR rel_nid = $5) AND ($6::int IS NULL OR type_nid = $6)
             AND NOT sender_nid = ANY($7) AND room_seq > $8 AND room_seq < $9
           ORDER BY CASE WHEN $10 THEN -room_seq ELSE room_seq END LIMIT $11"#,
        room.0,
        wanted.parent,
        depth,
        FOLLOWED_MAX,
        wanted.rel,
        wanted.kind,
        wanted.ignored,
        after,
        before,
        wanted.backwards,
        wanted.limit
    )
    .fetch_all(conn)
    .await?)
}

/// Roots of threads that are here, those whose newest event is newest first: (root, `room_seq` of the
/// newest event, which is below `before`). With `by`, those that this user has written in or begun.
pub async fn threads(
    conn: &mut PgConnection,
    room: RoomNid,
    by: Option<UserNid>,
    before: i64,
    limit: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT e.event_nid, t.reply_seq FROM thread t
         JOIN event e ON e.room_nid = t.room_nid AND e.event_key = t.root_key
         WHERE t.room_nid = $1 AND t.reply_seq > 0 AND t.reply_seq < $2 AND e.room_seq IS NOT NULL
           AND ($3::bigint IS NULL OR e.sender_nid = $3 OR EXISTS (
             SELECT 1 FROM thread_part p
             WHERE p.room_nid = t.room_nid AND p.root_key = t.root_key AND p.sender_nid = $3))
         ORDER BY t.reply_seq DESC LIMIT $4",
        room.0,
        before,
        by.map(|user| user.0),
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.event_nid, row.reply_seq)).collect())
}

/// Whether a user has annotated an event with a key, by an event of this type.
pub async fn is_annotated(
    conn: &mut PgConnection,
    room: RoomNid,
    (parent, key): (Uuid, Uuid),
    (sender, kind): (UserNid, i32),
) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (
             SELECT 1 FROM relation
             WHERE room_nid = $1 AND parent_key = $2 AND sender_nid = $3 AND key = $4
               AND type_nid = $5) AS "found!""#,
        room.0,
        parent,
        sender.0,
        key,
        kind
    );
    Ok(found.fetch_one(conn).await?)
}

/// Whether an event relates to another.
pub async fn is_child(conn: &mut PgConnection, room: RoomNid, key: Uuid) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (
             SELECT 1 FROM event e
             JOIN relation r ON r.room_nid = e.room_nid AND r.child_nid = e.event_nid
             WHERE e.room_nid = $1 AND e.event_key = $2) AS "found!""#,
        room.0,
        key
    );
    Ok(found.fetch_one(conn).await?)
}

/// An event that others are asked to relate to.
#[derive(Clone, Copy, Debug)]
pub struct Related {
    /// Room.
    pub room: i64,
    /// Event.
    pub nid: i64,
    /// First half of its id.
    pub key: Uuid,
}

/// Of some events those that others relate to: of these senders, and in these ways, where they are
/// given.
pub async fn related_by(
    conn: &mut PgConnection,
    events: &[Related],
    (senders, rels): (Option<&[i64]>, Option<&[i32]>),
) -> Result<Vec<i64>, Error> {
    let rooms: Vec<i64> = events.iter().map(|event| event.room).collect();
    let nids: Vec<i64> = events.iter().map(|event| event.nid).collect();
    let keys: Vec<Uuid> = events.iter().map(|event| event.key).collect();
    Ok(sqlx::query_scalar!(
        r#"SELECT w.nid AS "nid!"
           FROM unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS w (room, nid, key)
           WHERE EXISTS (
             SELECT 1 FROM relation r
             WHERE r.room_nid = w.room AND r.parent_key = w.key
               AND ($4::bigint[] IS NULL OR r.sender_nid = ANY($4))
               AND ($5::int[] IS NULL OR r.rel_nid = ANY($5)))"#,
        &rooms,
        &nids,
        &keys,
        senders,
        rels
    )
    .fetch_all(conn)
    .await?)
}

/// An event that others may relate to.
#[derive(Clone, Copy, Debug)]
pub struct Parent {
    /// Room.
    pub room: i64,
    /// Event.
    pub nid: i64,
    /// First half of its id.
    pub key: Uuid,
    /// Sender.
    pub sender: i64,
    /// Type; -1 where nothing can replace it.
    pub kind: i32,
}

/// What an event is to the one that it is told beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Replaces it.
    Edit,
    /// Is the newest in the thread that it is the root of.
    Latest,
    /// Replaces that newest one.
    LatestEdit,
    /// Refers to it.
    Reference,
}

/// An event that is told beside another.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// The other.
    pub parent: i64,
    /// What it is to it.
    pub part: Part,
    /// The event.
    pub child: i64,
    /// With the newest of a thread: how many there are.
    pub count: i64,
    /// With it: the viewer wrote some of them.
    pub participated: bool,
}

/// Who looks at events, and relation types that are told beside them.
#[derive(Clone, Copy, Debug)]
pub struct Looking<'a> {
    /// The viewer.
    pub viewer: UserNid,
    /// Whom they ignore.
    pub ignored: &'a [i64],
    /// `m.reference`.
    pub reference: i32,
    /// References to one event.
    pub references_max: i64,
}

/// What is told beside some events, of any rooms. Of replacements those with the latest time, of
/// references the oldest, in their order.
#[expect(clippy::too_many_lines, reason = "one statement")]
pub async fn bundled(
    conn: &mut PgConnection,
    parents: &[Parent],
    looking: Looking<'_>,
) -> Result<Vec<Bundled>, Error> {
    macro_rules! column {
        ($field:ident) => {
            &parents.iter().map(|row| row.$field).collect::<Vec<_>>() as &[_]
        };
    }
    let rows = sqlx::query!(
        r#"WITH given AS MATERIALIZED (
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::bigint[], $5::int[])
               AS w (room, nid, key, sender, kind)
           ), latest AS MATERIALIZED (
             SELECT w.room, w.nid, p.n, p.mine, e.event_nid, e.event_key, e.sender_nid, e.type_nid
             FROM given w
             CROSS JOIN LATERAL (
               SELECT sum(t.n) AS n, max(t.last_seq) AS last_seq, bool_or(t.sender_nid = $6) AS mine
               FROM thread_part t
               WHERE t.room_nid = w.room AND t.root_key = w.key AND NOT t.sender_nid = ANY($7)) p
             JOIN event e ON e.room_nid = w.room AND e.room_seq = p.last_seq
           )
           SELECT 0 AS "part!", w.nid AS "parent!", r.child_nid AS "child!", 0::bigint AS "n!",
             false AS "mine!", 0::bigint AS "seq!"
           FROM given w
           CROSS JOIN LATERAL (
             SELECT t.child_nid FROM (
               SELECT v.child_nid FROM relation v
               WHERE v.room_nid = w.room AND v.parent_key = w.key AND v.sender_nid = w.sender
                 AND v.type_nid = w.kind AND v.edit_ts IS NOT NULL
               ORDER BY v.edit_ts DESC FETCH FIRST 1 ROW WITH TIES) t
             LIMIT $8) r
           UNION ALL
           SELECT 1, l.nid, l.event_nid, l.n::bigint, l.mine, 0 FROM latest l
           UNION ALL
           SELECT 2, l.nid, r.child_nid, 0, false, 0
           FROM latest l
           CROSS JOIN LATERAL (
             SELECT t.child_nid FROM (
               SELECT v.child_nid FROM relation v
               WHERE v.room_nid = l.room AND v.parent_key = l.event_key AND v.sender_nid = l.sender_nid
                 AND v.type_nid = l.type_nid AND v.edit_ts IS NOT NULL
               ORDER BY v.edit_ts DESC FETCH FIRST 1 ROW WITH TIES) t
             LIMIT $8) r
           UNION ALL
           SELECT 3, w.nid, r.child_nid, 0, false, r.room_seq
           FROM given w
           CROSS JOIN LATERAL (
             SELECT v.child_nid, v.room_seq FROM relation v
             WHERE v.room_nid = w.room AND v.parent_key = w.key AND v.rel_nid = $9
               AND NOT v.sender_nid = ANY($7)
             ORDER BY v.room_seq
             LIMIT $10) r
           ORDER BY 1, 6"#,
        column!(room),
        column!(nid),
        column!(key),
        column!(sender),
        column!(kind),
        looking.viewer.0,
        looking.ignored,
        EDITS_MAX,
        looking.reference,
        looking.references_max
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Bundled {
        parent: row.parent,
        part: match row.part {
            0 => Part::Edit,
            1 => Part::Latest,
            2 => Part::LatestEdit,
            _ => Part::Reference,
        },
        child: row.child,
        count: row.n,
        participated: row.mine,
    });
    Ok(rows.collect())
}
