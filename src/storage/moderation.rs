//! Accounts that are locked or suspended, and what users report.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// Locks an account at a time, or (`None`) opens it.
pub async fn update_locked(
    conn: &mut PgConnection,
    user: UserNid,
    ts: Option<i64>,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account
         SET locked_ts = CASE WHEN $2::bigint IS NOT NULL THEN COALESCE(locked_ts, $2) END
         WHERE user_nid = $1",
        user.0,
        ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Suspends an account at a time, or (`None`) lets it act again.
pub async fn update_suspended(
    conn: &mut PgConnection,
    user: UserNid,
    ts: Option<i64>,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account
         SET suspended_ts = CASE WHEN $2::bigint IS NOT NULL THEN COALESCE(suspended_ts, $2) END
         WHERE user_nid = $1",
        user.0,
        ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What is reported, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event.
    Event = 1,
    /// A room.
    Room = 2,
    /// A user.
    User = 3,
}

/// A report.
#[derive(Clone, Debug)]
pub struct Report {
    /// Number; 0 before it is stored.
    pub id: i64,
    /// Who reports.
    pub reporter: UserNid,
    /// The room, or that of the event.
    pub room_id: Option<String>,
    /// The event.
    pub event_id: Option<String>,
    /// The user, or the sender of the event.
    pub user_id: Option<String>,
    /// Why; may be empty.
    pub reason: String,
    /// When.
    pub received_ts: i64,
}

/// Stores a report.
pub async fn insert_report(
    conn: &mut PgConnection,
    kind: Kind,
    report: &Report,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO report (kind, reporter_nid, room_id, event_id, user_id, reason, received_ts)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        kind as i16,
        report.reporter.0,
        report.room_id,
        report.event_id,
        report.user_id,
        report.reason,
        report.received_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which reports are listed.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// How many are left out at the beginning.
    pub from: i64,
    /// How many.
    pub limit: i64,
    /// The oldest first.
    pub oldest_first: bool,
    /// Of that reporter.
    pub reporter: Option<String>,
    /// Of that room.
    pub room_id: Option<String>,
    /// Of that user.
    pub user_id: Option<String>,
}

/// Reports of a kind, and how many there are in all.
pub async fn list_reports(
    conn: &mut PgConnection,
    kind: Kind,
    wanted: &Wanted,
) -> Result<(Vec<Report>, i64), Error> {
    let rows = sqlx::query!(
        r#"SELECT r.report_id, r.reporter_nid, r.room_id, r.event_id, r.user_id, r.reason,
             r.received_ts, count(*) OVER () AS "total!"
           FROM report r
           JOIN mx_user u ON u.user_nid = r.reporter_nid
           WHERE r.kind = $1 AND ($2::text IS NULL OR u.mxid = $2)
             AND ($3::text IS NULL OR r.room_id = $3) AND ($4::text IS NULL OR r.user_id = $4)
           ORDER BY CASE WHEN $5 THEN r.report_id ELSE -r.report_id END
           OFFSET $6 LIMIT $7"#,
        kind as i16,
        wanted.reporter,
        wanted.room_id,
        wanted.user_id,
        wanted.oldest_first,
        wanted.from,
        wanted.limit
    )
    .fetch_all(conn)
    .await?;
    let total = rows.first().map_or(0, |row| row.total);
    let reports = rows.into_iter().map(|row| Report {
        id: row.report_id,
        reporter: UserNid(row.reporter_nid),
        room_id: row.room_id,
        event_id: row.event_id,
        user_id: row.user_id,
        reason: row.reason,
        received_ts: row.received_ts,
    });
    Ok((reports.collect(), total))
}

/// A report of a kind.
pub async fn find_report(
    conn: &mut PgConnection,
    kind: Kind,
    id: i64,
) -> Result<Option<Report>, Error> {
    let row = sqlx::query!(
        "SELECT report_id, reporter_nid, room_id, event_id, user_id, reason, received_ts
         FROM report WHERE kind = $1 AND report_id = $2",
        kind as i16,
        id
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Report {
        id: row.report_id,
        reporter: UserNid(row.reporter_nid),
        room_id: row.room_id,
        event_id: row.event_id,
        user_id: row.user_id,
        reason: row.reason,
        received_ts: row.received_ts,
    }))
}

/// Deletes a report; false: there is none.
pub async fn delete_report(conn: &mut PgConnection, kind: Kind, id: i64) -> Result<bool, Error> {
    let done = sqlx::query!(
        "DELETE FROM report WHERE kind = $1 AND report_id = $2",
        kind as i16,
        id
    );
    Ok(done.execute(conn).await?.rows_affected() > 0)
}
