//! Rooms into memory, one or many at once, and out of it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use ruma::{OwnedEventId, RoomId};
use tokio::sync::broadcast;

use super::{
    Error, Rooms, pdus,
    resident::{Head, Room},
    state::{self, State},
};
use crate::{
    event::version::RoomVersion,
    storage::{self, RoomNid, state::Snap},
};

/// Longer than it can take to load a room.
pub(super) const LOAD_MAX: Duration = Duration::from_mins(2);
/// How often a room is loaded that others change meanwhile.
const TURNS_MAX: usize = 3;
/// Rooms that are loaded with the same few queries.
pub(super) const ROOMS_AT_ONCE: usize = 100;

impl Rooms {
    /// The room of that id.
    pub async fn by_id(&self, id: &RoomId) -> Result<Arc<Room>, Error> {
        match self.ctx().db.ids.find_room(id).await? {
            Some(nid) => self
                .find(nid)
                .await?
                .ok_or_else(|| Error::RoomNotFound(id.to_owned())),
            None => Err(Error::RoomNotFound(id.to_owned())),
        }
    }

    /// The room of that number; `None`: we hold no events of it.
    pub async fn find(&self, nid: RoomNid) -> Result<Option<Arc<Room>>, Error> {
        let mut turns = 0;
        loop {
            if let Some(room) = self.0.resident.get(&nid).await {
                if !room.is_dead() {
                    return Ok(Some(room));
                }
                self.0.resident.invalidate(&nid).await;
            }
            let loaded = self
                .0
                .resident
                .try_get_with(nid, async {
                    match self.load(&[nid.0]).await {
                        Ok(mut rooms) => rooms.pop().ok_or(None),
                        Err(error) => Err(Some(error)),
                    }
                })
                .await;
            match loaded {
                Ok(room) if turns < TURNS_MAX && self.is_outdated(&room).await => turns += 1,
                Ok(room) => return Ok(Some(room)),
                Err(failed) => match Arc::try_unwrap(failed) {
                    Ok(None) => return Ok(None),
                    Ok(Some(error)) => return Err(error),
                    // Another request waits on the same load and has the error itself.
                    Err(shared) => match shared.as_ref() {
                        None => return Ok(None),
                        Some(error) => return Err(Error::NotWritten(error.to_string())),
                    },
                },
            }
        }
    }

    /// Rooms by number; those of which we hold no events are left out. Those not in memory cost
    /// four queries for every hundred.
    pub async fn find_many(&self, nids: &[RoomNid]) -> Result<HashMap<RoomNid, Arc<Room>>, Error> {
        let mut found = HashMap::with_capacity(nids.len());
        let mut missing = Vec::new();
        for nid in nids {
            match self.0.resident.get(nid).await {
                Some(room) if !room.is_dead() => {
                    found.insert(*nid, room);
                }
                Some(_) => {
                    self.0.resident.invalidate(nid).await;
                    missing.push(nid.0);
                }
                None => missing.push(nid.0),
            }
        }
        for nids in missing.chunks(ROOMS_AT_ONCE) {
            for room in self.load(nids).await? {
                // Who was quicker has the copy that counts.
                let entry = self.0.resident.entry(room.nid).or_insert(room).await;
                let room = entry.into_value();
                let room = if room.is_dead() || self.is_outdated(&room).await {
                    match self.find(room.nid).await? {
                        Some(room) => room,
                        None => continue,
                    }
                } else {
                    room
                };
                found.insert(room.nid, room);
            }
        }
        Ok(found)
    }

    /// Whether a room changed on another node while it was being loaded, so that nobody was there
    /// to be told; it is taken out of memory then.
    async fn is_outdated(&self, room: &Arc<Room>) -> bool {
        let Some(pos) = self.0.changed.get(&room.nid) else {
            return false;
        };
        if room.has_seen(pos) || (room.settled().await && room.has_seen(pos)) {
            return false;
        }
        room.bury();
        self.0.resident.invalidate(&room.nid).await;
        true
    }

