//! The user directory: entries, what is still to be entered, and the search.

use sqlx::PgConnection;

use super::{Error, Pos, RoomNid, UserNid, codec::decode_body};

/// Entries with matching words that one search looks at: with a very short word on a very large
/// server, the search is not over all of them.
const MATCHES_MAX: i64 = 20_000;

/// Something in the log that the directory has to follow.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// Stream position.
    pub pos: Pos,
    /// Room; 0: a profile.
    pub room: i64,
    /// User; 0: the room itself.
    pub user: i64,
    /// Whether all members of the room may be other ones.
    pub whole: bool,
}

/// A membership as the directory sees it.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Who.
    pub user: i64,
    /// Whether everybody may know of it.
    pub public: bool,
    /// The event, JSON.
    pub event: String,
}

/// What a user is found under.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who.
    pub user: i64,
    /// Name.
    pub display_name: Option<String>,
    /// Picture.
    pub avatar_url: Option<String>,
    /// Words, as PostgreSQL writes a `tsvector`.
    pub words: String,
}

/// A user who was found.
#[derive(Clone, Debug)]
pub struct Hit {
    /// User id.
    pub user_id: String,
    /// Name.
    pub display_name: Option<String>,
    /// Picture.
    pub avatar_url: Option<String>,
}

/// How far the directory is.
pub async fn find_cursor(conn: &mut PgConnection) -> Result<Pos, Error> {
    let found = sqlx::query_scalar!("SELECT pos FROM directory_cursor");
    Ok(found.fetch_optional(conn).await?.unwrap_or(0))
}

/// The same, and nobody else works on it to the end of the transaction.
pub async fn lock_cursor(conn: &mut PgConnection) -> Result<Pos, Error> {
    let found = sqlx::query_scalar!("SELECT pos FROM directory_cursor FOR UPDATE");
    Ok(found.fetch_optional(conn).await?.unwrap_or(0))
}

/// Moves it on, never back.
pub async fn update_cursor(conn: &mut PgConnection, pos: Pos) -> Result<(), Error> {
    sqlx::query!("UPDATE directory_cursor SET pos = $1 WHERE pos < $1", pos)
        .execute(conn)
        .await?;
    Ok(())
}

/// Memberships, rules of rooms and profiles that changed in a span of the log.
pub async fn list_news(
    conn: &mut PgConnection,
    (after, upto): (Pos, Pos),
    limit: i64,
) -> Result<Vec<News>, Error> {
    let rows = sqlx::query!(
        r#"SELECT s.pos, s.room_nid, s.kind = 12 AS "whole!",
             CASE WHEN s.kind = 6 THEN s.user_nid ELSE COALESCE(GREATEST(-e.skey_nid, 0), 0) END AS "user!"
           FROM stream_log s
           LEFT JOIN event e ON s.kind = 1 AND e.room_nid = s.room_nid AND e.event_nid = s.ref
           WHERE s.pos > $1 AND s.pos <= $2
             AND (s.kind IN (6, 12) OR (s.kind = 1 AND e.type_nid IN (1, 4, 5) AND e.skey_nid IS NOT NULL))
           ORDER BY s.pos LIMIT $3"#,
        after,
        upto,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| News {
            pos: row.pos,
            room: row.room_nid,
            user: row.user,
            whole: row.whole,
        })
        .collect())
}

/// Of some users those of ours: (user, whether the account is closed, name, picture).
pub async fn list_local(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<(i64, bool, Option<String>, Option<String>)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT a.user_nid AS "user_nid!", a.deactivated AS "deactivated!", p.body ->> 'displayname' AS "display_name?",
             p.body ->> 'avatar_url' AS "avatar_url?"
           FROM account a LEFT JOIN profile p ON p.user_nid = a.user_nid
           WHERE a.user_nid = ANY ($1)"#,
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| {
            (
                row.user_nid,
                row.deactivated,
                row.display_name,
                row.avatar_url,
            )
        })
        .collect())
}

