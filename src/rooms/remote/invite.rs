//! Inviting a user of a peer.

use std::sync::Arc;

use ruma::{
    UserId,
    api::federation::membership::{RawStrippedState, create_invite},
};

use super::verify_all;
use crate::{
    event::pdu::Pdu,
    federation,
    rooms::{
        Error, Rooms, membership,
        place::{Incoming, Verdict, place},
        resident::Room,
    },
};

/// Has the invited server sign an invitation of ours, and places it.
pub async fn invite(
    rooms: &Rooms,
    room: &Room,
    target: &UserId,
    invite: Arc<Pdu>,
) -> Result<(), Error> {
    let preview = membership::invite::preview(rooms, room, Some(&invite.sender)).await?;
    let state = preview
        .iter()
        .map(|pdu| RawStrippedState::Pdu(pdu.raw()))
        .collect();
    let request = create_invite::v2::Request::new(
        room.id.clone(),
        invite.event_id.clone(),
        room.version.id.clone(),
        invite.raw(),
        state,
    );
    let server = target.server_name();
    let answer = rooms
        .ctx()
        .federation
        .request(server, request)
        .await
        .map_err(|error| match &error {
            federation::Error::Remote {
                status: 403,
                errcode,
                ..
            } if errcode == "M_INVITE_BLOCKED" => Error::InviteBlocked(target.to_owned()),
            _ => super::refused(error),
        })?;
    let signed = verify_all(rooms, server, &[answer.event], &room.version)
        .await
        .pop();
    let Some(signed) = signed.filter(|signed| signed.event_id == invite.event_id) else {
        return Err(Error::Remote(
            "the invited server answered with another event".to_owned(),
        ));
    };
    let out = rooms.ctx().db.ids.server(server).await?.0;
    let mut incoming = Incoming::new(rooms, room, Arc::new(signed)).await?;
    incoming.out = Some(out);
    match place(rooms, room.nid, incoming).await? {
        Verdict::Accepted => Ok(()),
        Verdict::Rejected | Verdict::SoftFailed => {
            Err(Error::Forbidden("the room changed meanwhile".to_owned()))
        }
    }
}
