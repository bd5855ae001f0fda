//! The list of rooms that administrators see.

use sqlx::PgConnection;

use super::{Error, RoomNid, ServerNid};

/// What is shown of a room out of its state.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// State that it is made of.
    pub snap: i64,
    /// `m.room.name`
    pub name: Option<String>,
    /// `m.room.canonical_alias`
    pub canonical_alias: Option<String>,
    /// Who created it.
    pub creator: String,
    /// Algorithm of `m.room.encryption`.
    pub encryption: Option<String>,
    /// Whether users of other servers may join.
    pub federatable: bool,
    /// `url` of `m.room.avatar`
    pub avatar_url: Option<String>,
    /// `m.room.join_rules`
    pub join_rules: Option<String>,
    /// `m.room.guest_access`
    pub guest_access: Option<String>,
    /// `m.room.history_visibility`
    pub history_visibility: Option<String>,
    /// Type in `m.room.create`.
    pub room_type: Option<String>,
    /// Number of state events.
    pub state_events: i64,
}

/// A room in the list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Room id.
    pub room_id: String,
    /// Version.
    pub version: String,
    /// In the public directory.
    pub public: bool,
    /// Joined users.
    pub joined: i64,
    /// Joined users of ours.
    pub joined_local: i64,
    /// What its state tells.
    pub summary: Summary,
}

/// Which rooms, and in which order.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// What they are ordered by, as in Synapse's admin API.
    pub order_by: &'a str,
    /// Small to large.
    pub ascending: bool,
    /// Part of name or alias, or a room id.
    pub search: Option<&'a str>,
    /// Only public rooms, or only others.
    pub public: Option<bool>,
    /// Only rooms without joined users, or only others.
    pub empty: Option<bool>,
    /// Rooms left out at the beginning.
    pub offset: i64,
    /// Rooms at most.
    pub limit: i64,
}

/// Rooms whose summary is older than their state, those that changed last first.
pub async fn list_stale(conn: &mut PgConnection, limit: i64) -> Result<Vec<RoomNid>, Error> {
    let rooms = sqlx::query_scalar!(
        "SELECT h.room_nid FROM room_head h
         LEFT JOIN room_summary s ON s.room_nid = h.room_nid
         WHERE s.snap_nid IS DISTINCT FROM h.snap_nid
         ORDER BY h.last_pos DESC LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rooms.into_iter().map(RoomNid).collect())
}

