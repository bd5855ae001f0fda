//! Events of peers that lean on what we lack. They are on disk before the peer is told that we have
//! them, and are placed in order of arrival, each room and peer apart: a peer that does not answer
//! holds up nobody but itself.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedServerName, ServerName};
use tokio::sync::Semaphore;

use super::{Error, Rooms, locks::Lock, receive, resident::Room};
use crate::{
    clock::now_ms,
    event::pdu::{Pdu, id_of},
    storage::{self, RoomNid, inbox::Waiting},
};

/// Events of one peer that may wait in one room; a peer that has more is asked to come again.
const WAITING_MAX: i64 = 1_000;
/// Events read at once.
const AT_ONCE: i64 = 20;
/// Rooms and peers that are worked on at the same time.
const PLACES: usize = 64;
/// Pairs of room and peer taken up in one look.
const PAIRS_MAX: i64 = 10_000;
/// How often pairs are looked for that nobody works on.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Tries before an event is given up that cannot be placed for a reason of its peer's.
const TRIES_MAX: i32 = 3;
/// Pause between tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What waits, as far as this process works on it.
#[derive(Debug)]
pub(super) struct Inbox {
    underway: Mutex<HashSet<(RoomNid, OwnedServerName)>>,
    places: Semaphore,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            underway: Mutex::default(),
            places: Semaphore::new(PLACES),
        }
    }
}

impl Inbox {
    fn underway(&self) -> std::sync::MutexGuard<'_, HashSet<(RoomNid, OwnedServerName)>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether events of a peer wait in a room: what it sends has to wait behind them.
    pub(super) fn is_waiting(&self, room: RoomNid, origin: &ServerName) -> bool {
        self.underway().contains(&(room, origin.to_owned()))
    }
}

/// Puts verified events into the inbox; when this returns they are on disk.
pub(super) async fn put(
    rooms: &Rooms,
    room: &Room,
    origin: &ServerName,
    pdus: &[Arc<Pdu>],
) -> Result<(), Error> {
    let rows: Vec<(String, String)> = pdus
        .iter()
        .map(|pdu| (pdu.event_id.to_string(), pdu.json.clone()))
        .collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let waiting = storage::inbox::count(&mut conn, room.nid, origin.as_str(), WAITING_MAX).await?;
    if waiting >= WAITING_MAX {
        return Err(Error::Busy);
    }
    storage::inbox::insert(&mut conn, room.nid, origin.as_str(), &rows, now_ms()).await?;
    drop(conn);
    work_later(rooms, room.nid, origin.to_owned());
    Ok(())
}

/// Works on what waits and nobody works on: after a restart, or when another node has ended.
pub async fn look_after(rooms: Rooms) {
    loop {
        let found = async {
            let mut conn = rooms.ctx().db.conn().await?;
            storage::inbox::list_pairs(&mut conn, PAIRS_MAX).await
        };
        match found.await {
            Ok(pairs) => {
                for (room, origin) in pairs {
                    if let Ok(origin) = ServerName::parse(&origin) {
                        work_later(&rooms, room, origin);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the inbox could not be read"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn work_later(rooms: &Rooms, room: RoomNid, origin: OwnedServerName) {
    let pair = (room, origin);
    if rooms.0.inbox.underway().insert(pair.clone()) {
        let rooms = rooms.clone();
        tokio::spawn(async move { work(&rooms, pair).await });
    }
}

/// Places events until none is left.
async fn work(rooms: &Rooms, pair: (RoomNid, OwnedServerName)) {
    loop {
        let place = rooms.0.inbox.places.acquire().await;
        match batch(rooms, &pair).await {
            Ok(More::Yes) => continue,
            Ok(More::Later) => {}
            Ok(More::No) => {
                rooms.0.inbox.underway().remove(&pair);
                // One may have come between the look and this.
                match batch_is_empty(rooms, &pair).await {
                    Ok(true) => return,
                    _ if rooms.0.inbox.underway().insert(pair.clone()) => {}
                    // Whoever put it there works on it.
                    _ => return,
                }
            }
            Err(error) => tracing::warn!(%error, "the inbox was not worked on"),
        }
        drop(place);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether there is more to do.
enum More {
    Yes,
    /// After a pause.
    Later,
    No,
}

async fn batch_is_empty(
    rooms: &Rooms,
    (room, origin): &(RoomNid, OwnedServerName),
) -> Result<bool, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::inbox::count(&mut conn, *room, origin.as_str(), 1).await? == 0)
}

async fn batch(rooms: &Rooms, pair: &(RoomNid, OwnedServerName)) -> Result<More, Error> {
    let (room, origin) = pair;
    let server = rooms.ctx().db.ids.server(origin).await?;
    let lock = Lock::Inbox(*room, server);
    if !rooms.0.locks.try_lock(rooms, lock).await? {
        return Ok(More::Later);
    }
    let done = locked_batch(rooms, *room, origin).await;
    rooms.0.locks.unlock(lock).await;
    done
}

async fn locked_batch(rooms: &Rooms, nid: RoomNid, origin: &ServerName) -> Result<More, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let waiting = storage::inbox::list(&mut conn, nid, origin.as_str(), AT_ONCE).await?;
    drop(conn);
    if waiting.is_empty() {
        return Ok(More::No);
    }
    for event in waiting {
        let taken = match rooms.find(nid).await? {
            Some(room) => one(rooms, &room, origin, &event).await?,
            // The room is gone meanwhile, and its events with it.
            None => true,
        };
        let mut conn = rooms.ctx().db.conn().await?;
        if !taken {
            storage::inbox::update_tries(&mut conn, event.number).await?;
            return Ok(More::Later);
        }
        storage::inbox::delete(&mut conn, &[event.number]).await?;
    }
    Ok(More::Yes)
}

/// Places one event; `false`: it has to be tried again.
async fn one(
    rooms: &Rooms,
    room: &Arc<Room>,
    origin: &ServerName,
    event: &Waiting,
) -> Result<bool, Error> {
    let parsed = serde_json::from_str(&event.json)
        .map_err(|error| crate::event::Error::Json(error.to_string()))
        .and_then(|object| {
            let id = id_of(&object, &room.version)?;
            Pdu::from_stored(id, event.json.clone(), &room.version, false)
        });
    let pdu = match parsed {
        Ok(pdu) => Arc::new(pdu),
        Err(error) => {
            tracing::error!(%error, number = event.number, "an event in the inbox does not parse");
            return Ok(true);
        }
    };
    let event_id = pdu.event_id.clone();
    match receive::one(rooms, room, origin, pdu).await {
        Ok(_) => Ok(true),
        Err(error @ (Error::Storage(_) | Error::NotWritten(_))) => Err(error),
        Err(error) if event.tries + 1 < TRIES_MAX && !matches!(error, Error::Withheld) => {
            tracing::info!(%error, %event_id, %origin, "an event waits for what it leans on");
            Ok(false)
        }
        Err(error) => {
            tracing::info!(%error, %event_id, %origin, "an event of a peer is given up");
            Ok(true)
        }
    }
}
