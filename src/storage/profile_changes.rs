//! Changes of profiles of local users.

use serde_json::Value;
use sqlx::PgConnection;

use super::{Error, Pos, UserNid};

/// A field of a profile: user, name, value (`None`: there is none).
pub type Field = (UserNid, String, Option<Value>);

/// Notes that a field was set or removed at a position.
pub async fn upsert(
    conn: &mut PgConnection,
    user: UserNid,
    field: &str,
    pos: Pos,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO profile_change AS c (user_nid, field, pos) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT profile_change_pkey
           DO UPDATE SET pos = greatest(c.pos, EXCLUDED.pos)",
        user.0,
        field,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Fields that changed in `(since, upto]` of the profiles of a user and of those of ours with whom
/// the user shares a room, the newest first. `fields`: which; `None`: any.
pub async fn list(
    conn: &mut PgConnection,
    user: UserNid,
    (since, upto): (Pos, Pos),
    fields: Option<&[String]>,
    limit: i64,
) -> Result<Vec<Field>, Error> {
    let rows = sqlx::query!(
        r#"SELECT c.user_nid, c.field, p.body -> c.field AS "value?"
           FROM profile_change c
           LEFT JOIN profile p ON p.user_nid = c.user_nid
           WHERE c.pos > $2 AND c.pos <= $3 AND ($4::text[] IS NULL OR c.field = ANY ($4))
             AND (c.user_nid = $1 OR EXISTS (
               SELECT 1 FROM user_room mine
               JOIN user_room theirs ON theirs.room_nid = mine.room_nid
               WHERE mine.user_nid = $1 AND mine.membership = 1
                 AND theirs.user_nid = c.user_nid AND theirs.membership = 1))
           ORDER BY c.pos DESC
           LIMIT $5"#,
        user.0,
        since,
        upto,
        fields,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (UserNid(row.user_nid), row.field, row.value))
        .collect())
}

/// Fields of the profiles of users of ours in some rooms.
pub async fn list_in_rooms(
    conn: &mut PgConnection,
    rooms: &[i64],
    fields: Option<&[String]>,
    limit: i64,
) -> Result<Vec<Field>, Error> {
    let rows = sqlx::query!(
        r#"SELECT p.user_nid, f.key AS "field!", f.value AS "value!"
           FROM profile p
           CROSS JOIN LATERAL jsonb_each(p.body) AS f (key, value)
           WHERE p.user_nid IN (
             SELECT u.user_nid FROM user_room u WHERE u.room_nid = ANY ($1) AND u.membership = 1)
             AND ($2::text[] IS NULL OR f.key = ANY ($2))
           LIMIT $3"#,
        rooms,
        fields,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (UserNid(row.user_nid), row.field, Some(row.value)))
        .collect())
}
