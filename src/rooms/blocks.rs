//! Rooms that an administrator has blocked: no user of ours may enter them, or be invited.

use ruma::{OwnedUserId, RoomId, UserId};

use super::{Error, Rooms};
use crate::{clock::now_ms, storage};

/// Fails where the room is blocked.
pub async fn check(rooms: &Rooms, room_id: &RoomId) -> Result<(), Error> {
    match blocked_by(rooms, room_id).await? {
        None => Ok(()),
        Some(_) => Err(Error::Forbidden(
            "this room has been blocked on this server".to_owned(),
        )),
    }
}

/// Who blocked a room; `None`: it is not blocked.
pub async fn blocked_by(rooms: &Rooms, room_id: &RoomId) -> Result<Option<OwnedUserId>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let user = storage::room_blocks::find(&mut conn, room_id).await?;
    drop(conn);
    match user {
        Some(user) => Ok(Some(rooms.ctx().db.ids.user_id(user).await?)),
        None => Ok(None),
    }
}

/// Blocks a room, known or not, or lifts the block.
pub async fn set(
    rooms: &Rooms,
    room_id: &RoomId,
    admin: &UserId,
    block: bool,
) -> Result<(), Error> {
    let admin = rooms.ctx().db.ids.user(admin).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    if block {
        storage::room_blocks::insert(&mut conn, room_id, admin, now_ms()).await?;
    } else {
        storage::room_blocks::delete(&mut conn, room_id).await?;
    }
    Ok(())
}
