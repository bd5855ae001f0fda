//! Knocking: asking to be let in.

use ruma::{OwnedRoomId, OwnedServerName, RoomId, UserId};
use serde_json::{Map, json};

use super::{
    super::{Error, Rooms, blocks, remote, send::send},
    draft_with_profile, join, we_are_in,
};

/// Knocks on a room (`POST /knock`).
pub async fn knock(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    via: &[OwnedServerName],
    reason: Option<&str>,
) -> Result<OwnedRoomId, Error> {
    blocks::check(rooms, room_id).await?;
    let mut content = Map::new();
    content.insert("membership".to_owned(), json!("knock"));
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), json!(reason));
    }
    let draft = draft_with_profile(rooms, user, content).await?;
    if we_are_in(rooms, room_id).await? {
        let sent = send(rooms, room_id, user, &draft, None).await?;
        if let Some(pos) = sent.pos {
            rooms.ctx().db.stream.reached(pos).await;
        }
    } else {
        let via = join::candidates(rooms, room_id, user, via).await?;
        remote::knock::knock(rooms, room_id, user, &via, &draft).await?;
    }
    Ok(room_id.to_owned())
}
