//! The public room directory.

use std::sync::Arc;

use ruma::{
    RoomAliasId, RoomId, ServerName, UserId,
    directory::RoomNetwork,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Map, Value, json};

use super::{
    Error, Rooms, aliases::check_reserved, membership::require_joined, resident::Room, send::send,
    spaces::summary::Summary,
};
use crate::{
    config::Appservice,
    event::build::Draft,
    storage::{self, RoomNid, rooms::Lists},
};

/// Rooms in one page.
const PAGE_MAX: i64 = 500;
/// Bytes of the name of a network.
const NETWORK_BYTES_MAX: usize = 255;

/// A page of a server's directory (`None`: ours) as JSON.
pub async fn list_of(
    rooms: &Rooms,
    server: Option<&ServerName>,
    limit: Option<i64>,
    since: Option<&str>,
    search: Option<&str>,
    network: &RoomNetwork,
) -> Result<Value, Error> {
    match server.filter(|server| *server != rooms.ctx().server_name()) {
        Some(server) => super::remote::directory(rooms, server, limit, since, search).await,
        None => list(rooms, limit, since, search, network).await,
    }
}

/// A page of the directory as JSON. `since` is the token of an earlier page; `network`: rooms of
/// this network, of one that an application service knows, or of all.
pub async fn list(
    rooms: &Rooms,
    limit: Option<i64>,
    since: Option<&str>,
    search: Option<&str>,
    network: &RoomNetwork,
) -> Result<Value, Error> {
    let offset: i64 = match since {
        Some(token) => token
            .strip_prefix('p')
            .and_then(|offset| offset.parse().ok())
            .filter(|offset| *offset >= 0)
            .ok_or_else(|| Error::InvalidParam("not a paging token".to_owned()))?,
        None => 0,
    };
    let limit = limit.unwrap_or(100).clamp(1, PAGE_MAX);
    let mut conn = rooms.ctx().db.planning().await?;
    let found = storage::rooms::list_listed(&mut conn, lists(network), (offset, limit + 1)).await?;
    drop(conn);
    let more = i64::try_from(found.len()).unwrap_or(0) > limit;
    let mut chunk = Vec::new();
    for (nid, joined) in found.into_iter().take(usize::try_from(limit).unwrap_or(0)) {
        let Some(room) = rooms.find(nid).await? else {
            continue;
        };
        let entry = entry(rooms, &room, joined).await?;
        if matches(&entry, search) {
            chunk.push(entry);
        }
    }
    let mut answer = json!({ "total_room_count_estimate": chunk.len(), "chunk": chunk });
    if more {
        answer["next_batch"] = json!(format!("p{}", offset + limit));
    }
    if offset > 0 {
        answer["prev_batch"] = json!(format!("p{}", (offset - limit).max(0)));
    }
    Ok(answer)
}

/// In which lists a room is to be.
fn lists(network: &RoomNetwork) -> Lists<'_> {
    match network {
        RoomNetwork::Matrix => Lists::Ours,
        RoomNetwork::All => Lists::All,
        // The id of an instance is made of service and network (`appservices::query`).
        RoomNetwork::ThirdParty(instance) => match instance.split_once('|') {
            Some((service, network)) => Lists::Of(service, network),
            None => Lists::None,
        },
        _ => Lists::None,
    }
}

/// An application service shows a room in the list of a network of its (service, network), or takes
/// it out.
pub async fn set_network_visibility(
    rooms: &Rooms,
    room_id: &RoomId,
    list: (&str, &str),
    listed: bool,
) -> Result<(), Error> {
    if list.1.len() > NETWORK_BYTES_MAX {
        return Err(Error::InvalidParam(
            "the name of the network is too long".to_owned(),
        ));
    }
    let room = rooms.by_id(room_id).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    storage::appservices::update_listed(&mut conn, list, room.nid, listed).await?;
    Ok(())
}

fn matches(entry: &Value, search: Option<&str>) -> bool {
    let Some(search) = search.filter(|search| !search.is_empty()) else {
        return true;
    };
    let search = search.to_lowercase();
    ["name", "topic", "canonical_alias"].iter().any(|key| {
        entry[key]
            .as_str()
            .is_some_and(|text| text.to_lowercase().contains(&search))
    })
}

/// An entry of the directory, which tells less than a summary.
async fn entry(rooms: &Rooms, room: &Arc<Room>, joined: i64) -> Result<Value, Error> {
    let mut entry = Summary::of_room(rooms, room, joined).await?.json();
    for more in ["encryption", "room_version", "allowed_room_ids"] {
        entry.remove(more);
    }
    Ok(Value::Object(entry))
}

