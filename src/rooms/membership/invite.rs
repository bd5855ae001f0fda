//! Inviting a user, of ours or of a peer.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    RoomId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::{
        Error, Rooms, blocks, persist,
        policy_server::{self, Judged},
        remote,
        resident::Room,
        send::{Built, auth_slice, authorize, position, send},
        server_notices,
    },
    invitation, require_joined,
};
use crate::{
    clock::now_ms,
    event::{
        build::{self, Draft},
        client::{Shape, to_client},
        pdu::Pdu,
    },
    federation::gate::Way,
    storage::{RoomNid, UserNid, memberships::UserRoom},
    users::{invite_permission::Wishes, registration},
};

/// Invites a user (`POST /invite`).
pub async fn invite(
    rooms: &Rooms,
    room_id: &RoomId,
    sender: &UserId,
    target: &UserId,
    is_direct: bool,
    reason: Option<&str>,
) -> Result<(), Error> {
    blocks::check(rooms, room_id).await?;
    require_joined(rooms, room_id, sender).await?;
    if persist::is_local(rooms, target) {
        // One of an application service comes into being now, if at all.
        if rooms.ctx().appservices.has_user(target) {
            registration::exists(rooms.ctx(), target).await?;
        }
        let draft = invitation(rooms, target, is_direct, reason).await?;
        let sent = send(rooms, room_id, sender, &draft, None).await?;
        if let Some(pos) = sent.pos {
            rooms.ctx().db.stream.reached(pos).await;
        }
        return Ok(());
    }
    let draft = invitation(rooms, target, is_direct, reason).await?;
    of_peer(rooms, room_id, sender, target, &draft).await
}

/// Fails where a user of ours wants no invitations by the sender.
pub async fn check_wanted(rooms: &Rooms, sender: &UserId, target: &UserId) -> Result<(), Error> {
    if server_notices::is_sender(rooms, sender) {
        return Ok(());
    }
    let Some(user) = rooms.ctx().db.ids.find_user(target).await? else {
        return Ok(());
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let wishes = Wishes::read(&mut conn, user).await?;
    if wishes.refuse_invitation(sender) {
        return Err(Error::InviteBlocked(target.to_owned()));
    }
    Ok(())
}

/// The same for what a client wants to send, if it is an invitation of a user of ours.
pub async fn check_draft(rooms: &Rooms, sender: &UserId, draft: &Draft) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    if draft.kind != TimelineEventType::RoomMember {
        return Ok(());
    }
    let target = draft.state_key.as_deref().map(UserId::parse);
    let content: Option<Content> = serde_json::from_str(draft.content.get()).ok();
    match (target, content) {
        (Some(Ok(target)), Some(content))
            if content.membership == MembershipState::Invite
                && persist::is_local(rooms, &target) =>
        {
            check_wanted(rooms, sender, &target).await
        }
        _ => Ok(()),
    }
}

/// Invites a user of a peer with a given event.
pub(super) async fn of_peer(
    rooms: &Rooms,
    room_id: &RoomId,
    sender: &UserId,
    target: &UserId,
    draft: &Draft,
) -> Result<(), Error> {
    let gate = rooms.ctx().federation.gate();
    gate.check(target.server_name(), Way::Outbound)
        .map_err(remote::refused)?;
    // The invited server signs too, so the event is built, sent, and placed when it comes back.
    // What the invited user is in the room has to be known.
    let room = rooms.whole(room_id).await?;
    let tip = room.tip.lock().await;
    let head = tip.clone();
    drop(tip);
    let auth = auth_slice(rooms, &room, &head, sender, draft).await?;
    let place = position(&room, &head, &auth);
    let pdu = build::build(
        draft,
        &place,
        sender,
        now_ms(),
        &room.version,
        &rooms.ctx().keys,
    )?;
    let built = Built {
        pdu: Arc::new(pdu),
        auth,
    };
    authorize(rooms, &room, &built).await?;
    let pdu = match policy_server::of(rooms, &room).await? {
        Some(policy) => match policy_server::judge(rooms, &room, &policy, &built.pdu).await? {
            Judged::Signed(pdu) => pdu,
            Judged::Refused(why) => return Err(why),
        },
        None => built.pdu,
    };
    remote::invite::invite(rooms, &room, target, pdu).await
}