/// Sets the summary of a room.
pub async fn upsert(
    conn: &mut PgConnection,
    room: RoomNid,
    summary: &Summary,
) -> Result<(), Error> {
    // Of a room whose head is gone nothing is kept.
    sqlx::query!(
        "INSERT INTO room_summary (room_nid, snap_nid, name, canonical_alias, creator, encryption,
           federatable, join_rules, guest_access, history_visibility, room_type, state_events,
           avatar_url)
         SELECT room_nid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
         FROM room_head WHERE room_nid = $1
         ON CONFLICT ON CONSTRAINT room_summary_pkey DO UPDATE SET snap_nid = EXCLUDED.snap_nid,
           name = EXCLUDED.name, canonical_alias = EXCLUDED.canonical_alias,
           creator = EXCLUDED.creator, encryption = EXCLUDED.encryption,
           federatable = EXCLUDED.federatable, join_rules = EXCLUDED.join_rules,
           guest_access = EXCLUDED.guest_access,
           history_visibility = EXCLUDED.history_visibility, room_type = EXCLUDED.room_type,
           state_events = EXCLUDED.state_events, avatar_url = EXCLUDED.avatar_url",
        room.0,
        summary.snap,
        summary.name,
        summary.canonical_alias,
        summary.creator,
        summary.encryption,
        summary.federatable,
        summary.join_rules,
        summary.guest_access,
        summary.history_visibility,
        summary.room_type,
        summary.state_events,
        summary.avatar_url
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many rooms fit, on whichever page.
pub async fn count(conn: &mut PgConnection, query: &Query<'_>) -> Result<i64, Error> {
    let total = sqlx::query_scalar!(
        r#"SELECT count(*) AS "total!"
           FROM room_head h
           JOIN room r ON r.room_nid = h.room_nid
           JOIN room_summary s ON s.room_nid = h.room_nid
           WHERE ($1::text IS NULL OR position(lower($1) IN lower(s.name)) > 0
              OR position(lower($1) IN
                   lower(split_part(substr(s.canonical_alias, 2), ':', 1))) > 0
              OR r.room_id = $1)
             AND ($2::boolean IS NULL OR r.listed = $2)
             AND ($3::boolean IS NULL OR NOT EXISTS (
               SELECT 1 FROM room_server v
               WHERE v.room_nid = h.room_nid AND v.joined > 0) = $3)"#,
        query.search,
        query.public,
        query.empty
    )
    .fetch_one(conn)
    .await?;
    Ok(total)
}

/// A page of the list.
#[expect(clippy::too_many_lines, reason = "one statement and its columns")]
pub async fn page(
    conn: &mut PgConnection,
    own: ServerNid,
    query: &Query<'_>,
) -> Result<Vec<Listed>, Error> {
    let rows = sqlx::query!(
        r#"WITH found AS (
             SELECT r.room_id, r.version, r.listed, s.*,
               COALESCE((SELECT sum(joined) FROM room_server v
                         WHERE v.room_nid = h.room_nid), 0)::bigint AS joined,
               COALESCE((SELECT joined FROM room_server v
                         WHERE v.room_nid = h.room_nid AND v.server_nid = $1), 0)::bigint
                 AS joined_local
             FROM room_head h
             JOIN room r ON r.room_nid = h.room_nid
             JOIN room_summary s ON s.room_nid = h.room_nid
             WHERE ($2::text IS NULL OR position(lower($2) IN lower(s.name)) > 0
                OR position(lower($2) IN
                     lower(split_part(substr(s.canonical_alias, 2), ':', 1))) > 0
                OR r.room_id = $2)
               AND ($3::boolean IS NULL OR r.listed = $3)
           ), fitting AS (
             SELECT *,
               CASE $5::text
                 WHEN 'name' THEN name
                 WHEN 'canonical_alias' THEN canonical_alias
                 WHEN 'creator' THEN creator
                 WHEN 'encryption' THEN encryption
                 WHEN 'join_rules' THEN join_rules
                 WHEN 'guest_access' THEN guest_access
                 WHEN 'history_visibility' THEN history_visibility
                 WHEN 'version' THEN version
               END COLLATE "C" AS by_text,
               CASE $5
                 WHEN 'joined_members' THEN joined
                 WHEN 'joined_local_members' THEN joined_local
                 WHEN 'federatable' THEN federatable::int
                 WHEN 'public' THEN listed::int
                 WHEN 'state_events' THEN state_events
               END AS by_number
             FROM found
             WHERE $4::boolean IS NULL OR (joined = 0) = $4
           )
           SELECT room_id AS "room_id!", version AS "version!", listed AS "listed!",
             name, canonical_alias, creator AS "creator!", encryption,
             federatable AS "federatable!", avatar_url, join_rules, guest_access, history_visibility,
             room_type, state_events AS "state_events!", snap_nid AS "snap_nid!",
             joined AS "joined!", joined_local AS "joined_local!"
           FROM fitting
           ORDER BY CASE WHEN $6 THEN by_text END, CASE WHEN $6 THEN by_number END,
             CASE WHEN $6 THEN room_id END,
             CASE WHEN NOT $6 THEN by_text END DESC, CASE WHEN NOT $6 THEN by_number END DESC,
             room_id DESC
           OFFSET $7 LIMIT $8"#,
        own.0,
        query.search,
        query.public,
        query.empty,
        query.order_by,
        query.ascending,
        query.offset,
        query.limit
    )
    .fetch_all(conn)
    .await?;
    let rooms = rows.into_iter().map(|row| Listed {
        room_id: row.room_id,
        version: row.version,
        public: row.listed,
        joined: row.joined,
        joined_local: row.joined_local,
        summary: Summary {
            snap: row.snap_nid,
            name: row.name,
            canonical_alias: row.canonical_alias,
            creator: row.creator,
            encryption: row.encryption,
            federatable: row.federatable,
            avatar_url: row.avatar_url,
            join_rules: row.join_rules,
            guest_access: row.guest_access,
            history_visibility: row.history_visibility,
            room_type: row.room_type,
            state_events: row.state_events,
        },
    });
    Ok(rooms.collect())
}

/// Devices of the joined local users of a room.
pub async fn count_devices(conn: &mut PgConnection, room: RoomNid) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM user_room u
           JOIN device d ON d.user_nid = u.user_nid
           WHERE u.room_nid = $1 AND u.membership = 1"#,
        room.0
    );
    Ok(count.fetch_one(conn).await?)
}

/// Joined users of a room, all and those of one server.
pub async fn count_joined(
    conn: &mut PgConnection,
    room: RoomNid,
    own: ServerNid,
) -> Result<(i64, i64), Error> {
    let row = sqlx::query!(
        r#"SELECT COALESCE(sum(joined), 0)::bigint AS "joined!",
             COALESCE(sum(joined) FILTER (WHERE server_nid = $2), 0)::bigint AS "local!"
           FROM room_server WHERE room_nid = $1"#,
        room.0,
        own.0
    )
    .fetch_one(conn)
    .await?;
    Ok((row.joined, row.local))
}

/// Local users with a membership in a room, or an invite or knock beside it.
pub async fn list_local(
    conn: &mut PgConnection,
    room: RoomNid,
) -> Result<Vec<(super::UserNid, i16)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, membership FROM user_room WHERE room_nid = $1 ORDER BY user_nid",
        room.0
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (super::UserNid(row.user_nid), row.membership))
        .collect())
}
