//! Public keys of local devices and users.

use sqlx::PgConnection;

use super::{Error, Pos, UserNid};

/// Keys of one device: (user, device id, name, JSON as uploaded).
pub type DeviceKeys = (i64, String, Option<String>, String);

/// Sets the identity keys of a device; `false`: they are what they were.
pub async fn upsert(
    conn: &mut PgConnection,
    user: UserNid,
    device: i32,
    body: &str,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO device_key (user_nid, device_no, body) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT device_key_pkey DO UPDATE SET body = EXCLUDED.body
         WHERE device_key.body <> EXCLUDED.body",
        user.0,
        device,
        body
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Identity keys of one device.
pub async fn find(
    conn: &mut PgConnection,
    user: UserNid,
    device: i32,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT body FROM device_key WHERE user_nid = $1 AND device_no = $2",
        user.0,
        device
    )
    .fetch_optional(conn)
    .await?)
}

/// Identity keys of all devices of some users.
pub async fn list(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<DeviceKeys>, Error> {
    let rows = sqlx::query!(
        "SELECT k.user_nid, d.device_id, d.display_name, k.body FROM device_key k
         JOIN device d ON d.user_nid = k.user_nid AND d.device_no = k.device_no
         WHERE k.user_nid = ANY ($1)",
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.user_nid, row.device_id, row.display_name, row.body))
        .collect())
}

/// Adds one-time keys: (algorithm, key id, JSON). Known ids keep what they have; one that was given
/// away may be that of another key, and is never again that of the same.
pub async fn insert_one_time(
    conn: &mut PgConnection,
    user: UserNid,
    device: i32,
    (algorithms, ids, bodies): (&[String], &[String], &[String]),
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO one_time_key (user_nid, device_no, algorithm, key_id, body)
         SELECT $1, $2, w.algorithm, w.id, w.body
         FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS w (algorithm, id, body, ord)
         ORDER BY w.ord
         ON CONFLICT ON CONSTRAINT one_time_key_pkey DO UPDATE SET
           body = EXCLUDED.body, seq = DEFAULT, given_ts = NULL
         WHERE one_time_key.given_ts IS NOT NULL AND one_time_key.body <> EXCLUDED.body",
        user.0,
        device,
        algorithms,
        ids,
        bodies
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which of these one-time keys wait already, with their JSON: (algorithm, key id, JSON).
pub async fn find_one_time(
    conn: &mut PgConnection,
    user: UserNid,
    device: i32,
    ids: &[String],
) -> Result<Vec<(String, String, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT algorithm, key_id, body FROM one_time_key
         WHERE user_nid = $1 AND device_no = $2 AND key_id = ANY ($3) AND given_ts IS NULL",
        user.0,
        device,
        ids
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.algorithm, row.key_id, row.body))
        .collect())
}

/// Sets fallback keys, unused again: (algorithm, key id, JSON).
pub async fn upsert_fallback(
    conn: &mut PgConnection,
    user: UserNid,
    device: i32,
    (algorithms, ids, bodies): (&[String], &[String], &[String]),
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO fallback_key (user_nid, device_no, algorithm, key_id, body)
         SELECT DISTINCT ON (w.algorithm) $1::bigint, $2::int, w.algorithm, w.id, w.body
         FROM unnest($3::text[], $4::text[], $5::text[]) AS w (algorithm, id, body)
         ON CONFLICT ON CONSTRAINT fallback_key_pkey DO UPDATE SET
           key_id = EXCLUDED.key_id, body = EXCLUDED.body, used = false",
        user.0,
        device,
        algorithms,
        ids,
        bodies
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many one-time keys of each algorithm wait.
pub async fn count_one_time(
    conn: &mut PgConnection,
    user: UserNid,
    device: i32,
) -> Result<Vec<(String, i64)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT algorithm, count(*) AS "n!" FROM one_time_key
           WHERE user_nid = $1 AND device_no = $2 AND given_ts IS NULL GROUP BY algorithm"#,
        user.0,
        device
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.algorithm, row.n)).collect())
}

