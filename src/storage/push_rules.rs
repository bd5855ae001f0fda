//! Push rules, a set for each user who has changed them.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::{Error, RoomNid, UserNid};

/// Stored rules of a user.
#[derive(Clone, Debug)]
pub struct Stored {
    /// User.
    pub user: UserNid,
    /// Compare-and-set token.
    pub rev: i64,
    /// JSON.
    pub body: String,
    /// Position of the last change.
    pub pos: i64,
}

/// The rules of some users; those who have never changed theirs are left out.
pub async fn list(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<Stored>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, rev, body, pos FROM push_rule_set WHERE user_nid = ANY($1)",
        users
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Stored {
            user: UserNid(row.user_nid),
            rev: row.rev,
            body: row.body,
            pos: row.pos,
        })
        .collect())
}

/// The rules of a user.
pub async fn find(conn: &mut PgConnection, user: UserNid) -> Result<Option<Stored>, Error> {
    Ok(list(conn, &[user.0]).await?.pop())
}

/// Sets the rules of a user if they are still of that `rev` (0: there are none), and how events are
/// counted for the user from now on. `false`: somebody else was faster. Log it afterwards, then
/// [`update_pos`].
pub async fn compare_and_set(
    conn: &mut PgConnection,
    (user, rev): (UserNid, i64),
    body: &str,
    (class, rooms): (i16, &BTreeMap<String, i16>),
) -> Result<bool, Error> {
    let rooms = sqlx::types::Json(rooms);
    let set = sqlx::query!(
        "INSERT INTO push_rule_set AS s (user_nid, rev, body, class, rooms, pos)
         VALUES ($1, $2::bigint + 1, $3, $4, $5, 0)
         ON CONFLICT ON CONSTRAINT push_rule_set_pkey DO UPDATE
           SET rev = EXCLUDED.rev, body = EXCLUDED.body, class = EXCLUDED.class,
             rooms = EXCLUDED.rooms
           WHERE s.rev = $2",
        user.0,
        rev,
        body,
        class,
        rooms as _
    )
    .execute(&mut *conn)
    .await?;
    if set.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!("SELECT push_reclass($1)", user.0)
        .execute(conn)
        .await?;
    Ok(true)
}

/// Sets the position of a change.
pub async fn update_pos(conn: &mut PgConnection, user: UserNid, pos: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE push_rule_set SET pos = $2 WHERE user_nid = $1",
        user.0,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Users in a room whose events are counted by their own rules, and how many members it has.
pub async fn list_custom(conn: &mut PgConnection, room: RoomNid) -> Result<(Vec<i64>, i64), Error> {
    let row = sqlx::query!(
        r#"SELECT
             ARRAY(SELECT user_nid FROM user_room
               WHERE room_nid = $1 AND push_class = 9 AND membership = 1) AS "users!",
             (SELECT COALESCE(sum(joined), 0) FROM room_server WHERE room_nid = $1) AS "members!""#,
        room.0
    )
    .fetch_one(conn)
    .await?;
    Ok((row.users, row.members))
}

/// Users of ours in a room (`most` at most) whose user name or display name is in a text of small letters, if
/// only inside a word.
pub async fn list_named(
    conn: &mut PgConnection,
    room: RoomNid,
    text: &str,
    most: i64,
) -> Result<Vec<i64>, Error> {
    let text = text.replace('\0', "");
    Ok(sqlx::query_scalar!(
        "SELECT r.user_nid FROM user_room r
         JOIN account a ON a.user_nid = r.user_nid
         LEFT JOIN user_directory d ON d.user_nid = r.user_nid
         WHERE r.room_nid = $1 AND r.membership = 1
           AND (strpos($2, a.localpart_folded) > 0
             OR (d.display_name <> '' AND strpos($2, lower(d.display_name)) > 0))
         LIMIT $3",
        room.0,
        text,
        most
    )
    .fetch_all(conn)
    .await?)
}

/// Whom some users ignore, as JSON of their account data.
pub async fn list_ignored(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<(UserNid, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, content FROM account_data
         WHERE user_nid = ANY($1) AND room_nid = 0 AND type = 'm.ignored_user_list'",
        users
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (UserNid(row.user_nid), row.content))
        .collect())
}
