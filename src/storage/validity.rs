//! Accounts that end unless they are renewed.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// Counts from now on for accounts that were not counted so far: from their first day, yet a part of
/// the period at least is left, drawn at random, so that not all of them end on one day. Times in
/// milliseconds. How many there were.
pub async fn begin(
    conn: &mut PgConnection,
    now: i64,
    (period_ms, spread_ms): (i64, i64),
    limit: i64,
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "UPDATE account SET valid_until_ts = GREATEST(created_ts + $2::bigint,
           $1::bigint + $2 - floor(random() * $3::bigint)::bigint)
         WHERE user_nid IN (
           SELECT user_nid FROM account
           WHERE valid_until_ts IS NULL AND NOT deactivated AND NOT guest
             AND COALESCE(user_type, '') NOT IN ('bot', 'support')
           LIMIT $4 FOR UPDATE SKIP LOCKED)",
        now,
        period_ms,
        spread_ms,
        limit
    );
    Ok(done.execute(conn).await?.rows_affected())
}

/// Takes an account that ends before a time, has an address, and was not mailed to; it counts as
/// mailed to from now on. Returns when it ends as well.
pub async fn claim(
    conn: &mut PgConnection,
    before: i64,
    token_hash: &[u8],
) -> Result<Option<(UserNid, i64)>, Error> {
    let row = sqlx::query!(
        r#"UPDATE account SET renewal_mailed = true, renewal_token_hash = $2
           WHERE user_nid IN (
             SELECT user_nid FROM account a
             WHERE valid_until_ts < $1 AND NOT renewal_mailed AND NOT deactivated
               AND EXISTS (SELECT 1 FROM threepid t WHERE t.user_nid = a.user_nid)
             ORDER BY valid_until_ts LIMIT 1 FOR UPDATE SKIP LOCKED)
           RETURNING user_nid, valid_until_ts AS "until!""#,
        before,
        token_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (UserNid(row.user_nid), row.until)))
}

/// Gives an account back that no mail could be sent to.
pub async fn unclaim(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET renewal_mailed = false WHERE user_nid = $1",
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes the token of a new mail; those of older ones are good no more.
pub async fn update_token(
    conn: &mut PgConnection,
    user: UserNid,
    token_hash: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET renewal_token_hash = $2, renewal_mailed = true WHERE user_nid = $1",
        user.0,
        token_hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Uses a token up and sets the new end; whose it was.
pub async fn renew(
    conn: &mut PgConnection,
    token_hash: &[u8],
    until: i64,
) -> Result<Option<UserNid>, Error> {
    let user = sqlx::query_scalar!(
        "UPDATE account SET valid_until_ts = $2, renewal_token_hash = NULL, renewal_mailed = false
         WHERE renewal_token_hash = $1 AND NOT deactivated RETURNING user_nid",
        token_hash,
        until
    );
    Ok(user.fetch_optional(conn).await?.map(UserNid))
}

/// Sets the end of an account, and whether it is mailed when it comes near.
pub async fn update_until(
    conn: &mut PgConnection,
    user: UserNid,
    until: i64,
    is_mailed: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account
         SET valid_until_ts = $2, renewal_token_hash = NULL, renewal_mailed = NOT $3
         WHERE user_nid = $1",
        user.0,
        until,
        is_mailed
    )
    .execute(conn)
    .await?;
    Ok(())
}
