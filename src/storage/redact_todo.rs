//! Events whose relations are redacted as well (MSC3912).

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, RoomNid, UserNid};

/// Something that is to be done.
#[derive(Clone, Debug)]
pub struct Todo {
    /// Room.
    pub room: RoomNid,
    /// The event that was redacted.
    pub target: Uuid,
    /// Who wants it.
    pub user: UserNid,
    /// Relation types; `*` stands for all.
    pub rels: Vec<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Notes that what relates to an event now is to be redacted. Asked for again, it begins anew.
pub async fn insert(conn: &mut PgConnection, todo: &Todo, now: i64) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO redact_todo (room_nid, target_key, user_nid, rels, reason, after_seq, upto_seq, ts)
         SELECT $1, $2, $3, $4, $5, 0, h.head_seq, $6 FROM room_head h WHERE h.room_nid = $1
         ON CONFLICT ON CONSTRAINT redact_todo_pkey DO UPDATE
           SET rels = EXCLUDED.rels, reason = EXCLUDED.reason, after_seq = 0,
             upto_seq = EXCLUDED.upto_seq, ts = EXCLUDED.ts",
        todo.room.0,
        todo.target,
        todo.user.0,
        &todo.rels,
        todo.reason,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What is to be done, the oldest first.
pub async fn list(conn: &mut PgConnection, limit: i64) -> Result<Vec<Todo>, Error> {
    let rows = sqlx::query!(
        "SELECT room_nid, target_key, user_nid, rels, reason FROM redact_todo
         ORDER BY ts LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Todo {
        room: RoomNid(row.room_nid),
        target: row.target_key,
        user: UserNid(row.user_nid),
        rels: row.rels,
        reason: row.reason,
    });
    Ok(rows.collect())
}

/// The next events to redact: (place, event).
pub async fn next(
    conn: &mut PgConnection,
    todo: &Todo,
    limit: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT r.room_seq, r.child_nid
         FROM redact_todo t
         JOIN relation r ON r.room_nid = t.room_nid AND r.parent_key = t.target_key
         JOIN ev_type v ON v.type_nid = r.rel_nid
         WHERE t.room_nid = $1 AND t.target_key = $2 AND t.user_nid = $3
           AND r.room_seq > t.after_seq AND r.room_seq <= t.upto_seq
           AND ('*' = ANY (t.rels) OR v.name = ANY (t.rels))
         ORDER BY r.room_seq
         LIMIT $4",
        todo.room.0,
        todo.target,
        todo.user.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.room_seq, row.child_nid)).collect())
}

/// Notes how far it is done; `None`: all of it is.
pub async fn advance(conn: &mut PgConnection, todo: &Todo, seq: Option<i64>) -> Result<(), Error> {
    match seq {
        Some(seq) => {
            sqlx::query!(
                "UPDATE redact_todo SET after_seq = $4
                 WHERE room_nid = $1 AND target_key = $2 AND user_nid = $3 AND after_seq < $4",
                todo.room.0,
                todo.target,
                todo.user.0,
                seq
            )
            .execute(conn)
            .await?;
        }
        None => {
            sqlx::query!(
                "DELETE FROM redact_todo
                 WHERE room_nid = $1 AND target_key = $2 AND user_nid = $3",
                todo.room.0,
                todo.target,
                todo.user.0
            )
            .execute(conn)
            .await?;
        }
    }
    Ok(())
}
