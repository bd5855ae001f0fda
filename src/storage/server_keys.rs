//! Signing keys of peers.

use ruma::ServerName;
use sqlx::PgConnection;

use super::Error;

/// A key of a peer.
#[derive(Clone, Debug)]
pub struct ServerKey {
    /// `ed25519:VERSION`.
    pub key_id: String,
    /// 32 bytes.
    pub public_key: Vec<u8>,
    /// Until when new signatures by it are good.
    pub valid_until_ts: i64,
    /// When it went out of use.
    pub expired_ts: Option<i64>,
    /// When we saw it last.
    pub fetched_ts: i64,
}

impl ServerKey {
    /// Whether signatures made now can be checked with it without asking its owner again.
    pub fn is_usable(&self, now: i64) -> bool {
        self.expired_ts.is_some() || self.valid_until_ts > now
    }

    /// Whether what it signed at a time counts (room versions from 5 on).
    pub fn was_good_at(&self, ts: i64) -> bool {
        self.expired_ts.unwrap_or(self.valid_until_ts) >= ts
    }
}

/// Keys of a server.
pub async fn list(conn: &mut PgConnection, server: &ServerName) -> Result<Vec<ServerKey>, Error> {
    Ok(sqlx::query_as!(
        ServerKey,
        "SELECT key_id, public_key, valid_until_ts, expired_ts, fetched_ts
         FROM server_key WHERE server_name = $1",
        server.as_str()
    )
    .fetch_all(conn)
    .await?)
}

/// Stores keys that were verified.
pub async fn upsert(
    conn: &mut PgConnection,
    server: &ServerName,
    keys: &[ServerKey],
) -> Result<(), Error> {
    let ids: Vec<String> = keys.iter().map(|key| key.key_id.clone()).collect();
    let publics: Vec<Vec<u8>> = keys.iter().map(|key| key.public_key.clone()).collect();
    let valid: Vec<i64> = keys.iter().map(|key| key.valid_until_ts).collect();
    let expired: Vec<Option<i64>> = keys.iter().map(|key| key.expired_ts).collect();
    let fetched: Vec<i64> = keys.iter().map(|key| key.fetched_ts).collect();
    sqlx::query!(
        "INSERT INTO server_key
           (server_name, key_id, public_key, valid_until_ts, expired_ts, fetched_ts)
         SELECT $1, * FROM unnest($2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[])
         ON CONFLICT ON CONSTRAINT server_key_pkey DO UPDATE SET
           valid_until_ts = GREATEST(server_key.valid_until_ts, EXCLUDED.valid_until_ts),
           expired_ts = EXCLUDED.expired_ts, fetched_ts = EXCLUDED.fetched_ts
         WHERE server_key.public_key = EXCLUDED.public_key",
        server.as_str(),
        &ids,
        &publics,
        &valid,
        &expired as &[Option<i64>],
        &fetched
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The newest key document of a server, and until when it is good.
pub async fn find_document(
    conn: &mut PgConnection,
    server: &ServerName,
) -> Result<Option<(String, i64)>, Error> {
    let row = sqlx::query!(
        "SELECT body, valid_until_ts FROM key_document WHERE server_name = $1",
        server.as_str()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.body, row.valid_until_ts)))
}

/// Stores a key document that was verified. Times: until when it is good, when it was fetched.
pub async fn upsert_document(
    conn: &mut PgConnection,
    server: &ServerName,
    body: &str,
    (valid_until_ts, fetched_ts): (i64, i64),
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO key_document (server_name, body, valid_until_ts, fetched_ts)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT key_document_pkey DO UPDATE SET
           body = EXCLUDED.body, valid_until_ts = EXCLUDED.valid_until_ts,
           fetched_ts = EXCLUDED.fetched_ts",
        server.as_str(),
        body,
        valid_until_ts,
        fetched_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}
