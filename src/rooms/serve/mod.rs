//! What peers ask of us for a room: joining and its kin, and events.

pub mod accept;
pub mod acl;
pub mod history;
pub mod stream;
pub mod template;

use std::sync::Arc;

use ruma::{RoomId, ServerName};

use super::{Error, Rooms, resident::Room};
use crate::storage;

/// The room, if that server may ask about it: it is not shut out by the room's server ACL.
pub async fn admitted(
    rooms: &Rooms,
    room_id: &RoomId,
    origin: &ServerName,
) -> Result<Arc<Room>, Error> {
    let room = rooms.by_id(room_id).await?;
    if acl::is_allowed(rooms, &room, origin).await? {
        Ok(room)
    } else {
        Err(Error::Forbidden(
            "your server is denied by the room's server ACL".to_owned(),
        ))
    }
}

/// The room, if that server is in it.
pub async fn inside(
    rooms: &Rooms,
    room_id: &RoomId,
    origin: &ServerName,
) -> Result<Arc<Room>, Error> {
    let room = admitted(rooms, room_id, origin).await?;
    let server = rooms.ctx().db.ids.server(origin).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    if storage::memberships::is_server_joined(&mut conn, room.nid, server).await? {
        Ok(room)
    } else {
        Err(Error::Forbidden(
            "your server is not in the room".to_owned(),
        ))
    }
}
