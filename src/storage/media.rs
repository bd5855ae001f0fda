//! Media, thumbnails, and files that nobody owns.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, ServerNid, UserNid};

/// A medium.
#[derive(Clone, Debug)]
pub struct Media {
    /// Number.
    pub nid: i64,
    /// Server of its address.
    pub server: ServerNid,
    /// Id of its address.
    pub media_id: String,
    /// Who uploaded it; `None`: a copy from a peer.
    pub user: Option<UserNid>,
    /// File; `None`: not uploaded yet.
    pub blob: Option<Uuid>,
    /// Bytes.
    pub size: i64,
    /// Hash of the bytes.
    pub sha256: Option<Vec<u8>>,
    /// What the uploader called it.
    pub content_type: Option<String>,
    /// Name the uploader gave.
    pub file_name: Option<String>,
    /// When.
    pub created_ts: i64,
    /// Until when it may be uploaded; `None`: it is.
    pub expires_ts: Option<i64>,
    /// Last download.
    pub last_access_ts: i64,
    /// Administrator who withdrew it.
    pub quarantined_by: Option<UserNid>,
    /// Protected from quarantine by room or user.
    pub protected: bool,
}

pub(super) struct Row {
    pub(super) media_nid: i64,
    pub(super) server_nid: i32,
    pub(super) media_id: String,
    pub(super) user_nid: Option<i64>,
    pub(super) blob: Option<Uuid>,
    pub(super) size: i64,
    pub(super) sha256: Option<Vec<u8>>,
    pub(super) content_type: Option<String>,
    pub(super) file_name: Option<String>,
    pub(super) created_ts: i64,
    pub(super) expires_ts: Option<i64>,
    pub(super) last_access_ts: i64,
    pub(super) quarantined_by: Option<i64>,
    pub(super) protected: bool,
}

impl From<Row> for Media {
    fn from(row: Row) -> Self {
        Self {
            nid: row.media_nid,
            server: ServerNid(row.server_nid),
            media_id: row.media_id,
            user: row.user_nid.map(UserNid),
            blob: row.blob,
            size: row.size,
            sha256: row.sha256,
            content_type: row.content_type,
            file_name: row.file_name,
            created_ts: row.created_ts,
            expires_ts: row.expires_ts,
            last_access_ts: row.last_access_ts,
            quarantined_by: row.quarantined_by.map(UserNid),
            protected: row.protected,
        }
    }
}

/// Bytes that are on disk, and what they are called.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// File.
    pub blob: Uuid,
    /// Bytes.
    pub size: i64,
    /// Hash of the bytes.
    pub sha256: &'a [u8],
    /// Content type.
    pub content_type: Option<&'a str>,
    /// File name.
    pub file_name: Option<&'a str>,
    /// Whether it is an image of a preview, which is not kept for long.
    pub is_preview: bool,
}

/// A thumbnail.
#[derive(Clone, Debug)]
pub struct Thumbnail {
    /// File.
    pub blob: Uuid,
    /// Bytes.
    pub size: i64,
    /// Content type.
    pub content_type: String,
}

/// The medium of an address, uploaded or only reserved.
pub async fn find(
    conn: &mut PgConnection,
    server: ServerNid,
    media_id: &str,
) -> Result<Option<Media>, Error> {
    let row = sqlx::query_as!(
        Row,
        "SELECT media_nid, server_nid, media_id, user_nid, blob, size, sha256, content_type,
           file_name, created_ts, expires_ts, last_access_ts, quarantined_by, protected
         FROM media WHERE server_nid = $1 AND media_id = $2",
        server.0,
        media_id
    );
    Ok(row.fetch_optional(conn).await?.map(Media::from))
}

/// Notes a download.
pub async fn update_access(conn: &mut PgConnection, nid: i64, now: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE media SET last_access_ts = $2 WHERE media_nid = $1",
        nid,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores a medium and takes its file from the loose ones. Whether the address was free.
pub async fn insert(
    conn: &mut PgConnection,
    (server, media_id): (ServerNid, &str),
    user: Option<UserNid>,
    content: &Content<'_>,
    now: i64,
) -> Result<bool, Error> {
    let inserted = sqlx::query_scalar!(
        r#"WITH fresh AS (
             INSERT INTO media (server_nid, media_id, user_nid, blob, size, sha256, content_type,
               file_name, created_ts, last_access_ts, quarantined_by, preview_ts)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9,
               (SELECT quarantined_by FROM media
                WHERE sha256 = $6 AND quarantined_by IS NOT NULL LIMIT 1),
               CASE WHEN $10 THEN $9::bigint END)
             ON CONFLICT ON CONSTRAINT media_id_key DO NOTHING
             RETURNING blob),
           owned AS (DELETE FROM media_loose WHERE blob IN (SELECT blob FROM fresh))
           SELECT count(*) AS "n!" FROM fresh"#,
        server.0,
        media_id,
        user.map(|user| user.0),
        content.blob,
        content.size,
        content.sha256,
        content.content_type,
        content.file_name,
        now,
        content.is_preview
    )
    .fetch_one(conn)
    .await?;
    Ok(inserted > 0)
}

