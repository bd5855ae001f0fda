//! Previews of web pages.

use sqlx::PgConnection;

use super::Error;

/// Hash of a URL and of the languages that it was asked in.
pub type Key = [u8; 32];

/// A preview that is not over.
pub async fn find(conn: &mut PgConnection, key: &Key, now: i64) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT body FROM url_preview WHERE key = $1 AND expires_ts > $2",
        key.as_slice(),
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Keeps a preview, unless there are `most` already: then it is made anew the next time.
pub async fn insert(
    conn: &mut PgConnection,
    key: &Key,
    body: &str,
    expires: i64,
    most: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO url_preview (key, body, expires_ts)
         SELECT $1, $2, $3 WHERE (SELECT count(*) FROM url_preview) < $4
         ON CONFLICT ON CONSTRAINT url_preview_pkey
         DO UPDATE SET body = $2, expires_ts = $3",
        key.as_slice(),
        body,
        expires,
        most
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets previews that are over.
pub async fn delete_expired(conn: &mut PgConnection, now: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM url_preview WHERE key IN
           (SELECT key FROM url_preview WHERE expires_ts <= $1 LIMIT $2)",
        now,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
