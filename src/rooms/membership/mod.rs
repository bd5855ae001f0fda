//! Membership of users in rooms.

pub mod invite;
pub mod join;
pub mod knock;
pub mod leave;
pub mod third_party;

use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, json};

use super::{
    Error, Rooms,
    persist::is_local,
    purge, raw,
    send::{Sent, send},
};
use crate::{event::build::Draft, storage};

/// A membership event with that content and nothing else.
pub(super) fn draft(
    membership: &str,
    target: &UserId,
    reason: Option<&str>,
) -> Result<Draft, Error> {
    with_content(target, content(membership, reason))
}

fn content(membership: &str, reason: Option<&str>) -> Map<String, Value> {
    let mut content = Map::new();
    content.insert("membership".to_owned(), json!(membership));
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), json!(reason));
    }
    content
}

/// An invitation. Of a user of ours it shows the profile: clients name a direct chat after who is
/// invited, and would name it by an id until they come (as Synapse does).
pub(super) async fn invitation(
    rooms: &Rooms,
    target: &UserId,
    is_direct: bool,
    reason: Option<&str>,
) -> Result<Draft, Error> {
    let mut content = content("invite", reason);
    if is_direct {
        content.insert("is_direct".to_owned(), json!(true));
    }
    if is_local(rooms, target) {
        draft_with_profile(rooms, target, content).await
    } else {
        with_content(target, content)
    }
}

fn with_content(target: &UserId, content: Map<String, Value>) -> Result<Draft, Error> {
    Ok(Draft::state(
        TimelineEventType::RoomMember,
        target.to_string(),
        raw(&Value::Object(content))?,
    ))
}

/// A membership event of a user of ours, with what its profile shows in rooms.
pub(super) async fn draft_with_profile(
    rooms: &Rooms,
    user: &UserId,
    mut content: Map<String, Value>,
) -> Result<Draft, Error> {
    let Some(nid) = rooms.ctx().db.ids.find_user(user).await? else {
        return with_content(user, content);
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let (display_name, avatar_url) = storage::memberships::profile(&mut conn, nid).await?;
    drop(conn);
    if let Some(name) = display_name {
        content.entry("displayname").or_insert(json!(name));
    }
    if let Some(url) = avatar_url {
        content.entry("avatar_url").or_insert(json!(url));
    }
    with_content(user, content)
}

/// A user's membership in a room that we hold; `None`: never had one.
pub async fn current(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
) -> Result<Option<MembershipState>, Error> {
    let Some(nid) = rooms.ctx().db.ids.find_room(room_id).await? else {
        return Ok(None);
    };
    let Some(room) = rooms.find(nid).await? else {
        return Ok(None);
    };
    let head = room.head();
    let event = rooms.member_event(&room, &head.state.entries, user).await?;
    Ok(event.and_then(|event| event.membership()))
}

/// Fails unless the user is joined to the room.
pub async fn require_joined(rooms: &Rooms, room_id: &RoomId, user: &UserId) -> Result<(), Error> {
    match current(rooms, room_id, user).await? {
        Some(MembershipState::Join) => Ok(()),
        _ => Err(Error::NotJoined {
            user_id: user.to_owned(),
            room_id: room_id.to_owned(),
        }),
    }
}

/// Fails unless a peer's user is joined, or may be: of a room that lacks members only the servers
/// are known.
pub(super) async fn require_plausible(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
) -> Result<(), Error> {
    match require_joined(rooms, room_id, user).await {
        Err(refusal @ Error::NotJoined { .. }) => {
            let room = rooms.by_id(room_id).await?;
            if !room.partial {
                // Its state may have become whole just now.
                return require_joined(rooms, room_id, user).await;
            }
            if current(rooms, room_id, user).await?.is_some() {
                return Err(refusal);
            }
            let server = rooms.ctx().db.ids.server(user.server_name()).await?;
            let mut conn = rooms.ctx().db.conn().await?;
            if storage::memberships::is_server_joined(&mut conn, room.nid, server).await? {
                Ok(())
            } else {
                Err(refusal)
            }
        }
        other => other,
    }
}

/// Whether one of our users is joined, so that we can act for the room.
pub async fn we_are_in(rooms: &Rooms, room_id: &RoomId) -> Result<bool, Error> {
    let Some(nid) = rooms.ctx().db.ids.find_room(room_id).await? else {
        return Ok(false);
    };
    if rooms.find(nid).await?.is_none() {
        return Ok(false);
    }
    let own = rooms.ctx().db.ids.server(rooms.ctx().server_name()).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::memberships::is_server_joined(&mut conn, nid, own).await?)
}

/// Removes a user from a room (`POST /kick`).
pub async fn kick(
    rooms: &Rooms,
    room_id: &RoomId,
    sender: &UserId,
    target: &UserId,
    reason: Option<&str>,
) -> Result<Sent, Error> {
    // A kick of someone who is banned would be an unban.
    match current(rooms, room_id, target).await? {
        Some(MembershipState::Join | MembershipState::Invite | MembershipState::Knock) => {
            put(rooms, room_id, sender, draft("leave", target, reason)?).await
        }
        _ => Err(Error::Forbidden(format!("{target} is not in the room"))),
    }
}

