//! Auth chains as peers send them: events in an order in which each follows those that authorize
//! it, with a mark on those that these do not authorize (check 4 of receipt).

use std::{collections::HashMap, sync::Arc};

use ruma::{
    OwnedEventId,
    events::{StateEventType, TimelineEventType},
};

use super::{auth, pdu::Pdu, version::RoomVersion};

/// Events by id.
pub type Events = HashMap<OwnedEventId, Arc<Pdu>>;

/// Puts events after those that authorize them and marks those that fail authorization against
/// their auth events. `have` are events that were judged before, the room's create event with them.
/// Events in a circle, or that lean on unknown ones, are left out.
pub fn authorized(version: &RoomVersion, all: &Events, have: &Events) -> Vec<Arc<Pdu>> {
    let mut children: HashMap<&OwnedEventId, Vec<&OwnedEventId>> = HashMap::new();
    let mut waits: HashMap<&OwnedEventId, usize> = HashMap::new();
    let mut ready: Vec<&OwnedEventId> = Vec::new();
    for (id, pdu) in all {
        let is_known = |auth: &&OwnedEventId| all.contains_key(*auth) || have.contains_key(*auth);
        if !pdu.auth_events.iter().all(|auth| is_known(&auth)) {
            continue;
        }
        let mut fresh: Vec<&OwnedEventId> = pdu
            .auth_events
            .iter()
            .filter(|auth| !have.contains_key(*auth))
            .collect();
        fresh.sort_unstable();
        fresh.dedup();
        if fresh.is_empty() {
            ready.push(id);
        }
        waits.insert(id, fresh.len());
        for auth in fresh {
            children.entry(auth).or_default().push(id);
        }
    }
    // From v12 on every event leans on the create event without naming it: it comes first.
    let is_create = |pdu: &Arc<Pdu>| pdu.kind == TimelineEventType::RoomCreate;
    ready.sort_by_key(|id| is_create(&all[*id]));
    let create = all.values().chain(have.values()).find(|pdu| is_create(pdu));
    let mut done: Events = HashMap::with_capacity(all.len());
    let mut order = Vec::with_capacity(all.len());
    while let Some(id) = ready.pop() {
        let pdu = judged(version, &all[id], create, |auth| {
            done.get(auth).or_else(|| have.get(auth))
        });
        done.insert(pdu.event_id.clone(), pdu.clone());
        order.push(pdu);
        for child in children.remove(id).unwrap_or_default() {
            if let Some(count) = waits.get_mut(child) {
                *count -= 1;
                if *count == 0 {
                    ready.push(child);
                }
            }
        }
    }
    order
}

/// The event, marked as rejected where its auth events do not authorize it.
fn judged<'a>(
    version: &RoomVersion,
    pdu: &Arc<Pdu>,
    create: Option<&Arc<Pdu>>,
    get: impl Fn(&OwnedEventId) -> Option<&'a Arc<Pdu>>,
) -> Arc<Pdu> {
    let named: Vec<&Arc<Pdu>> = pdu.auth_events.iter().filter_map(&get).collect();
    let lookup = |kind: &StateEventType, key: &str| {
        if *kind == StateEventType::RoomCreate {
            return create.cloned();
        }
        named
            .iter()
            .find(|auth| {
                auth.state_key.as_deref() == Some(key) && auth.kind.to_string() == kind.to_string()
            })
            .map(|auth| (*auth).clone())
    };
    let checked = auth::check_independent(version, pdu, |id| get(&id.to_owned()).cloned())
        .and_then(|()| auth::check(version, pdu, lookup));
    let mut pdu = pdu.clone();
    if let Err(why) = checked {
        tracing::debug!(event_id = %pdu.event_id, why, "an event of a peer's state is rejected");
        Arc::make_mut(&mut pdu).rejected = true;
    }
    pdu
}
