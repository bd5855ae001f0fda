//! Messages to devices, changes of device lists, and both for peers.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, LogEntry, LogKind, Pos, ServerNid, Tx, UserNid};

/// Notes a message as taken; `false`: it was taken before.
pub async fn insert_txn(conn: &mut PgConnection, hash: Uuid, now: i64) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO to_device_txn (hash, ts) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        hash,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets messages taken before `ts`; returns how many.
pub async fn delete_txns(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM to_device_txn WHERE hash IN
           (SELECT hash FROM to_device_txn WHERE ts < $1 LIMIT $2)",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Devices of local users by id: (user, device number, device id).
pub async fn list_devices(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<(i64, i32, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, device_no, device_id FROM device WHERE user_nid = ANY ($1)",
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.user_nid, row.device_no, row.device_id))
        .collect())
}

/// Puts messages into the queues of local devices, and logs them. Shape: (user, device, event).
pub async fn insert(tx: &mut Tx, messages: &[(i64, i32, String)]) -> Result<(), Error> {
    let entries: Vec<LogEntry> = messages
        .iter()
        .map(|(user, device, _)| LogEntry {
            kind: LogKind::ToDevice,
            room: 0,
            user: *user,
            reference: i64::from(*device),
        })
        .collect();
    let positions = tx.log_all(&entries).await?;
    let users: Vec<i64> = messages.iter().map(|(user, ..)| *user).collect();
    let devices: Vec<i32> = messages.iter().map(|(_, device, _)| *device).collect();
    let bodies: Vec<String> = messages.iter().map(|(.., body)| body.clone()).collect();
    sqlx::query!(
        "INSERT INTO to_device (user_nid, device_no, pos, body)
         SELECT * FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::text[])",
        &users,
        &devices,
        &positions,
        &bodies
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Messages that wait for a device after a position: (position, event), oldest first.
pub async fn list(
    conn: &mut PgConnection,
    (user, device): (UserNid, i32),
    (after, upto): (Pos, Pos),
    limit: i64,
) -> Result<Vec<(Pos, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT pos, body FROM to_device
         WHERE user_nid = $1 AND device_no = $2 AND pos > $3 AND pos <= $4
         ORDER BY pos LIMIT $5",
        user.0,
        device,
        after,
        upto,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.pos, row.body)).collect())
}

/// Deletes what a device has acknowledged.
pub async fn delete_upto(
    conn: &mut PgConnection,
    (user, device): (UserNid, i32),
    pos: Pos,
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM to_device WHERE user_nid = $1 AND device_no = $2 AND pos <= $3",
        user.0,
        device,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes and logs that the devices or keys of a user changed; the position.
pub async fn insert_change(tx: &mut Tx, user: UserNid) -> Result<Pos, Error> {
    let entry = LogEntry {
        kind: LogKind::DeviceList,
        room: 0,
        user: user.0,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    sqlx::query!(
        "INSERT INTO device_change (user_nid, pos) VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT device_change_pkey DO UPDATE SET pos = EXCLUDED.pos",
        user.0,
        pos
    )
    .execute(&mut **tx)
    .await?;
    Ok(pos)
}

/// Rooms that a user is joined to.
pub async fn list_rooms(conn: &mut PgConnection, user: i64) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT room_nid FROM member WHERE user_nid = $1 AND membership = 1",
        user
    )
    .fetch_all(conn)
    .await?)
}

/// A user whose devices have to be looked at anew.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// Who.
    pub user: UserNid,
    /// Whether they still share a room.
    pub shares: bool,
    /// When that was, the last time.
    pub pos: Pos,
}

