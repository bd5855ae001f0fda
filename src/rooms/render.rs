//! Events of a room for one client: format, and what the server adds in `unsigned`.

use std::{collections::HashMap, sync::Arc};

use ruma::events::room::member::MembershipState;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Error, Event, Rooms,
    ready::{Page, Redactions},
    resident::Room,
    states::States,
};
use crate::{
    clock::now_ms,
    event::{
        client::{Shape, to_client},
        pdu::Pdu,
        sticky,
    },
    users::tokens::Session,
};

/// What is added to events, looked up for all of them together.
#[derive(Debug)]
pub struct Extras {
    /// State event to the one that it replaces.
    previous: HashMap<i64, Arc<Pdu>>,
    /// Redacted event to its redaction.
    because: HashMap<i64, Arc<Pdu>>,
    /// The viewer's membership at each event whose state is known.
    memberships: HashMap<i64, MembershipState>,
    /// What is told beside events of those that relate to them ([`super::relations::bundle`]).
    pub(crate) relations: HashMap<i64, Map<String, Value>>,
}

impl Extras {
    /// Looks up what the events need, for a viewer or (`None`) whoever it may be.
    pub async fn load(
        rooms: &Rooms,
        room: &Room,
        events: &[Event],
        viewer: Option<&Session>,
    ) -> Result<Self, Error> {
        let redactions = Redactions::load(rooms, &[(room, events)]).await?;
        Self::with(rooms, (room, events), viewer, &redactions).await
    }

    /// The same for a page of several whose redactions are looked up: no query after
    /// [`super::ready::prepare`].
    pub async fn with(
        rooms: &Rooms,
        (room, events): Page<'_>,
        viewer: Option<&Session>,
        redactions: &Redactions,
    ) -> Result<Self, Error> {
        let states = rooms.states_before(room, events).await?;
        let memberships = match viewer {
            Some(viewer) => memberships(rooms, room, (events, &states), viewer).await?,
            None => HashMap::new(),
        };
        let mut replaced = Vec::new();
        for event in events {
            if let Some(key) = &event.pdu.state_key
                && let Some(state) = event.stored.snap.and_then(|snap| states.get(&snap))
            {
                let kind = event.pdu.kind.to_string();
                let skey = rooms.ctx().db.ids.find_skey(&kind, key).await?;
                if let Some(old) = skey.and_then(|skey| state.get(skey.0)) {
                    replaced.push((event.stored.nid.0, old));
                }
            }
        }
        let olds: Vec<i64> = replaced.iter().map(|(_, old)| *old).collect();
        let pdus = rooms.pdus(room, &olds).await?;
        let previous = replaced.into_iter().map(|(nid, _)| nid).zip(pdus);
        // What an erased user said before is for those who were there.
        let previous = previous.filter(|(nid, pdu)| {
            !rooms.0.erased.contains(&pdu.sender)
                || memberships.get(nid) == Some(&MembershipState::Join)
        });
        let previous = previous.collect();
        let because = events.iter().filter_map(|event| {
            let redaction = redactions.of(&event.pdu)?;
            Some((event.stored.nid.0, redaction.clone()))
        });
        Ok(Self {
            previous,
            because: because.collect(),
            memberships,
            relations: HashMap::new(),
        })
    }

    /// An event for a client.
    pub fn render(
        &self,
        rooms: &Rooms,
        session: &Session,
        event: &Event,
        shape: Shape,
    ) -> Box<RawValue> {
        let txn_id = rooms.echo(&event.pdu.event_id, session.user_nid, session.device_no);
        self.render_for_all(event, shape, txn_id.as_deref())
    }

    /// The same for whoever it may be; `txn_id`: that of the request that sent the event.
    pub fn render_for_all(
        &self,
        event: &Event,
        shape: Shape,
        txn_id: Option<&str>,
    ) -> Box<RawValue> {
        let pdu = &event.pdu;
        let mut unsigned = Map::new();
        unsigned.insert(
            "age".to_owned(),
            json!((now_ms() - pdu.origin_server_ts).max(0)),
        );
        let now = now_ms();
        let ends = sticky::ends_ts(pdu, event.stored.received_ts);
        if let Some(ends) = ends.filter(|ends| *ends > now) {
            unsigned.insert(sticky::TTL.to_owned(), json!(ends - now));
        }
        if let Some(membership) = self.memberships.get(&event.stored.nid.0) {
            unsigned.insert("membership".to_owned(), json!(membership));
        }
        if let Some(txn_id) = txn_id {
            unsigned.insert("transaction_id".to_owned(), json!(txn_id));
        }
        if let Some(previous) = self.previous.get(&event.stored.nid.0) {
            let content: Value = previous.content_as().unwrap_or_default();
            unsigned.insert("prev_content".to_owned(), content);
            unsigned.insert("prev_sender".to_owned(), json!(previous.sender));
            unsigned.insert("replaces_state".to_owned(), json!(previous.event_id));
        }
        if let Some(relations) = self.relations.get(&event.stored.nid.0) {
            unsigned.insert("m.relations".to_owned(), json!(relations));
        }
        if let Some(redaction) = self.because.get(&event.stored.nid.0) {
            let redaction = to_client(redaction, Shape::Timeline, Map::new());
            unsigned.insert("redacted_because".to_owned(), json!(redaction));
        }
        to_client(pdu, shape, unsigned)
    }
}

/// The viewer's membership at each event: in the state before it, or as the event itself sets it
/// (`unsigned.membership`, v1.11).
async fn memberships(
    rooms: &Rooms,
    room: &Room,
    (events, states): (&[Event], &States),
    viewer: &Session,
) -> Result<HashMap<i64, MembershipState>, Error> {
    let mut found = HashMap::with_capacity(events.len());
    let mut set_by = Vec::new();
    for event in events {
        let nid = event.stored.nid.0;
        if event.pdu.target() == Some(&viewer.user_id) {
            found.extend(event.pdu.membership().map(|membership| (nid, membership)));
        } else if let Some(state) = event.stored.snap.and_then(|snap| states.get(&snap)) {
            match state.get(-viewer.user_nid.0) {
                Some(own) => set_by.push((nid, own)),
                None => {
                    found.insert(nid, MembershipState::Leave);
                }
            }
        }
    }
    let mut own: Vec<i64> = set_by.iter().map(|(_, own)| *own).collect();
    own.sort_unstable();
    own.dedup();
    let pdus = rooms.pdus(room, &own).await?;
    let by_nid: HashMap<i64, Arc<Pdu>> = own.into_iter().zip(pdus).collect();
    for (nid, own) in set_by {
        let membership = by_nid.get(&own).and_then(|pdu| pdu.membership());
        found.extend(membership.map(|membership| (nid, membership)));
    }
    Ok(found)
}