/// Bans a user (`POST /ban`).
pub async fn ban(
    rooms: &Rooms,
    room_id: &RoomId,
    sender: &UserId,
    target: &UserId,
    reason: Option<&str>,
) -> Result<Sent, Error> {
    put(rooms, room_id, sender, draft("ban", target, reason)?).await
}

/// Lifts a ban (`POST /unban`).
pub async fn unban(
    rooms: &Rooms,
    room_id: &RoomId,
    sender: &UserId,
    target: &UserId,
    reason: Option<&str>,
) -> Result<Sent, Error> {
    match current(rooms, room_id, target).await? {
        Some(MembershipState::Ban) => {
            put(rooms, room_id, sender, draft("leave", target, reason)?).await
        }
        _ => Err(Error::Forbidden(format!("{target} is not banned"))),
    }
}

async fn put(
    rooms: &Rooms,
    room_id: &RoomId,
    sender: &UserId,
    draft: Draft,
) -> Result<Sent, Error> {
    require_joined(rooms, room_id, sender).await?;
    send(rooms, room_id, sender, &draft, None).await
}

/// Forgets a room that the user has left (`POST /forget`).
pub async fn forget(rooms: &Rooms, room_id: &RoomId, user: &UserId) -> Result<(), Error> {
    let unknown = || Error::RoomNotFound(room_id.to_owned());
    let ids = &rooms.ctx().db.ids;
    let room = ids.find_room(room_id).await?.ok_or_else(unknown)?;
    let user_nid = ids.user(user).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    if storage::memberships::find_of_user(&mut conn, user_nid, room)
        .await?
        .is_none()
    {
        return Err(unknown());
    }
    drop(conn);
    if !purge::forget(rooms, room, user_nid).await? {
        return Err(Error::StillThere(user.to_owned()));
    }
    Ok(())
}

/// Room ids in which a user of ours is joined.
pub async fn joined_rooms(rooms: &Rooms, user: &UserId) -> Result<Vec<ruma::OwnedRoomId>, Error> {
    let nid = rooms.ctx().db.ids.user(user).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let all = storage::memberships::list_of_user(&mut conn, nid).await?;
    drop(conn);
    let joined: Vec<_> = all
        .into_iter()
        .filter(|row| row.membership == 1)
        .map(|row| row.room)
        .collect();
    Ok(rooms.ctx().db.ids.room_ids_of(&joined).await?)
}

/// Leaves and forgets every room of a user whose account is closed, who could not do it later. What
/// fails is logged: the account is closed all the same.
pub async fn leave_all(rooms: &Rooms, user: &UserId) -> Result<(), Error> {
    let nid = rooms.ctx().db.ids.user(user).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let all = storage::memberships::list_of_user(&mut conn, nid).await?;
    drop(conn);
    for row in all {
        let room_id = rooms.ctx().db.ids.room_id(row.room).await?;
        if matches!(row.membership, 1 | 2 | 5)
            && let Err(error) = leave::leave(rooms, &room_id, user, None).await
        {
            tracing::warn!(%error, %room_id, "a closed account could not leave a room");
        }
        purge::forget(rooms, row.room, nid).await?;
    }
    Ok(())
}

/// Writes a changed profile into the user's membership events.
pub async fn spread_profile(rooms: &Rooms, user: &UserId) -> Result<(), Error> {
    for room_id in joined_rooms(rooms, user).await? {
        let room = rooms.by_id(&room_id).await?;
        let head = room.head();
        let Some(event) = rooms.member_event(&room, &head.state.entries, user).await? else {
            continue;
        };
        let mut content: Map<String, Value> = event.content_as().unwrap_or_default();
        for key in [
            "displayname",
            "avatar_url",
            "join_authorised_via_users_server",
            "reason",
        ] {
            content.remove(key);
        }
        let draft = draft_with_profile(rooms, user, content).await?;
        if let Err(error) = send(rooms, &room_id, user, &draft, None).await {
            tracing::warn!(%error, %room_id, "a changed profile was not sent to a room");
        }
    }
    Ok(())
}

/// State that is shown to who is invited or knocks: (type, state key).
pub(super) const STRIPPED: [StateEventType; 8] = [
    StateEventType::RoomCreate,
    StateEventType::RoomJoinRules,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomAvatar,
    StateEventType::RoomName,
    StateEventType::RoomEncryption,
    StateEventType::RoomTopic,
    StateEventType::RoomHistoryVisibility,
];

/// Users with power to invite, ours only: one of them can vouch for a restricted join.
pub(super) async fn local_inviter(
    rooms: &Rooms,
    room_id: &RoomId,
) -> Result<Option<OwnedUserId>, Error> {
    let room = rooms.by_id(room_id).await?;
    let power = rooms.power(&room).await?;
    let needed = power.needed("invite");
    let mut conn = rooms.ctx().db.conn().await?;
    let local = storage::memberships::list_local_joined(&mut conn, room.nid).await?;
    drop(conn);
    let users = rooms.ctx().db.ids.user_ids_of(&local).await?;
    Ok(users.into_iter().find(|user| power.of(user) >= needed))
}
