//! What pushers are still to tell, and how far the log was read for them.

use sqlx::PgConnection;

use super::{Error, Pos, RoomNid, UserNid};

/// Rooms of a user whose unread counts are added up.
const ROOMS_MAX: i64 = 10_000;

/// How far the log was read for shares of the users.
pub async fn list_shares(
    conn: &mut PgConnection,
    shares: &[i16],
) -> Result<Vec<(i16, Pos)>, Error> {
    let rows = sqlx::query!(
        "SELECT share, pos FROM push_share WHERE share = ANY ($1)",
        shares
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.share, row.pos)).collect())
}

/// The same, and nobody else queues for them until the transaction ends.
pub async fn lock_shares(
    conn: &mut PgConnection,
    shares: &[i16],
) -> Result<Vec<(i16, Pos)>, Error> {
    let rows = sqlx::query!(
        "SELECT share, pos FROM push_share WHERE share = ANY ($1) ORDER BY share FOR UPDATE",
        shares
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.share, row.pos)).collect())
}

/// Notes how far the log was read.
pub async fn update_shares(conn: &mut PgConnection, shares: &[i16], pos: Pos) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE push_share SET pos = $2 WHERE share = ANY ($1) AND pos < $2",
        shares,
        pos
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A pusher that may have something to tell.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Number of the pusher.
    pub pusher: i64,
    /// Its user.
    pub user: UserNid,
    /// Share of the user.
    pub share: i16,
    /// Room that the user is in now; 0: the user was asked for.
    pub room: RoomNid,
    /// The user's membership event there.
    pub membership: Option<i64>,
    /// It mails, and what it tells is counted when it is told.
    pub mails: bool,
}

/// Pushers of some kinds of the users who are in some rooms, and of some users whatever they are in.
/// Who is locked is told nothing.
pub async fn list_listeners(
    conn: &mut PgConnection,
    (rooms, users): (&[i64], &[i64]),
    shares: &[i16],
    kinds: &[String],
) -> Result<Vec<Listener>, Error> {
    let rows = sqlx::query!(
        r#"SELECT p.pusher_id AS "pusher!", p.user_nid AS "user!", p.share AS "share!",
             u.room_nid AS "room!", u.event_nid AS membership, p.kind = 'email' AS "mails!"
           FROM user_room u
           JOIN pusher p ON p.user_nid = u.user_nid
           WHERE u.room_nid = ANY ($1) AND u.membership = 1 AND p.enabled AND p.share = ANY ($3)
             AND p.kind = ANY ($4)
             AND NOT EXISTS (SELECT 1 FROM account a
               WHERE a.user_nid = p.user_nid AND a.locked_ts IS NOT NULL)
           UNION ALL
           SELECT p.pusher_id, p.user_nid, p.share, 0, NULL, p.kind = 'email'
           FROM pusher p
           WHERE p.user_nid = ANY ($2) AND p.enabled AND p.share = ANY ($3)
             AND p.kind = ANY ($4)
             AND NOT EXISTS (SELECT 1 FROM account a
               WHERE a.user_nid = p.user_nid AND a.locked_ts IS NOT NULL)"#,
        rooms,
        users,
        shares,
        kinds
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Listener {
        pusher: row.pusher,
        user: UserNid(row.user),
        share: row.share,
        room: RoomNid(row.room),
        membership: row.membership,
        mails: row.mails,
    });
    Ok(rows.collect())
}

/// Something to tell.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Pusher.
    pub pusher: i64,
    /// Share of its user.
    pub share: i16,
    /// Position in the log.
    pub pos: Pos,
    /// Room.
    pub room: RoomNid,
    /// Event; 0: an invitation into a room that we do not hold.
    pub event: i64,
    /// Its id; `None`: not known.
    pub event_id: Option<String>,
    /// High priority.
    pub high: bool,
    /// JSON object.
    pub tweaks: String,
}