/// Algorithms of which a fallback key waits unused.
pub async fn list_unused_fallback(
    conn: &mut PgConnection,
    user: UserNid,
    device: i32,
) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT algorithm FROM fallback_key
         WHERE user_nid = $1 AND device_no = $2 AND NOT used ORDER BY algorithm",
        user.0,
        device
    )
    .fetch_all(conn)
    .await?)
}

/// Takes the oldest one-time key of each wish (user, device id, algorithm), each given to nobody
/// else; where there is none, the fallback key. Returns (user, device id, algorithm:id, JSON).
pub async fn claim(
    conn: &mut PgConnection,
    (users, devices, algorithms): (&[i64], &[String], &[String]),
    now: i64,
) -> Result<Vec<(i64, String, String, String)>, Error> {
    let rows = sqlx::query!(
        r#"WITH wish AS (
             SELECT DISTINCT w.usr, d.device_no, d.device_id, w.algorithm
             FROM unnest($1::bigint[], $2::text[], $3::text[]) AS w (usr, device, algorithm)
             JOIN device d ON d.user_nid = w.usr AND d.device_id = w.device
           ), picked AS (
             SELECT wish.usr, wish.device_no, wish.device_id, wish.algorithm, k.key_id
             FROM wish CROSS JOIN LATERAL (
               SELECT o.key_id FROM one_time_key o
               WHERE o.user_nid = wish.usr AND o.device_no = wish.device_no
                 AND o.algorithm = wish.algorithm AND o.given_ts IS NULL
               ORDER BY o.seq LIMIT 1 FOR UPDATE SKIP LOCKED) k
           ), taken AS (
             UPDATE one_time_key o SET given_ts = $4 FROM picked p
             WHERE o.user_nid = p.usr AND o.device_no = p.device_no
               AND o.algorithm = p.algorithm AND o.key_id = p.key_id
             RETURNING o.user_nid, o.device_no, o.algorithm, o.key_id, o.body
           ), fallback AS (
             UPDATE fallback_key f SET used = true FROM wish
             WHERE f.user_nid = wish.usr AND f.device_no = wish.device_no
               AND f.algorithm = wish.algorithm
               AND NOT EXISTS (SELECT 1 FROM taken t WHERE t.user_nid = wish.usr
                 AND t.device_no = wish.device_no AND t.algorithm = wish.algorithm)
             RETURNING f.user_nid, f.device_no, f.algorithm, f.key_id, f.body
           )
           SELECT g.user_nid AS "user_nid!", w.device_id AS "device_id!",
             g.algorithm || ':' || g.key_id AS "key!", g.body AS "body!"
           FROM (SELECT * FROM taken UNION ALL SELECT * FROM fallback) g
           JOIN wish w ON w.usr = g.user_nid AND w.device_no = g.device_no
             AND w.algorithm = g.algorithm"#,
        users,
        devices,
        algorithms,
        now
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.user_nid, row.device_id, row.key, row.body))
        .collect())
}

/// Sets a cross-signing key; signatures on an older one go.
pub async fn upsert_cross_signing(
    conn: &mut PgConnection,
    user: UserNid,
    kind: &str,
    body: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO cross_signing_key (user_nid, kind, body) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT cross_signing_key_pkey DO UPDATE SET body = EXCLUDED.body",
        user.0,
        kind,
        body
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Cross-signing keys of some users: (user, kind, JSON).
pub async fn list_cross_signing(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<(i64, String, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, kind, body FROM cross_signing_key WHERE user_nid = ANY ($1)",
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.user_nid, row.kind, row.body)).collect())
}

