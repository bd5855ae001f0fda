//! Presence of users.

use sqlx::PgConnection;

use super::{
    Error, ServerNid, UserNid,
    log::{LogEntry, LogKind},
    stream::Pos,
    tx::Tx,
};

/// Whether somebody is there (specification, "Presence"). The more, the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum State {
    /// Not there, or not telling.
    #[default]
    Offline = 0,
    /// Idle.
    Unavailable = 1,
    /// There.
    Online = 2,
}

impl State {
    /// The state of that name.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "offline" => Self::Offline,
            "unavailable" => Self::Unavailable,
            "online" => Self::Online,
            _ => return None,
        })
    }

    /// Its name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Online => "online",
        }
    }

    fn of_code(code: i16) -> Self {
        match code {
            2 => Self::Online,
            1 => Self::Unavailable,
            _ => Self::Offline,
        }
    }
}

/// Presence of a user, as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Whether the user is there.
    pub state: State,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// Whether the user does something just now.
    pub currently_active: bool,
    /// When the user last did something, milliseconds since 1970; 0: not known.
    pub last_active_ts: i64,
}

impl Presence {
    /// Whether others see the same, but for when the user last did something.
    pub fn looks_like(&self, other: &Self) -> bool {
        (self.state, self.currently_active) == (other.state, other.currently_active)
            && self.status_msg == other.status_msg
    }
}

/// A presence to write.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose.
    pub user: UserNid,
    /// Whether it is a user of ours.
    pub local: bool,
    /// The new presence.
    pub presence: Presence,
    /// When it was heard of.
    pub seen_ts: i64,
}

/// Times after which nobody is taken to be there any more.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Users of ours whose clients were not heard of since are gone.
    pub gone_ts: i64,
    /// Users of ours who did nothing since are idle.
    pub idle_ts: i64,
    /// Users of peers of whom nothing was heard since are gone.
    pub silent_ts: i64,
}

struct Row {
    user_nid: i64,
    state: i16,
    status_msg: Option<String>,
    currently_active: bool,
    last_active_ts: i64,
}

impl From<Row> for (UserNid, Presence) {
    fn from(row: Row) -> Self {
        let presence = Presence {
            state: State::of_code(row.state),
            status_msg: row.status_msg,
            currently_active: row.currently_active,
            last_active_ts: row.last_active_ts,
        };
        (UserNid(row.user_nid), presence)
    }
}

/// The presence of a user, with when it was last heard of.
pub async fn find(
    conn: &mut PgConnection,
    user: UserNid,
) -> Result<Option<(Presence, i64)>, Error> {
    let row = sqlx::query!(
        "SELECT state, status_msg, currently_active, last_active_ts, seen_ts
         FROM presence WHERE user_nid = $1",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let presence = Presence {
            state: State::of_code(row.state),
            status_msg: row.status_msg,
            currently_active: row.currently_active,
            last_active_ts: row.last_active_ts,
        };
        (presence, row.seen_ts)
    }))
}

