//! State resolution of room version 1 (specification, "Room version 1", "State resolution").

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use ruma::events::StateEventType;
use sha1::{Digest, Sha1};

use super::{auth, pdu::Pdu, version::RoomVersion};

/// Where in a state an event stands.
pub type Key = (StateEventType, String);

/// Settles conflicts. `conflicted`: at each key all events that states have there, two or more.
/// `settled`: the state that all agree on, as far as authorization of the conflicted events looks
/// at it. Returns the event that stands at each conflicted key.
pub fn resolve(
    version: &RoomVersion,
    mut conflicted: BTreeMap<Key, Vec<Arc<Pdu>>>,
    mut settled: BTreeMap<Key, Arc<Pdu>>,
) -> BTreeMap<Key, Arc<Pdu>> {
    let mut resolved = BTreeMap::new();
    for kind in [
        StateEventType::RoomPowerLevels,
        StateEventType::RoomJoinRules,
    ] {
        let key = (kind, String::new());
        if let Some(events) = conflicted.remove(&key) {
            let event = chain(version, events, &settled);
            resolved.extend(event.map(|event| (key, event)));
            settled.extend(resolved.clone());
        }
    }
    let (members, others): (BTreeMap<_, _>, BTreeMap<_, _>) = conflicted
        .into_iter()
        .partition(|((kind, _), _)| *kind == StateEventType::RoomMember);
    for (key, events) in members {
        let event = chain(version, events, &settled);
        resolved.extend(event.map(|event| (key, event)));
    }
    settled.extend(resolved.clone());
    for (key, events) in others {
        let event = newest(version, events, &settled);
        resolved.extend(event.map(|event| (key, event)));
    }
    resolved
}

/// Deepest first; of equal depth, by the SHA-1 of the id.
fn ordered(mut events: Vec<Arc<Pdu>>) -> Vec<Arc<Pdu>> {
    events.sort_by_cached_key(|event| {
        let hash: [u8; 20] = Sha1::digest(event.event_id.as_str()).into();
        (Reverse(event.depth), hash)
    });
    events
}

/// Each event in turn has to be allowed by the one before it; the last that is stands.
fn chain(
    version: &RoomVersion,
    events: Vec<Arc<Pdu>>,
    settled: &BTreeMap<Key, Arc<Pdu>>,
) -> Option<Arc<Pdu>> {
    let mut from_oldest = ordered(events).into_iter().rev();
    let mut standing = from_oldest.next()?;
    for event in from_oldest {
        let allowed = auth::check(version, &event, |kind, key| {
            if is_at(&standing, kind, key) {
                return Some(standing.clone());
            }
            settled.get(&(kind.clone(), key.to_owned())).cloned()
        });
        if allowed.is_err() {
            break;
        }
        standing = event;
    }
    Some(standing)
}

fn is_at(event: &Pdu, kind: &StateEventType, key: &str) -> bool {
    event.kind.to_string() == kind.to_string() && event.state_key.as_deref() == Some(key)
}

/// The newest event that the settled state allows; the oldest where it allows none.
fn newest(
    version: &RoomVersion,
    events: Vec<Arc<Pdu>>,
    settled: &BTreeMap<Key, Arc<Pdu>>,
) -> Option<Arc<Pdu>> {
    let events = ordered(events);
    let state =
        |kind: &StateEventType, key: &str| settled.get(&(kind.clone(), key.to_owned())).cloned();
    events
        .iter()
        .find(|event| auth::check(version, event, state).is_ok())
        .or(events.last())
        .cloned()
}
