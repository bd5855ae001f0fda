//! Membership events of users of peers: `send_join`, `send_leave`, `send_knock`, `invite`.

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedServerName, RoomId, RoomVersionId,
    ServerName, UserId,
    api::federation::membership::RawStrippedState,
    events::{StateEventType, room::member::MembershipState},
    signatures::sign_event,
};
use serde_json::value::RawValue;

use super::{
    history::{self, Before},
    template::vouching,
};
use crate::{
    clock::now_ms,
    event::{
        client::{Shape, to_client},
        pdu::Pdu,
        version::RoomVersion,
    },
    rooms::{
        Error, Event, Rooms, feed, membership,
        persist::is_local,
        place::{Incoming, Verdict, place},
        receive,
        remote::{knock::strip, refused, servers_of, verify_all},
        resident::Room,
        serve::admitted,
    },
    storage,
    users::registration,
};

/// A peer's membership event as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Who sends it.
    pub origin: &'a ServerName,
    /// Room of the path.
    pub room_id: &'a RoomId,
    /// Event id of the path.
    pub event_id: &'a EventId,
    /// The event.
    pub pdu: &'a RawValue,
}

/// What `send_join` answers.
#[derive(Debug)]
pub struct Joined {
    /// The event, with our signature where the join is restricted.
    pub event: Arc<Pdu>,
    /// State before it, and the auth chain.
    pub before: Before,
    /// Servers in the room, where members are left out of the state.
    pub servers: Option<Vec<OwnedServerName>>,
}

/// Takes a join. `omit_members`: the peer asks us to leave members out of the state.
pub async fn join(rooms: &Rooms, offer: Offer<'_>, omit_members: bool) -> Result<Joined, Error> {
    let (room, pdu) = checked(rooms, offer, &MembershipState::Join).await?;
    let event_id = pdu.event_id.clone();
    // Those before the join, as the state is the one before it.
    let servers = servers_in(rooms, &room).await?;
    settle(rooms, &room, pdu).await?;
    let stored = rooms
        .event_by_id(&room, &event_id)
        .await?
        .ok_or(Error::EventNotFound)?;
    if !omit_members {
        let before = history::state_before(rooms, &room, &stored, |_| true).await?;
        return Ok(Joined {
            event: stored.pdu,
            before,
            servers: None,
        });
    }
    let kept = heroes(rooms, &room, &stored).await?;
    let keep = |skey: i64| skey >= 0 || kept.contains(&skey);
    let mut before = history::state_before(rooms, &room, &stored, keep).await?;
    // What stands in the state need not stand in the chain as well (MSC3706).
    before
        .chain
        .retain(|nid| before.state.binary_search(nid).is_err());
    Ok(Joined {
        event: stored.pdu,
        before,
        servers: Some(servers),
    })
}

async fn servers_in(rooms: &Rooms, room: &Room) -> Result<Vec<OwnedServerName>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let nids = storage::memberships::list_servers(&mut conn, room.nid).await?;
    drop(conn);
    let mut servers = Vec::with_capacity(nids.len());
    for nid in nids {
        servers.push(rooms.ctx().db.ids.server_name(nid).await?);
    }
    Ok(servers)
}

/// Members that are told all the same: those after whom a room is called that has no name (MSC3943).
async fn heroes(rooms: &Rooms, room: &Room, join: &Event) -> Result<Vec<i64>, Error> {
    let entries = room.head().state.entries.clone();
    let named = [StateEventType::RoomName, StateEventType::RoomCanonicalAlias];
    for kind in named {
        let event = rooms.state_event(room, &entries, &kind, "").await?;
        let content: serde_json::Map<String, serde_json::Value> = event
            .and_then(|event| event.content_as())
            .unwrap_or_default();
        let has = |key: &str| {
            content
                .get(key)
                .is_some_and(|text| text.as_str() != Some(""))
        };
        if has("name") || has("alias") {
            return Ok(Vec::new());
        }
    }
    let joined = rooms.ctx().db.ids.user(&join.pdu.sender).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let heroes = storage::sync::heroes(&mut conn, &[room.nid.0], joined).await?;
    let heroes = heroes.into_values().flatten();
    Ok(heroes.map(|(user, _)| -user.0).collect())
}

/// Takes a leave.
pub async fn leave(rooms: &Rooms, offer: Offer<'_>) -> Result<(), Error> {
    let (room, pdu) = checked(rooms, offer, &MembershipState::Leave).await?;
    settle(rooms, &room, pdu).await
}

