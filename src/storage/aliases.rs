//! Local room aliases.

use ruma::{OwnedRoomAliasId, RoomAliasId};
use sqlx::PgConnection;

use super::{Error, RoomNid, UserNid};

/// The room an alias names and who made it.
pub async fn find(
    conn: &mut PgConnection,
    alias: &RoomAliasId,
) -> Result<Option<(RoomNid, UserNid)>, Error> {
    let row = sqlx::query!(
        "SELECT room_nid, creator_nid FROM room_alias WHERE alias = $1",
        alias.as_str()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (RoomNid(row.room_nid), UserNid(row.creator_nid))))
}

/// Makes an alias; violates `room_alias_pkey` when it is taken.
pub async fn insert(
    conn: &mut PgConnection,
    alias: &RoomAliasId,
    room: RoomNid,
    creator: UserNid,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO room_alias (alias, room_nid, creator_nid) VALUES ($1, $2, $3)",
        alias.as_str(),
        room.0,
        creator.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives the aliases of one room to another.
pub async fn move_all(conn: &mut PgConnection, from: RoomNid, to: RoomNid) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE room_alias SET room_nid = $2 WHERE room_nid = $1",
        from.0,
        to.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes an alias; `false` when there was none.
pub async fn delete(conn: &mut PgConnection, alias: &RoomAliasId) -> Result<bool, Error> {
    let done = sqlx::query!("DELETE FROM room_alias WHERE alias = $1", alias.as_str())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Aliases of a room, in alphabetical order.
pub async fn list(conn: &mut PgConnection, room: RoomNid) -> Result<Vec<OwnedRoomAliasId>, Error> {
    let rows = sqlx::query_scalar!(
        "SELECT alias FROM room_alias WHERE room_nid = $1 ORDER BY alias",
        room.0
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|alias| {
            RoomAliasId::parse(alias).map_err(|_| Error::Inconsistent {
                table: "room_alias",
                what: alias.clone(),
            })
        })
        .collect()
}

/// Aliases of ours of rooms: (room, alias).
pub async fn list_of_rooms(
    conn: &mut PgConnection,
    rooms: &[i64],
) -> Result<Vec<(i64, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT room_nid, alias FROM room_alias WHERE room_nid = ANY ($1)",
        rooms
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.room_nid, row.alias))
        .collect())
}
