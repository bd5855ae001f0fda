//! What we ask of peers for a room: joining, leaving, knocking, inviting, and events we lack.

pub mod fetch;
pub mod invite;
pub mod join;
pub mod knock;
pub mod leave;

mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, OwnedUserId, RoomId, RoomVersionId,
    ServerName, UserId,
    api::federation::{directory::get_public_rooms_filtered, membership::RawStrippedState},
    events::room::member::MembershipState,
};
use serde_json::{json, value::RawValue};

use super::{Error, Rooms};
use crate::{
    clock::now_ms,
    event::{build::Draft, check, pdu::Pdu, version::RoomVersion},
    federation::{self, keys::KnownKeys},
};

/// Stripped state events of an invite or knock that are looked at.
const STRIPPED_MAX: usize = 50;
/// Events that are parsed at once.
const PARSED_MAX: usize = 1_000;
/// Events whose signatures are worth a thread.
const SHARE_MIN: usize = 50;

/// Completes a template (`make_join` and its kin) with our content, and signs it. What the peer put
/// into the template is taken only where the specification says so, and checked.
fn complete(
    rooms: &Rooms,
    template: &RawValue,
    user: &UserId,
    draft: &Draft,
    membership: &MembershipState,
    version: &RoomVersion,
) -> Result<Pdu, Error> {
    let bad = |what: &str| Error::Remote(format!("the template of the peer is wrong: {what}"));
    let mut object: CanonicalJsonObject =
        serde_json::from_str(template.get()).map_err(|_| bad("not canonical JSON"))?;
    let text = |key: &str| object.get(key).and_then(CanonicalJsonValue::as_str);
    if text("type") != Some("m.room.member") {
        return Err(bad("type"));
    }
    if text("sender") != Some(user.as_str()) || text("state_key") != Some(user.as_str()) {
        return Err(bad("sender or state_key"));
    }
    let given = object
        .get("content")
        .and_then(CanonicalJsonValue::as_object);
    let given_membership = given
        .and_then(|content| content.get("membership"))
        .and_then(CanonicalJsonValue::as_str);
    if given_membership != Some(membership.as_str()) {
        return Err(bad("membership"));
    }
    let authorised = given
        .and_then(|content| content.get("join_authorised_via_users_server"))
        .cloned();
    let mut content: CanonicalJsonObject =
        serde_json::from_str(draft.content.get()).map_err(|_| bad("content"))?;
    content.extend(authorised.map(|user| ("join_authorised_via_users_server".to_owned(), user)));
    object.insert("content".to_owned(), CanonicalJsonValue::Object(content));
    let now = ruma::Int::try_from(now_ms()).unwrap_or_default();
    object.insert(
        "origin_server_ts".to_owned(),
        CanonicalJsonValue::Integer(now),
    );
    for key in ["event_id", "hashes", "signatures", "unsigned", "redacts"] {
        object.remove(key);
    }
    if version.has_given_ids() {
        let id = crate::event::build::new_id(rooms.ctx().server_name());
        object.insert("event_id".to_owned(), CanonicalJsonValue::String(id));
    }
    ruma::signatures::hash_and_sign_event(
        rooms.ctx().server_name().as_str(),
        &*rooms.ctx().keys.pair(),
        &mut object,
        &version.rules.redaction,
    )
    .map_err(|error| bad(&error.to_string()))?;
    check::format(&object, version).map_err(|error| bad(&error.to_string()))?;
    Pdu::from_object(object, version).map_err(|error| bad(&error.to_string()))
}

/// Of two failures the one that tells the user more.
fn worse(one: Error, other: Error) -> Error {
    match (&one, &other) {
        (Error::Forbidden(_), _) => one,
        (_, Error::Storage(_) | Error::Forbidden(_) | Error::UnsupportedVersion(_))
        | (Error::RoomNotFound(_), _) => other,
        _ => one,
    }
}

/// A peer's refusal as ours, where the user can be told more than "it did not work".
pub(super) fn refused(error: federation::Error) -> Error {
    match error {
        federation::Error::Refused(_) => Error::Forbidden(error.to_string()),
        federation::Error::RefusedInRoom(_) => Error::RefusedServers(error.to_string()),
        federation::Error::Remote {
            status: 403,
            message,
            ..
        } => Error::Forbidden(message),
        other => Error::Remote(other.to_string()),
    }
}

/// Stays out of a room with servers that we have nothing to do with, where that is the rule: what
/// the peer has of `user` in the room is taken back.
async fn stay_clear<'a>(
    rooms: &Rooms,
    (room_id, server): (&RoomId, &ServerName),
    user: &UserId,
    servers: impl Iterator<Item = &'a OwnedServerName>,
) -> Result<(), Error> {
    let gate = rooms.ctx().federation.gate();
    let Err(error) = gate.check_room(servers.map(AsRef::as_ref)) else {
        return Ok(());
    };
    let via = [server.to_owned()];
    if let Err(error) = leave::leave(rooms, room_id, user, &via, None).await {
        tracing::warn!(%error, %room_id, %user, "a join or knock could not be taken back");
    }
    Err(refused(error))
}

