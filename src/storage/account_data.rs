//! Account data, tags among it, and stored filters.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// Account data of one type; room 0 for global data.
pub async fn find(
    conn: &mut PgConnection,
    user: UserNid,
    room: i64,
    kind: &str,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT content FROM account_data
         WHERE user_nid = $1 AND room_nid = $2 AND type = $3 AND NOT gone",
        user.0,
        room,
        kind
    )
    .fetch_optional(conn)
    .await?)
}

/// Global account data of some types: (type, content).
pub async fn list_kinds(
    conn: &mut PgConnection,
    user: UserNid,
    kinds: &[String],
) -> Result<Vec<(String, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT type, content FROM account_data
         WHERE user_nid = $1 AND room_nid = 0 AND type = ANY ($2)",
        user.0,
        kinds
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.r#type, row.content)).collect())
}

/// Account data of a room: (type, content).
pub async fn list_of_room(
    conn: &mut PgConnection,
    user: UserNid,
    room: i64,
) -> Result<Vec<(String, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT type, content FROM account_data
         WHERE user_nid = $1 AND room_nid = $2 AND NOT gone",
        user.0,
        room
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.r#type, row.content))
        .collect())
}

/// Sets account data. Log it afterwards, then [`update_pos`].
pub async fn upsert(
    conn: &mut PgConnection,
    user: UserNid,
    room: i64,
    (kind, content): (&str, &str),
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO account_data (user_nid, room_nid, type, content, pos)
         VALUES ($1, $2, $3, $4, 0)
         ON CONFLICT ON CONSTRAINT account_data_pkey
           DO UPDATE SET content = EXCLUDED.content, gone = false",
        user.0,
        room,
        kind,
        content
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes account data of some types; those that there were. What is left of it is for syncs, which
/// tell that it is gone. Log it afterwards, then [`update_pos`].
pub async fn delete(
    conn: &mut PgConnection,
    user: UserNid,
    room: i64,
    kinds: &[String],
) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar!(
        "UPDATE account_data SET content = '{}', gone = true
         WHERE user_nid = $1 AND room_nid = $2 AND type = ANY ($3) AND NOT gone
         RETURNING type",
        user.0,
        room,
        kinds
    )
    .fetch_all(conn)
    .await?)
}

/// Sets the position of a change of some types.
pub async fn update_pos(
    conn: &mut PgConnection,
    user: UserNid,
    room: i64,
    kinds: &[String],
    pos: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account_data SET pos = $4
         WHERE user_nid = $1 AND room_nid = $2 AND type = ANY ($3)",
        user.0,
        room,
        kinds,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Account data of a user that changed in `(since, upto]`: (room or 0, type, content).
/// Push rules are among it, as stored; what was deleted is not in what is told from the beginning.
pub async fn list_since(
    conn: &mut PgConnection,
    user: UserNid,
    since: i64,
    upto: i64,
) -> Result<Vec<(i64, String, String)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT room_nid AS "room_nid!", type AS "type!", content AS "content!"
           FROM (
             SELECT room_nid, type, content, pos FROM account_data
             WHERE user_nid = $1 AND pos > $2 AND pos <= $3 AND ($2 > 0 OR NOT gone)
             UNION ALL
             SELECT 0, 'm.push_rules', body, pos FROM push_rule_set
             WHERE user_nid = $1 AND pos > $2 AND pos <= $3) AS a
           ORDER BY pos"#,
        user.0,
        since,
        upto
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.room_nid, row.r#type, row.content))
        .collect())
}

/// Stores a filter and returns its number; the same filter has one number.
pub async fn insert_filter(
    conn: &mut PgConnection,
    user: UserNid,
    body: &str,
    hash: &[u8],
) -> Result<i32, Error> {
    Ok(sqlx::query_scalar!(
        r#"WITH fresh AS (
             INSERT INTO filter (user_nid, filter_id, body, hash)
             SELECT $1, COALESCE(max(filter_id) + 1, 0), $2, $3 FROM filter WHERE user_nid = $1
             ON CONFLICT ON CONSTRAINT filter_hash_key DO UPDATE SET body = EXCLUDED.body
             RETURNING filter_id)
           SELECT filter_id AS "id!" FROM fresh"#,
        user.0,
        body,
        hash
    )
    .fetch_one(conn)
    .await?)
}

/// A stored filter.
pub async fn find_filter(
    conn: &mut PgConnection,
    user: UserNid,
    id: i32,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT body FROM filter WHERE user_nid = $1 AND filter_id = $2",
        user.0,
        id
    )
    .fetch_optional(conn)
    .await?)
}
