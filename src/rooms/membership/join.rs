//! Joining: local where one of us is in the room, else with the help of a peer.

use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, json};

use super::{
    super::{Error, Rooms, blocks, doors, guests, presence, remote, send::send, succession},
    current, draft_with_profile, local_inviter, we_are_in,
};
use crate::{storage, users::announce};

/// Fields of a membership event that are not for the user to say.
const NOT_OWN: [&str; 6] = [
    "avatar_url",
    "displayname",
    "is_direct",
    "join_authorised_via_users_server",
    "third_party_invite",
    "third_party_signed",
];

/// Joins a room. `via` are servers that may help; `said` goes into the membership event: a reason, and
/// (NOTSPEC, as in Synapse) fields of one's own.
pub async fn join(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    via: &[OwnedServerName],
    said: Map<String, Value>,
) -> Result<OwnedRoomId, Error> {
    blocks::check(rooms, room_id).await?;
    let _entering = doors::enter(rooms, room_id).await?;
    let mut content = said;
    content.retain(|field, _| !NOT_OWN.contains(&field.as_str()));
    content.insert("membership".to_owned(), json!("join"));
    if we_are_in(rooms, room_id).await? && !rooms.by_id(room_id).await?.partial {
        if !local(rooms, room_id, user, via, content).await? {
            return Ok(room_id.to_owned());
        }
    } else {
        if current(rooms, room_id, user).await? == Some(MembershipState::Join) {
            return Ok(room_id.to_owned());
        }
        guests::check_remote(rooms, user).await?;
        let via = candidates(rooms, room_id, user, via).await?;
        let draft = draft_with_profile(rooms, user, content).await?;
        remote::join::join(rooms, room_id, user, &via, &draft).await?;
    }
    succession::follow(rooms, room_id, user).await;
    // The join is done, whatever comes of this.
    if let Err(error) = tell_of_devices(rooms, room_id, user).await {
        tracing::warn!(%error, %user, "peers were not told of devices");
    }
    Ok(room_id.to_owned())
}

async fn tell_of_devices(rooms: &Rooms, room_id: &RoomId, user: &UserId) -> Result<(), Error> {
    let ids = &rooms.ctx().db.ids;
    if let Some(room) = ids.find_room(room_id).await? {
        // NOTSPEC: while members lack, who is there is not known well enough to tell anybody of
        // devices. Servers ask for them when they see the join.
        if rooms.find(room).await?.is_none_or(|room| room.partial) {
            return Ok(());
        }
        let owner = (user, ids.user(user).await?);
        presence::joined(rooms, owner.1);
        announce::joined(rooms.ctx(), owner, room).await?;
    }
    Ok(())
}

/// Joins a room that we are in; `false`: the user was there before.
async fn local(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    via: &[OwnedServerName],
    mut content: Map<String, Value>,
) -> Result<bool, Error> {
    let now = current(rooms, room_id, user).await?;
    if now == Some(MembershipState::Join) {
        return Ok(false);
    }
    if now != Some(MembershipState::Invite) {
        match restriction(rooms, room_id, user).await? {
            Restriction::None => {}
            Restriction::NotMet => {
                return Err(Error::Forbidden(
                    "you are in none of the rooms that give access to this one".to_owned(),
                ));
            }
            Restriction::Unknown => {
                // A server that is in one of those rooms can tell.
                guests::check_remote(rooms, user).await?;
                let via = candidates(rooms, room_id, user, via).await?;
                let draft = draft_with_profile(rooms, user, content).await?;
                remote::join::join(rooms, room_id, user, &via, &draft).await?;
                return Ok(true);
            }
            Restriction::Met => {
                if let Some(inviter) = local_inviter(rooms, room_id).await? {
                    content.insert(
                        "join_authorised_via_users_server".to_owned(),
                        json!(inviter),
                    );
                } else {
                    // None of us may let anybody in: a server that can has to.
                    guests::check_remote(rooms, user).await?;
                    let via = candidates(rooms, room_id, user, via).await?;
                    let draft = draft_with_profile(rooms, user, content).await?;
                    remote::join::join(rooms, room_id, user, &via, &draft).await?;
                    return Ok(true);
                }
            }
        }
    }
    let draft = draft_with_profile(rooms, user, content).await?;
    let sent = send(rooms, room_id, user, &draft, None).await?;
    if let Some(pos) = sent.pos {
        rooms.ctx().db.stream.reached(pos).await;
    }
    Ok(true)
}

