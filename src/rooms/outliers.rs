//! Events that we hold and that are no part of the graph: states of rooms as peers tell them, and
//! auth chains. Any number of them is written with a few queries.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedEventId, events::StateEventType};

use super::{
    Error, Rooms,
    pdus::hash_of,
    persist::{Accepted, Plan},
    resident::Room,
};
use crate::{
    event::{
        chain::{self, Events},
        pdu::Pdu,
    },
    storage::{self, append::flag, events::split_hash},
};

/// Events written in one statement.
const AT_ONCE: usize = 500;
/// Ids looked up in one query.
const LOOK_UP_AT_ONCE: usize = 5_000;

/// Numbers of events by id.
pub(super) type Nids = HashMap<OwnedEventId, i64>;

/// Stores verified state events of a room, each after those that authorize it; what we have is left
/// alone. Returns the numbers of all that are stored now, and the fresh ones as they were judged.
pub(super) async fn store(
    rooms: &Rooms,
    room: &Arc<Room>,
    pdus: Vec<Pdu>,
) -> Result<(Nids, Vec<Arc<Pdu>>), Error> {
    let pdus = pdus.into_iter().filter(|pdu| pdu.room_id == room.id);
    let all: Events = pdus
        .filter(Pdu::is_state)
        .map(|pdu| (pdu.event_id.clone(), Arc::new(pdu)))
        .collect();
    let ids: Vec<&OwnedEventId> = all.keys().collect();
    let _claims = rooms.0.underway.claim_events(ids.iter().copied()).await;
    let mut nids = known(rooms, room, &ids).await?;
    let mut fresh = all;
    fresh.retain(|id, _| !nids.contains_key(id));
    let have = leaned_on(rooms, room, &fresh).await?;
    let fresh = judge(
        room,
        fresh,
        have.iter().map(|(_, pdu)| pdu.clone()).collect(),
    )
    .await?;
    let mut auth = nids.clone();
    auth.extend(
        have.into_iter()
            .map(|(nid, pdu)| (pdu.event_id.clone(), nid)),
    );
    let written = write(rooms, room, &fresh, &mut auth).await?;
    nids.extend(written);
    Ok((nids, fresh))
}

/// The same for events that are judged and in order, with all that authorize them among them.
pub(super) async fn store_judged(
    rooms: &Rooms,
    room: &Arc<Room>,
    pdus: &[Arc<Pdu>],
) -> Result<Nids, Error> {
    let ids: Vec<&OwnedEventId> = pdus.iter().map(|pdu| &pdu.event_id).collect();
    let _claims = rooms.0.underway.claim_events(ids.iter().copied()).await;
    let mut nids = known(rooms, room, &ids).await?;
    let fresh: Vec<Arc<Pdu>> = pdus
        .iter()
        .filter(|pdu| !nids.contains_key(&pdu.event_id))
        .cloned()
        .collect();
    write(rooms, room, &fresh, &mut nids).await?;
    Ok(nids)
}

/// Numbers of those of some events that are stored, in the graph or not.
pub(super) async fn known(
    rooms: &Rooms,
    room: &Room,
    ids: &[&OwnedEventId],
) -> Result<Nids, Error> {
    let mut nids = Nids::with_capacity(ids.len());
    let mut conn = rooms.ctx().db.conn().await?;
    for chunk in ids.chunks(LOOK_UP_AT_ONCE) {
        let by_key: HashMap<uuid::Uuid, &OwnedEventId> = chunk
            .iter()
            .filter_map(|id| Some((split_hash(&hash_of(id)?).0, *id)))
            .collect();
        let keys: Vec<uuid::Uuid> = by_key.keys().copied().collect();
        for (nid, key, _) in storage::events::known(&mut conn, room.nid, &keys).await? {
            if let Some(id) = by_key.get(&key) {
                nids.insert((*id).clone(), nid.0);
            }
        }
    }
    Ok(nids)
}