/// Takes a knock; returns what the knocking user is shown of the room.
pub async fn knock(rooms: &Rooms, offer: Offer<'_>) -> Result<Vec<Arc<Pdu>>, Error> {
    let (room, pdu) = checked(rooms, offer, &MembershipState::Knock).await?;
    settle(rooms, &room, pdu).await?;
    membership::invite::preview(rooms, &room, None).await
}

async fn settle(rooms: &Rooms, room: &Room, pdu: Arc<Pdu>) -> Result<(), Error> {
    if let Some(event) = rooms.event_by_id(room, &pdu.event_id).await?
        && !event.stored.is_outlier()
    {
        return if event.stored.is_rejected() || event.stored.is_soft_failed() {
            Err(Error::Forbidden("the event is not allowed".to_owned()))
        } else {
            Ok(())
        };
    }
    let have = rooms.events_by_id(room, &pdu.prev_events).await?;
    if have.is_empty() || have.len() < pdu.prev_events.len() {
        return Err(Error::InvalidParam(
            "prev_events are not those of our template".to_owned(),
        ));
    }
    if !receive::authorized_by_its_events(rooms, room, &pdu).await? {
        return Err(Error::Forbidden(
            "the event is not allowed by its auth events".to_owned(),
        ));
    }
    let mut incoming = Incoming::new(rooms, room, pdu).await?;
    // The server that takes a join, leave or knock tells the others.
    incoming.out = Some(0);
    match place(rooms, room.nid, incoming).await? {
        Verdict::Accepted => Ok(()),
        Verdict::Rejected | Verdict::SoftFailed => Err(Error::Forbidden(
            "the event is not allowed in the room".to_owned(),
        )),
    }
}

/// The checks that the specification asks for, and those of receipt up to the hash.
async fn checked(
    rooms: &Rooms,
    offer: Offer<'_>,
    membership: &MembershipState,
) -> Result<(Arc<Room>, Arc<Pdu>), Error> {
    let bad = |what: &str| Error::InvalidParam(what.to_owned());
    let room = admitted(rooms, offer.room_id, offer.origin).await?;
    // While members lack we cannot tell the state, nor who may come.
    if room.partial || !membership::we_are_in(rooms, offer.room_id).await? {
        return Err(Error::RoomNotFound(offer.room_id.to_owned()));
    }
    let mut object: CanonicalJsonObject =
        serde_json::from_str(offer.pdu.get()).map_err(|error| Error::Invalid(error.to_string()))?;
    let text = |key: &str| object.get(key).and_then(CanonicalJsonValue::as_str);
    if text("type") != Some("m.room.member") {
        return Err(bad("not a membership event"));
    }
    if text("room_id") != Some(offer.room_id.as_str()) {
        return Err(bad("the event is of another room"));
    }
    let sender = text("sender").and_then(|sender| UserId::parse(sender).ok());
    let sender = sender.ok_or_else(|| bad("sender"))?;
    if sender.server_name() != offer.origin || text("state_key") != Some(sender.as_str()) {
        return Err(bad("sender or state_key are not of the asking server"));
    }
    if *membership == MembershipState::Join {
        vouch(rooms, &room, &sender, &mut object).await?;
    }
    let raw = to_raw(&object)?;
    let pdu = verify_all(rooms, offer.origin, &[raw], &room.version)
        .await
        .pop()
        .ok_or_else(|| bad("form or signature of the event"))?;
    if pdu.membership().as_ref() != Some(membership) {
        return Err(bad("membership"));
    }
    if pdu.event_id != offer.event_id {
        return Err(bad("the event has another id than the path"));
    }
    Ok((room, Arc::new(pdu)))
}

fn to_raw(object: &CanonicalJsonObject) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(object).map_err(|error| Error::Invalid(error.to_string()))
}

/// Signs a restricted join that one of us vouches for, if the user meets the restriction.
async fn vouch(
    rooms: &Rooms,
    room: &Room,
    sender: &UserId,
    object: &mut CanonicalJsonObject,
) -> Result<(), Error> {
    let named = object
        .get("content")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|content| content.get("join_authorised_via_users_server"))
        .and_then(CanonicalJsonValue::as_str)
        .and_then(|user| UserId::parse(user).ok());
    let Some(named) = named.filter(|named| is_local(rooms, named)) else {
        return Ok(());
    };
    vouching(rooms, &room.id, sender).await?;
    tracing::debug!(%named, %sender, "vouching for a restricted join");
    sign(rooms, &room.version, object)
}

