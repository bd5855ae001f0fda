//! Invitations that are taken back, and knocks that are refused, in rooms that we do not hold.
//!
//! Such an event cannot be authorized: we have no state. It is believed of who invited the user, and
//! of any user of the sending server where ours knocked; all that it can do is end the invitation.

use ruma::{RoomId, ServerName, events::room::member::MembershipState};
use serde_json::{Map, value::RawValue};

use super::{
    Error, Rooms, membership::leave::set_out_of_band, persist::is_local, remote::verify_all,
};
use crate::{
    event::{
        client::{Shape, to_client},
        pdu::Pdu,
        version::RoomVersion,
    },
    storage::{self, RoomNid},
};

/// Ends invitations and knocks of users of ours that events of a peer put an end to.
pub(super) async fn rescind(
    rooms: &Rooms,
    origin: &ServerName,
    room_id: &RoomId,
    events: &[Box<RawValue>],
) -> Result<(), Error> {
    let Some(nid) = rooms.ctx().db.ids.find_room(room_id).await? else {
        return Ok(());
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let row = storage::rooms::find(&mut conn, nid).await?;
    drop(conn);
    let Some(version) = row.and_then(|row| RoomVersion::of(&row.version)) else {
        return Ok(());
    };
    for pdu in verify_all(rooms, origin, events, &version).await {
        if pdu.room_id == room_id && pdu.sender.server_name() == origin {
            end(rooms, nid, &pdu).await?;
        }
    }
    Ok(())
}

async fn end(rooms: &Rooms, room: RoomNid, pdu: &Pdu) -> Result<(), Error> {
    let membership = match pdu.membership() {
        Some(MembershipState::Leave) => 3,
        Some(MembershipState::Ban) => 4,
        _ => return Ok(()),
    };
    let Some(target) = pdu.target().filter(|target| is_local(rooms, target)) else {
        return Ok(());
    };
    let ids = &rooms.ctx().db.ids;
    let Some(user) = ids.find_user(target).await? else {
        return Ok(());
    };
    let sender = ids.user(&pdu.sender).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let row = storage::memberships::find_of_user(&mut conn, user, room).await?;
    drop(conn);
    let is_over = match row {
        Some(row) if row.membership == 2 => row.sender == Some(sender),
        Some(row) => row.membership == 5,
        None => false,
    };
    if is_over {
        let shown = format!("[{}]", to_client(pdu, Shape::Sync, Map::new()).get());
        set_out_of_band(rooms, room, user, (membership, sender), Some(&shown), None).await?;
    }
    Ok(())
}
