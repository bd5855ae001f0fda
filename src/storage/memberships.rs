//! Who is in which room.

use ruma::events::room::member::MembershipState;
use sqlx::PgConnection;

use super::{Error, LogEntry, LogKind, RoomNid, ServerNid, UserNid, codec::decode_body};

/// A membership as its column value.
pub fn code(membership: &MembershipState) -> i16 {
    match membership {
        MembershipState::Join => 1,
        MembershipState::Invite => 2,
        MembershipState::Ban => 4,
        MembershipState::Knock => 5,
        // Authorization lets no other value pass; who is nothing else has left.
        _ => 3,
    }
}

/// A column value as membership.
pub fn of_code(code: i16) -> MembershipState {
    match code {
        1 => MembershipState::Join,
        2 => MembershipState::Invite,
        4 => MembershipState::Ban,
        5 => MembershipState::Knock,
        _ => MembershipState::Leave,
    }
}

/// The oldest room that `owner` is joined to and that `other` is, or was, in.
pub async fn find_shared(
    conn: &mut PgConnection,
    owner: UserNid,
    other: UserNid,
) -> Result<Option<RoomNid>, Error> {
    let found = sqlx::query_scalar!(
        "SELECT theirs.room_nid FROM user_room theirs
         JOIN user_room own ON own.room_nid = theirs.room_nid
           AND own.user_nid = $1 AND own.membership = 1
         WHERE theirs.user_nid = $2 ORDER BY theirs.room_nid LIMIT 1",
        owner.0,
        other.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(RoomNid))
}

/// A local user's relation to a room.
#[derive(Clone, Debug)]
pub struct UserRoom {
    /// Room.
    pub room: RoomNid,
    /// Membership code.
    pub membership: i16,
    /// Membership event, where we hold the room.
    pub event: Option<i64>,
    /// Who set it.
    pub sender: Option<UserNid>,
    /// Position of the change.
    pub pos: i64,
    /// Whether the user forgot the room.
    pub forgotten: bool,
    /// Stripped state of an invite or knock, a JSON array.
    pub stripped: Option<String>,
    /// Position of what last moved the room up in lists; 0: we hold no events of it.
    pub bump: i64,
    /// Position of its newest event; 0 likewise.
    pub last: i64,
    /// Whether the room's state lacks members.
    pub partial: bool,
    /// Position at which it lacked them no more; 0: it never did.
    pub whole_pos: i64,
}

struct Row {
    room_nid: i64,
    membership: i16,
    event_nid: Option<i64>,
    sender_nid: Option<i64>,
    pos: i64,
    forgotten: bool,
    stripped: Option<Vec<u8>>,
    bump_pos: i64,
    last_pos: i64,
    partial: bool,
    whole_pos: i64,
}

impl TryFrom<Row> for UserRoom {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let stripped = row.stripped.map(|body| decode_body("user_room", &body));
        Ok(Self {
            room: RoomNid(row.room_nid),
            membership: row.membership,
            event: row.event_nid,
            sender: row.sender_nid.map(UserNid),
            pos: row.pos,
            forgotten: row.forgotten,
            stripped: stripped.transpose()?,
            bump: row.bump_pos,
            last: row.last_pos,
            partial: row.partial,
            whole_pos: row.whole_pos,
        })
    }
}

/// All rooms of a local user, forgotten ones too, in order of position.
pub async fn list_of_user(conn: &mut PgConnection, user: UserNid) -> Result<Vec<UserRoom>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT u.room_nid, u.membership, u.event_nid, u.sender_nid, u.pos, u.forgotten, u.stripped,
           COALESCE(h.bump_pos, 0) AS "bump_pos!", COALESCE(h.last_pos, 0) AS "last_pos!",
           (p.room_nid IS NOT NULL AND p.whole_pos IS NULL) AS "partial!",
           COALESCE(p.whole_pos, 0) AS "whole_pos!"
         FROM user_room u
         LEFT JOIN room_head h ON h.room_nid = u.room_nid
         LEFT JOIN partial_room p ON p.room_nid = u.room_nid
         WHERE u.user_nid = $1 ORDER BY u.pos"#,
        user.0
    );
    let rows = rows.fetch_all(conn).await?.into_iter();
    rows.map(UserRoom::try_from).collect()
}

/// A local user's relation to one room.
pub async fn find_of_user(
    conn: &mut PgConnection,
    user: UserNid,
    room: RoomNid,
) -> Result<Option<UserRoom>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT u.room_nid, u.membership, u.event_nid, u.sender_nid, u.pos, u.forgotten, u.stripped,
           COALESCE(h.bump_pos, 0) AS "bump_pos!", COALESCE(h.last_pos, 0) AS "last_pos!",
           (p.room_nid IS NOT NULL AND p.whole_pos IS NULL) AS "partial!",
           COALESCE(p.whole_pos, 0) AS "whole_pos!"
         FROM user_room u
         LEFT JOIN room_head h ON h.room_nid = u.room_nid
         LEFT JOIN partial_room p ON p.room_nid = u.room_nid
         WHERE u.user_nid = $1 AND u.room_nid = $2"#,
        user.0,
        room.0
    );
    let row = row.fetch_optional(conn).await?;
    row.map(UserRoom::try_from).transpose()
}

