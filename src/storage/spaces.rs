//! What is known of rooms that spaces name: who is in them, ours and others.

use std::collections::HashMap;

use ruma::{OwnedRoomId, RoomId};
use sqlx::PgConnection;

use super::{Error, RoomNid, ServerNid, UserNid};

/// A room that we have a number for.
#[derive(Clone, Debug)]
pub struct Known {
    /// Room.
    pub nid: RoomNid,
    /// Joined users.
    pub joined: i64,
    /// Whether one of us is in it.
    pub ours: bool,
    /// Whether somebody of the server that asks is in it.
    pub theirs: bool,
}

/// Those of the rooms that we know, by id. `asking` is the server that asks, or ours.
pub async fn list_known(
    conn: &mut PgConnection,
    ids: &[String],
    own: ServerNid,
    asking: ServerNid,
) -> Result<HashMap<OwnedRoomId, Known>, Error> {
    let rows = sqlx::query!(
        r#"SELECT r.room_id, r.room_nid, COALESCE(sum(s.joined), 0)::bigint AS "joined!",
             COALESCE(bool_or(s.server_nid = $2 AND (s.joined > 0 OR s.told)), false) AS "ours!",
             COALESCE(bool_or(s.server_nid = $3 AND (s.joined > 0 OR s.told)), false) AS "theirs!"
           FROM room r
           LEFT JOIN room_server s ON s.room_nid = r.room_nid
           WHERE r.room_id = ANY($1)
           GROUP BY r.room_nid"#,
        ids,
        own.0,
        asking.0
    )
    .fetch_all(conn)
    .await?;
    let known = rows.into_iter().map(|row| {
        let known = Known {
            nid: RoomNid(row.room_nid),
            joined: row.joined,
            ours: row.ours,
            theirs: row.theirs,
        };
        Ok((parse(&row.room_id)?, known))
    });
    known.collect()
}

/// Memberships of a user of ours by room, those that are joins, invites or bans: as their codes.
pub async fn list_memberships(
    conn: &mut PgConnection,
    user: UserNid,
) -> Result<HashMap<OwnedRoomId, i16>, Error> {
    let rows = sqlx::query!(
        "SELECT r.room_id, u.membership FROM user_room u
         JOIN room r ON r.room_nid = u.room_nid
         WHERE u.user_nid = $1 AND u.membership IN (1, 2, 4)",
        user.0
    )
    .fetch_all(conn)
    .await?;
    let memberships = rows
        .into_iter()
        .map(|row| Ok((parse(&row.room_id)?, row.membership)));
    memberships.collect()
}

/// Those of the rooms to which somebody of a server is invited.
pub async fn list_invited(
    conn: &mut PgConnection,
    server: ServerNid,
    rooms: &[i64],
) -> Result<Vec<RoomNid>, Error> {
    let invited = sqlx::query_scalar!(
        "SELECT DISTINCT m.room_nid FROM member m
         JOIN mx_user u ON u.user_nid = m.user_nid
         WHERE m.room_nid = ANY($2) AND m.membership = 2 AND u.server_nid = $1",
        server.0,
        rooms
    )
    .fetch_all(conn)
    .await?;
    Ok(invited.into_iter().map(RoomNid).collect())
}

/// Those of the state keys that are of one event type.
pub async fn list_of_type(
    conn: &mut PgConnection,
    kind: super::TypeNid,
    skeys: &[i64],
) -> Result<Vec<i64>, Error> {
    let found = sqlx::query_scalar!(
        "SELECT skey_nid FROM state_key WHERE skey_nid = ANY($2) AND type_nid = $1",
        kind.0,
        skeys
    );
    Ok(found.fetch_all(conn).await?)
}

fn parse(id: &str) -> Result<OwnedRoomId, Error> {
    RoomId::parse(id).map_err(|_| Error::Inconsistent {
        table: "room",
        what: id.to_owned(),
    })
}
