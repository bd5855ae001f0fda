//! Which media are used, and how much of them users have.

use sqlx::PgConnection;

use super::{Error, ServerNid};

/// Uploads that administrators want gone.
#[derive(Clone, Copy, Debug)]
pub struct Old {
    /// Nobody has looked at them since then, in milliseconds.
    pub before: i64,
    /// They are larger, in bytes.
    pub larger_than: i64,
    /// Pictures of users and rooms stay.
    pub keeps_pictures: bool,
}

/// Uploads to us that are like that, by number and id. What is withdrawn or protected stays. Pictures of
/// rooms are those of their summaries, which have to be up to date.
pub async fn list_old(
    conn: &mut PgConnection,
    (own, own_name): (ServerNid, &str),
    old: Old,
    limit: i64,
) -> Result<Vec<(i64, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT media_nid, media_id FROM media m
         WHERE server_nid = $1 AND blob IS NOT NULL AND quarantined_by IS NULL AND NOT protected
           AND last_access_ts < $3 AND size > $4
           AND NOT ($5 AND (
             'mxc://' || $2::text || '/' || media_id IN (
               SELECT body->>'avatar_url' FROM profile WHERE body->>'avatar_url' IS NOT NULL)
             OR 'mxc://' || $2 || '/' || media_id IN (
               SELECT avatar_url FROM room_summary WHERE avatar_url IS NOT NULL)
             OR 'mxc://' || $2 || '/' || media_id IN (
               SELECT avatar_url FROM user_directory WHERE avatar_url IS NOT NULL)))
         ORDER BY media_nid LIMIT $6",
        own.0,
        own_name,
        old.before,
        old.larger_than,
        old.keeps_pictures,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.media_nid, row.media_id)).collect())
}

/// What uploads of a user take.
#[derive(Clone, Debug)]
pub struct Use {
    /// User id.
    pub user_id: String,
    /// What the user is called.
    pub display_name: Option<String>,
    /// Number of uploads.
    pub count: i64,
    /// Their bytes.
    pub bytes: i64,
}

/// Which users, and in which order.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// `user_id`, `displayname`, `media_length` or `media_count`.
    pub order_by: &'a str,
    /// Small to large.
    pub ascending: bool,
    /// Uploads from then on, in milliseconds.
    pub from_ts: i64,
    /// Uploads until then.
    pub until_ts: i64,
    /// Part of id or name.
    pub search: Option<&'a str>,
    /// Users left out at the beginning.
    pub offset: i64,
    /// Users at most.
    pub limit: i64,
}

/// Users with what their uploads take, and how many users there are in all.
pub async fn list_users(
    conn: &mut PgConnection,
    query: Query<'_>,
) -> Result<(Vec<Use>, i64), Error> {
    let rows = sqlx::query!(
        r#"WITH used AS (
             SELECT user_nid, count(*) AS files, sum(size)::bigint AS bytes FROM media
             WHERE user_nid IS NOT NULL AND blob IS NOT NULL AND created_ts BETWEEN $1 AND $2
             GROUP BY user_nid),
           named AS (
             SELECT u.mxid, p.body->>'displayname' AS name, used.files, used.bytes
             FROM used
             JOIN mx_user u ON u.user_nid = used.user_nid
             LEFT JOIN profile p ON p.user_nid = used.user_nid),
           fitting AS (
             SELECT *, count(*) OVER () AS total,
               CASE $4::text WHEN 'user_id' THEN mxid WHEN 'displayname' THEN name END
                 COLLATE "C" AS by_text,
               CASE $4 WHEN 'media_length' THEN bytes WHEN 'media_count' THEN files END AS by_number
             FROM named
             WHERE $3::text IS NULL OR position(lower($3) IN lower(mxid)) > 0
               OR position(lower($3) IN lower(name)) > 0)
           SELECT mxid AS "mxid!", name AS "name?", files AS "files!", bytes AS "bytes!",
             total AS "total!"
           FROM fitting
           ORDER BY CASE WHEN $5 THEN by_text END, CASE WHEN $5 THEN by_number END,
             CASE WHEN NOT $5 THEN by_text END DESC, CASE WHEN NOT $5 THEN by_number END DESC,
             mxid
           OFFSET $6 LIMIT $7"#,
        query.from_ts,
        query.until_ts,
        query.search,
        query.order_by,
        query.ascending,
        query.offset,
        query.limit
    )
    .fetch_all(conn)
    .await?;
    let total = rows.first().map_or(0, |row| row.total);
    let users = rows.into_iter().map(|row| Use {
        user_id: row.mxid,
        display_name: row.name,
        count: row.files,
        bytes: row.bytes,
    });
    Ok((users.collect(), total))
}
