//! A summary of one room for somebody who may not be in it
//! (`GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`).

use std::collections::HashMap;

use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, RoomOrAliasId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::{Map, Value};

use super::{Looking, known, ours, peers, summary::Summary};
use crate::{
    rooms::{Error, Rooms, aliases, membership::join::candidates},
    storage::{self, UserNid, memberships::of_code},
};

/// Servers that are asked where nobody is in the room.
const VIA_MAX: usize = 10;

/// The summary, and what the user is in the room. `asking` is nobody for who did not log in: then
/// only what anybody could join, knock on or read is told.
pub async fn of(
    rooms: &Rooms,
    asking: Option<(&UserId, UserNid)>,
    target: &RoomOrAliasId,
    via: &[OwnedServerName],
) -> Result<(Summary, Option<MembershipState>), Error> {
    let (room_id, via) = resolve(rooms, target, via).await?;
    let looking = match asking {
        Some((_, nid)) => Looking::of(rooms, nid).await?,
        None => Looking::default(),
    };
    let found = match local(rooms, &room_id).await? {
        Some(summary) => Some(summary),
        None => elsewhere(rooms, asking, &room_id, &via).await?,
    };
    let summary = found
        .filter(|summary| looking.may_see(summary))
        .ok_or_else(|| Error::RoomNotFound(room_id.clone()))?;
    let membership = match asking {
        Some((_, nid)) => Some(membership(rooms, nid, &room_id).await?),
        None => None,
    };
    Ok((summary, membership))
}

async fn resolve(
    rooms: &Rooms,
    target: &RoomOrAliasId,
    via: &[OwnedServerName],
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), Error> {
    let mut via: Vec<OwnedServerName> = via.iter().take(VIA_MAX).cloned().collect();
    let room_id = match <&ruma::RoomAliasId>::try_from(target) {
        Ok(alias) => {
            let (room_id, servers) = aliases::resolve(rooms, alias).await?;
            via.extend(servers.into_iter().take(VIA_MAX));
            room_id
        }
        Err(_) => RoomId::parse(target.as_str())
            .map_err(|_| Error::InvalidParam("neither a room nor an alias".to_owned()))?,
    };
    Ok((room_id, via))
}

async fn local(rooms: &Rooms, room_id: &RoomId) -> Result<Option<Summary>, Error> {
    let known = known(rooms, None, std::iter::once(room_id)).await?;
    let found = ours(rooms, known.get(room_id)).await?;
    Ok(found.map(|(_, summary)| summary))
}

/// What peers tell, or what came with an invitation.
async fn elsewhere(
    rooms: &Rooms,
    asking: Option<(&UserId, UserNid)>,
    room_id: &RoomId,
    via: &[OwnedServerName],
) -> Result<Option<Summary>, Error> {
    let via = match asking {
        Some((user, _)) => candidates(rooms, room_id, user, via).await?,
        None => via.to_vec(),
    };
    if let Some(answer) = peers::ask(rooms, room_id, &via, false).await {
        return Ok(Some(answer.room.clone()));
    }
    match asking {
        Some((_, nid)) => invitation(rooms, nid, room_id).await,
        None => Ok(None),
    }
}

/// What an invitation or knock tells of its room.
async fn invitation(
    rooms: &Rooms,
    user: UserNid,
    room_id: &RoomId,
) -> Result<Option<Summary>, Error> {
    #[derive(serde::Deserialize)]
    struct Stripped {
        #[serde(rename = "type")]
        kind: StateEventType,
        state_key: String,
        content: Map<String, Value>,
    }
    let Some(nid) = rooms.ctx().db.ids.find_room(room_id).await? else {
        return Ok(None);
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let row = storage::memberships::find_of_user(&mut conn, user, nid).await?;
    let row = row.filter(|row| matches!(row.membership, 2 | 5));
    let Some(stripped) = row.and_then(|row| row.stripped) else {
        return Ok(None);
    };
    let events: Vec<Value> = serde_json::from_str(&stripped).unwrap_or_default();
    let events = events
        .into_iter()
        .filter_map(|event| serde_json::from_value::<Stripped>(event).ok())
        .filter(|event| event.state_key.is_empty());
    let contents: HashMap<StateEventType, Map<String, Value>> =
        events.map(|event| (event.kind, event.content)).collect();
    // Who is there is not told.
    let summary = Summary::build(room_id, None, 0, |kind| contents.get(kind).cloned());
    Ok(Some(summary))
}

async fn membership(
    rooms: &Rooms,
    user: UserNid,
    room_id: &RoomId,
) -> Result<MembershipState, Error> {
    let Some(nid) = rooms.ctx().db.ids.find_room(room_id).await? else {
        return Ok(MembershipState::Leave);
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let row = storage::memberships::find_of_user(&mut conn, user, nid).await?;
    Ok(row.map_or(MembershipState::Leave, |row| of_code(row.membership)))
}