/// Presence of some users.
pub async fn list(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<(UserNid, Presence)>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT user_nid, state, status_msg, currently_active, last_active_ts
         FROM presence WHERE user_nid = ANY ($1)",
        users
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// What a user in some rooms is told: who of them changed in `(since, upto]`, and what is known of
/// users who are new to it (`met`). From the beginning, only who is there. The newest changes first.
pub async fn list_news(
    conn: &mut PgConnection,
    (viewer, rooms): (UserNid, &[i64]),
    (since, upto): (Pos, Pos),
    met: &[i64],
    limit: i64,
) -> Result<Vec<(UserNid, Presence)>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT user_nid, state, status_msg, currently_active, last_active_ts FROM presence p
         WHERE (user_nid = ANY ($4) AND pos <= $3)
           OR (pos > $2 AND pos <= $3 AND (state > 0 OR $2 > 0)
             AND (user_nid = $5 OR EXISTS (
               SELECT 1 FROM member m
               WHERE m.user_nid = p.user_nid AND m.membership = 1 AND m.room_nid = ANY ($1))))
         ORDER BY pos DESC
         LIMIT $6",
        rooms,
        since,
        upto,
        met,
        viewer.0,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Writes and logs changes, at most one for each user. The last thing before the commit.
pub async fn write(tx: &mut Tx, changes: &[Change]) -> Result<Vec<Pos>, Error> {
    let users: Vec<i64> = changes.iter().map(|change| change.user.0).collect();
    let local: Vec<bool> = changes.iter().map(|change| change.local).collect();
    let presences = || changes.iter().map(|change| &change.presence);
    let states: Vec<i16> = presences().map(|presence| presence.state as i16).collect();
    let messages: Vec<Option<String>> = presences().map(|p| p.status_msg.clone()).collect();
    let active: Vec<bool> = presences().map(|p| p.currently_active).collect();
    let last_active: Vec<i64> = presences().map(|p| p.last_active_ts).collect();
    let seen: Vec<i64> = changes.iter().map(|change| change.seen_ts).collect();
    // In order, so that two of these do not wait for each other.
    sqlx::query!(
        "INSERT INTO presence
           (user_nid, local, state, status_msg, currently_active, last_active_ts, seen_ts, pos)
         SELECT *, 0 FROM unnest($1::bigint[], $2::boolean[], $3::smallint[], $4::text[],
           $5::boolean[], $6::bigint[], $7::bigint[]) AS w (user_nid)
         ORDER BY user_nid
         ON CONFLICT ON CONSTRAINT presence_pkey DO UPDATE SET
           state = EXCLUDED.state, status_msg = EXCLUDED.status_msg,
           currently_active = EXCLUDED.currently_active,
           last_active_ts = EXCLUDED.last_active_ts, seen_ts = EXCLUDED.seen_ts",
        &users,
        &local,
        &states,
        &messages as &[Option<String>],
        &active,
        &last_active,
        &seen
    )
    .execute(&mut **tx)
    .await?;
    let entries: Vec<LogEntry> = users
        .iter()
        .map(|user| LogEntry {
            kind: LogKind::Presence,
            room: 0,
            user: *user,
            reference: 0,
        })
        .collect();
    let positions = tx.log_all(&entries).await?;
    sqlx::query!(
        "UPDATE presence SET pos = w.pos
         FROM unnest($1::bigint[], $2::bigint[]) AS w (user_nid, pos)
         WHERE presence.user_nid = w.user_nid",
        &users,
        &positions
    )
    .execute(&mut **tx)
    .await?;
    Ok(positions)
}

/// Notes that users are still there, and when they last did something: (user, seen, active).
pub async fn update_seen(
    conn: &mut PgConnection,
    seen: &[(UserNid, i64, i64)],
) -> Result<(), Error> {
    let users: Vec<i64> = seen.iter().map(|(user, ..)| user.0).collect();
    let seen_ts: Vec<i64> = seen.iter().map(|(_, seen, _)| *seen).collect();
    let active_ts: Vec<i64> = seen.iter().map(|(.., active)| *active).collect();
    sqlx::query!(
        "UPDATE presence SET seen_ts = GREATEST(presence.seen_ts, w.seen_ts),
           last_active_ts = GREATEST(presence.last_active_ts, w.active_ts)
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (user_nid, seen_ts, active_ts)
         WHERE presence.user_nid = w.user_nid",
        &users,
        &seen_ts,
        &active_ts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts who is there as seen just now, where that was not so long ago: while we were down nobody
/// could be seen.
pub async fn update_all_seen(conn: &mut PgConnection, now: i64) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE presence SET seen_ts = $1 WHERE state > 0 AND seen_ts < $1",
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Users whose time is over, with whether they are ours and when they were seen; locked, without
/// those that somebody else has locked.
pub async fn list_over(
    conn: &mut PgConnection,
    limits: Limits,
    limit: i64,
) -> Result<Vec<Change>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, local, state, status_msg, last_active_ts, seen_ts FROM presence
         WHERE state > 0 AND CASE WHEN local
           THEN seen_ts < $1 OR (state = 2 AND last_active_ts < $2)
           ELSE seen_ts < $3 END
         ORDER BY user_nid LIMIT $4
         FOR UPDATE SKIP LOCKED",
        limits.gone_ts,
        limits.idle_ts,
        limits.silent_ts,
        limit
    )
    .fetch_all(conn)
    .await?;
    let over = rows.into_iter().map(|row| Change {
        user: UserNid(row.user_nid),
        local: row.local,
        presence: Presence {
            state: if row.local && row.seen_ts >= limits.gone_ts {
                State::Unavailable
            } else {
                State::Offline
            },
            status_msg: row.status_msg,
            currently_active: false,
            last_active_ts: row.last_active_ts,
        },
        seen_ts: row.seen_ts,
    });
    Ok(over.collect())
}

/// Of some users of peers those who share a room with one of ours, with what was last heard of them.
pub async fn list_met(
    conn: &mut PgConnection,
    user_ids: &[String],
) -> Result<Vec<(String, Change)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT u.mxid, u.user_nid, p.state AS "state?", p.status_msg AS "status_msg?",
             p.currently_active AS "currently_active?", p.last_active_ts AS "last_active_ts?",
             p.seen_ts AS "seen_ts?"
           FROM mx_user u LEFT JOIN presence p ON p.user_nid = u.user_nid
           WHERE u.mxid = ANY ($1) AND EXISTS (
             SELECT 1 FROM member m
             JOIN user_room l ON l.room_nid = m.room_nid AND l.membership = 1
             WHERE m.user_nid = u.user_nid AND m.membership = 1)"#,
        user_ids
    )
    .fetch_all(conn)
    .await?;
    let met = rows.into_iter().map(|row| {
        let change = Change {
            user: UserNid(row.user_nid),
            local: false,
            presence: Presence {
                state: State::of_code(row.state.unwrap_or_default()),
                status_msg: row.status_msg,
                currently_active: row.currently_active.unwrap_or_default(),
                last_active_ts: row.last_active_ts.unwrap_or_default(),
            },
            seen_ts: row.seen_ts.unwrap_or_default(),
        };
        (row.mxid, change)
    });
    Ok(met.collect())
}