/// Users whose devices a user has to look at anew after `since`: changed keys of those who share a
/// room, members who came or went in the user's rooms, and those whose keys the user signed. In the
/// order in which it happened; of one position all, so that who goes on after the last misses
/// nobody.
pub async fn list_changed(
    conn: &mut PgConnection,
    user: UserNid,
    (since, upto): (Pos, Pos),
    limit: i64,
) -> Result<Vec<Changed>, Error> {
    let rows = sqlx::query!(
        r#"WITH mine AS (
             SELECT room_nid, pos FROM user_room WHERE user_nid = $1 AND membership = 1
           ), left_now AS (
             SELECT room_nid, pos FROM user_room
             WHERE user_nid = $1 AND membership IN (3, 4) AND pos > $2 AND pos <= $3
           ), moved AS (
             SELECT w.user_nid, max(w.pos) AS pos FROM (
               SELECT m.user_nid, mine.pos FROM mine JOIN member m USING (room_nid)
               WHERE mine.pos > $2 AND mine.pos <= $3 AND m.membership = 1
               UNION ALL
               SELECT m.user_nid, left_now.pos FROM left_now JOIN member m USING (room_nid)
               WHERE m.membership = 1
               UNION ALL
               SELECT m.user_nid, e.pos FROM mine
               JOIN event e ON e.room_nid = mine.room_nid AND e.type_nid = 1
                 AND e.pos > $2 AND e.pos <= $3 AND e.skey_nid < 0
               -- Who is only invited, or knocks, has neither come nor gone.
               JOIN member m ON m.room_nid = e.room_nid AND m.user_nid = -e.skey_nid
                 AND m.membership IN (1, 3, 4)) w
             GROUP BY w.user_nid
           ), other AS (
             SELECT user_nid, pos FROM device_change WHERE pos > $2 AND pos <= $3
             UNION ALL
             SELECT user_nid, pos FROM key_signature
             WHERE signer_nid = $1 AND pos > $2 AND pos <= $3
           ), candidate AS (
             SELECT w.user_nid, bool_or(w.moved) AS moved, max(w.pos) AS pos FROM (
               SELECT user_nid, true AS moved, pos FROM moved
               UNION ALL SELECT user_nid, false, pos FROM other) w
             GROUP BY w.user_nid
           ), seen AS (
             SELECT c.user_nid, c.moved, c.pos,
               (c.user_nid = $1 OR EXISTS (SELECT 1 FROM member m JOIN mine USING (room_nid)
                  WHERE m.user_nid = c.user_nid AND m.membership = 1)) AS shares
             FROM candidate c
           )
           SELECT user_nid AS "user!", shares AS "shares!", pos AS "pos!"
           FROM seen WHERE shares OR moved
           ORDER BY pos FETCH FIRST ($4::bigint) ROWS WITH TIES"#,
        user.0,
        since,
        upto,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| Changed {
            user: UserNid(row.user),
            shares: row.shares,
            pos: row.pos,
        })
        .collect())
}

/// Queues EDUs for peers. `about`: the user whose devices or keys they tell of.
pub async fn insert_edus(
    conn: &mut PgConnection,
    (servers, bodies): (&[i32], &[String]),
    about: Option<UserNid>,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO fed_edu (server_nid, body, about, ts)
         SELECT w.server, w.body, $3, $4 FROM unnest($1::int[], $2::text[]) AS w (server, body)",
        servers,
        bodies,
        about.map(|user| user.0),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what tells of a user but the newest `keep` for each peer.
pub async fn delete_older_edus(
    conn: &mut PgConnection,
    servers: &[i32],
    about: UserNid,
    keep: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM fed_edu WHERE edu_no IN (
           SELECT old.edu_no FROM unnest($1::int[]) AS w (server) CROSS JOIN LATERAL (
             SELECT e.edu_no FROM fed_edu e WHERE e.server_nid = w.server AND e.about = $2
             ORDER BY e.edu_no DESC OFFSET $3) old)",
        servers,
        about.0,
        keep
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Drops messages to devices of peers that wait since before `ts`, the oldest first; how many of
/// whose.
pub async fn delete_edus_before(
    conn: &mut PgConnection,
    ts: i64,
    limit: i64,
) -> Result<Vec<(ServerNid, i64)>, Error> {
    let rows = sqlx::query!(
        r#"WITH gone AS (
             DELETE FROM fed_edu WHERE edu_no IN (
               SELECT edu_no FROM fed_edu WHERE about IS NULL AND ts < $1 ORDER BY ts LIMIT $2)
             RETURNING server_nid)
           SELECT server_nid, count(*) AS "count!" FROM gone GROUP BY server_nid"#,
        ts,
        limit
    );
    let rows = rows.fetch_all(conn).await?.into_iter();
    Ok(rows
        .map(|row| (ServerNid(row.server_nid), row.count))
        .collect())
}

/// Drops messages to devices of a peer beyond the newest `keep`, the oldest first; how many.
pub async fn delete_edus_beyond(
    conn: &mut PgConnection,
    server: ServerNid,
    (keep, limit): (i64, i64),
) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM fed_edu WHERE edu_no IN (
           SELECT edu_no FROM fed_edu
           WHERE server_nid = $1 AND about IS NULL AND edu_no <= (
             SELECT edu_no FROM fed_edu WHERE server_nid = $1 AND about IS NULL
             ORDER BY edu_no DESC OFFSET $2 LIMIT 1)
           ORDER BY edu_no LIMIT $3)",
        server.0,
        keep,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Peers that share a room with a user.
pub async fn list_servers(conn: &mut PgConnection, user: UserNid) -> Result<Vec<i32>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT DISTINCT r.server_nid FROM member m
         JOIN room_server r ON r.room_nid = m.room_nid AND (r.joined > 0 OR r.told)
         WHERE m.user_nid = $1 AND m.membership = 1",
        user.0
    )
    .fetch_all(conn)
    .await?)
}