/// Adds signatures of one user to keys: (owner, target, key id, signature).
pub async fn upsert_signatures(
    conn: &mut PgConnection,
    signer: UserNid,
    signatures: &[(i64, String, String, String)],
) -> Result<(), Error> {
    let owners: Vec<i64> = signatures.iter().map(|(owner, ..)| *owner).collect();
    let targets: Vec<String> = signatures.iter().map(|(_, it, ..)| it.clone()).collect();
    let key_ids: Vec<String> = signatures.iter().map(|(.., it, _)| it.clone()).collect();
    let values: Vec<String> = signatures.iter().map(|(.., it)| it.clone()).collect();
    sqlx::query!(
        "INSERT INTO key_signature (user_nid, target, signer_nid, key_id, signature)
         SELECT DISTINCT ON (w.owner, w.target, w.key_id)
           w.owner, w.target, $1::bigint, w.key_id, w.signature
         FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[])
           AS w (owner, target, key_id, signature)
         ON CONFLICT ON CONSTRAINT key_signature_pkey DO UPDATE SET signature = EXCLUDED.signature",
        signer.0,
        &owners,
        &targets,
        &key_ids,
        &values
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes where the signer of keys of some users is told of that.
pub async fn update_signature_positions(
    conn: &mut PgConnection,
    signer: UserNid,
    owners: &[i64],
    pos: Pos,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE key_signature SET pos = $3 WHERE signer_nid = $1 AND user_nid = ANY ($2)",
        signer.0,
        owners,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Added signatures on keys of some users that a reader may see (its own and the owners'):
/// (owner, target, signer, key id, signature).
pub async fn list_signatures(
    conn: &mut PgConnection,
    users: &[i64],
    reader: i64,
) -> Result<Vec<(i64, String, i64, String, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, target, signer_nid, key_id, signature FROM key_signature
         WHERE user_nid = ANY ($1) AND (signer_nid = user_nid OR signer_nid = $2)",
        users,
        reader
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| {
            (
                row.user_nid,
                row.target,
                row.signer_nid,
                row.key_id,
                row.signature,
            )
        })
        .collect())
}

/// Removes all keys of devices.
pub async fn delete(conn: &mut PgConnection, user: UserNid, devices: &[i32]) -> Result<(), Error> {
    sqlx::query!(
        "WITH a AS (DELETE FROM device_key WHERE user_nid = $1 AND device_no = ANY ($2)),
           b AS (DELETE FROM one_time_key WHERE user_nid = $1 AND device_no = ANY ($2)),
           c AS (DELETE FROM dehydrated_device WHERE user_nid = $1 AND device_no = ANY ($2))
         DELETE FROM fallback_key WHERE user_nid = $1 AND device_no = ANY ($2)",
        user.0,
        devices
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets one-time keys that were given before `ts`; returns how many.
pub async fn delete_given(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM one_time_key WHERE (user_nid, device_no, algorithm, key_id) IN
           (SELECT user_nid, device_no, algorithm, key_id FROM one_time_key
            WHERE given_ts < $1 LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Removes signatures that were added to keys of a user.
pub async fn delete_signatures(
    conn: &mut PgConnection,
    user: UserNid,
    targets: &[String],
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM key_signature WHERE user_nid = $1 AND target = ANY ($2)",
        user.0,
        targets
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes the cross-signing keys of a user, and all signatures on and by them.
pub async fn delete_cross_signing(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!(
        "WITH a AS (DELETE FROM cross_signing_key WHERE user_nid = $1)
         DELETE FROM key_signature WHERE user_nid = $1 OR signer_nid = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keys of an algorithm that wait in a device.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Owner.
    pub user_nid: i64,
    /// Device.
    pub device_id: String,
    /// Algorithm; `None`: there are no keys.
    pub algorithm: Option<String>,
    /// How many.
    pub count: i64,
    /// One-time keys, or else a fallback key that was not used.
    pub is_one_time: bool,
}

/// Keys that wait in the devices of users.
pub async fn list_waiting(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<Waiting>, Error> {
    let rows = sqlx::query!(
        r#"SELECT d.user_nid AS "user_nid!", d.device_id AS "device_id!", k.algorithm AS "algorithm?", count(k.algorithm) AS "n!", true AS "one_time!"
           FROM device d
           LEFT JOIN one_time_key k ON k.user_nid = d.user_nid AND k.device_no = d.device_no
             AND k.given_ts IS NULL
           WHERE d.user_nid = ANY ($1)
           GROUP BY 1, 2, 3
           UNION ALL
           SELECT d.user_nid, d.device_id, f.algorithm, 0, false
           FROM device d
           LEFT JOIN fallback_key f
             ON f.user_nid = d.user_nid AND f.device_no = d.device_no AND NOT f.used
           WHERE d.user_nid = ANY ($1)"#,
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| Waiting {
            user_nid: row.user_nid,
            device_id: row.device_id,
            algorithm: row.algorithm,
            count: row.n,
            is_one_time: row.one_time,
        })
        .collect())
}
