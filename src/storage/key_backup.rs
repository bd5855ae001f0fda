//! Key backups.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// Keys in one answer.
const KEYS_MAX: i64 = 200_000;

/// A backup.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Number.
    pub version: i64,
    /// Algorithm.
    pub algorithm: String,
    /// JSON of the client.
    pub auth_data: String,
    /// Goes up with every change.
    pub etag: i64,
    /// Keys in it.
    pub count: i64,
}

/// A key in a backup.
#[derive(Clone, Debug)]
pub struct Key {
    /// Room.
    pub room_id: String,
    /// Megolm session.
    pub session_id: String,
    /// First message that it decrypts.
    pub first_index: i64,
    /// How often it was forwarded.
    pub forwarded: i64,
    /// From a verified device.
    pub verified: bool,
    /// JSON of the client.
    pub data: String,
}

/// Which keys: all, of a room, or one session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Which<'a> {
    /// Room; `None`: all.
    pub room: Option<&'a str>,
    /// Session; `None`: all.
    pub session: Option<&'a str>,
}

/// Makes a version and returns its number.
pub async fn insert(
    conn: &mut PgConnection,
    user: UserNid,
    algorithm: &str,
    auth_data: &str,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO backup (user_nid, version, algorithm, auth_data)
         SELECT $1, COALESCE(max(version), 0) + 1, $2, $3 FROM backup WHERE user_nid = $1
         RETURNING version",
        user.0,
        algorithm,
        auth_data
    )
    .fetch_one(conn)
    .await?)
}

/// A version, or the newest (`None`); deleted ones do not count.
pub async fn find(
    conn: &mut PgConnection,
    user: UserNid,
    version: Option<i64>,
) -> Result<Option<Backup>, Error> {
    Ok(sqlx::query_as!(
        Backup,
        r#"SELECT b.version, b.algorithm, b.auth_data, b.etag,
             (SELECT count(*) FROM backup_key k
              WHERE k.user_nid = b.user_nid AND k.version = b.version) AS "count!"
           FROM backup b
           WHERE b.user_nid = $1 AND NOT b.deleted AND ($2::bigint IS NULL OR b.version = $2)
           ORDER BY b.version DESC LIMIT 1"#,
        user.0,
        version
    )
    .fetch_optional(conn)
    .await?)
}

/// Keeps others from changing a user's backups until the transaction ends.
pub async fn lock(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!(
        "SELECT user_nid FROM account WHERE user_nid = $1 FOR UPDATE",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Sets what the client says about a version.
pub async fn update(
    conn: &mut PgConnection,
    (user, version): (UserNid, i64),
    auth_data: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE backup SET auth_data = $3 WHERE user_nid = $1 AND version = $2",
        user.0,
        version,
        auth_data
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes a version with its keys.
pub async fn delete(conn: &mut PgConnection, user: UserNid, version: i64) -> Result<(), Error> {
    sqlx::query!(
        "WITH k AS (DELETE FROM backup_key WHERE user_nid = $1 AND version = $2)
         UPDATE backup SET deleted = true WHERE user_nid = $1 AND version = $2",
        user.0,
        version
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes all versions of a user with their keys.
pub async fn delete_all(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!(
        "WITH k AS (DELETE FROM backup_key WHERE user_nid = $1)
         DELETE FROM backup WHERE user_nid = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds keys; one that is there already gives way to a better one only. Returns how many changed.
pub async fn upsert_keys(
    conn: &mut PgConnection,
    (user, version): (UserNid, i64),
    keys: &[Key],
) -> Result<u64, Error> {
    let rooms: Vec<String> = keys.iter().map(|key| key.room_id.clone()).collect();
    let sessions: Vec<String> = keys.iter().map(|key| key.session_id.clone()).collect();
    let indices: Vec<i64> = keys.iter().map(|key| key.first_index).collect();
    let forwarded: Vec<i64> = keys.iter().map(|key| key.forwarded).collect();
    let verified: Vec<bool> = keys.iter().map(|key| key.verified).collect();
    let data: Vec<String> = keys.iter().map(|key| key.data.clone()).collect();
    let done = sqlx::query!(
        "INSERT INTO backup_key AS b
           (user_nid, version, room_id, session_id, first_index, forwarded, verified, data)
         SELECT $1, $2, w.* FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[],
           $7::boolean[], $8::text[]) AS w
         ON CONFLICT ON CONSTRAINT backup_key_pkey DO UPDATE SET
           first_index = EXCLUDED.first_index, forwarded = EXCLUDED.forwarded,
           verified = EXCLUDED.verified, data = EXCLUDED.data
         WHERE (EXCLUDED.verified, -EXCLUDED.first_index, -EXCLUDED.forwarded)
             > (b.verified, -b.first_index, -b.forwarded)",
        user.0,
        version,
        &rooms,
        &sessions,
        &indices,
        &forwarded,
        &verified,
        &data
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Keys of a version.
pub async fn list_keys(
    conn: &mut PgConnection,
    (user, version): (UserNid, i64),
    which: Which<'_>,
) -> Result<Vec<Key>, Error> {
    Ok(sqlx::query_as!(
        Key,
        "SELECT room_id, session_id, first_index, forwarded, verified, data FROM backup_key
         WHERE user_nid = $1 AND version = $2 AND ($3::text IS NULL OR room_id = $3)
           AND ($4::text IS NULL OR session_id = $4)
         ORDER BY room_id, session_id LIMIT $5",
        user.0,
        version,
        which.room,
        which.session,
        KEYS_MAX
    )
    .fetch_all(conn)
    .await?)
}

/// Deletes keys of a version; returns how many.
pub async fn delete_keys(
    conn: &mut PgConnection,
    (user, version): (UserNid, i64),
    which: Which<'_>,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM backup_key
         WHERE user_nid = $1 AND version = $2 AND ($3::text IS NULL OR room_id = $3)
           AND ($4::text IS NULL OR session_id = $4)",
        user.0,
        version,
        which.room,
        which.session
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that the keys of a version changed.
pub async fn touch(conn: &mut PgConnection, user: UserNid, version: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE backup SET etag = etag + 1 WHERE user_nid = $1 AND version = $2",
        user.0,
        version
    )
    .execute(conn)
    .await?;
    Ok(())
}