/// Reserves an id, unless the user has `most` unused ones already.
pub async fn reserve(
    conn: &mut PgConnection,
    (server, media_id): (ServerNid, &str),
    user: UserNid,
    most: i64,
    (now, expires): (i64, i64),
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO media (server_nid, media_id, user_nid, created_ts, expires_ts, last_access_ts)
         SELECT $1, $2, $3, $5, $6, $5
         WHERE (SELECT count(*) FROM media
                WHERE user_nid = $3 AND blob IS NULL AND expires_ts > $5) < $4",
        server.0,
        media_id,
        user.0,
        most,
        now,
        expires
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Fills a reserved id. Whether it was still empty.
pub async fn update_content(
    conn: &mut PgConnection,
    nid: i64,
    content: &Content<'_>,
    now: i64,
) -> Result<bool, Error> {
    let filled = sqlx::query_scalar!(
        r#"WITH filled AS (
             UPDATE media
             SET blob = $2, size = $3, sha256 = $4, content_type = $5, file_name = $6,
               expires_ts = NULL, last_access_ts = $7, uploaded_ts = $7,
               quarantined_by = (SELECT quarantined_by FROM media
                 WHERE sha256 = $4 AND quarantined_by IS NOT NULL LIMIT 1)
             WHERE media_nid = $1 AND blob IS NULL AND expires_ts > $7
             RETURNING blob),
           owned AS (DELETE FROM media_loose WHERE blob IN (SELECT blob FROM filled))
           SELECT count(*) AS "n!" FROM filled"#,
        nid,
        content.blob,
        content.size,
        content.sha256,
        content.content_type,
        content.file_name,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(filled > 0)
}

/// Bytes that a user's uploads take.
pub async fn usage(conn: &mut PgConnection, user: UserNid) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT COALESCE(sum(size), 0)::bigint AS "bytes!" FROM media WHERE user_nid = $1"#,
        user.0
    )
    .fetch_one(conn)
    .await?)
}

/// Notes a file before it is written, so that it is deleted when nobody comes to own it.
pub async fn insert_loose(conn: &mut PgConnection, blob: Uuid, now: i64) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO media_loose (blob, loose_ts) VALUES ($1, $2)",
        blob,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Files that have been loose since before `before`.
pub async fn list_loose(
    conn: &mut PgConnection,
    before: i64,
    limit: i64,
) -> Result<Vec<Uuid>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT blob FROM media_loose WHERE loose_ts < $1 ORDER BY loose_ts LIMIT $2",
        before,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Forgets loose files that are deleted.
pub async fn delete_loose(conn: &mut PgConnection, blobs: &[Uuid]) -> Result<(), Error> {
    sqlx::query!("DELETE FROM media_loose WHERE blob = ANY($1)", blobs)
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets reserved ids whose time is over.
pub async fn delete_expired(
    conn: &mut PgConnection,
    before: i64,
    limit: i64,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM media WHERE media_nid IN
           (SELECT media_nid FROM media WHERE expires_ts < $1 AND blob IS NULL LIMIT $2)",
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// A thumbnail for a frame.
pub async fn find_thumbnail(
    conn: &mut PgConnection,
    nid: i64,
    (width, height): (i32, i32),
    crop: bool,
) -> Result<Option<Thumbnail>, Error> {
    Ok(sqlx::query_as!(
        Thumbnail,
        "SELECT blob, size, content_type FROM media_thumbnail
         WHERE media_nid = $1 AND width = $2 AND height = $3 AND crop = $4",
        nid,
        width,
        height,
        crop
    )
    .fetch_optional(conn)
    .await?)
}

/// Keeps a thumbnail, unless there is one or the medium is gone meanwhile; then its file stays
/// loose.
pub async fn insert_thumbnail(
    conn: &mut PgConnection,
    nid: i64,
    (width, height): (i32, i32),
    crop: bool,
    thumbnail: &Thumbnail,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH fresh AS (
           INSERT INTO media_thumbnail (media_nid, width, height, crop, blob, size, content_type)
           SELECT media_nid, $2, $3, $4, $5, $6, $7 FROM media WHERE media_nid = $1
           ON CONFLICT ON CONSTRAINT media_thumbnail_pkey DO NOTHING
           RETURNING blob)
         DELETE FROM media_loose WHERE blob IN (SELECT blob FROM fresh)",
        nid,
        width,
        height,
        crop,
        thumbnail.blob,
        thumbnail.size,
        thumbnail.content_type
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets images of previews from before then; their files become loose.
pub async fn delete_previews(
    conn: &mut PgConnection,
    before: i64,
    limit: i64,
) -> Result<u64, Error> {
    let nids = sqlx::query_scalar!(
        "SELECT media_nid FROM media WHERE preview_ts < $1 ORDER BY preview_ts LIMIT $2",
        before,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    delete(conn, &nids).await
}

/// Forgets media and their thumbnails; their files become loose, and are deleted at the next
/// opportunity. What is quarantined keeps its row, without a file: the bytes stay unwelcome.
pub async fn delete(conn: &mut PgConnection, nids: &[i64]) -> Result<u64, Error> {
    let done = sqlx::query_scalar!(
        r#"WITH kept AS (
             SELECT media_nid, blob, quarantined_by FROM media WHERE media_nid = ANY($1)
             ORDER BY media_nid FOR UPDATE),
           thumbnails AS (
             DELETE FROM media_thumbnail WHERE media_nid IN (SELECT media_nid FROM kept)
             RETURNING blob),
           loose AS (
             INSERT INTO media_loose (blob, loose_ts)
             SELECT blob, 0 FROM kept WHERE blob IS NOT NULL
             UNION SELECT blob, 0 FROM thumbnails
             ON CONFLICT ON CONSTRAINT media_loose_pkey DO NOTHING),
           emptied AS (
             UPDATE media SET blob = NULL, size = 0 WHERE media_nid IN
               (SELECT media_nid FROM kept WHERE quarantined_by IS NOT NULL)),
           gone AS (
             DELETE FROM media WHERE media_nid IN
               (SELECT media_nid FROM kept WHERE quarantined_by IS NULL))
           SELECT count(*) AS "n!" FROM kept"#,
        nids
    )
    .fetch_one(conn)
    .await?;
    Ok(done.cast_unsigned())
}
