//! Media as administrators see them: withdrawn, protected, listed, deleted.

use sqlx::PgConnection;

use super::{
    Error, ServerNid, UserNid,
    media::{Media, Row},
};

/// Withdraws media, and all others with the same bytes; protected ones stay. Media of peers that
/// are not here are withdrawn before they come. Returns how many there were.
pub async fn insert(
    conn: &mut PgConnection,
    (servers, media_ids): (&[i32], &[String]),
    own: ServerNid,
    by: UserNid,
    now: i64,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"WITH asked AS (
             SELECT DISTINCT server_nid, media_id
             FROM unnest($1::int[], $2::text[]) AS a(server_nid, media_id)),
           placed AS (
             INSERT INTO media (server_nid, media_id, created_ts, last_access_ts, quarantined_by)
             SELECT server_nid, media_id, $5, $5, $4 FROM asked WHERE server_nid <> $3
             ON CONFLICT ON CONSTRAINT media_id_key DO NOTHING
             RETURNING media_nid),
           seed AS (
             SELECT m.media_nid, m.sha256 FROM media m JOIN asked USING (server_nid, media_id)
             WHERE NOT m.protected),
           done AS (
             UPDATE media SET quarantined_by = $4
             WHERE quarantined_by IS NULL AND NOT protected AND media_nid IN (
               SELECT media_nid FROM seed
               UNION SELECT m.media_nid FROM media m JOIN seed s ON m.sha256 = s.sha256)
             RETURNING media_nid)
           SELECT (SELECT count(*) FROM placed) + (SELECT count(*) FROM done) AS "n!""#,
        servers,
        media_ids,
        own.0,
        by.0,
        now
    )
    .fetch_one(conn)
    .await?)
}

/// Withdraws what a user uploaded, and all others with the same bytes; protected ones stay.
pub async fn insert_of_user(
    conn: &mut PgConnection,
    user: UserNid,
    by: UserNid,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "WITH seed AS (
           SELECT media_nid, sha256 FROM media
           WHERE user_nid = $1 AND blob IS NOT NULL AND NOT protected)
         UPDATE media SET quarantined_by = $2
         WHERE quarantined_by IS NULL AND NOT protected AND media_nid IN (
           SELECT media_nid FROM seed
           UNION SELECT m.media_nid FROM media m JOIN seed s ON m.sha256 = s.sha256)",
        user.0,
        by.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Serves a medium again, and all others with the same bytes. Whether there is such a medium.
pub async fn delete(conn: &mut PgConnection, nid: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE media SET quarantined_by = NULL
         WHERE quarantined_by IS NOT NULL AND blob IS NOT NULL AND media_nid IN (
           SELECT $1 UNION SELECT m.media_nid FROM media m JOIN media s ON m.sha256 = s.sha256
           WHERE s.media_nid = $1)",
        nid
    )
    .execute(&mut *conn)
    .await?;
    // What has no file was never here, or was deleted: it may come again.
    sqlx::query!(
        "DELETE FROM media WHERE media_nid = $1 AND quarantined_by IS NOT NULL AND blob IS NULL",
        nid
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Protects a medium from being withdrawn, or no more.
pub async fn update_protected(
    conn: &mut PgConnection,
    nid: i64,
    protected: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE media SET protected = $2 WHERE media_nid = $1",
        nid,
        protected
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Uploads of a user, newest first, and how many there are in all.
pub async fn list_of_user(
    conn: &mut PgConnection,
    user: UserNid,
    (from, limit): (i64, i64),
) -> Result<(Vec<Media>, i64), Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT media_nid, server_nid, media_id, user_nid, blob, size, sha256, content_type,
           file_name, created_ts, expires_ts, last_access_ts, quarantined_by, protected
         FROM media WHERE user_nid = $1 AND blob IS NOT NULL
         ORDER BY created_ts DESC, media_nid DESC LIMIT $2 OFFSET $3",
        user.0,
        limit,
        from
    )
    .fetch_all(&mut *conn)
    .await?;
    let total = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM media WHERE user_nid = $1 AND blob IS NOT NULL"#,
        user.0
    )
    .fetch_one(conn)
    .await?;
    Ok((rows.into_iter().map(Media::from).collect(), total))
}

/// What is withdrawn, newest first, and how much there is in all.
pub async fn list(
    conn: &mut PgConnection,
    (from, limit): (i64, i64),
) -> Result<(Vec<Media>, i64), Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT media_nid, server_nid, media_id, user_nid, blob, size, sha256, content_type,
           file_name, created_ts, expires_ts, last_access_ts, quarantined_by, protected
         FROM media WHERE quarantined_by IS NOT NULL
         ORDER BY media_nid DESC LIMIT $1 OFFSET $2",
        limit,
        from
    )
    .fetch_all(&mut *conn)
    .await?;
    let total = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM media WHERE quarantined_by IS NOT NULL"#
    )
    .fetch_one(conn)
    .await?;
    Ok((rows.into_iter().map(Media::from).collect(), total))
}

/// Copies of media of peers that nobody has looked at since before then.
pub async fn list_copies(
    conn: &mut PgConnection,
    own: ServerNid,
    before: i64,
    limit: i64,
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT media_nid FROM media
         WHERE last_access_ts < $2 AND server_nid <> $1 AND quarantined_by IS NULL
         ORDER BY last_access_ts LIMIT $3",
        own.0,
        before,
        limit
    )
    .fetch_all(conn)
    .await?)
}
