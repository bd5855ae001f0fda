//! Knocking on a room through a peer.

use ruma::{
    OwnedServerName, RoomId, ServerName, UserId,
    api::federation::membership::{RawStrippedState, create_knock_event, prepare_knock_event},
    events::room::member::MembershipState,
};
use serde_json::value::RawValue;

use super::{STRIPPED_MAX, complete, verify_all, version_of};
use crate::{
    clock::now_ms,
    event::{
        build::Draft,
        client::{Shape, to_client},
        version::{self, RoomVersion},
    },
    rooms::{Error, Rooms, membership},
    storage,
};

/// Knocks through the first of `via` that helps.
pub async fn knock(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    via: &[OwnedServerName],
    draft: &Draft,
) -> Result<(), Error> {
    let federation = &rooms.ctx().federation;
    let mut last = Error::RoomNotFound(room_id.to_owned());
    for server in via {
        let attempt = async {
            let mut request =
                prepare_knock_event::v1::Request::new(room_id.to_owned(), user.to_owned());
            request.ver = version::supported();
            let template = federation
                .request(server, request)
                .await
                .map_err(super::refused)?;
            let version = version_of(Some(template.room_version))?;
            let knock = complete(
                rooms,
                &template.event,
                user,
                draft,
                &MembershipState::Knock,
                &version,
            )?;
            let request = create_knock_event::v1::Request::new(
                room_id.to_owned(),
                knock.event_id.clone(),
                knock.raw(),
            );
            let answer = federation
                .request(server, request)
                .await
                .map_err(super::refused)?;
            let named = super::servers_of(&answer.knock_room_state);
            super::stay_clear(rooms, (room_id, server), user, named.iter()).await?;
            let own = to_client(&knock, Shape::Sync, serde_json::Map::new());
            let state = strip(
                (rooms, server),
                &answer.knock_room_state,
                &version,
                own.get(),
            )
            .await;
            Ok::<(RoomVersion, String), Error>((version, state))
        };
        match attempt.await {
            Ok((version, stripped)) => {
                let mut conn = rooms.ctx().db.conn().await?;
                let room =
                    storage::rooms::intern(&mut conn, room_id, &version.id, now_ms()).await?;
                drop(conn);
                let nid = rooms.ctx().db.ids.user(user).await?;
                return membership::leave::set_out_of_band(
                    rooms,
                    room,
                    nid,
                    (5, nid),
                    Some(&stripped),
                    None,
                )
                .await;
            }
            Err(error @ Error::RefusedServers(_)) => return Err(error),
            Err(error) => last = super::worse(last, error),
        }
    }
    Err(last)
}

/// Stripped state for clients out of what a peer gives: full events that verify, or stripped ones
/// cut down to the four fields. `own` is the user's own membership event, as it is told.
pub(in crate::rooms) async fn strip(
    (rooms, via): (&Rooms, &ServerName),
    state: &[RawStrippedState],
    version: &RoomVersion,
    own: &str,
) -> String {
    let mut full: Vec<Box<RawValue>> = Vec::new();
    let mut parts: Vec<String> = Vec::new();
    for event in state.iter().take(STRIPPED_MAX) {
        match event {
            RawStrippedState::Pdu(raw) => full.push(raw.clone()),
            #[expect(deprecated, reason = "servers before v1.16 send stripped events")]
            RawStrippedState::Stripped(raw) => parts.extend(cut_down(raw.json())),
            _ => {}
        }
    }
    for pdu in verify_all(rooms, via, &full, version).await {
        let stripped = to_client(&pdu, Shape::Stripped, serde_json::Map::new());
        parts.push(stripped.get().to_owned());
    }
    parts.push(own.to_owned());
    format!("[{}]", parts.join(","))
}

fn cut_down(raw: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Stripped {
        content: serde_json::Map<String, serde_json::Value>,
        sender: ruma::OwnedUserId,
        state_key: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let stripped: Stripped = serde_json::from_str(raw.get()).ok()?;
    serde_json::to_string(&stripped).ok()
}
