//! Events for peers: state, auth chains, history, single ones.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName};

use super::inside;
use crate::{
    event::{pdu::Pdu, redact::redact},
    rooms::{
        Error, Rooms, erasure,
        pdus::{Event, hash_of, id_of_hash},
        resident::Room,
        visibility::server_may_see,
    },
    storage::{self, events::split_hash},
};

/// Events in one answer to `backfill`.
const BACKFILL_MAX: i64 = 100;
/// Events in one answer to `get_missing_events`.
const MISSING_MAX: usize = 50;
/// Events loaded from the database at once.
const LOAD_AT_ONCE: usize = 2_000;

/// State before an event with the auth chain of that state and of the event, by number.
#[derive(Debug)]
pub struct Before {
    /// The room.
    pub room: Arc<Room>,
    /// State, sorted.
    pub state: Vec<i64>,
    /// Auth chain, sorted.
    pub chain: Vec<i64>,
}

/// State before an event; `keep` tells which state keys are wanted.
pub async fn state_before(
    rooms: &Rooms,
    room: &Arc<Room>,
    event: &Event,
    keep: impl Fn(i64) -> bool,
) -> Result<Before, Error> {
    let snap = event.stored.snap.ok_or(Error::StateNotFound)?;
    let all = rooms.state_of(room.nid, snap).await?;
    let wanted = all.entries.iter().filter(|(skey, _)| keep(**skey));
    let mut state: Vec<i64> = wanted.map(|(_, event)| *event).collect();
    state.sort_unstable();
    let own = rooms.events_by_id(room, &event.pdu.auth_events).await?;
    let own: Vec<i64> = own.iter().map(|event| event.stored.nid.0).collect();
    let mut chain = chain(rooms, room, [state.as_slice(), &own].concat()).await?;
    chain.extend(own);
    chain.sort_unstable();
    chain.dedup();
    Ok(Before {
        room: room.clone(),
        state,
        chain,
    })
}

/// The auth chains of some events.
async fn chain(rooms: &Rooms, room: &Room, events: Vec<i64>) -> Result<Vec<i64>, Error> {
    let graph = rooms.auth_graph(room, &events, &[]).await?;
    let size = events.len() + graph.len() / 10;
    rooms
        .off_thread(size, move || graph.read().chain(events))
        .await
}

async fn load(rooms: &Rooms, room: &Room, nids: &[i64]) -> Result<Vec<Arc<Pdu>>, Error> {
    let mut pdus = Vec::with_capacity(nids.len());
    for chunk in nids.chunks(LOAD_AT_ONCE) {
        pdus.extend(rooms.pdus(room, chunk).await?);
    }
    Ok(pdus)
}