/// What restricted join rules say of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// The rules are not restricted ones.
    None,
    /// The user is in one of the rooms that give access.
    Met,
    /// The user is in none of them.
    NotMet,
    /// There are such rooms, we are in none of them and cannot tell.
    Unknown,
}

/// Rooms that give access which are looked at.
const ALLOWED_MAX: usize = 100;

/// Whether restricted join rules let a user in (`join_rule` `restricted`, `knock_restricted`).
pub async fn restriction(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
) -> Result<Restriction, Error> {
    #[derive(serde::Deserialize)]
    struct Rules {
        join_rule: Option<String>,
        #[serde(default)]
        allow: Vec<Value>,
    }
    let room = rooms.by_id(room_id).await?;
    let head = room.head();
    let event = rooms
        .state_event(
            &room,
            &head.state.entries,
            &StateEventType::RoomJoinRules,
            "",
        )
        .await?;
    let Some(rules) = event.and_then(|event| event.content_as::<Rules>()) else {
        return Ok(Restriction::None);
    };
    match rules.join_rule.as_deref() {
        Some("restricted" | "knock_restricted") => {}
        _ => return Ok(Restriction::None),
    }
    let (mut is_known, mut is_any) = (false, false);
    for allowed in rules.allow.iter().take(ALLOWED_MAX) {
        if allowed.get("type").and_then(Value::as_str) != Some("m.room_membership") {
            continue;
        }
        let Some(Ok(id)) = allowed
            .get("room_id")
            .and_then(Value::as_str)
            .map(RoomId::parse)
        else {
            continue;
        };
        is_any = true;
        // What we knew of a room before we left it is worth nothing.
        if !we_are_in(rooms, &id).await? {
            continue;
        }
        is_known = true;
        if current(rooms, &id, user).await? == Some(MembershipState::Join) {
            return Ok(Restriction::Met);
        }
    }
    Ok(if is_known || !is_any {
        Restriction::NotMet
    } else {
        Restriction::Unknown
    })
}

/// Servers that may help to join, in the order they are asked: those given and the inviter's; where
/// none is given, those in the room as we last knew it, and the one in the room id.
pub(in super::super) async fn candidates(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    via: &[OwnedServerName],
) -> Result<Vec<OwnedServerName>, Error> {
    let own = rooms.ctx().server_name();
    let mut servers: Vec<OwnedServerName> = via
        .iter()
        .filter(|server| *server != own)
        .cloned()
        .collect();
    let none_given = servers.is_empty();
    let ids = &rooms.ctx().db.ids;
    if let Some(nid) = ids.find_room(room_id).await? {
        let user_nid = ids.user(user).await?;
        let mut conn = rooms.ctx().db.conn().await?;
        let row = storage::memberships::find_of_user(&mut conn, user_nid, nid).await?;
        let known = if none_given {
            storage::memberships::list_servers(&mut conn, nid).await?
        } else {
            Vec::new()
        };
        drop(conn);
        if let Some(sender) = row.and_then(|row| row.sender) {
            servers.push(ids.user_id(sender).await?.server_name().to_owned());
        }
        for server in known.into_iter().take(SERVERS_MAX) {
            servers.push(ids.server_name(server).await?);
        }
    }
    if none_given {
        servers.extend(room_id.server_name().map(ToOwned::to_owned));
    }
    let mut seen = std::collections::HashSet::new();
    servers.retain(|server| server != own && seen.insert(server.clone()));
    servers.truncate(SERVERS_MAX);
    Ok(servers)
}

/// Servers asked to help with one join.
const SERVERS_MAX: usize = 10;