/// Sets an invite or knock of a room that we do not hold, or its end. Log it afterwards.
pub async fn upsert_out_of_band(
    conn: &mut PgConnection,
    user: UserNid,
    room: RoomNid,
    (membership, sender): (i16, UserNid),
    (stripped, invite_id): (Option<&[u8]>, Option<&str>),
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO user_room (user_nid, room_nid, membership, sender_nid, stripped, invite_id, pos)
         VALUES ($1, $2, $3, $4, $5, $6, 0)
         ON CONFLICT ON CONSTRAINT user_room_pkey DO UPDATE SET membership = EXCLUDED.membership,
           sender_nid = EXCLUDED.sender_nid, stripped = EXCLUDED.stripped,
           invite_id = EXCLUDED.invite_id, event_nid = NULL, forgotten = false",
        user.0,
        room.0,
        membership,
        sender.0,
        stripped,
        invite_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An invitation into a room that we do not hold.
#[derive(Clone, Debug)]
pub struct Invite {
    /// Room.
    pub room: RoomNid,
    /// Who is invited.
    pub user: UserNid,
    /// Stripped state, a JSON array.
    pub stripped: String,
    /// Id of the event.
    pub event_id: Option<String>,
}

/// Invitations into rooms that we do not hold which wait for an answer, of those (room, user).
pub async fn list_invites(
    conn: &mut PgConnection,
    pairs: &[(i64, i64)],
) -> Result<Vec<Invite>, Error> {
    let (rooms, users): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"SELECT u.room_nid, u.user_nid, u.stripped AS "stripped!", u.invite_id
           FROM unnest($1::bigint[], $2::bigint[]) AS w (room, usr)
           JOIN user_room u ON u.user_nid = w.usr AND u.room_nid = w.room
           WHERE u.membership = 2 AND u.event_nid IS NULL AND u.stripped IS NOT NULL"#,
        &rooms,
        &users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        Ok(Invite {
            room: RoomNid(row.room_nid),
            user: UserNid(row.user_nid),
            stripped: decode_body("user_room", &row.stripped)?,
            event_id: row.invite_id,
        })
    });
    rows.collect()
}

/// Sets the position of a change made by [`upsert_out_of_band`].
pub async fn update_pos(
    conn: &mut PgConnection,
    user: UserNid,
    room: RoomNid,
    pos: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE user_room SET pos = $3 WHERE user_nid = $1 AND room_nid = $2",
        user.0,
        room.0,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says that what a user has to do with a room is not what it was, where no event says so.
pub fn standing(user: UserNid, room: RoomNid) -> LogEntry {
    LogEntry {
        kind: LogKind::Standing,
        room: room.0,
        user: user.0,
        reference: 0,
    }
}

/// Forgets a room, to be logged as [`standing`]; `false` when the user is still in it or was never there.
pub async fn forget(conn: &mut PgConnection, user: UserNid, room: RoomNid) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE user_room SET forgotten = true
         WHERE user_nid = $1 AND room_nid = $2 AND membership IN (3, 4)",
        user.0,
        room.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Users of ours who are in a room.
pub async fn list_local_joined(
    conn: &mut PgConnection,
    room: RoomNid,
) -> Result<Vec<UserNid>, Error> {
    let users = sqlx::query_scalar!(
        "SELECT user_nid FROM user_room WHERE room_nid = $1 AND membership = 1",
        room.0
    )
    .fetch_all(conn)
    .await?;
    Ok(users.into_iter().map(UserNid).collect())
}

/// Everybody with one of those memberships in a room: (user, membership, event).
pub async fn list_in_room(
    conn: &mut PgConnection,
    room: RoomNid,
    memberships: &[i16],
) -> Result<Vec<(UserNid, i16, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, membership, event_nid FROM member
         WHERE room_nid = $1 AND membership = ANY($2)
         ORDER BY event_nid",
        room.0,
        memberships
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (UserNid(row.user_nid), row.membership, row.event_nid))
        .collect())
}

/// Servers with joined users in a room, most users first.
pub async fn list_servers(conn: &mut PgConnection, room: RoomNid) -> Result<Vec<ServerNid>, Error> {
    let servers = sqlx::query_scalar!(
        "SELECT server_nid FROM room_server WHERE room_nid = $1 AND (joined > 0 OR told)
         ORDER BY joined DESC, server_nid",
        room.0
    )
    .fetch_all(conn)
    .await?;
    Ok(servers.into_iter().map(ServerNid).collect())
}

/// Whether a server has a joined user in a room.
pub async fn is_server_joined(
    conn: &mut PgConnection,
    room: RoomNid,
    server: ServerNid,
) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM room_server
             WHERE room_nid = $1 AND server_nid = $2 AND (joined > 0 OR told)) AS "found!""#,
        room.0,
        server.0
    );
    Ok(found.fetch_one(conn).await?)
}