/// Ids of events; those whose id is not their hash (v1 and v2) have to be read for it.
pub async fn ids(rooms: &Rooms, room: &Room, nids: &[i64]) -> Result<Vec<OwnedEventId>, Error> {
    if room.version.has_given_ids() {
        let pdus = load(rooms, room, nids).await?;
        return Ok(pdus.iter().map(|pdu| pdu.event_id.clone()).collect());
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let hashes = storage::events::list_hashes(&mut conn, room.nid, nids).await?;
    let hashes = hashes.iter();
    Ok(hashes
        .map(|(_, hash)| id_of_hash(&room.version, hash))
        .collect())
}

/// `state` and `state_ids`. Waits where the state is partial.
pub async fn state(
    rooms: &Rooms,
    origin: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<Before, Error> {
    let mut room = inside(rooms, room_id, origin).await?;
    let find = async |room: &Room| {
        let event = rooms.event_by_id(room, event_id).await?;
        event.ok_or(Error::EventNotFound)
    };
    let mut event = find(&room).await?;
    if event.stored.is_partial() {
        room = rooms.whole(room_id).await?;
        event = find(&room).await?;
    }
    if !server_may_see(rooms, &room, origin, std::slice::from_ref(&event)).await?[0] {
        return Err(Error::Forbidden(
            "your server may not see this event".to_owned(),
        ));
    }
    state_before(rooms, &room, &event, |_| true).await
}

/// `event_auth`: the auth chain of an event.
pub async fn auth_chain(
    rooms: &Rooms,
    origin: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<Vec<Arc<Pdu>>, Error> {
    let room = inside(rooms, room_id, origin).await?;
    let event = rooms
        .event_by_id(&room, event_id)
        .await?
        .ok_or(Error::EventNotFound)?;
    let own = rooms.events_by_id(&room, &event.pdu.auth_events).await?;
    let own: Vec<i64> = own.iter().map(|event| event.stored.nid.0).collect();
    let mut chain = chain(rooms, &room, own.clone()).await?;
    chain.extend(own);
    chain.sort_unstable();
    chain.dedup();
    load(rooms, &room, &chain).await
}

/// `event`: one event, of any room that the server is in.
pub async fn event(
    rooms: &Rooms,
    origin: &ServerName,
    event_id: &EventId,
) -> Result<(Arc<Pdu>, OwnedRoomId), Error> {
    let hash = hash_of(event_id).ok_or(Error::EventNotFound)?;
    let server = rooms.ctx().db.ids.server(origin).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let theirs = storage::memberships::list_rooms_of_server(&mut conn, server).await?;
    let theirs: Vec<i64> = theirs.iter().map(|room| room.0).collect();
    let stored = storage::events::find_in_rooms(&mut conn, &theirs, split_hash(&hash).0).await?;
    drop(conn);
    let stored = stored
        .filter(|stored| stored.hash == hash)
        .ok_or(Error::EventNotFound)?;
    let room = rooms.find(stored.room).await?.ok_or(Error::EventNotFound)?;
    let room = inside(rooms, &room.id, origin).await?;
    let event = rooms
        .event_by_id(&room, event_id)
        .await?
        .ok_or(Error::EventNotFound)?;
    let shown = shown(rooms, &room, origin, vec![event]).await?;
    Ok((
        shown.into_iter().next().ok_or(Error::EventNotFound)?,
        room.id.clone(),
    ))
}

/// What a server may not see is given to it redacted: the graph must hold together.
async fn shown(
    rooms: &Rooms,
    room: &Room,
    origin: &ServerName,
    events: Vec<Event>,
) -> Result<Vec<Arc<Pdu>>, Error> {
    let visible = server_may_see(rooms, room, origin, &events).await?;
    let gone = erasure::gone_for_server(rooms, room, origin, &events).await?;
    events
        .into_iter()
        .zip(visible)
        .map(|(event, visible)| {
            let is_whole = !gone.contains(&event.stored.nid.0);
            if is_whole && (visible || event.pdu.is_state()) {
                Ok(event.pdu)
            } else {
                Ok(Arc::new(redact(&event.pdu, &room.version)?))
            }
        })
        .collect()
}

/// `backfill`: events up to and with those named, newest first.
pub async fn backfill(
    rooms: &Rooms,
    origin: &ServerName,
    room_id: &RoomId,
    from: &[OwnedEventId],
    limit: u64,
) -> Result<Vec<Arc<Pdu>>, Error> {
    let room = inside(rooms, room_id, origin).await?;
    let named = rooms.events_by_id(&room, from).await?;
    let newest = named.iter().filter_map(|event| event.stored.seq).max();
    let newest = newest.ok_or(Error::EventNotFound)?;
    let limit = i64::try_from(limit)
        .unwrap_or(BACKFILL_MAX)
        .clamp(1, BACKFILL_MAX);
    let mut conn = rooms.ctx().db.conn().await?;
    let page =
        storage::events::page(&mut conn, room.nid, (i64::MIN, newest + 1), true, limit).await?;
    drop(conn);
    let events = page
        .into_iter()
        .map(|stored| Event::parse(&room.version, stored))
        .collect::<Result<Vec<_>, _>>()?;
    shown(rooms, &room, origin, events).await
}

/// `get_missing_events`: events before `latest` that are not at or before `earliest`, by breadth,
/// oldest first.
pub async fn missing(
    rooms: &Rooms,
    origin: &ServerName,
    room_id: &RoomId,
    (earliest, latest): (&[OwnedEventId], &[OwnedEventId]),
    limit: u64,
) -> Result<Vec<Arc<Pdu>>, Error> {
    let room = inside(rooms, room_id, origin).await?;
    let limit = usize::try_from(limit)
        .unwrap_or(MISSING_MAX)
        .clamp(1, MISSING_MAX);
    let mut seen: HashSet<OwnedEventId> = earliest.iter().chain(latest).cloned().collect();
    let mut queue: VecDeque<OwnedEventId> = VecDeque::new();
    for event in rooms.events_by_id(&room, latest).await? {
        queue.extend(
            event
                .pdu
                .prev_events
                .iter()
                .filter(|id| seen.insert((*id).clone()))
                .cloned(),
        );
    }
    let mut found: Vec<Event> = Vec::new();
    while found.len() < limit && !queue.is_empty() {
        // A generation at a time, so that the number of queries follows the depth.
        let generation: Vec<OwnedEventId> = queue.drain(..).collect();
        for event in rooms.events_by_id(&room, &generation).await? {
            if event.stored.is_outlier() || event.stored.is_rejected() {
                continue;
            }
            let prev = event.pdu.prev_events.iter();
            queue.extend(prev.filter(|id| seen.insert((*id).clone())).cloned());
            found.push(event);
        }
    }
    found.truncate(limit);
    found.sort_by_key(|event| (event.pdu.depth, event.stored.seq));
    shown(rooms, &room, origin, found).await
}
