//! Application services: what they are to hear, and their rooms in the directory.

use sqlx::PgConnection;

use super::{
    Error, LogEntry, LogKind, LogRow, Pos, RoomNid, UserNid,
    codec::{decode_body, encode_body},
};

/// Where an application service stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Number.
    pub nid: i32,
    /// Id of its registration.
    pub id: String,
    /// What is up to this position was queued.
    pub pos: Pos,
    /// Tries since its last answer.
    pub failures: i32,
}

/// Notes services that are new, which hear of what comes after `pos`; where all of them stand.
pub async fn register(
    conn: &mut PgConnection,
    ids: &[String],
    pos: Pos,
) -> Result<Vec<Standing>, Error> {
    sqlx::query!(
        "INSERT INTO appservice (id, pos) SELECT id, $2 FROM unnest($1::text[]) AS new (id)
         ON CONFLICT ON CONSTRAINT appservice_id_key DO NOTHING",
        ids,
        pos
    )
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query_as!(
        Standing,
        "SELECT appservice_nid AS nid, id, pos, failures FROM appservice WHERE id = ANY ($1)",
        ids
    )
    .fetch_all(conn)
    .await?)
}

/// Where services stand.
pub async fn list(conn: &mut PgConnection, nids: &[i32]) -> Result<Vec<Standing>, Error> {
    Ok(sqlx::query_as!(
        Standing,
        "SELECT appservice_nid AS nid, id, pos, failures FROM appservice
         WHERE appservice_nid = ANY ($1)",
        nids
    )
    .fetch_all(conn)
    .await?)
}

/// Up to where was queued what services are to hear, in the order of `nids`; nobody else queues
/// until the transaction ends.
pub async fn lock(conn: &mut PgConnection, nids: &[i32]) -> Result<Vec<(i32, Pos)>, Error> {
    let rows = sqlx::query!(
        "SELECT appservice_nid, pos FROM appservice
         WHERE appservice_nid = ANY ($1) ORDER BY appservice_nid FOR UPDATE",
        nids
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.appservice_nid, row.pos)).collect())
}

/// Notes up to where was queued what services are to hear.
pub async fn update_pos(conn: &mut PgConnection, nids: &[i32], pos: Pos) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE appservice SET pos = $2 WHERE appservice_nid = ANY ($1) AND pos < $2",
        nids,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts a try that failed, or forgets all of them (`false`); how many there were before.
pub async fn update_failures(
    conn: &mut PgConnection,
    nid: i32,
    has_failed: bool,
) -> Result<i32, Error> {
    let before = sqlx::query_scalar!(
        "WITH done AS (
           UPDATE appservice SET failures = CASE WHEN $2 THEN failures + 1 ELSE 0 END
           WHERE appservice_nid = $1 AND ($2 OR failures > 0))
         SELECT failures FROM appservice WHERE appservice_nid = $1",
        nid,
        has_failed
    );
    Ok(before.fetch_optional(conn).await?.unwrap_or(0))
}

/// Something that waits for a service.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The row of the log.
    pub row: LogRow,
    /// The event for clients, where it is of a room that we do not hold.
    pub body: Option<String>,
}