fn sign(
    rooms: &Rooms,
    version: &RoomVersion,
    object: &mut CanonicalJsonObject,
) -> Result<(), Error> {
    let keys = &rooms.ctx().keys;
    sign_event(
        keys.server_name.as_str(),
        &*keys.pair(),
        object,
        &version.rules.redaction,
    )
    .map_err(|error| Error::Invalid(error.to_string()))
}

/// The same of a peer that does not name the version of the room, which is 1 or 2 then. Events of
/// both look the same; which it is, the server says through which the user joins.
pub async fn invite_v1(rooms: &Rooms, offer: Offer<'_>) -> Result<Box<RawValue>, Error> {
    #[derive(Default, serde::Deserialize)]
    struct Unsigned {
        #[serde(default)]
        invite_room_state: Vec<RawStrippedState>,
    }
    #[derive(serde::Deserialize)]
    struct Event {
        #[serde(default)]
        unsigned: Unsigned,
    }
    let event: Event =
        serde_json::from_str(offer.pdu.get()).map_err(|error| Error::Invalid(error.to_string()))?;
    let version = match rooms.by_id(offer.room_id).await {
        Ok(room) => room.version.id.clone(),
        Err(Error::RoomNotFound(_)) => RoomVersionId::V1,
        Err(error) => return Err(error),
    };
    if !matches!(version, RoomVersionId::V1 | RoomVersionId::V2) {
        return Err(Error::IncompatibleVersion(version.to_string()));
    }
    invite(rooms, offer, &version, &event.unsigned.invite_room_state).await
}

/// Takes an invitation of one of our users; returns the event with our signature.
pub async fn invite(
    rooms: &Rooms,
    offer: Offer<'_>,
    version: &RoomVersionId,
    preview: &[RawStrippedState],
) -> Result<Box<RawValue>, Error> {
    let bad = |what: &str| Error::InvalidParam(what.to_owned());
    let version = RoomVersion::supported(version)
        .ok_or_else(|| Error::IncompatibleVersion(version.to_string()))?;
    let raw = offer.pdu.to_owned();
    let pdu = verify_all(rooms, offer.origin, &[raw], &version)
        .await
        .pop()
        .ok_or_else(|| bad("form or signature of the event"))?;
    if pdu.event_id != offer.event_id || pdu.room_id != offer.room_id {
        return Err(bad("the event is not that of the path"));
    }
    if pdu.membership() != Some(MembershipState::Invite) {
        return Err(bad("not an invitation"));
    }
    if pdu.sender.server_name() != offer.origin {
        return Err(bad("the sender is not of the asking server"));
    }
    let target = pdu.target().filter(|target| is_local(rooms, target));
    let target = target
        .ok_or_else(|| bad("the invited user is not ours"))?
        .to_owned();
    crate::rooms::blocks::check(rooms, offer.room_id).await?;
    let ids = &rooms.ctx().db.ids;
    if !registration::exists(rooms.ctx(), &target).await? {
        return Err(Error::Forbidden("no such user".to_owned()));
    }
    membership::invite::check_wanted(rooms, &pdu.sender, &target).await?;
    let user = ids.user(&target).await?;
    let mut object = pdu.object()?;
    sign(rooms, &version, &mut object)?;
    if membership::we_are_in(rooms, offer.room_id).await? {
        admitted(rooms, offer.room_id, offer.origin).await?;
        let signed = to_raw(&object)?;
        receive::receive(rooms, offer.room_id, offer.origin, &[signed]).await?;
        return to_raw(&object);
    }
    let named = servers_of(preview);
    let gate = &rooms.ctx().federation.gate();
    gate.check_room(named.iter().map(AsRef::as_ref))
        .map_err(refused)?;
    let mut conn = rooms.ctx().db.conn().await?;
    let room = storage::rooms::intern(&mut conn, offer.room_id, &version.id, now_ms()).await?;
    drop(conn);
    let own = to_client(&pdu, Shape::Sync, serde_json::Map::new());
    let stripped = strip((rooms, offer.origin), preview, &version, own.get()).await;
    let sender = ids.user(&pdu.sender).await?;
    feed::keep_invite(rooms, (room, user), (&target, &pdu), &stripped).await?;
    let state = (2, sender);
    let id = Some(&*pdu.event_id);
    membership::leave::set_out_of_band(rooms, room, user, state, Some(&stripped), id).await?;
    to_raw(&object)
}
