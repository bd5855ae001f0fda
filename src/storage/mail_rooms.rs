//! Rooms of which mails are to tell. However much is written in a room, that is one row for each
//! pusher that mails.

use sqlx::PgConnection;

use super::{Error, RoomNid, UserNid};

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// From something new to the first mail, and from that to the second.
    pub first_ms: i64,
    /// From a mail to the next, at most.
    pub longest_ms: i64,
}

/// Pauses grow by this from mail to mail: ten minutes, two hours, a day.
const GROWTH: i64 = 12;

/// Something new is in rooms: pairs of pusher and room. Nothing is written for rooms of which a mail
/// is to tell already.
pub async fn wake(
    conn: &mut PgConnection,
    (pushers, rooms): (&[i64], &[i64]),
    now: i64,
    pauses: Pauses,
) -> Result<(), Error> {
    // After half of the longest pause without a mail it begins anew.
    sqlx::query!(
        "WITH wanted AS MATERIALIZED (
           SELECT w.pusher, w.room FROM unnest($1::bigint[], $2::bigint[]) AS w (pusher, room)
           JOIN pusher p ON p.pusher_id = w.pusher AND p.enabled AND p.kind = 'email'
         ), fresh AS (
           INSERT INTO mail_room (pusher_id, room_nid, due_ts)
           SELECT w.pusher, w.room, $3::bigint + $4::bigint FROM wanted w
           WHERE NOT EXISTS (
             SELECT 1 FROM mail_room m WHERE m.pusher_id = w.pusher AND m.room_nid = w.room)
           ON CONFLICT DO NOTHING
           RETURNING pusher_id, due_ts
         ), again AS (
           UPDATE mail_room m SET
             due_ts = CASE WHEN m.sent_ts > $3::bigint - $5::bigint / 2
               THEN greatest($3::bigint + $4::bigint, m.sent_ts + m.pause_ms)
               ELSE $3::bigint + $4::bigint END,
             pause_ms = CASE WHEN m.sent_ts > $3::bigint - $5::bigint / 2
               THEN m.pause_ms ELSE 0 END
           FROM wanted w
           WHERE m.pusher_id = w.pusher AND m.room_nid = w.room AND m.due_ts IS NULL
           RETURNING m.pusher_id, m.due_ts
         ), due AS (
           SELECT d.pusher_id, min(d.due_ts) AS due_ts
           FROM (SELECT pusher_id, due_ts FROM fresh UNION ALL SELECT pusher_id, due_ts FROM again) d
           GROUP BY d.pusher_id)
         UPDATE pusher p SET due_ts = CASE WHEN p.failures > 0 THEN coalesce(p.due_ts, d.due_ts)
           ELSE least(p.due_ts, d.due_ts) END
         FROM due d WHERE p.pusher_id = d.pusher_id",
        pushers,
        rooms,
        now,
        pauses.first_ms,
        pauses.longest_ms
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Users read, or write, in rooms: pairs of pusher and room. What is to be told waits from now on, for
/// it may be told no more.
pub async fn put_off(
    conn: &mut PgConnection,
    (pushers, rooms): (&[i64], &[i64]),
    due_ts: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE mail_room m SET due_ts = $3
         FROM unnest($1::bigint[], $2::bigint[]) AS w (pusher, room)
         WHERE m.pusher_id = w.pusher AND m.room_nid = w.room AND m.due_ts < $3",
        pushers,
        rooms,
        due_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A pusher that mails and whose time has come.
#[derive(Clone, Debug)]
pub struct Due {
    /// Number.
    pub pusher: i64,
    /// User.
    pub user: UserNid,
    /// Share of the user.
    pub share: i16,
    /// Address.
    pub address: String,
    /// Language of the user, as the client gave it.
    pub lang: String,
    /// Token of the link that ends it.
    pub unsubscribe: String,
    /// Tries since the last success.
    pub failures: i32,
    /// First of them.
    pub failing_ts: Option<i64>,
}

/// Pushers that mail and whose time has come, but for those under way. Whoever lost the address
/// meanwhile, or is locked, is sent nothing.
pub async fn list_due(
    conn: &mut PgConnection,
    shares: &[i16],
    active: &[i64],
    now: i64,
    limit: i64,
) -> Result<Vec<Due>, Error> {
    let rows = sqlx::query!(
        r#"SELECT pusher_id, user_nid, share, pushkey, lang, unsubscribe AS "unsubscribe!", failures,
             failing_ts
           FROM pusher p
           WHERE share = ANY ($1) AND due_ts <= $2 AND enabled AND kind = 'email'
             AND unsubscribe IS NOT NULL AND NOT pusher_id = ANY ($3)
             AND EXISTS (SELECT 1 FROM threepid t
               WHERE t.medium = 'email' AND t.address = p.pushkey AND t.user_nid = p.user_nid)
             AND NOT EXISTS (SELECT 1 FROM account a
               WHERE a.user_nid = p.user_nid AND a.locked_ts IS NOT NULL)
           ORDER BY due_ts LIMIT $4"#,
        shares,
        now,
        active,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Due {
        pusher: row.pusher_id,
        user: UserNid(row.user_nid),
        share: row.share,
        address: row.pushkey,
        lang: row.lang,
        unsubscribe: row.unsubscribe,
        failures: row.failures,
        failing_ts: row.failing_ts,
    });
    Ok(rows.collect())
}

/// Takes all rooms of which a mail is to tell, if it is time for one of them. What is new in them from
/// now on is for the next mail.
pub async fn claim(conn: &mut PgConnection, pusher: i64, now: i64) -> Result<Vec<RoomNid>, Error> {
    let rooms = sqlx::query_scalar!(
        "UPDATE mail_room SET claimed = true, due_ts = NULL
         WHERE pusher_id = $1 AND (due_ts IS NOT NULL OR claimed) AND EXISTS (
           SELECT 1 FROM mail_room m WHERE m.pusher_id = $1 AND (m.due_ts <= $2 OR m.claimed))
         RETURNING room_nid",
        pusher,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(rooms.into_iter().map(RoomNid).collect())
}

/// Of some rooms, those that a user is in, and those that the user is invited to.
pub async fn list_memberships(
    conn: &mut PgConnection,
    user: UserNid,
    rooms: &[i64],
) -> Result<(Vec<i64>, Vec<i64>), Error> {
    let rows = sqlx::query!(
        "SELECT room_nid, membership FROM user_room
         WHERE user_nid = $1 AND room_nid = ANY ($2) AND membership IN (1, 2)",
        user.0,
        rooms
    )
    .fetch_all(conn)
    .await?;
    let (joined, invited): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.membership == 1);
    Ok((
        joined.into_iter().map(|row| row.room_nid).collect(),
        invited.into_iter().map(|row| row.room_nid).collect(),
    ))
}

/// Notes that a mail told of some of the rooms that were taken, and there was nothing to tell of the
/// others.
pub async fn update_done(
    conn: &mut PgConnection,
    pusher: i64,
    told: &[i64],
    now: i64,
    pauses: Pauses,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE mail_room SET claimed = false, sent_ts = $3,
           pause_ms = least($5::bigint, greatest($4::bigint, pause_ms * $6::bigint)),
           due_ts = greatest(due_ts, CASE WHEN due_ts IS NOT NULL
             THEN $3::bigint + least($5::bigint, greatest($4::bigint, pause_ms * $6::bigint)) END)
         WHERE pusher_id = $1 AND claimed AND room_nid = ANY ($2)",
        pusher,
        told,
        now,
        pauses.first_ms,
        pauses.longest_ms,
        GROWTH
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "WITH untold AS (
           DELETE FROM mail_room WHERE pusher_id = $1 AND claimed AND due_ts IS NULL
             AND sent_ts IS NULL)
         UPDATE mail_room SET claimed = false
         WHERE pusher_id = $1 AND claimed AND (due_ts IS NOT NULL OR sent_ts IS NOT NULL)",
        pusher
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE pusher SET failures = 0, failing_ts = NULL WHERE pusher_id = $1 AND failures > 0",
        pusher
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Has a pusher looked at when the first of its rooms is due.
pub async fn update_rest(conn: &mut PgConnection, pusher: i64, now: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE pusher SET due_ts = (
           SELECT CASE WHEN bool_or(claimed) THEN $2::bigint ELSE min(due_ts) END
           FROM mail_room WHERE pusher_id = $1)
         WHERE pusher_id = $1",
        pusher,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a mail did not go out; it is tried again at a time, or (`None`) never.
pub async fn update_failed(
    conn: &mut PgConnection,
    pusher: i64,
    now: i64,
    again_ts: Option<i64>,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE pusher SET failures = least(failures, 1000) + 1,
           failing_ts = coalesce(failing_ts, $2), due_ts = $3, enabled = $3::bigint IS NOT NULL
         WHERE pusher_id = $1",
        pusher,
        now,
        again_ts
    )
    .execute(&mut *conn)
    .await?;
    if again_ts.is_none() {
        sqlx::query!("DELETE FROM mail_room WHERE pusher_id = $1", pusher)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Forgets rooms of which nothing is to be told, and of which the last mail told before a time.
pub async fn delete_before(conn: &mut PgConnection, ts: i64, limit: i64) -> Result<u64, Error> {
    let done = sqlx::query!(
        "DELETE FROM mail_room WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM mail_room
           WHERE due_ts IS NULL AND NOT claimed AND sent_ts < $1 LIMIT $2))",
        ts,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
