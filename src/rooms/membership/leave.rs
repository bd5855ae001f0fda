//! Leaving a room, refusing an invitation, taking back a knock.

use ruma::{EventId, RoomId, UserId, events::room::member::MembershipState};
use serde_json::{Map, json};

use super::{
    super::{Error, Rooms, remote, send::send},
    current, draft, we_are_in,
};
use crate::{
    clock::now_ms,
    event::client::{Shape, to_client},
    storage::{self, LogEntry, LogKind, RoomNid, UserNid},
};

/// Leaves a room (`POST /leave`). Who is not in it has nothing to do; who was never there is told.
pub async fn leave(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    reason: Option<&str>,
) -> Result<(), Error> {
    let unknown = || Error::RoomNotFound(room_id.to_owned());
    let ids = &rooms.ctx().db.ids;
    let room = ids.find_room(room_id).await?.ok_or_else(unknown)?;
    let user_nid = ids.user(user).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let row = storage::memberships::find_of_user(&mut conn, user_nid, room).await?;
    drop(conn);
    let row = row.ok_or_else(unknown)?;
    if !matches!(row.membership, 1 | 2 | 5) {
        return Ok(());
    }
    // A room that everybody has left is ours as well, if it was of this server alone.
    let ours = we_are_in(rooms, room_id).await? || is_empty(rooms, room).await?;
    let known = current(rooms, room_id, user).await?;
    let in_graph = matches!(
        known,
        Some(MembershipState::Join | MembershipState::Invite | MembershipState::Knock)
    );
    if ours && in_graph {
        let sent = send(rooms, room_id, user, &draft("leave", user, reason)?, None).await?;
        if let Some(pos) = sent.pos {
            rooms.ctx().db.stream.reached(pos).await;
        }
        return Ok(());
    }
    let via = super::join::candidates(rooms, room_id, user, &[]).await?;
    let told = remote::leave::leave(rooms, room_id, user, &via, reason).await;
    let event = match told {
        Ok(leave) => to_client(&leave, Shape::Sync, Map::new()).get().to_owned(),
        Err(error) => {
            // The user must be able to get rid of an invitation whose server is gone.
            tracing::info!(%error, %room_id, "a peer was not told that an invitation was refused");
            made_up(user, reason)
        }
    };
    end_out_of_band(rooms, room, user_nid, &event).await
}

/// Whether we hold a room that nobody is in, of any server.
async fn is_empty(rooms: &Rooms, room: RoomNid) -> Result<bool, Error> {
    let Some(held) = rooms.find(room).await? else {
        return Ok(false);
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let servers = storage::memberships::list_servers(&mut conn, held.nid).await?;
    Ok(servers.is_empty())
}

/// A leave event that no room has, for the clients of a user whose invitation ends here.
fn made_up(user: &UserId, reason: Option<&str>) -> String {
    let mut content = json!({ "membership": "leave" });
    if let Some(reason) = reason {
        content["reason"] = json!(reason);
    }
    let id = uuid::Uuid::new_v4().simple();
    json!({
        "type": "m.room.member", "state_key": user, "sender": user, "content": content,
        "event_id": format!("${id}"), "origin_server_ts": now_ms(),
    })
    .to_string()
}

/// Ends an invite or knock of a room that we do not hold; `event` is what clients are shown.
pub(in super::super) async fn end_out_of_band(
    rooms: &Rooms,
    room: RoomNid,
    user: UserNid,
    event: &str,
) -> Result<(), Error> {
    let shown = format!("[{event}]");
    set_out_of_band(rooms, room, user, (3, user), Some(&shown), None).await
}

/// Sets an invite (with its event id), a knock, or the end of one, of a room that we do not hold.
pub(in super::super) async fn set_out_of_band(
    rooms: &Rooms,
    room: RoomNid,
    user: UserNid,
    (membership, sender): (i16, UserNid),
    stripped: Option<&str>,
    invite_id: Option<&EventId>,
) -> Result<(), Error> {
    let body = stripped.map(storage::codec::encode_body);
    let mut tx = rooms.ctx().db.begin().await?;
    storage::memberships::upsert_out_of_band(
        &mut tx,
        user,
        room,
        (membership, sender),
        (body.as_deref(), invite_id.map(EventId::as_str)),
    )
    .await?;
    let entry = LogEntry {
        kind: LogKind::OutOfBand,
        room: room.0,
        user: user.0,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    storage::memberships::update_pos(&mut tx, user, room, pos).await?;
    tx.commit().await?;
    rooms.ctx().db.stream.reached(pos).await;
    Ok(())
}
