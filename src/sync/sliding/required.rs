//! State that a client wants of a room.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, value::RawValue};

use super::{super::Error, View, room::Wish};
use crate::{
    event::{
        client::{Shape, to_client},
        pdu::Pdu,
    },
    rooms::{Event, resident::Room, state, state::Entries},
};

/// State events that are wanted: all of them of a room that is new to the client, else those that
/// changed, and those that were not wanted before.
pub(super) async fn required(
    view: &View<'_>,
    room: &Room,
    (wish, told, current): (&Wish<'_>, Option<&Entries>, &Entries),
    timeline: &[Event],
) -> Result<Vec<Box<RawValue>>, Error> {
    let mut senders = HashSet::new();
    for event in timeline {
        senders.insert(view.rooms.ctx().db.ids.user(&event.pdu.sender).await?.0);
    }
    let wanted = &wish.wanted.required_state;
    let mut nids = BTreeSet::new();
    if let Some(told) = told {
        let changed: Vec<i64> = state::now_other(told, current).collect();
        let changed = view
            .rooms
            .pdus(room, &changed)
            .await?
            .into_iter()
            .zip(changed);
        nids.extend(
            changed
                .filter(|(event, _)| fits(view, wanted, event))
                .map(|(_, nid)| nid),
        );
        if let Some(before) = &wish.more {
            let added = wanted.difference(&before.required_state).cloned().collect();
            nids.extend(select(view, room, (&added, current), &senders).await?);
        }
        let lazy = ("m.room.member".to_owned(), "$LAZY".to_owned());
        if wanted.contains(&lazy) {
            let members = senders.iter().filter_map(|user| current.get(&-user));
            nids.extend(members.copied());
        }
    } else {
        nids = select(view, room, (wanted, current), &senders).await?;
    }
    let nids: Vec<i64> = nids.into_iter().collect();
    let pdus = view.rooms.pdus(room, &nids).await?;
    Ok(pdus
        .iter()
        .map(|pdu| to_client(pdu, Shape::Sync, Map::new()))
        .collect())
}

type Required = BTreeSet<(String, String)>;

/// Whether a state event is wanted, apart from members who speak.
fn fits(view: &View<'_>, wanted: &Required, event: &Pdu) -> bool {
    let (kind, key) = (event.kind.to_string(), event.state_key.as_deref());
    let Some(key) = key else { return false };
    wanted.iter().any(|(wanted_kind, wanted_key)| {
        (wanted_kind == "*" || *wanted_kind == kind)
            && (wanted_key == "*"
                || wanted_key == key
                || (wanted_key == "$ME" && key == view.session.user_id))
    })
}

/// Numbers of the events of a state that are wanted.
async fn select(
    view: &View<'_>,
    room: &Room,
    (wanted, state): (&Required, &Entries),
    senders: &HashSet<i64>,
) -> Result<BTreeSet<i64>, Error> {
    let mut nids = BTreeSet::new();
    let mut is_open = false;
    for (kind, key) in wanted {
        match (kind.as_str(), key.as_str()) {
            ("m.room.member", "$LAZY") => {
                nids.extend(senders.iter().filter_map(|user| state.get(&-user)));
            }
            ("m.room.member", "$ME") => {
                nids.extend(state.get(&-view.session.user_nid.0));
            }
            ("m.room.member", "*") => {
                let members = state.iter().filter(|(skey, _)| **skey < 0);
                nids.extend(members.map(|(_, nid)| *nid));
            }
            ("*", "*") => nids.extend(state.values()),
            ("*", _) | (_, "*") => is_open = true,
            (kind, key) => {
                let key = if key == "$ME" {
                    view.session.user_id.as_str()
                } else {
                    key
                };
                let skey = view.skey(kind, key).await?;
                nids.extend(skey.and_then(|skey| state.get(&skey)));
            }
        }
    }
    if is_open {
        // Few of a room's state events are no members.
        let others = state.iter().filter(|(skey, _)| **skey > 0);
        let others: Vec<i64> = others.map(|(_, nid)| *nid).collect();
        let pdus = view
            .rooms
            .pdus(room, &others)
            .await?
            .into_iter()
            .zip(others);
        let fitting = pdus.filter(|(event, _)| fits(view, wanted, event));
        nids.extend(fitting.map(|(_, nid)| nid));
    }
    Ok(nids)
}