/// Keys of the state that who is invited or knocks is shown.
fn preview_keys(sender: Option<&UserId>) -> Vec<(StateEventType, String)> {
    let kinds = super::STRIPPED.iter();
    let mut keys: Vec<_> = kinds.map(|kind| (kind.clone(), String::new())).collect();
    if let Some(sender) = sender {
        keys.push((StateEventType::RoomMember, sender.to_string()));
    }
    keys
}

/// Full events of the state that who is invited or knocks is shown.
pub async fn preview(
    rooms: &Rooms,
    room: &Room,
    sender: Option<&UserId>,
) -> Result<Vec<Arc<Pdu>>, Error> {
    let keys = preview_keys(sender);
    let head = room.head();
    let slice = rooms.state_events(room, &head.state.entries, &keys).await?;
    Ok(slice.iter().map(|(_, pdu)| pdu.clone()).collect())
}

/// Stripped state as clients get it: a JSON array. `last` is the user's own membership event, which is
/// told with its id and time: clients say when somebody was invited, and sort by it.
pub fn stripped(events: &[Arc<Pdu>], last: Option<&Pdu>) -> String {
    let events = events.iter().map(|pdu| (pdu.as_ref(), Shape::Stripped));
    let shown = events.chain(last.map(|pdu| (pdu, Shape::Sync)));
    let parts: Vec<String> = shown
        .map(|(pdu, shape)| {
            to_client(pdu, shape, serde_json::Map::new())
                .get()
                .to_owned()
        })
        .collect();
    format!("[{}]", parts.join(","))
}

/// Brings into memory what [`shown`] asks of many rooms, with a few queries for all of them.
pub async fn prepare(rooms: &Rooms, rows: &[&UserRoom]) -> Result<(), Error> {
    let ours = rows.iter().filter(|row| row.stripped.is_none());
    let ours: HashMap<RoomNid, &UserRoom> = ours.map(|row| (row.room, *row)).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let nids: Vec<RoomNid> = ours.keys().copied().collect();
    let found = rooms.find_many(&nids).await?;
    let ids = &rooms.ctx().db.ids;
    let senders: Vec<UserNid> = ours.values().filter_map(|row| row.sender).collect();
    ids.user_ids_of(&senders).await?;
    let mut single = Vec::with_capacity(super::STRIPPED.len());
    for (kind, key) in preview_keys(None) {
        single.extend(ids.find_skey(&kind.to_string(), &key).await?);
    }
    let wanted = found.values().filter_map(|room| {
        let row = ours.get(&room.nid)?;
        let state = &room.head().state;
        let sender = row.sender.map(|sender| -sender.0);
        let keys = single.iter().map(|skey| skey.0).chain(sender);
        let nids = keys.filter_map(|skey| state.get(skey)).chain(row.event);
        Some((room.as_ref(), nids.collect()))
    });
    rooms.prepare_pdus(&wanted.collect::<Vec<_>>()).await
}

/// What a user who is invited, or knocked, is shown of a room: a JSON array of stripped state.
pub async fn shown(rooms: &Rooms, row: &UserRoom) -> Result<Box<RawValue>, Error> {
    let nothing = || RawValue::from_string("[]".to_owned());
    let json = if let Some(json) = &row.stripped {
        json.clone()
    } else if let Some(room) = rooms.find(row.room).await? {
        let sender = match row.sender {
            Some(sender) => Some(rooms.ctx().db.ids.user_id(sender).await?),
            None => None,
        };
        let events = preview(rooms, &room, sender.as_deref()).await?;
        let own = match row.event {
            Some(event) => rooms.pdus(&room, &[event]).await?.pop(),
            None => None,
        };
        stripped(&events, own.as_deref())
    } else {
        String::new()
    };
    let shown = RawValue::from_string(json).or_else(|_| nothing());
    Ok(shown.unwrap_or_else(|_| RawValue::NULL.to_owned()))
}
