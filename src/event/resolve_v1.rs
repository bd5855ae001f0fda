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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ruma::RoomVersionId;
    use serde_json::{Value, json};

    use super::{BTreeMap, Key, Pdu, RoomVersion, resolve};

    fn event(kind: &str, key: &str, sender: &str, depth: i64, content: &Value) -> Arc<Pdu> {
        let version = RoomVersion::of(&RoomVersionId::V1).unwrap();
        let json = json!({
            "event_id": format!("${kind}_{}_{depth}:a.example", &sender[1..4]),
            "room_id": "!r:a.example", "type": kind, "state_key": key, "sender": sender,
            "origin_server_ts": 1, "depth": depth, "content": content,
            "prev_events": [], "auth_events": [],
        });
        let object = serde_json::from_value(json).unwrap();
        Arc::new(Pdu::from_object(object, &version).unwrap())
    }

    fn settled() -> BTreeMap<Key, Arc<Pdu>> {
        let alice = "@alice:a.example";
        let bob = "@bob:a.example";
        let join = json!({ "membership": "join" });
        [
            event("m.room.create", "", alice, 1, &json!({ "creator": alice })),
            event("m.room.member", alice, alice, 2, &join),
            event("m.room.member", bob, bob, 3, &join),
        ]
        .into_iter()
        .map(|pdu| {
            (
                (pdu.kind.to_string().into(), pdu.state_key.clone().unwrap()),
                pdu,
            )
        })
        .collect()
    }

    /// What stands, by type and key, for one order of the inputs.
    fn stands(events: &[Arc<Pdu>]) -> Vec<String> {
        let version = RoomVersion::of(&RoomVersionId::V1).unwrap();
        let mut conflicted: BTreeMap<Key, Vec<Arc<Pdu>>> = BTreeMap::new();
        for pdu in events {
            let key = (pdu.kind.to_string().into(), pdu.state_key.clone().unwrap());
            conflicted.entry(key).or_default().push(pdu.clone());
        }
        let resolved = resolve(&version, conflicted, settled());
        resolved
            .values()
            .map(|pdu| pdu.event_id.to_string())
            .collect()
    }

    #[test]
    fn order_of_inputs_never_matters_and_power_is_settled_first() {
        let (alice, bob) = ("@alice:a.example", "@bob:a.example");
        let levels = |bob_level: i64| json!({ "users": { alice: 100, bob: bob_level }, "state_default": 50 });
        let mut events = vec![
            event("m.room.power_levels", "", alice, 5, &levels(0)),
            event("m.room.power_levels", "", alice, 4, &levels(50)),
            event("m.room.topic", "", bob, 9, &json!({ "topic": "of bob" })),
            event(
                "m.room.topic",
                "",
                alice,
                6,
                &json!({ "topic": "of alice" }),
            ),
        ];
        let first = stands(&events);
        // Bob has no power in the levels that stand, so the deeper topic of his does not.
        assert!(
            first
                .iter()
                .any(|id| id.contains("topic") && id.contains("ali")),
            "{first:?}"
        );
        assert!(
            first
                .iter()
                .any(|id| id.contains("power_levels") && id.contains('5'))
        );
        for _ in 0..events.len() {
            events.rotate_left(1);
            assert_eq!(stands(&events), first);
            events.swap(0, 1);
            assert_eq!(stands(&events), first);
        }
    }
}
