//! The log as those read it who tell others in the background.

use sqlx::PgConnection;

use super::{Error, LogEntry, LogKind, LogRow, Pos, UserNid};

/// Positions of the log that are looked at in one go.
pub const SPAN: Pos = 50_000;
/// Rows of the log that are looked at in one go.
const ROWS_MAX: i64 = 500;

/// A row of the log, with who has to do with it.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// The row.
    pub row: LogRow,
    /// Event: who sent it.
    pub sender: Option<UserNid>,
    /// Event: whose membership it is.
    pub target: Option<UserNid>,
}

/// Some of what the log tells after a position, of the kinds that are asked for, and up to where
/// that is all.
pub async fn list(
    conn: &mut PgConnection,
    (after, horizon): (Pos, Pos),
    kinds: &[LogKind],
) -> Result<(Vec<News>, Pos), Error> {
    let upto = horizon.min(after + SPAN);
    let kinds: Vec<i16> = kinds.iter().map(|kind| *kind as i16).collect();
    let rows = sqlx::query!(
        r#"SELECT s.pos, s.kind, s.room_nid, s.user_nid, s.ref,
             e.sender_nid AS "sender_nid?", e.skey_nid AS "skey_nid?"
           FROM stream_log s
           LEFT JOIN event e ON s.kind = 1 AND e.room_nid = s.room_nid AND e.event_nid = s.ref
           WHERE s.pos > $1 AND s.pos <= $2 AND s.kind = ANY ($3)
           ORDER BY s.pos LIMIT $4"#,
        after,
        upto,
        &kinds,
        ROWS_MAX
    )
    .fetch_all(conn)
    .await?;
    let is_cut = i64::try_from(rows.len()).is_ok_and(|count| count == ROWS_MAX);
    let last = rows.last().filter(|_| is_cut).map(|row| row.pos);
    let known = rows.into_iter().filter_map(|row| {
        let entry = LogEntry {
            kind: LogKind::of(row.kind)?,
            room: row.room_nid,
            user: row.user_nid,
            reference: row.r#ref,
        };
        let target = row.skey_nid.filter(|skey| *skey < 0);
        Some(News {
            row: entry.at(row.pos),
            sender: row.sender_nid.map(UserNid),
            target: target.map(|skey| UserNid(-skey)),
        })
    });
    Ok((known.collect(), last.unwrap_or(upto)))
}