/// Servers that share a room with some users, each with the user.
pub async fn list_servers(
    conn: &mut PgConnection,
    users: &[i64],
) -> Result<Vec<(ServerNid, UserNid)>, Error> {
    let rows = sqlx::query!(
        "SELECT DISTINCT r.server_nid, m.user_nid FROM member m
         JOIN room_server r ON r.room_nid = m.room_nid AND r.joined > 0
         WHERE m.user_nid = ANY ($1) AND m.membership = 1
         ORDER BY r.server_nid, m.user_nid",
        users
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (ServerNid(row.server_nid), UserNid(row.user_nid)))
        .collect())
}

/// Who of ours is there, in some rooms, for the servers that should hear of it now: those that came
/// into the room at `from` or later, and all in the room for those whose membership is one of
/// `events`.
pub async fn list_newcomers(
    conn: &mut PgConnection,
    rooms: &[i64],
    (from, events): (Pos, &[i64]),
    limit: i64,
) -> Result<Vec<(ServerNid, UserNid)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT r.server_nid AS "server!", u.user_nid AS "user!" FROM room_server r
           JOIN user_room u ON u.room_nid = r.room_nid AND u.membership = 1
           JOIN presence p ON p.user_nid = u.user_nid AND p.state > 0
           WHERE r.room_nid = ANY ($1) AND r.joined > 0 AND r.since_pos >= $2
           UNION
           SELECT r.server_nid, u.user_nid FROM user_room u
           JOIN presence p ON p.user_nid = u.user_nid AND p.state > 0
           JOIN room_server r ON r.room_nid = u.room_nid AND r.joined > 0
           WHERE u.room_nid = ANY ($1) AND u.membership = 1 AND u.event_nid = ANY ($3)
           ORDER BY 1, 2 LIMIT $4"#,
        rooms,
        from,
        events,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (ServerNid(row.server), UserNid(row.user)))
        .collect())
}

/// Rooms that any of some users is in.
pub async fn list_rooms(conn: &mut PgConnection, users: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT DISTINCT room_nid FROM member WHERE user_nid = ANY ($1) AND membership = 1",
        users
    )
    .fetch_all(conn)
    .await?)
}
