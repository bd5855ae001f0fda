//! Locks between nodes: which of them does work that one is enough for.

use sqlx::PgConnection;

use super::Error;

/// Takes a lock of a class until the connection ends or [`unlock`] is called; `false`: somebody has
/// it. Two things that share a key take turns, no more.
pub async fn try_lock(conn: &mut PgConnection, class: i32, key: i32) -> Result<bool, Error> {
    let taken = try_lock_some(conn, class, &[key], 1).await?;
    Ok(!taken.is_empty())
}

/// Takes a lock of a class that many may have at once, until the connection ends.
pub async fn lock_shared(conn: &mut PgConnection, class: i32) -> Result<(), Error> {
    sqlx::query_scalar!("SELECT pg_advisory_lock_shared($1, 0)", class)
        .fetch_one(conn)
        .await?;
    Ok(())
}

/// How many connections have what [`lock_shared`] gives.
pub async fn count_shared(conn: &mut PgConnection, class: i32) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM pg_locks
           WHERE locktype = 'advisory' AND classid::bigint = $1 AND objsubid = 2 AND granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"#,
        i64::from(class)
    );
    Ok(count.fetch_one(conn).await?)
}

/// Takes up to `limit` of some locks of a class that nobody has; those taken.
pub async fn try_lock_some(
    conn: &mut PgConnection,
    class: i32,
    keys: &[i32],
    limit: u32,
) -> Result<Vec<i32>, Error> {
    // The limit ends the scan before further locks are tried.
    let taken = sqlx::query_scalar!(
        r#"SELECT w.key AS "key!" FROM unnest($2::int[]) AS w (key)
           WHERE pg_try_advisory_lock($1, w.key) LIMIT $3"#,
        class,
        keys,
        i64::from(limit)
    );
    Ok(taken.fetch_all(conn).await?)
}

/// Gives back locks of a class that [`try_lock`] or [`try_lock_some`] got.
pub async fn unlock(conn: &mut PgConnection, class: i32, keys: &[i32]) -> Result<(), Error> {
    sqlx::query_scalar!(
        "SELECT pg_advisory_unlock($1, w.key) FROM unnest($2::int[]) AS w (key)",
        class,
        keys
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}
