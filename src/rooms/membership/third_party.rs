//! Invitations of third-party identifiers, once somebody has bound the identifier (specification,
//! server-server API, "Third-party invites").
//!
//! An identity server tells us which invitations wait for a user of ours ([`bound`]). Of a room that
//! we are in we make the invitation ourselves; else the inviter's server is asked to, as others ask
//! us ([`exchange`]). Either way it counts by the signature of the identity server, whose key stands
//! in the room.

use std::time::Duration;

use futures_util::future::join_all;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, RoomId, ServerName,
    SigningKeyAlgorithm, UserId,
    api::federation::thirdparty::exchange_invite,
    events::{StateEventType, room::member::MembershipState},
    serde::{Base64, Raw, base64::Standard},
    signatures::verify_canonical_json_bytes,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{Error, Rooms, blocks, persist::is_local, resident::Room, send::send, serve::admitted},
    current, invite, we_are_in, with_content,
};
use crate::{event::build::Draft, federation::body, storage};

/// Invitations of one user that are followed up at once.
const INVITES_MAX: usize = 20;
/// Keys of an invitation that are looked at, and signatures under it.
const KEYS_MAX: usize = 10;
/// Bytes of an identity server's answer, and the time it has.
const ANSWER_MAX: usize = 4 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);

/// An invitation that waited for somebody to bind an identifier.
#[derive(Clone, Debug, Deserialize)]
pub struct Pending {
    /// Who has bound it.
    pub mxid: OwnedUserId,
    /// Where to.
    pub room_id: OwnedRoomId,
    /// Who invited.
    pub sender: OwnedUserId,
    /// What the identity server signed.
    pub signed: CanonicalJsonObject,
}

/// Follows up the invitations that wait for a user of ours. Nobody vouches for what is said here:
/// each of them has to stand before the rules of its room. Those that do not are left out.
pub async fn bound(rooms: &Rooms, user: &UserId, pending: &[Pending]) -> Result<(), Error> {
    let unknown = || Error::InvalidParam("no such user here".to_owned());
    if !is_local(rooms, user) {
        return Err(unknown());
    }
    let nid = rooms.ctx().db.ids.find_user(user).await?;
    let nid = nid.ok_or_else(unknown)?;
    let mut conn = rooms.ctx().db.conn().await?;
    let account = storage::users::find(&mut conn, nid).await?;
    drop(conn);
    if account.is_none_or(|account| account.deactivated) {
        return Err(unknown());
    }
    let theirs = pending.iter().filter(|pending| pending.mxid == user);
    let jobs = theirs.take(INVITES_MAX).map(async |pending| {
        if let Err(error) = follow(rooms, user, pending).await {
            let room_id = &pending.room_id;
            tracing::info!(%error, %room_id, "a third-party invitation came to nothing");
        }
    });
    join_all(jobs).await;
    Ok(())
}

async fn follow(rooms: &Rooms, user: &UserId, pending: &Pending) -> Result<(), Error> {
    let room_id = &pending.room_id;
    blocks::check(rooms, room_id).await?;
    token(&pending.signed, user)?;
    if !we_are_in(rooms, room_id).await? {
        return ask(rooms, user, pending).await;
    }
    if current(rooms, room_id, user).await? == Some(MembershipState::Invite) {
        return Ok(());
    }
    let room = rooms.whole(room_id).await?;
    let draft = vetted(rooms, &room, user, &pending.signed).await?;
    // In the name of who invited the identifier, of whichever server: the rules let it be sent by
    // another one.
    let sent = send(rooms, room_id, &pending.sender, &draft, None).await?;
    if let Some(pos) = sent.pos {
        rooms.ctx().db.stream.reached(pos).await;
    }
    Ok(())
}

/// Asks the inviter's server for the invitation.
async fn ask(rooms: &Rooms, user: &UserId, pending: &Pending) -> Result<(), Error> {
    let content = json!({ "membership": "invite", "third_party_invite": {
        // What the room calls the user is known there.
        "display_name": user.localpart(),
        "signed": pending.signed,
    }});
    let content = Raw::new(&content).map_err(|error| Error::Invalid(error.to_string()))?;
    let request = exchange_invite::v1::Request::new(
        pending.room_id.clone(),
        pending.sender.clone(),
        user.to_owned(),
        content.cast_unchecked(),
    );
    let server = pending.sender.server_name();
    let asked = rooms.ctx().federation.request(server, request).await;
    asked.map_err(|error| Error::Remote(error.to_string()))?;
    Ok(())
}

/// Invites a user of the peer that asks, in the name of the user of ours who invited the identifier.
pub async fn exchange(
    rooms: &Rooms,
    origin: &ServerName,
    (room_id, sender, target): (&RoomId, &UserId, &UserId),
    content: &Value,
) -> Result<(), Error> {
    let bad = |what: &str| Error::InvalidParam(what.to_owned());
    admitted(rooms, room_id, origin).await?;
    if !we_are_in(rooms, room_id).await? {
        return Err(Error::RoomNotFound(room_id.to_owned()));
    }
    blocks::check(rooms, room_id).await?;
    if !is_local(rooms, sender) {
        return Err(bad("the sender is not ours"));
    }
    if target.server_name() != origin {
        return Err(bad("the invited user is not of the asking server"));
    }
    if content["membership"] != "invite" {
        return Err(bad("not an invitation"));
    }
    let signed = &content["third_party_invite"]["signed"];
    let signed = CanonicalJsonObject::deserialize(signed).map_err(|_| bad("nothing is signed"))?;
    let room = rooms.whole(room_id).await?;
    let draft = vetted(rooms, &room, target, &signed).await?;
    invite::of_peer(rooms, room_id, sender, target, &draft).await
}