/// Rooms in which a server has joined users.
pub async fn list_rooms_of_server(
    conn: &mut PgConnection,
    server: ServerNid,
) -> Result<Vec<RoomNid>, Error> {
    let rooms = sqlx::query_scalar!(
        "SELECT room_nid FROM room_server WHERE server_nid = $1 AND (joined > 0 OR told)",
        server.0
    )
    .fetch_all(conn)
    .await?;
    Ok(rooms.into_iter().map(RoomNid).collect())
}

/// Whether two users are joined to a common room.
pub async fn share_room(
    conn: &mut PgConnection,
    one: UserNid,
    other: UserNid,
) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM member a JOIN member b ON b.room_nid = a.room_nid
             WHERE a.user_nid = $1 AND a.membership = 1 AND b.user_nid = $2
               AND b.membership = 1) AS "found!""#,
        one.0,
        other.0
    );
    Ok(found.fetch_one(conn).await?)
}

/// Rooms that two users are both joined to, by number after one of them, and how many there are in all.
pub async fn list_mutual(
    conn: &mut PgConnection,
    (one, other): (UserNid, UserNid),
    after: RoomNid,
    limit: i64,
) -> Result<(Vec<RoomNid>, i64), Error> {
    let rows = sqlx::query!(
        r#"WITH mutual AS (
             SELECT a.room_nid FROM member a
             JOIN member b ON b.room_nid = a.room_nid AND b.user_nid = $2 AND b.membership = 1
             WHERE a.user_nid = $1 AND a.membership = 1)
           SELECT m.room_nid, (SELECT count(*) FROM mutual) AS "total!"
           FROM mutual m WHERE m.room_nid > $3
           ORDER BY m.room_nid LIMIT $4"#,
        one.0,
        other.0,
        after.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    let total = rows.first().map_or(0, |row| row.total);
    let rooms = rows.into_iter().map(|row| RoomNid(row.room_nid));
    Ok((rooms.collect(), total))
}

/// Display name and avatar of a user of ours, as membership events show them.
pub async fn profile(
    conn: &mut PgConnection,
    user: UserNid,
) -> Result<(Option<String>, Option<String>), Error> {
    let row = sqlx::query!(
        r#"SELECT body ->> 'displayname' AS "display_name?", body ->> 'avatar_url' AS "avatar_url?"
           FROM profile WHERE user_nid = $1"#,
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or((None, None), |row| (row.display_name, row.avatar_url)))
}

/// Users of a server who have or had a membership in a room.
pub async fn list_users_of_server(
    conn: &mut PgConnection,
    room: RoomNid,
    server: ServerNid,
) -> Result<Vec<UserNid>, Error> {
    let users = sqlx::query_scalar!(
        "SELECT m.user_nid FROM member m
         JOIN mx_user u ON u.user_nid = m.user_nid
         WHERE m.room_nid = $1 AND u.server_nid = $2",
        room.0,
        server.0
    )
    .fetch_all(conn)
    .await?;
    Ok(users.into_iter().map(UserNid).collect())
}

/// Users of ours who are in rooms: (room, user).
pub async fn list_local_joined_in(
    conn: &mut PgConnection,
    rooms: &[i64],
) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT room_nid, user_nid FROM user_room WHERE room_nid = ANY ($1) AND membership = 1",
        rooms
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.room_nid, row.user_nid)).collect())
}

/// Of events those by which users left rooms, who are not there now either: (room, user).
pub async fn list_gone(
    conn: &mut PgConnection,
    (rooms, events): (&[i64], &[i64]),
) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT m.room_nid, m.user_nid
         FROM unnest($1::bigint[], $2::bigint[]) AS w (room, event)
         JOIN event e ON e.room_nid = w.room AND e.event_nid = w.event
           AND e.type_nid = 1 AND e.skey_nid < 0
         JOIN member m ON m.room_nid = e.room_nid AND m.user_nid = -e.skey_nid
           AND m.membership IN (3, 4)",
        rooms,
        events
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.room_nid, row.user_nid)).collect())
}

/// Users who are in rooms, some of each room.
pub async fn list_some_joined(
    conn: &mut PgConnection,
    rooms: &[i64],
    limit: i64,
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT DISTINCT m.user_nid AS "user_nid!"
           FROM unnest($1::bigint[]) AS w (room)
           CROSS JOIN LATERAL (
             SELECT user_nid FROM member
             WHERE room_nid = w.room AND membership = 1 LIMIT $2) m"#,
        rooms,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Rooms that users are in: (user, room), some of each user.
pub async fn list_rooms_of(
    conn: &mut PgConnection,
    users: &[i64],
    limit: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT u.user_nid AS "user_nid!", m.room_nid
           FROM unnest($1::bigint[]) AS u (user_nid)
           CROSS JOIN LATERAL (
             SELECT room_nid FROM member
             WHERE user_nid = u.user_nid AND membership = 1 LIMIT $2) m"#,
        users,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.user_nid, row.room_nid)).collect())
}