/// Servers that the stripped state of a room names, as far as a peer shows it: senders and members.
pub(super) fn servers_of(state: &[RawStrippedState]) -> BTreeSet<OwnedServerName> {
    #[derive(serde::Deserialize)]
    struct Named {
        sender: OwnedUserId,
        #[serde(default)]
        state_key: String,
    }
    let mut servers = BTreeSet::new();
    for event in state.iter().take(STRIPPED_MAX) {
        let json = match event {
            RawStrippedState::Pdu(raw) => raw.get(),
            #[expect(deprecated, reason = "servers before v1.16 send stripped events")]
            RawStrippedState::Stripped(raw) => raw.json().get(),
            _ => continue,
        };
        let Ok(named) = serde_json::from_str::<Named>(json) else {
            continue;
        };
        servers.insert(named.sender.server_name().to_owned());
        let member = UserId::parse(named.state_key.as_str());
        servers.extend(member.map(|member| member.server_name().to_owned()));
    }
    servers
}

/// The version a peer names for a room, if we take part in such rooms.
fn version_of(id: Option<RoomVersionId>) -> Result<RoomVersion, Error> {
    // No version means the first (specification, make_join).
    let id = id.unwrap_or(RoomVersionId::V1);
    RoomVersion::supported(&id).ok_or_else(|| Error::UnsupportedVersion(id.to_string()))
}

/// Checks 1 to 3 of receipt for many events: form, signatures, hash. Broken ones are left out; keys
/// are fetched together. `via` gave them. A part after the other, since a parsed event is many times its text.
pub(super) async fn verify_all(
    rooms: &Rooms,
    via: &ServerName,
    events: &[Box<RawValue>],
    version: &RoomVersion,
) -> Vec<Pdu> {
    let mut pdus = Vec::with_capacity(events.len());
    for part in events.chunks(PARSED_MAX) {
        pdus.extend(verify_part(rooms, via, part, version).await);
    }
    pdus
}

async fn verify_part(
    rooms: &Rooms,
    via: &ServerName,
    events: &[Box<RawValue>],
    version: &RoomVersion,
) -> Vec<Pdu> {
    let objects: Vec<CanonicalJsonObject> = events
        .iter()
        .filter_map(|raw| serde_json::from_str(raw.get()).ok())
        .filter(|object| check::format(object, version).is_ok())
        .collect();
    let mut needed: BTreeMap<OwnedServerName, BTreeSet<String>> = BTreeMap::new();
    for object in &objects {
        for (server, ids) in check::required_keys(object, version).unwrap_or_default() {
            needed.entry(server).or_default().extend(ids);
        }
    }
    let keys = Arc::new(
        rooms
            .ctx()
            .federation
            .keys()
            .known_through(&needed, via)
            .await,
    );
    // Signatures of a large room are seconds of work: not on threads that serve requests, and on
    // as many others as there are cores.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = objects.len().div_ceil(cores).max(SHARE_MIN);
    let mut objects = objects.into_iter().peekable();
    let mut jobs = Vec::new();
    while objects.peek().is_some() {
        let part: Vec<CanonicalJsonObject> = objects.by_ref().take(share).collect();
        let (keys, version) = (keys.clone(), version.clone());
        jobs.push(tokio::task::spawn_blocking(move || {
            let pdus = part
                .into_iter()
                .filter_map(|object| verify_one(object, &keys, &version));
            pdus.collect::<Vec<Pdu>>()
        }));
    }
    let parts = futures_util::future::join_all(jobs).await;
    parts
        .into_iter()
        .flat_map(Result::unwrap_or_default)
        .collect()
}

fn verify_one(object: CanonicalJsonObject, keys: &KnownKeys, version: &RoomVersion) -> Option<Pdu> {
    let wanted = check::required_keys(&object, version).ok()?;
    let sent = object
        .get("origin_server_ts")
        .and_then(CanonicalJsonValue::as_integer)
        .map(i64::from);
    let at = sent.filter(|_| version.rules.enforce_key_validity);
    let object = check::verify(object, &keys.select(&wanted, at), version).ok()?;
    Pdu::from_object(object, version).ok()
}

/// A page of a peer's public room directory, as it gave it.
pub(super) async fn directory(
    rooms: &Rooms,
    server: &ServerName,
    limit: Option<i64>,
    since: Option<&str>,
    search: Option<&str>,
) -> Result<serde_json::Value, Error> {
    let mut request = get_public_rooms_filtered::v1::Request::new();
    request.limit = limit.and_then(|limit| limit.clamp(1, 500).try_into().ok());
    request.since = since.map(ToOwned::to_owned);
    request.filter.generic_search_term = search.map(ToOwned::to_owned);
    let answer = rooms.ctx().federation.request(server, request).await;
    let answer = answer.map_err(refused)?;
    let mut page = json!({ "chunk": answer.chunk });
    let tokens = [
        ("next_batch", answer.next_batch),
        ("prev_batch", answer.prev_batch),
    ];
    for (key, token) in tokens {
        if let Some(token) = token {
            page[key] = json!(token);
        }
    }
    if let Some(total) = answer.total_room_count_estimate {
        page["total_room_count_estimate"] = json!(total);
    }
    Ok(page)
}
