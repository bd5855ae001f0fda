//! State resolution of room version 1, with what it needs loaded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    event::{self, auth, pdu::Pdu},
    rooms::{Error, Rooms, resident::Room, state::Entries},
};

/// Resolves states that differ at `keys`. In this version a key that some states lack is no conflict.
pub(super) async fn resolve(
    rooms: &Rooms,
    room: &Room,
    states: &[Entries],
    keys: &[i64],
) -> Result<Entries, Error> {
    let mut entries = states.first().cloned().unwrap_or_default();
    let mut disputed: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for skey in keys {
        let events: BTreeSet<i64> = states.iter().filter_map(|s| s.get(skey).copied()).collect();
        if let (1, Some(event)) = (events.len(), events.first()) {
            entries.insert(*skey, *event);
        } else {
            entries.remove(skey);
            disputed.insert(*skey, events);
        }
    }
    let all: Vec<i64> = disputed.values().flatten().copied().collect();
    let mut wanted = BTreeSet::new();
    let mut conflicted: BTreeMap<event::resolve_v1::Key, Vec<Arc<Pdu>>> = BTreeMap::new();
    let mut nids = HashMap::new();
    for (nid, pdu) in all.iter().zip(rooms.pdus(room, &all).await?) {
        let key = pdu.state_key.as_deref();
        let types = auth::types(&pdu.kind, &pdu.sender, key, &pdu.content, &room.version);
        wanted.extend(types.unwrap_or_default());
        nids.insert(pdu.event_id.clone(), *nid);
        if let Some(key) = key {
            let at = (pdu.kind.to_string().into(), key.to_owned());
            conflicted.entry(at).or_default().push(pdu);
        }
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    let slice = rooms.state_events(room, &entries, &wanted).await?;
    let settled = wanted
        .into_iter()
        .filter_map(|key| Some((key.clone(), slice.get(&key.0, &key.1)?)))
        .collect();
    for ((kind, key), pdu) in event::resolve_v1::resolve(&room.version, conflicted, settled) {
        let skey = rooms.ctx().db.ids.skey(&kind.to_string(), &key).await?;
        if let Some(nid) = nids.get(&pdu.event_id) {
            entries.insert(skey.0, *nid);
        }
    }
    Ok(entries)
}
