//! Templates of membership events for users of peers: `make_join`, `make_leave`, `make_knock`.

use std::sync::Arc;

use ruma::{RoomId, RoomVersionId, UserId, events::room::member::MembershipState};
use serde_json::{Map, Value, json};

use crate::{
    clock::now_ms,
    event::{auth, build, build::Draft, pdu::Pdu},
    rooms::{
        Error, Rooms,
        membership::{
            self,
            join::{Restriction, restriction},
        },
        raw,
        send::{auth_slice, position},
        serve::admitted,
    },
};

/// A template for a user of `user`'s server, and the room's version. `versions`: those that the
/// peer takes part in; `None` where it is not asked.
pub async fn make(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    membership: &MembershipState,
    versions: Option<&[RoomVersionId]>,
) -> Result<(Value, RoomVersionId), Error> {
    let room = admitted(rooms, room_id, user.server_name()).await?;
    // While members lack we cannot tell who may come.
    if room.partial || !membership::we_are_in(rooms, room_id).await? {
        return Err(Error::RoomNotFound(room_id.to_owned()));
    }
    if versions.is_some_and(|versions| !versions.contains(&room.version.id)) {
        return Err(Error::IncompatibleVersion(room.version.id.to_string()));
    }
    let mut content = Map::new();
    content.insert("membership".to_owned(), json!(membership));
    if *membership == MembershipState::Join
        && let Some(inviter) = vouching(rooms, room_id, user).await?
    {
        content.insert(
            "join_authorised_via_users_server".to_owned(),
            json!(inviter),
        );
    }
    let draft = Draft::state(
        ruma::events::TimelineEventType::RoomMember,
        user.to_string(),
        raw(&Value::Object(content))?,
    );
    let head = room.head();
    let slice = auth_slice(rooms, &room, &head, user, &draft).await?;
    let object = build::unsigned_object(
        &draft,
        &position(&room, &head, &slice),
        user,
        now_ms(),
        &room.version,
    )?;
    let pdu = Arc::new(Pdu::from_object(object.clone(), &room.version)?);
    auth::check(&room.version, &pdu, |kind, key| slice.get(kind, key)).map_err(Error::Forbidden)?;
    let template =
        serde_json::to_value(&object).map_err(|error| Error::Invalid(error.to_string()))?;
    Ok((template, room.version.id.clone()))
}

/// Who of us vouches for a restricted join; `None`: nobody has to.
pub(super) async fn vouching(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
) -> Result<Option<ruma::OwnedUserId>, Error> {
    let invited = matches!(
        membership::current(rooms, room_id, user).await?,
        Some(MembershipState::Invite | MembershipState::Join)
    );
    if invited {
        return Ok(None);
    }
    match restriction(rooms, room_id, user).await? {
        Restriction::None => Ok(None),
        Restriction::NotMet => Err(Error::Forbidden(
            "the user is in none of the rooms that give access to this one".to_owned(),
        )),
        Restriction::Met => membership::local_inviter(rooms, room_id)
            .await?
            .map(Some)
            .ok_or(Error::UnableToAuthorise),
    }
}