/// Stored events that fresh ones name as auth events, and the room's create event.
async fn leaned_on(
    rooms: &Rooms,
    room: &Room,
    fresh: &Events,
) -> Result<Vec<(i64, Arc<Pdu>)>, Error> {
    let mut ids: Vec<OwnedEventId> = fresh
        .values()
        .flat_map(|pdu| &pdu.auth_events)
        .filter(|id| !fresh.contains_key(*id))
        .cloned()
        .collect();
    let entries = room.head().state.entries.clone();
    let create = rooms
        .state_event(room, &entries, &StateEventType::RoomCreate, "")
        .await?;
    ids.extend(create.map(|create| create.event_id.clone()));
    ids.sort_unstable();
    ids.dedup();
    let mut have = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(AT_ONCE) {
        for event in rooms.events_by_id(room, chunk).await? {
            have.push((event.stored.nid.0, event.pdu));
        }
    }
    Ok(have)
}

/// Order and check 4. For a large room this is work that no thread which serves requests should do.
async fn judge(room: &Room, fresh: Events, have: Vec<Arc<Pdu>>) -> Result<Vec<Arc<Pdu>>, Error> {
    let version = room.version.clone();
    let have: Events = have
        .into_iter()
        .map(|pdu| (pdu.event_id.clone(), pdu))
        .collect();
    tokio::task::spawn_blocking(move || chain::authorized(&version, &fresh, &have))
        .await
        .map_err(|error| Error::NotWritten(error.to_string()))
}

/// Writes events in order; `nids` gains their numbers, which are returned as well.
async fn write(
    rooms: &Rooms,
    room: &Arc<Room>,
    fresh: &[Arc<Pdu>],
    nids: &mut Nids,
) -> Result<Nids, Error> {
    let mut written = Nids::with_capacity(fresh.len());
    intern_all(rooms, fresh).await?;
    for chunk in fresh.chunks(AT_ONCE) {
        let count = i64::try_from(chunk.len()).unwrap_or(0);
        let mut plan = Plan::outliers(room);
        for (nid, pdu) in rooms.take_nids(count).await?.zip(chunk) {
            nids.insert(pdu.event_id.clone(), nid);
            written.insert(pdu.event_id.clone(), nid);
            let rejected = if pdu.rejected { flag::REJECTED } else { 0 };
            let accepted = Accepted {
                pdu: pdu.clone(),
                nid,
                known: false,
                flags: flag::OUTLIER | rejected,
                snap: None,
                prev: Vec::new(),
                auth: pdu
                    .auth_events
                    .iter()
                    .filter_map(|id| nids.get(id).copied())
                    .collect(),
                out: None,
                seq: None,
                sticks: false,
            };
            plan.add(rooms, accepted).await?;
        }
        match plan.write_outliers(rooms).await {
            // Somebody else stored one of them meanwhile: what is there now counts.
            Err(Error::Storage(error)) if error.violates("event_key_key") => {
                let ids: Vec<&OwnedEventId> = chunk.iter().map(|pdu| &pdu.event_id).collect();
                let there = known(rooms, room, &ids).await?;
                if there.len() < ids.len() {
                    tracing::info!(room_id = %room.id, "an event was stored from two sides");
                    return Err(Error::Busy);
                }
                nids.extend(there.clone());
                written.extend(there);
            }
            other => other?,
        }
    }
    Ok(written)
}

/// Gives every user and server of many events its number in a few queries.
async fn intern_all(rooms: &Rooms, pdus: &[Arc<Pdu>]) -> Result<(), Error> {
    let mut users: Vec<&ruma::UserId> = pdus
        .iter()
        .flat_map(|pdu| [Some(&*pdu.sender), pdu.target()])
        .flatten()
        .collect();
    users.sort_unstable();
    users.dedup();
    for chunk in users.chunks(LOOK_UP_AT_ONCE) {
        rooms.ctx().db.ids.users_of(chunk).await?;
    }
    Ok(())
}