/// Publishes a room or takes it out; takes the power to set its main alias, or an administrator of
/// the server, whose list it is.
pub async fn set_visibility(
    rooms: &Rooms,
    room_id: &RoomId,
    (user, is_admin): (&UserId, bool),
    listed: bool,
) -> Result<(), Error> {
    let room = rooms.by_id(room_id).await?;
    if !is_admin {
        require_joined(rooms, room_id, user).await?;
        require_alias_power(rooms, &room, user).await?;
    }
    let mut conn = rooms.ctx().db.conn().await?;
    storage::rooms::update_listed(&mut conn, room.nid, listed).await?;
    Ok(())
}

async fn require_alias_power(rooms: &Rooms, room: &Room, user: &UserId) -> Result<(), Error> {
    let power = rooms.power(room).await?;
    if power.of(user) >= power.needed_for_state("m.room.canonical_alias") {
        return Ok(());
    }
    Err(Error::Forbidden(
        "this takes the power to set the main alias of the room".to_owned(),
    ))
}

/// Makes an alias of ours for a room that the user is in. An application service (`asking`) need
/// not be: it knows what its aliases stand for.
pub async fn create_alias(
    rooms: &Rooms,
    alias: &RoomAliasId,
    room_id: &RoomId,
    (user, asking): (&UserId, Option<&Appservice>),
) -> Result<(), Error> {
    if alias.server_name() != rooms.ctx().server_name() {
        return Err(Error::InvalidParam(
            "the alias is of another server".to_owned(),
        ));
    }
    check_reserved(rooms, alias, asking)?;
    if asking.is_none() {
        require_joined(rooms, room_id, user).await?;
    }
    let room = rooms.by_id(room_id).await?;
    let creator = rooms.ctx().db.ids.user(user).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    match storage::aliases::insert(&mut conn, alias, room.nid, creator).await {
        Err(error) if error.violates("room_alias_pkey") => {
            Err(Error::AliasTaken(alias.to_string()))
        }
        done => {
            done?;
            rooms.feed().forget(room.nid);
            Ok(())
        }
    }
}

/// Removes an alias: who made it may, and who has the power in the room; of those in the namespace
/// of an application service, the service.
pub async fn delete_alias(
    rooms: &Rooms,
    alias: &RoomAliasId,
    (user, asking): (&UserId, Option<&Appservice>),
    admin: bool,
) -> Result<(), Error> {
    check_reserved(rooms, alias, asking)?;
    let mut conn = rooms.ctx().db.conn().await?;
    let found = storage::aliases::find(&mut conn, alias).await?;
    drop(conn);
    let (nid, creator) = found.ok_or(Error::AliasNotFound)?;
    let own = rooms.ctx().db.ids.user(user).await?;
    let may_all = admin || asking.is_some();
    if !may_all && creator != own {
        let room = rooms.find(nid).await?.ok_or(Error::AliasNotFound)?;
        require_alias_power(rooms, &room, user).await?;
    }
    let mut conn = rooms.ctx().db.conn().await?;
    storage::aliases::delete(&mut conn, alias).await?;
    drop(conn);
    rooms.feed().forget(nid);
    if let Err(error) = forget_canonical(rooms, nid, user, alias).await {
        // The alias is gone; that the room still names it is what users of other servers see as well.
        tracing::info!(%error, %alias, "a room still names an alias that was deleted");
    }
    Ok(())
}

/// Takes an alias out of `m.room.canonical_alias`, where whoever deletes it may do that.
async fn forget_canonical(
    rooms: &Rooms,
    room: RoomNid,
    user: &UserId,
    alias: &RoomAliasId,
) -> Result<(), Error> {
    let Some(room) = rooms.find(room).await? else {
        return Ok(());
    };
    let (kind, head) = (StateEventType::RoomCanonicalAlias, room.head());
    let event = rooms
        .state_event(&room, &head.state.entries, &kind, "")
        .await?;
    let content = event.and_then(|event| event.content_as::<Map<String, Value>>());
    let Some(mut content) = content else {
        return Ok(());
    };
    let before = content.clone();
    if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
        content.remove("alias");
    }
    if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
        others.retain(|other| other.as_str() != Some(alias.as_str()));
    }
    if content == before {
        return Ok(());
    }
    let content = super::raw(&Value::Object(content))?;
    let draft = Draft::state(
        TimelineEventType::RoomCanonicalAlias,
        String::new(),
        content,
    );
    send(rooms, &room.id, user, &draft, None).await?;
    Ok(())
}
