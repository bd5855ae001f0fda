//! Leaving through a peer: refusing an invitation, or taking back a knock.

use ruma::{
    OwnedServerName, RoomId, UserId,
    api::federation::membership::{create_leave_event, prepare_leave_event},
    events::room::member::MembershipState,
};

use super::{complete, version_of};
use crate::{
    event::pdu::Pdu,
    rooms::{Error, Rooms, membership},
};

/// Tells the first of `via` that answers; returns the event.
pub async fn leave(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    via: &[OwnedServerName],
    reason: Option<&str>,
) -> Result<Pdu, Error> {
    let draft = membership::draft("leave", user, reason)?;
    let federation = &rooms.ctx().federation;
    let mut last = Error::Remote("no server to tell".to_owned());
    for server in via {
        let attempt = async {
            let request =
                prepare_leave_event::v1::Request::new(room_id.to_owned(), user.to_owned());
            let template = federation
                .request(server, request)
                .await
                .map_err(super::refused)?;
            let version = version_of(template.room_version)?;
            let leave = complete(
                rooms,
                &template.event,
                user,
                &draft,
                &MembershipState::Leave,
                &version,
            )?;
            let request = create_leave_event::v2::Request::new(
                room_id.to_owned(),
                leave.event_id.clone(),
                leave.raw(),
            );
            federation
                .request(server, request)
                .await
                .map_err(super::refused)?;
            Ok::<Pdu, Error>(leave)
        };
        match attempt.await {
            Ok(leave) => return Ok(leave),
            Err(error) => last = super::worse(last, error),
        }
    }
    Err(last)
}