/// Queues rows for services.
pub async fn insert(conn: &mut PgConnection, rows: &[(i32, Queued)]) -> Result<(), Error> {
    let services: Vec<i32> = rows.iter().map(|(nid, _)| *nid).collect();
    let positions: Vec<i64> = rows.iter().map(|(_, it)| it.row.pos).collect();
    let kinds: Vec<i16> = rows.iter().map(|(_, it)| it.row.kind as i16).collect();
    let rooms: Vec<i64> = rows.iter().map(|(_, it)| it.row.room).collect();
    let users: Vec<i64> = rows.iter().map(|(_, it)| it.row.user).collect();
    let references: Vec<i64> = rows.iter().map(|(_, it)| it.row.reference).collect();
    let bodies: Vec<Option<Vec<u8>>> = rows
        .iter()
        .map(|(_, it)| it.body.as_deref().map(encode_body))
        .collect();
    sqlx::query!(
        "INSERT INTO appservice_queue (appservice_nid, pos, kind, room_nid, user_nid, ref, body)
         SELECT * FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[],
           $6::bigint[], $7::bytea[])
         ON CONFLICT DO NOTHING",
        &services,
        &positions,
        &kinds,
        &rooms,
        &users,
        &references,
        &bodies as &[Option<Vec<u8>>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What waits for a service, oldest first.
pub async fn list_queue(
    conn: &mut PgConnection,
    nid: i32,
    limit: i64,
) -> Result<Vec<Queued>, Error> {
    let rows = sqlx::query!(
        "SELECT pos, kind, room_nid, user_nid, ref, body FROM appservice_queue
         WHERE appservice_nid = $1 ORDER BY pos LIMIT $2",
        nid,
        limit
    )
    .fetch_all(conn)
    .await?;
    let mut queue = Vec::with_capacity(rows.len());
    for row in rows {
        let entry = LogEntry {
            kind: LogKind::of(row.kind).ok_or_else(|| Error::Inconsistent {
                table: "appservice_queue",
                what: format!("kind {} at {}", row.kind, row.pos),
            })?,
            room: row.room_nid,
            user: row.user_nid,
            reference: row.r#ref,
        };
        let body = row.body.map(|body| decode_body("appservice_queue", &body));
        queue.push(Queued {
            row: entry.at(row.pos),
            body: body.transpose()?,
        });
    }
    Ok(queue)
}

/// Takes out of a queue what is in a transaction, up to a position.
pub async fn delete_queue(conn: &mut PgConnection, nid: i32, upto: Pos) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM appservice_queue WHERE appservice_nid = $1 AND pos <= $2",
        nid,
        upto
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what has waited since before a position; returns how much.
pub async fn delete_before(conn: &mut PgConnection, pos: Pos, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM appservice_queue WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM appservice_queue WHERE pos < $1 LIMIT $2))",
        pos,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// The transaction that is under way to a service: its id and body.
pub async fn find_txn(
    conn: &mut PgConnection,
    nid: i32,
) -> Result<Option<(String, String)>, Error> {
    let row = sqlx::query!(
        "SELECT txn_id, body FROM appservice_txn WHERE appservice_nid = $1",
        nid
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| Ok((row.txn_id, decode_body("appservice_txn", &row.body)?)))
        .transpose()
}

/// Writes a transaction; `false`: another is under way.
pub async fn insert_txn(
    conn: &mut PgConnection,
    nid: i32,
    (txn_id, body): (&str, &str),
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO appservice_txn (appservice_nid, txn_id, body) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT appservice_txn_pkey DO NOTHING",
        nid,
        txn_id,
        encode_body(body)
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets a transaction that was taken.
pub async fn delete_txn(conn: &mut PgConnection, nid: i32, txn_id: &str) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM appservice_txn WHERE appservice_nid = $1 AND txn_id = $2",
        nid,
        txn_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps an invitation into a room that we do not hold until services are told of it.
pub async fn upsert_invite(
    conn: &mut PgConnection,
    (room, user): (RoomNid, UserNid),
    event: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO appservice_invite (room_nid, user_nid, body) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT appservice_invite_pkey DO UPDATE SET body = EXCLUDED.body",
        room.0,
        user.0,
        encode_body(event)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An invitation that was kept.
pub async fn find_invite(
    conn: &mut PgConnection,
    (room, user): (RoomNid, UserNid),
) -> Result<Option<String>, Error> {
    let body = sqlx::query_scalar!(
        "SELECT body FROM appservice_invite WHERE room_nid = $1 AND user_nid = $2",
        room.0,
        user.0
    )
    .fetch_optional(conn)
    .await?;
    body.map(|body| decode_body("appservice_invite", &body))
        .transpose()
}

/// Forgets invitations, by (room, user), that were told or are over.
pub async fn delete_invites(conn: &mut PgConnection, invites: &[(i64, i64)]) -> Result<(), Error> {
    let (rooms, users): (Vec<i64>, Vec<i64>) = invites.iter().copied().unzip();
    sqlx::query!(
        "DELETE FROM appservice_invite i
         USING unnest($1::bigint[], $2::bigint[]) AS w (room, usr)
         WHERE i.room_nid = w.room AND i.user_nid = w.usr",
        &rooms,
        &users
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Shows a room in the list of a network, or takes it out.
pub async fn update_listed(
    conn: &mut PgConnection,
    (appservice, network): (&str, &str),
    room: RoomNid,
    listed: bool,
) -> Result<(), Error> {
    if listed {
        sqlx::query!(
            "INSERT INTO appservice_room (appservice_id, network_id, room_nid)
             SELECT $1, $2, room_nid FROM room_head WHERE room_nid = $3
             ON CONFLICT DO NOTHING",
            appservice,
            network,
            room.0
        )
        .execute(conn)
        .await?;
    } else {
        sqlx::query!(
            "DELETE FROM appservice_room
             WHERE appservice_id = $1 AND network_id = $2 AND room_nid = $3",
            appservice,
            network,
            room.0
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}