/// EDUs that wait for a peer: (number, JSON).
pub async fn list_edus(
    conn: &mut PgConnection,
    server: ServerNid,
    limit: i64,
) -> Result<Vec<(i64, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT edu_no, body FROM fed_edu WHERE server_nid = $1 ORDER BY edu_no LIMIT $2",
        server.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.edu_no, row.body)).collect())
}

/// Deletes EDUs that a peer has taken.
pub async fn delete_edus(
    conn: &mut PgConnection,
    server: ServerNid,
    numbers: &[i64],
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM fed_edu WHERE server_nid = $1 AND edu_no = ANY ($2)",
        server.0,
        numbers
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Peers that EDUs wait for.
pub async fn list_edu_servers(conn: &mut PgConnection) -> Result<Vec<ServerNid>, Error> {
    // From one server of the index to the next, over however many rows each has.
    let servers = sqlx::query_scalar!(
        r#"WITH RECURSIVE w AS (
             (SELECT server_nid FROM fed_edu ORDER BY server_nid LIMIT 1)
             UNION ALL
             SELECT (SELECT e.server_nid FROM fed_edu e WHERE e.server_nid > w.server_nid
                     ORDER BY e.server_nid LIMIT 1)
             FROM w WHERE w.server_nid IS NOT NULL)
           SELECT server_nid AS "server_nid!" FROM w WHERE server_nid IS NOT NULL"#
    )
    .fetch_all(conn)
    .await?;
    Ok(servers.into_iter().map(ServerNid).collect())
}

/// A message to a device.
#[derive(Clone, Debug)]
pub struct Message {
    /// Receiver.
    pub user_nid: i64,
    /// Device.
    pub device_no: i32,
    /// The same, by id.
    pub device_id: String,
    /// Position.
    pub pos: Pos,
    /// Type, sender and content as JSON.
    pub body: String,
}

/// Messages to devices at positions, in order.
pub async fn list_at(
    conn: &mut PgConnection,
    users: &[i64],
    devices: &[i32],
    positions: &[i64],
) -> Result<Vec<Message>, Error> {
    Ok(sqlx::query_as!(
        Message,
        "SELECT t.user_nid, t.device_no, d.device_id, t.pos, t.body
         FROM unnest($1::bigint[], $2::int[], $3::bigint[]) AS w (usr, device, pos)
         JOIN to_device t ON t.user_nid = w.usr AND t.device_no = w.device AND t.pos = w.pos
         JOIN device d ON d.user_nid = t.user_nid AND d.device_no = t.device_no
         ORDER BY t.pos",
        users,
        devices,
        positions
    )
    .fetch_all(conn)
    .await?)
}

/// Deletes messages to devices at positions: a service has them.
pub async fn delete_at(conn: &mut PgConnection, messages: &[(i64, i32, Pos)]) -> Result<(), Error> {
    let users: Vec<i64> = messages.iter().map(|(user, ..)| *user).collect();
    let devices: Vec<i32> = messages.iter().map(|(_, device, _)| *device).collect();
    let positions: Vec<i64> = messages.iter().map(|(.., pos)| *pos).collect();
    sqlx::query!(
        "DELETE FROM to_device t
         USING unnest($1::bigint[], $2::int[], $3::bigint[]) AS w (usr, device, pos)
         WHERE t.user_nid = w.usr AND t.device_no = w.device AND t.pos = w.pos",
        &users,
        &devices,
        &positions
    )
    .execute(conn)
    .await?;
    Ok(())
}
