//! Proofs under way that somebody reads an address.

use sqlx::PgConnection;

use super::Error;

/// A mail that a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What for; see the column.
    pub purpose: i16,
    /// Address.
    pub address: &'a str,
    /// SHA-256 of the client secret.
    pub secret_hash: &'a [u8],
    /// A mail goes out for a greater number only.
    pub attempt: i64,
    /// Where the browser is sent afterwards.
    pub next_link: Option<&'a str>,
}

/// Mails to an address since a time.
pub async fn count_sends(conn: &mut PgConnection, address: &str, since: i64) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(sends), 0)::bigint AS "count!" FROM validation
           WHERE address = $1 AND created_ts > $2"#,
        address,
        since
    );
    Ok(count.fetch_one(conn).await?)
}

/// The session of such a request, where no mail is to go out for it: it is none newer, or the proof
/// is there.
pub async fn find_answered(
    conn: &mut PgConnection,
    asked: Asked<'_>,
    now: i64,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT sid FROM validation
         WHERE address = $1 AND purpose = $2 AND secret_hash = $3 AND expires_ts > $5
           AND (attempt >= $4 OR validated_ts IS NOT NULL)",
        asked.address,
        asked.purpose,
        asked.secret_hash,
        asked.attempt,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Opens a session, or goes on with the one of the same client secret; returns its id. `None`: the same was
/// asked for meanwhile.
pub async fn upsert(
    conn: &mut PgConnection,
    asked: Asked<'_>,
    (sid, token_hash): (&str, &[u8]),
    (now, expires_ts): (i64, i64),
) -> Result<Option<String>, Error> {
    // What is over begins anew, under another id.
    Ok(sqlx::query_scalar!(
        "INSERT INTO validation AS v (sid, purpose, address, secret_hash, token_hash, attempt,
           next_link, created_ts, expires_ts)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT ON CONSTRAINT validation_request_key DO UPDATE SET
           sid = CASE WHEN v.expires_ts > $8 THEN v.sid ELSE EXCLUDED.sid END,
           token_hash = EXCLUDED.token_hash, attempt = EXCLUDED.attempt, sends = v.sends + 1,
           tries = 0, next_link = EXCLUDED.next_link, validated_ts = NULL,
           expires_ts = EXCLUDED.expires_ts
           WHERE v.attempt < EXCLUDED.attempt OR v.expires_ts <= $8
         RETURNING sid",
        sid,
        asked.purpose,
        asked.address,
        asked.secret_hash,
        token_hash,
        asked.attempt,
        asked.next_link,
        now,
        expires_ts
    )
    .fetch_optional(conn)
    .await?)
}

/// Notes that a token came; `None`: it is not the one of the session, or the session is over.
/// Otherwise where the browser is sent, if anywhere. Wrong ones are counted.
pub async fn update_validated(
    conn: &mut PgConnection,
    (sid, token_hash): (&str, &[u8]),
    tries_max: i32,
    (now, expires_ts): (i64, i64),
) -> Result<Option<Option<String>>, Error> {
    let found = sqlx::query_scalar!(
        "UPDATE validation SET validated_ts = coalesce(validated_ts, $4),
           expires_ts = CASE WHEN validated_ts IS NULL THEN $5 ELSE expires_ts END
         WHERE sid = $1 AND token_hash = $2 AND tries < $3 AND expires_ts > $4
         RETURNING next_link",
        sid,
        token_hash,
        tries_max,
        now,
        expires_ts
    )
    .fetch_optional(&mut *conn)
    .await?;
    if found.is_none() {
        sqlx::query!(
            "UPDATE validation SET tries = tries + 1 WHERE sid = $1 AND tries < $2",
            sid,
            tries_max
        )
        .execute(conn)
        .await?;
    }
    Ok(found)
}

/// Uses a proof up; returns the address, and when it was proved. `None`: there is none. The row stays,
/// over, so that its mails go on to count.
pub async fn take(
    conn: &mut PgConnection,
    purpose: i16,
    (sid, secret_hash): (&str, &[u8]),
    now: i64,
) -> Result<Option<(String, i64)>, Error> {
    let row = sqlx::query!(
        r#"UPDATE validation SET expires_ts = 0
           WHERE sid = $1 AND secret_hash = $2 AND purpose = $3 AND expires_ts > $4
             AND validated_ts IS NOT NULL
           RETURNING address, validated_ts AS "validated_ts!""#,
        sid,
        secret_hash,
        purpose,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.address, row.validated_ts)))
}

/// Deletes what was first asked for before a time, and is over; returns how much.
pub async fn delete_before(
    conn: &mut PgConnection,
    (ts, now): (i64, i64),
    limit: i64,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM validation WHERE sid IN (
           SELECT sid FROM validation WHERE created_ts < $1 AND expires_ts <= $2
           ORDER BY created_ts LIMIT $3)",
        ts,
        now,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
