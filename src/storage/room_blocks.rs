//! Rooms that no local user may enter.

use ruma::RoomId;
use sqlx::PgConnection;

use super::{Error, UserNid};

/// Who blocked a room; `None`: nobody.
pub async fn find(conn: &mut PgConnection, room: &RoomId) -> Result<Option<UserNid>, Error> {
    let user = sqlx::query_scalar!(
        "SELECT user_nid FROM room_block WHERE room_id = $1",
        room.as_str()
    )
    .fetch_optional(conn)
    .await?;
    Ok(user.map(UserNid))
}

/// Blocks a room; who did it first stays known.
pub async fn insert(
    conn: &mut PgConnection,
    room: &RoomId,
    user: UserNid,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO room_block (room_id, user_nid, since_ts) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
        room.as_str(),
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lifts the block of a room.
pub async fn delete(conn: &mut PgConnection, room: &RoomId) -> Result<(), Error> {
    sqlx::query!("DELETE FROM room_block WHERE room_id = $1", room.as_str())
        .execute(conn)
        .await?;
    Ok(())
}
