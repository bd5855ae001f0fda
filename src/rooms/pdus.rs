//! Events in memory: parsed once, shared, found by number or by id.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ruma::{EventId, OwnedEventId, UserId, events::StateEventType};

use super::{Error, Rooms, resident::Room, state::Entries};
use crate::{
    event::{auth::Power, pdu::Pdu, version::RoomVersion},
    storage::{
        self, RoomNid,
        events::{Stored, split_hash},
    },
};

/// The id of a stored event: what its hash makes, or (v1 and v2) what it says itself.
pub(super) fn event_id(version: &RoomVersion, stored: &Stored) -> Result<OwnedEventId, Error> {
    #[derive(serde::Deserialize)]
    struct Given {
        event_id: OwnedEventId,
    }
    if !version.has_given_ids() {
        return Ok(id_of_hash(version, &stored.hash));
    }
    let given: Given =
        serde_json::from_str(&stored.json).map_err(|error| storage::Error::Inconsistent {
            table: "event",
            what: format!("event {}: {error}", stored.nid.0),
        })?;
    Ok(given.event_id)
}

/// The id of an event whose id is its hash.
pub(super) fn id_of_hash(version: &RoomVersion, hash: &[u8; 32]) -> OwnedEventId {
    let text = if version.has_standard_base64_ids() {
        STANDARD_NO_PAD.encode(hash)
    } else {
        URL_SAFE_NO_PAD.encode(hash)
    };
    // A sigil and base64 are an event id.
    EventId::parse(format!("${text}")).expect("a hash in base64 is an event id")
}

/// What an event is found by: the reference hash in its id, or the hash of an id that its sender
/// made up (v1 and v2); `None`: no event id.
pub(super) fn hash_of(id: &EventId) -> Option<[u8; 32]> {
    use sha2::{Digest, Sha256};
    let text = id.as_str().strip_prefix('$')?;
    if text.contains(':') {
        return Some(Sha256::digest(id.as_str()).into());
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .ok()?;
    bytes.try_into().ok()
}

/// An event with what our storage knows about it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Number, flags, place in the timeline, state before.
    pub stored: Arc<Stored>,
    /// The event.
    pub pdu: Arc<Pdu>,
}

impl Event {
    /// Parses what storage read. The JSON moves into the event.
    pub(super) fn parse(version: &RoomVersion, mut stored: Stored) -> Result<Self, Error> {
        let id = event_id(version, &stored)?;
        let json = std::mem::take(&mut stored.json);
        let pdu = Pdu::from_stored(id, json, version, stored.is_rejected()).map_err(|error| {
            storage::Error::Inconsistent {
                table: "event",
                what: format!("event {}: {error}", stored.nid.0),
            }
        })?;
        Ok(Self {
            stored: Arc::new(stored),
            pdu: Arc::new(pdu),
        })
    }
}

impl Rooms {
    /// Events by number, in the order asked; one query for those not in memory.
    pub async fn pdus(&self, room: &Room, nids: &[i64]) -> Result<Vec<Arc<Pdu>>, Error> {
        let mut found: HashMap<i64, Arc<Pdu>> = HashMap::with_capacity(nids.len());
        let mut missing = Vec::new();
        for nid in nids {
            match self.0.pdus.get(nid) {
                Some(pdu) => {
                    found.insert(*nid, pdu);
                }
                None => missing.push(*nid),
            }
        }
        self.read(room, &missing, &mut found).await?;
        missing.retain(|nid| !found.contains_key(nid));
        // What was written and put out of memory already may still be on its way to disk.
        if !missing.is_empty() && room.settled().await {
            self.read(room, &missing, &mut found).await?;
        }
        nids.iter()
            .map(|nid| {
                found.get(nid).cloned().ok_or_else(|| {
                    Error::Storage(storage::Error::Inconsistent {
                        table: "event",
                        what: format!("no event {nid} in room {}", room.nid.0),
                    })
                })
            })
            .collect()
    }