/// Memberships of some users in rooms that one of ours is in, newest first, so many of each.
pub async fn list_memberships(
    conn: &mut PgConnection,
    users: &[i64],
    each: i64,
) -> Result<Vec<Membership>, Error> {
    let rows = sqlx::query!(
        r#"SELECT w.usr AS "user!", s.body,
             (r.listed OR EXISTS (SELECT 1 FROM public_room p WHERE p.room_nid = x.room_nid)) AS "public!"
           FROM unnest($1::bigint[]) AS w (usr)
           CROSS JOIN LATERAL (
             SELECT m.room_nid, m.event_nid FROM member m
             WHERE m.user_nid = w.usr AND m.membership = 1
               AND EXISTS (SELECT 1 FROM user_room l
                 WHERE l.room_nid = m.room_nid AND l.membership = 1)
             ORDER BY m.event_nid DESC LIMIT $2) x
           JOIN room r ON r.room_nid = x.room_nid
           JOIN state_json s ON s.event_nid = x.event_nid
           ORDER BY x.event_nid DESC"#,
        users,
        each
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Membership {
                user: row.user,
                public: row.public,
                event: decode_body("state_json", &row.body)?,
            })
        })
        .collect()
}

/// Sets entries.
pub async fn upsert(conn: &mut PgConnection, entries: &[Entry]) -> Result<(), Error> {
    let users: Vec<i64> = entries.iter().map(|entry| entry.user).collect();
    let names: Vec<_> = entries.iter().map(|e| e.display_name.clone()).collect();
    let avatars: Vec<_> = entries.iter().map(|e| e.avatar_url.clone()).collect();
    let words: Vec<String> = entries.iter().map(|entry| entry.words.clone()).collect();
    sqlx::query!(
        "INSERT INTO user_directory AS d (user_nid, display_name, avatar_url, words)
         SELECT w.usr, w.name, w.avatar, w.words::tsvector
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[])
           AS w (usr, name, avatar, words)
         ON CONFLICT ON CONSTRAINT user_directory_pkey DO UPDATE SET
           display_name = EXCLUDED.display_name, avatar_url = EXCLUDED.avatar_url,
           words = EXCLUDED.words
         WHERE (d.display_name, d.avatar_url, d.words)
           IS DISTINCT FROM (EXCLUDED.display_name, EXCLUDED.avatar_url, EXCLUDED.words)",
        &users,
        &names as &[Option<String>],
        &avatars as &[Option<String>],
        &words
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes entries.
pub async fn delete(conn: &mut PgConnection, users: &[i64]) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM user_directory WHERE user_nid = ANY ($1)",
        users
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes whether anybody may join or read a room.
pub async fn update_public(
    conn: &mut PgConnection,
    room: RoomNid,
    public: bool,
) -> Result<(), Error> {
    if public {
        sqlx::query!(
            "INSERT INTO public_room (room_nid) VALUES ($1) ON CONFLICT DO NOTHING",
            room.0
        )
        .execute(conn)
        .await?;
    } else {
        sqlx::query!("DELETE FROM public_room WHERE room_nid = $1", room.0)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Notes a room whose members are to be entered.
pub async fn upsert_todo(conn: &mut PgConnection, room: RoomNid) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO directory_todo (room_nid) VALUES ($1)
         ON CONFLICT ON CONSTRAINT directory_todo_pkey DO UPDATE SET after_user = 0",
        room.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes rooms whose members are to be looked at because a user of ours, given with the room, is
/// the only one there and they have no entries, or was the last there and they lose theirs.
pub async fn upsert_todo_of_ours(
    conn: &mut PgConnection,
    rooms: &[i64],
    users: &[i64],
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO directory_todo (room_nid)
         SELECT DISTINCT u.room_nid
         FROM unnest($1::bigint[], $2::bigint[]) AS w (room, usr)
         JOIN user_room u ON u.room_nid = w.room AND u.user_nid = w.usr
         WHERE NOT EXISTS (SELECT 1 FROM user_room o WHERE o.room_nid = u.room_nid
             AND o.user_nid <> u.user_nid AND o.membership = 1)
           AND (u.membership <> 1 OR EXISTS (SELECT 1 FROM member m
             WHERE m.room_nid = u.room_nid AND m.membership = 1 AND NOT EXISTS
               (SELECT 1 FROM user_directory d WHERE d.user_nid = m.user_nid)))
         ON CONFLICT ON CONSTRAINT directory_todo_pkey DO UPDATE SET after_user = 0",
        rooms,
        users
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A room that is to be entered, with the last member that is.
pub async fn find_todo(conn: &mut PgConnection) -> Result<Option<(RoomNid, i64)>, Error> {
    let row = sqlx::query!(
        "SELECT room_nid, after_user FROM directory_todo ORDER BY room_nid DESC LIMIT 1"
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (RoomNid(row.room_nid), row.after_user)))
}

/// Members of a room after one, in order.
pub async fn list_members(
    conn: &mut PgConnection,
    room: RoomNid,
    after: i64,
    limit: i64,
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT user_nid FROM member WHERE room_nid = $1 AND user_nid > $2 AND membership = 1
         ORDER BY user_nid LIMIT $3",
        room.0,
        after,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Notes how far a room is (`upto`; `None`: done), unless it was begun anew since `after`.
pub async fn update_todo(
    conn: &mut PgConnection,
    room: RoomNid,
    after: i64,
    upto: Option<i64>,
) -> Result<(), Error> {
    match upto {
        Some(upto) => {
            sqlx::query!(
                "UPDATE directory_todo SET after_user = $3 WHERE room_nid = $1 AND after_user = $2",
                room.0,
                after,
                upto
            )
            .execute(conn)
            .await?
        }
        None => {
            sqlx::query!(
                "DELETE FROM directory_todo WHERE room_nid = $1 AND after_user = $2",
                room.0,
                after
            )
            .execute(conn)
            .await?
        }
    };
    Ok(())
}

/// Users whose words match a `tsquery` and whom `user` may find: those in public rooms, those who share a
/// room, and with `all` everybody of ours. Best match first.
pub async fn search(
    conn: &mut PgConnection,
    (user, all): (UserNid, bool),
    query: &str,
    limit: i64,
) -> Result<Vec<Hit>, Error> {
    Ok(sqlx::query_as!(
        Hit,
        r#"WITH hit AS (
             SELECT user_nid, display_name, avatar_url, ts_rank(words, $2::text::tsquery) AS rank
             FROM user_directory WHERE words @@ $2::text::tsquery LIMIT $4
           )
           SELECT u.mxid AS user_id, h.display_name, h.avatar_url
           FROM hit h
           JOIN mx_user u ON u.user_nid = h.user_nid
           LEFT JOIN account a ON a.user_nid = h.user_nid
           WHERE a.deactivated IS NOT TRUE AND (
             ($5 AND a.user_nid IS NOT NULL)
             OR EXISTS (
               SELECT 1 FROM member m JOIN room r ON r.room_nid = m.room_nid
               WHERE m.user_nid = h.user_nid AND m.membership = 1
                 AND (r.listed OR EXISTS (SELECT 1 FROM public_room p WHERE p.room_nid = m.room_nid))
                 AND EXISTS (SELECT 1 FROM user_room l
                   WHERE l.room_nid = m.room_nid AND l.membership = 1))
             OR (h.user_nid <> $1 AND EXISTS (
               SELECT 1 FROM member m
               JOIN user_room l ON l.room_nid = m.room_nid AND l.user_nid = $1 AND l.membership = 1
               WHERE m.user_nid = h.user_nid AND m.membership = 1)))
           ORDER BY h.rank DESC, (h.display_name IS NULL), u.mxid
           LIMIT $3"#,
        user.0,
        query,
        limit,
        MATCHES_MAX,
        all
    )
    .fetch_all(conn)
    .await?)
}
