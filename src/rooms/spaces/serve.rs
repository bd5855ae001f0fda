//! A space and its children for a peer (`GET /_matrix/federation/v1/hierarchy/{roomId}`).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedRoomId, RoomId, ServerName};
use serde_json::{Value, json};

use super::{children, known, ours, summary::Summary};
use crate::{
    rooms::{Error, Rooms, resident::Room, serve::acl},
    storage::{self, ServerNid, spaces::Known},
};

/// Children of which an answer tells more than that they are there. Peers ask for the others.
const TOLD_MAX: usize = 100;

/// A room of ours that is told, if the peer may see it.
struct Entry {
    room: Arc<Room>,
    known: Known,
    summary: Summary,
}

/// What the peer may see of a room and its children: it is told what its users could peek or join.
pub async fn answer(
    rooms: &Rooms,
    origin: &ServerName,
    room_id: &RoomId,
    suggested_only: bool,
) -> Result<Value, Error> {
    let unknown = || Error::RoomNotFound(room_id.to_owned());
    let peer = Peer {
        name: origin,
        nid: rooms.ctx().db.ids.server(origin).await?,
    };
    let mut found = known(rooms, Some(peer.nid), std::iter::once(room_id)).await?;
    let root = peer.entry(rooms, &mut found, room_id).await?;
    let root = root.ok_or_else(unknown)?;
    let mut links = if root.summary.is_space() {
        children::of_room(rooms, &root.room).await?
    } else {
        Vec::new()
    };
    links.retain(|child| child.suggested || !suggested_only);
    let children = links.iter().map(|child| &*child.room_id);
    let mut found = known(rooms, Some(peer.nid), children).await?;
    let mut entries = vec![root];
    for child in &links {
        if entries.len() > TOLD_MAX {
            break;
        }
        entries.extend(peer.entry(rooms, &mut found, &child.room_id).await?);
    }
    let mut seen = peer.may_see(rooms, &entries).await?.into_iter();
    let mut entries = entries.into_iter();
    let root = entries.next().filter(|_| seen.next() == Some(true));
    let mut parent = root.ok_or_else(unknown)?.summary.json();
    let links: Vec<Value> = links.into_iter().map(|child| child.json).collect();
    parent.insert("children_state".to_owned(), json!(links));
    let (told, hidden): (Vec<_>, Vec<_>) = entries.zip(seen).partition(|(_, seen)| *seen);
    let told: Vec<_> = told.iter().map(|(child, _)| child.summary.json()).collect();
    let hidden: Vec<_> = hidden.iter().map(|(child, _)| &child.room.id).collect();
    Ok(json!({ "room": parent, "children": told, "inaccessible_children": hidden }))
}

/// The server that asks.
struct Peer<'a> {
    name: &'a ServerName,
    nid: ServerNid,
}

impl Peer<'_> {
    async fn entry(
        &self,
        rooms: &Rooms,
        found: &mut HashMap<OwnedRoomId, Known>,
        room_id: &RoomId,
    ) -> Result<Option<Entry>, Error> {
        let Some(known) = found.remove(room_id) else {
            return Ok(None);
        };
        let found = ours(rooms, Some(&known)).await?;
        Ok(found.map(|(room, summary)| Entry {
            room,
            known,
            summary,
        }))
    }

    /// For each room, whether somebody of the peer could peek or join: as for users, but anybody of
    /// the server counts.
    async fn may_see(&self, rooms: &Rooms, entries: &[Entry]) -> Result<Vec<bool>, Error> {
        let allowed = entries.iter().flat_map(|entry| &entry.summary.allowed);
        let allowed = known(rooms, Some(self.nid), allowed.map(|id| &**id)).await?;
        let is_in = |id: &OwnedRoomId| allowed.get(id).is_some_and(|room| room.ours && room.theirs);
        let is_certain = |entry: &Entry| {
            let room = &entry.summary;
            entry.known.theirs
                || room.world_readable
                || room.is_open
                || room.allowed.iter().any(is_in)
        };
        let others = entries.iter().filter(|entry| !is_certain(entry));
        let others: Vec<i64> = others.map(|entry| entry.known.nid.0).collect();
        let mut invited = HashSet::new();
        if !others.is_empty() {
            let mut conn = rooms.ctx().db.conn().await?;
            invited.extend(storage::spaces::list_invited(&mut conn, self.nid, &others).await?);
        }
        let mut seen = Vec::with_capacity(entries.len());
        for entry in entries {
            let welcome = is_certain(entry) || invited.contains(&entry.known.nid);
            let may_come = welcome && entry.summary.federates;
            seen.push(may_come && acl::is_allowed(rooms, &entry.room, self.name).await?);
        }
        Ok(seen)
    }
}