/// Queues for pushers that are still there.
pub async fn insert(conn: &mut PgConnection, rows: &[Queued], now: i64) -> Result<(), Error> {
    let pushers: Vec<i64> = rows.iter().map(|it| it.pusher).collect();
    let positions: Vec<i64> = rows.iter().map(|it| it.pos).collect();
    let rooms: Vec<i64> = rows.iter().map(|it| it.room.0).collect();
    let events: Vec<i64> = rows.iter().map(|it| it.event).collect();
    let ids: Vec<Option<String>> = rows.iter().map(|it| it.event_id.clone()).collect();
    let highs: Vec<bool> = rows.iter().map(|it| it.high).collect();
    let tweaks: Vec<String> = rows.iter().map(|it| it.tweaks.clone()).collect();
    sqlx::query!(
        "INSERT INTO push_queue (pusher_id, pos, room_nid, event_nid, event_id, ts, high, tweaks)
         SELECT w.pusher, w.pos, w.room, w.event, w.id, $8, w.high, w.tweaks
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[],
           $6::boolean[], $7::text[]) AS w (pusher, pos, room, event, id, high, tweaks)
         JOIN pusher p ON p.pusher_id = w.pusher AND p.enabled
         ON CONFLICT DO NOTHING",
        &pushers,
        &positions,
        &rooms,
        &events,
        &ids as &[Option<String>],
        &highs,
        &tweaks,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Has pushers looked at: those for which something was queued, after some time (`delay_ms` at most)
/// each, and those whose counts may have changed.
pub async fn wake(
    conn: &mut PgConnection,
    (queued, recount): (&[i64], &[i64]),
    now: i64,
    delay_ms: i64,
) -> Result<(), Error> {
    // In the order of their numbers, as everybody locks several of them.
    sqlx::query!(
        "WITH woken AS (
           SELECT pusher_id FROM pusher
           WHERE (pusher_id = ANY ($1) OR pusher_id = ANY ($2)) AND enabled
           ORDER BY pusher_id FOR UPDATE)
         UPDATE pusher p SET rev = p.rev + 1, recount = p.recount OR p.pusher_id = ANY ($2),
           due_ts = coalesce(p.due_ts, $3 + floor(random() * $4::bigint)::bigint)
         FROM woken w WHERE p.pusher_id = w.pusher_id",
        queued,
        recount,
        now,
        delay_ms
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Has the pushers of a user looked at: counts may have changed while nothing was told.
pub async fn wake_user(conn: &mut PgConnection, user: UserNid, now: i64) -> Result<(), Error> {
    sqlx::query!(
        "WITH woken AS (
           SELECT pusher_id FROM pusher WHERE user_nid = $1 AND enabled AND kind = 'http'
           ORDER BY pusher_id FOR UPDATE)
         UPDATE pusher p SET rev = p.rev + 1, recount = true, due_ts = coalesce(p.due_ts, $2)
         FROM woken w WHERE p.pusher_id = w.pusher_id",
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A pusher whose time has come.
#[derive(Clone, Debug)]
pub struct Due {
    /// Number.
    pub pusher: i64,
    /// User.
    pub user: UserNid,
    /// Share of the user.
    pub share: i16,
    /// Application.
    pub app_id: String,
    /// Address within the application.
    pub pushkey: String,
    /// JSON object.
    pub data: String,
    /// Host and port of the gateway.
    pub gateway: String,
    /// When it was set.
    pub set_ts: i64,
    /// See the column.
    pub rev: i64,
    /// Whether counts may have changed.
    pub recount: bool,
    /// Last count that was told.
    pub told: Option<i32>,
    /// Tries since the last success.
    pub failures: i32,
}

/// Pushers of gateways whose time has come, but for those under way and those of gateways that are busy.
pub async fn list_due(
    conn: &mut PgConnection,
    shares: &[i16],
    (active, busy): (&[i64], &[String]),
    now: i64,
    limit: i64,
) -> Result<Vec<Due>, Error> {
    let rows = sqlx::query!(
        r#"SELECT pusher_id, user_nid, share, app_id, pushkey, data, gateway, set_ts, rev, recount,
             told, failures
           FROM pusher
           WHERE share = ANY ($1) AND due_ts <= $2 AND enabled AND kind = 'http'
             AND NOT pusher_id = ANY ($3) AND NOT gateway = ANY ($4)
             AND NOT EXISTS (SELECT 1 FROM account a
               WHERE a.user_nid = pusher.user_nid AND a.locked_ts IS NOT NULL)
           ORDER BY due_ts LIMIT $5"#,
        shares,
        now,
        active,
        busy,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Due {
        pusher: row.pusher_id,
        user: UserNid(row.user_nid),
        share: row.share,
        app_id: row.app_id,
        pushkey: row.pushkey,
        data: row.data,
        gateway: row.gateway,
        set_ts: row.set_ts,
        rev: row.rev,
        recount: row.recount,
        told: row.told,
        failures: row.failures,
    });
    Ok(rows.collect())
}

/// Something that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Position in the log.
    pub pos: Pos,
    /// Room.
    pub room: RoomNid,
    /// Event; 0: an invitation into a room that we do not hold.
    pub event: i64,
    /// Its id.
    pub event_id: Option<String>,
    /// When it was queued.
    pub ts: i64,
    /// High priority.
    pub high: bool,
    /// JSON object.
    pub tweaks: String,
    /// It was read, redacted, or answered meanwhile, or the user is not in the room any more.
    pub over: bool,
}

/// What waits for a pusher of a user, oldest first.
pub async fn list(
    conn: &mut PgConnection,
    (pusher, user): (i64, UserNid),
    limit: i64,
) -> Result<Vec<Waiting>, Error> {
    let rows = sqlx::query!(
        r#"SELECT q.pos, q.room_nid, q.event_nid, q.event_id, q.ts, q.high, q.tweaks,
             NOT coalesce(CASE
               WHEN u.membership = 2 THEN q.event_nid = coalesce(u.event_nid, 0)
               WHEN u.membership = 1 THEN q.event_nid <> 0 AND e.flags & 8 = 0
                 AND e.room_seq > CASE WHEN e.thread_key IS NULL THEN u.main_seq
                   ELSE greatest(u.read_seq, r.read_seq) END
               END, false) AS "over!"
           FROM push_queue q
           LEFT JOIN event e ON e.room_nid = q.room_nid AND e.event_nid = q.event_nid
           LEFT JOIN user_room u ON u.user_nid = $2 AND u.room_nid = q.room_nid
           LEFT JOIN thread_read r
             ON r.user_nid = $2 AND r.room_nid = q.room_nid AND r.root_key = e.thread_key
           WHERE q.pusher_id = $1 ORDER BY q.pos LIMIT $3"#,
        pusher,
        user.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Waiting {
        pos: row.pos,
        room: RoomNid(row.room_nid),
        event: row.event_nid,
        event_id: row.event_id,
        ts: row.ts,
        high: row.high,
        tweaks: row.tweaks,
        over: row.over,
    });
    Ok(rows.collect())
}

/// Forgets what a pusher has told, up to a position.
pub async fn delete(conn: &mut PgConnection, pusher: i64, upto: Pos) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM push_queue WHERE pusher_id = $1 AND pos <= $2",
        pusher,
        upto
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How a pusher stands after it has told what there was.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// What was there when it began.
    pub rev: i64,
    /// There was more than it looked at.
    pub more: bool,
    /// The count that it told last.
    pub told: Option<i32>,
}

/// Notes that a pusher has told what there was; where more came meanwhile, it is due again.
pub async fn update_done(
    conn: &mut PgConnection,
    pusher: i64,
    done: Done,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE pusher SET due_ts = CASE WHEN $3 OR rev <> $2 THEN $5::bigint END,
           recount = recount AND rev <> $2, told = $4, failures = 0, failing_ts = NULL
         WHERE pusher_id = $1",
        pusher,
        done.rev,
        done.more,
        done.told,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a gateway did not take a notice; it is tried again at a time. Of what waits, the newest
/// `keep` stay.
pub async fn update_failed(
    conn: &mut PgConnection,
    pusher: i64,
    (now, again_ts): (i64, i64),
    keep: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "WITH old AS (
           DELETE FROM push_queue WHERE pusher_id = $1 AND pos <= (
             SELECT pos FROM push_queue WHERE pusher_id = $1 ORDER BY pos DESC OFFSET $4 LIMIT 1))
         UPDATE pusher SET failures = least(failures, 1000) + 1,
           failing_ts = coalesce(failing_ts, $2), due_ts = $3
         WHERE pusher_id = $1",
        pusher,
        now,
        again_ts,
        keep
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes a pusher whose gateway does not know it any more, if it was not set again meanwhile.
pub async fn delete_rejected(
    conn: &mut PgConnection,
    pusher: i64,
    set_ts: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM pusher WHERE pusher_id = $1 AND set_ts = $2",
        pusher,
        set_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes what was queued before a time, whosever it was; returns how much.
pub async fn delete_before(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM push_queue WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM push_queue WHERE ts < $1 LIMIT $2))",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Rooms that a user is in, and who sent the invitations that wait for an answer.
pub async fn list_rooms(
    conn: &mut PgConnection,
    user: UserNid,
) -> Result<(Vec<i64>, Vec<UserNid>), Error> {
    let rows = sqlx::query!(
        "SELECT room_nid, membership, sender_nid FROM user_room
         WHERE user_nid = $1 AND membership IN (1, 2) LIMIT $2",
        user.0,
        ROOMS_MAX
    )
    .fetch_all(conn)
    .await?;
    let (joined, invited): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.membership == 1);
    let senders = invited.iter().filter_map(|row| row.sender_nid.map(UserNid));
    Ok((
        joined.iter().map(|row| row.room_nid).collect(),
        senders.collect(),
    ))
}