    /// Rooms that do not go into memory: four queries for any number; a hundred at most should be
    /// asked for.
    pub(super) async fn load(&self, nids: &[i64]) -> Result<Vec<Arc<Room>>, Error> {
        let mut conn = self.ctx().db.conn().await?;
        let rows = storage::rooms::list_whole(&mut conn, nids).await?;
        let heads: Vec<(i64, i64)> = rows
            .iter()
            .filter(|row| row.head.snap != 0)
            .map(|row| (row.room.nid.0, row.head.snap))
            .collect();
        let mut ways = self.ways(&mut conn, &heads).await?;
        let ends: Vec<(i64, i64)> = rows
            .iter()
            .flat_map(|row| {
                let nids = row.head.extremities.iter();
                nids.map(|nid| (row.room.nid.0, *nid))
            })
            .collect();
        let mut ends_of: HashMap<RoomNid, Vec<storage::events::Stored>> = HashMap::new();
        for end in storage::events::list_pairs(&mut conn, &ends).await? {
            ends_of.entry(end.room).or_default().push(end);
        }
        drop(conn);
        let mut rooms = Vec::with_capacity(rows.len());
        for row in rows {
            let nid = row.room.nid;
            let (chain, checkpoint) = ways.remove(&nid.0).unwrap_or_default();
            let state = head_state(nid, row.head.snap, &chain, checkpoint)?;
            let ends = ends_of.remove(&nid).unwrap_or_default();
            rooms.push(Arc::new(assemble(row, state, ends)?));
        }
        Ok(rooms)
    }

    /// Makes a room that was just written known to readers.
    pub(super) async fn adopt(&self, room: &Arc<Room>) {
        self.0.resident.insert(room.nid, room.clone()).await;
    }

    /// Takes a room out of memory; what is about to be committed on this copy of it is void.
    pub(super) async fn evict(&self, nid: RoomNid) {
        if let Some(room) = self.0.resident.get(&nid).await {
            room.bury();
        }
        self.0.resident.invalidate(&nid).await;
    }

    /// The same for a room that is deleted: nothing is stored for this copy of it any more.
    pub(super) async fn evict_deleted(&self, nid: RoomNid) {
        if let Some(room) = self.0.resident.get(&nid).await {
            room.bury_for_good();
        }
        self.0.resident.invalidate(&nid).await;
    }
}

fn head_state(
    room: RoomNid,
    snap: i64,
    chain: &[Arc<Snap>],
    checkpoint: Option<Vec<(i64, i64)>>,
) -> Result<State, Error> {
    if snap == 0 {
        return Ok(State::default());
    }
    let mut found = state::build(chain, checkpoint, &BTreeSet::from([snap]));
    let lost = || storage::Error::Inconsistent {
        table: "state_snap",
        what: format!("no snapshot {snap} of room {}", room.0),
    };
    Ok(found.pop().ok_or_else(lost)?)
}

/// A room from its rows: `ends` are its forward extremities.
fn assemble(
    row: storage::rooms::Whole,
    state: State,
    ends: Vec<storage::events::Stored>,
) -> Result<Room, Error> {
    let storage::rooms::Whole {
        room,
        head,
        partial,
    } = row;
    let version = RoomVersion::of(&room.version)
        .ok_or_else(|| Error::UnsupportedVersion(room.version.to_string()))?;
    let extremities = ends
        .into_iter()
        .map(|stored| Ok((stored.nid.0, pdus::event_id(&version, &stored)?)))
        .collect::<Result<Vec<(i64, OwnedEventId)>, Error>>()?;
    let seen = head.last_pos;
    let head = Head {
        rev: head.rev,
        seq: head.seq,
        depth: head.depth,
        extremities,
        state,
        last_ts: head.last_ts,
    };
    Ok(Room::new(room.nid, room.id, version, partial, head, seen))
}

/// Drops rooms from memory that another node changed.
pub(super) async fn forget_stale(rooms: Rooms) {
    let mut rows = rooms.ctx().db.stream.subscribe();
    loop {
        match rows.recv().await {
            Ok(batch) => {
                for row in batch.iter() {
                    let nid = RoomNid(row.room);
                    match row.kind {
                        storage::LogKind::Event => {
                            // For who is loading it just now.
                            rooms.0.changed.insert(nid, row.pos);
                        }
                        storage::LogKind::Whole => {
                            rooms.now_whole(nid).await;
                            continue;
                        }
                        // Perhaps another node deletes the room.
                        storage::LogKind::Invalidate if nid.0 != 0 => {
                            rooms.evict_deleted(nid).await;
                            continue;
                        }
                        _ => continue,
                    }
                    // What we write ourselves may be read from the log before we know it is there.
                    if let Some(room) = rooms.0.resident.get(&nid).await
                        && !room.has_seen(row.pos)
                        && (!room.settled().await || !room.has_seen(row.pos))
                    {
                        room.bury();
                        rooms.0.resident.invalidate(&nid).await;
                    }
                }
            }
            // Rows were missed: nothing in memory can be trusted.
            Err(broadcast::error::RecvError::Lagged(_)) => rooms.0.resident.invalidate_all(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