    /// Brings events of many rooms into memory with one query: who asks for them one room after the
    /// other finds them there, if they are not more than memory holds.
    pub async fn prepare_pdus(&self, wanted: &[(&Room, Vec<i64>)]) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut versions = HashMap::new();
        for (room, nids) in wanted {
            let absent = nids.iter().filter(|nid| !self.0.pdus.contains_key(*nid));
            let before = missing.len();
            missing.extend(absent.map(|nid| (room.nid.0, *nid)));
            if missing.len() > before {
                versions.insert(room.nid, &room.version);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut conn = self.ctx().db.conn().await?;
        let stored = storage::events::list_pairs(&mut conn, &missing).await?;
        drop(conn);
        for stored in stored {
            if let Some(version) = versions.get(&stored.room) {
                let event = Event::parse(version, stored)?;
                self.remember(event.stored.nid.0, &event.pdu);
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        room: &Room,
        nids: &[i64],
        found: &mut HashMap<i64, Arc<Pdu>>,
    ) -> Result<(), Error> {
        if nids.is_empty() {
            return Ok(());
        }
        let mut conn = self.ctx().db.conn().await?;
        for stored in storage::events::list(&mut conn, room.nid, nids).await? {
            let event = Event::parse(&room.version, stored)?;
            self.remember(event.stored.nid.0, &event.pdu);
            found.insert(event.stored.nid.0, event.pdu);
        }
        Ok(())
    }

    pub(super) fn remember(&self, nid: i64, pdu: &Arc<Pdu>) {
        self.0.pdus.insert(nid, pdu.clone());
    }

    pub(super) fn forget_pdu(&self, nid: i64) {
        self.0.pdus.invalidate(&nid);
    }

    /// Events by id in one room, in no order; unknown ones are left out.
    pub async fn events_by_id(
        &self,
        room: &Room,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Event>, Error> {
        let hashes: Vec<[u8; 32]> = ids.iter().filter_map(|id| hash_of(id)).collect();
        if hashes.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<uuid::Uuid> = hashes.iter().map(|hash| split_hash(hash).0).collect();
        let mut conn = self.ctx().db.conn().await?;
        let stored = storage::events::list_by_hash(&mut conn, room.nid, &keys).await?;
        drop(conn);
        stored
            .into_iter()
            .filter(|stored| hashes.contains(&stored.hash))
            .map(|stored| Event::parse(&room.version, stored))
            .collect()
    }

    /// Events by number with their rows, in no order; unknown ones are left out.
    pub async fn events_by_nid(&self, room: &Room, nids: &[i64]) -> Result<Vec<Event>, Error> {
        let mut conn = self.ctx().db.conn().await?;
        let stored = storage::events::list(&mut conn, room.nid, nids).await?;
        drop(conn);
        stored
            .into_iter()
            .map(|stored| Event::parse(&room.version, stored))
            .collect()
    }

    /// Events of many rooms by (room, number) with their rows, in no order within a room; unknown
    /// ones, and those of rooms that we do not hold, are left out. One query, and what
    /// [`Rooms::find_many`] takes.
    pub async fn events_of(
        &self,
        pairs: &[(i64, i64)],
    ) -> Result<Vec<(Arc<Room>, Vec<Event>)>, Error> {
        let nids: BTreeSet<RoomNid> = pairs.iter().map(|(room, _)| RoomNid(*room)).collect();
        let nids: Vec<RoomNid> = nids.into_iter().collect();
        let found = self.find_many(&nids).await?;
        let mut conn = self.ctx().db.conn().await?;
        let stored = storage::events::list_pairs(&mut conn, pairs).await?;
        drop(conn);
        let mut events: BTreeMap<RoomNid, (Arc<Room>, Vec<Event>)> = BTreeMap::new();
        for stored in stored {
            if let Some(room) = found.get(&stored.room) {
                let event = Event::parse(&room.version, stored)?;
                let of_room = events
                    .entry(room.nid)
                    .or_insert_with(|| (room.clone(), Vec::new()));
                of_room.1.push(event);
            }
        }
        Ok(events.into_values().collect())
    }

    /// One event by id.
    pub async fn event_by_id(&self, room: &Room, id: &EventId) -> Result<Option<Event>, Error> {
        Ok(self.events_by_id(room, &[id.to_owned()]).await?.pop())
    }

    /// The event at a state key of a state.
    pub async fn state_event(
        &self,
        room: &Room,
        state: &Entries,
        kind: &StateEventType,
        key: &str,
    ) -> Result<Option<Arc<Pdu>>, Error> {
        let skey = self.ctx().db.ids.find_skey(&kind.to_string(), key).await?;
        let Some(nid) = skey.and_then(|skey| state.get(&skey.0).copied()) else {
            return Ok(None);
        };
        Ok(self.pdus(room, &[nid]).await?.pop())
    }

    /// Who has which power in a room now.
    pub(super) async fn power(&self, room: &Room) -> Result<Power, Error> {
        let head = room.head();
        let state = &head.state.entries;
        let create = StateEventType::RoomCreate;
        let create = self.state_event(room, state, &create, "").await?;
        let create = create.ok_or(Error::StateNotFound)?;
        let levels = StateEventType::RoomPowerLevels;
        let levels = self.state_event(room, state, &levels, "").await?;
        Ok(Power::new(&room.version, &create, levels.as_ref()))
    }

    /// The events at several state keys of a state; absent ones are left out.
    pub async fn state_events(
        &self,
        room: &Room,
        state: &Entries,
        keys: &[(StateEventType, String)],
    ) -> Result<StateSlice, Error> {
        let mut pairs = Vec::with_capacity(keys.len());
        let mut nids = Vec::with_capacity(keys.len());
        for (kind, key) in keys {
            let skey = self.ctx().db.ids.find_skey(&kind.to_string(), key).await?;
            if let Some(nid) = skey.and_then(|skey| state.get(&skey.0).copied()) {
                pairs.push((kind.clone(), key.clone()));
                nids.push(nid);
            }
        }
        let pdus = self.pdus(room, &nids).await?;
        let entries = pairs.into_iter().zip(nids.into_iter().zip(pdus));
        Ok(StateSlice(
            entries.map(|(pair, (nid, pdu))| (pair, nid, pdu)).collect(),
        ))
    }

    /// A user's membership event in a state.
    pub async fn member_event(
        &self,
        room: &Room,
        state: &Entries,
        user: &UserId,
    ) -> Result<Option<Arc<Pdu>>, Error> {
        self.state_event(room, state, &StateEventType::RoomMember, user.as_str())
            .await
    }
}

/// A few entries of a state: what authorization looks at.
#[derive(Clone, Debug, Default)]
pub struct StateSlice(Vec<((StateEventType, String), i64, Arc<Pdu>)>);

impl StateSlice {
    /// The event at a key.
    pub fn get(&self, kind: &StateEventType, key: &str) -> Option<Arc<Pdu>> {
        self.0
            .iter()
            .find(|((k, s), ..)| k == kind && s == key)
            .map(|(_, _, pdu)| pdu.clone())
    }

    /// Numbers and events.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Arc<Pdu>)> {
        self.0.iter().map(|(_, nid, pdu)| (*nid, pdu))
    }
}