/// The token of what an identity server signed for a user.
fn token<'a>(signed: &'a CanonicalJsonObject, user: &UserId) -> Result<&'a str, Error> {
    let text = |key: &str| signed.get(key).and_then(CanonicalJsonValue::as_str);
    if text("mxid") != Some(user.as_str()) {
        return Err(Error::Forbidden(
            "what is signed is about another user".to_owned(),
        ));
    }
    text("token").ok_or_else(|| Error::InvalidParam("no token is signed".to_owned()))
}

/// The invitation of a user as it will stand in the room, if a key signed it that stands there and
/// is still good. Who sent it and whether the user is banned, the authorization rules judge.
async fn vetted(
    rooms: &Rooms,
    room: &Room,
    user: &UserId,
    signed: &CanonicalJsonObject,
) -> Result<Draft, Error> {
    let forbidden = |what: &str| Error::Forbidden(what.to_owned());
    let token = token(signed, user)?;
    // By the rules alone an old signature would put out who is in.
    if current(rooms, &room.id, user).await? == Some(MembershipState::Join) {
        return Err(forbidden("the user is in the room"));
    }
    let kind = StateEventType::RoomThirdPartyInvite;
    let entries = room.head().state.entries.clone();
    let offer = rooms.state_event(room, &entries, &kind, token).await?;
    let offer: Map<String, Value> = offer
        .and_then(|event| event.content_as())
        .ok_or_else(|| forbidden("the room has no such invitation"))?;
    require_good_key(rooms, &offer, signed).await?;
    let mut content = Map::new();
    content.insert("membership".to_owned(), json!("invite"));
    let name = offer.get("display_name").and_then(Value::as_str);
    content.insert(
        "third_party_invite".to_owned(),
        json!({ "display_name": name.unwrap_or_default(), "signed": signed }),
    );
    with_content(user, content)
}

/// A key of an invitation, and where to ask whether it is still good.
#[derive(Debug, Deserialize)]
struct Key {
    public_key: String,
    key_validity_url: Option<String>,
}

/// Fails unless one of the keys of an invitation signed, and was not taken back.
async fn require_good_key(
    rooms: &Rooms,
    offer: &Map<String, Value>,
    signed: &CanonicalJsonObject,
) -> Result<(), Error> {
    let first = serde_json::from_value::<Key>(Value::Object(offer.clone())).ok();
    let others = offer.get("public_keys").and_then(Value::as_array);
    let others = others.into_iter().flatten().take(KEYS_MAX);
    let keys = first
        .into_iter()
        .chain(others.filter_map(|key| Key::deserialize(key).ok()));
    let mut why = Error::Forbidden("no key of the invitation signed this".to_owned());
    for key in keys.filter(|key| has_signed(key, signed)) {
        match require_not_revoked(rooms, &key).await {
            Ok(()) => return Ok(()),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// Whether one of the signatures is of that key, whoever is said to have made it.
fn has_signed(key: &Key, signed: &CanonicalJsonObject) -> bool {
    let Some(public) = decode(&key.public_key) else {
        return false;
    };
    let mut bare = signed.clone();
    let signatures = bare.remove("signatures");
    bare.remove("unsigned");
    let Ok(bytes) = serde_json::to_vec(&bare) else {
        return false;
    };
    let by_server = signatures.as_ref().and_then(CanonicalJsonValue::as_object);
    let all = by_server.into_iter().flat_map(|all| all.values());
    let all = all.filter_map(CanonicalJsonValue::as_object).flatten();
    all.take(KEYS_MAX)
        .filter(|(key_id, _)| key_id.starts_with("ed25519:"))
        .filter_map(|(_, signature)| decode(signature.as_str()?))
        .any(|signature| {
            let algorithm = SigningKeyAlgorithm::Ed25519;
            verify_canonical_json_bytes(&algorithm, &public, &signature, &bytes).is_ok()
        })
}

/// Base64 in either alphabet.
fn decode(text: &str) -> Option<Vec<u8>> {
    let standard = text.replace('-', "+").replace('_', "/");
    let bytes = Base64::<Standard>::parse(standard).ok()?;
    Some(bytes.into_inner())
}

async fn require_not_revoked(rooms: &Rooms, key: &Key) -> Result<(), Error> {
    let Some(url) = key
        .key_validity_url
        .as_deref()
        .filter(|url| !url.is_empty())
    else {
        return Ok(());
    };
    let remote = |error: &dyn std::fmt::Display| Error::Remote(error.to_string());
    let mut url = url::Url::parse(url).map_err(|error| remote(&error))?;
    url.query_pairs_mut()
        .append_pair("public_key", &key.public_key);
    let federation = &rooms.ctx().federation;
    let answer = federation.open_url(url.as_str(), TIMEOUT).await;
    let answer = answer.map_err(|error| remote(&error))?;
    let body = body::read(answer, ANSWER_MAX).await;
    let body = body.map_err(|error| remote(&error))?;
    let answer: Value = serde_json::from_slice(&body).map_err(|error| remote(&error))?;
    if answer["valid"] == true {
        Ok(())
    } else {
        Err(Error::Forbidden(
            "the key that signed this was taken back".to_owned(),
        ))
    }
}
