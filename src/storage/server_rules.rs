//! Servers that administrators allow and deny at run time.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// Entries of both lists together.
pub const ENTRIES_MAX: i64 = 20_000;

/// An entry.
#[derive(Clone, Debug)]
pub struct Row {
    /// `allow` or `deny`.
    pub list: String,
    /// Host or pattern of hosts.
    pub server: String,
    /// Why.
    pub reason: Option<String>,
    /// When it ends; `None`: never.
    pub until_ts: Option<i64>,
    /// When it was made.
    pub since_ts: i64,
}

/// All entries, the denied servers first.
pub async fn list(conn: &mut PgConnection) -> Result<Vec<Row>, Error> {
    Ok(sqlx::query_as!(
        Row,
        "SELECT list, server, reason, until_ts, since_ts FROM server_rule
         ORDER BY list DESC, server LIMIT $1",
        ENTRIES_MAX
    )
    .fetch_all(conn)
    .await?)
}

/// Makes or changes an entry; `false`: there are [`ENTRIES_MAX`] already.
pub async fn upsert(conn: &mut PgConnection, row: &Row, user: UserNid) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO server_rule (list, server, reason, until_ts, user_nid, since_ts)
         SELECT $1, $2, $3, $4, $5, $6
         WHERE EXISTS (SELECT 1 FROM server_rule WHERE list = $1 AND server = $2)
            OR (SELECT count(*) FROM server_rule) < $7
         ON CONFLICT (list, server) DO UPDATE
           SET reason = $3, until_ts = $4, user_nid = $5, since_ts = $6",
        row.list,
        row.server,
        row.reason,
        row.until_ts,
        user.0,
        row.since_ts,
        ENTRIES_MAX
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes an entry; `false`: there was none.
pub async fn delete(conn: &mut PgConnection, list: &str, server: &str) -> Result<bool, Error> {
    let done = sqlx::query!(
        "DELETE FROM server_rule WHERE list = $1 AND server = $2",
        list,
        server
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}
