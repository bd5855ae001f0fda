//! Locks between nodes: which of them does work that one is enough for.

use sqlx::PgConnection;

use super::Error;

/// Takes a lock of a class until the connection ends or [`unlock`] is called; `false`: somebody has
/// it. Two things that share a key take turns, no more.
pub async fn try_lock(conn: &mut PgConnection, class: i32, key: i32) -> Result<bool, Error> {
    let locked = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_lock($1, $2) AS "locked!""#,
        class,
        key
    );
    Ok(locked.fetch_one(conn).await?)
}

/// Gives back what [`try_lock`] got.
pub async fn unlock(conn: &mut PgConnection, class: i32, key: i32) -> Result<(), Error> {
    sqlx::query_scalar!("SELECT pg_advisory_unlock($1, $2)", class, key)
        .fetch_one(conn)
        .await?;
    Ok(())
}
