//! Events of a room for one client: format, and what the server adds in `unsigned`.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value, json, value::RawValue};

use super::{Error, Event, Rooms, resident::Room};
use crate::{
    clock::now_ms,
    event::{
        client::{Shape, to_client},
        pdu::Pdu,
    },
    storage,
    users::tokens::Session,
};

/// What is added to events, looked up for all of them together.
#[derive(Debug)]
pub struct Extras {
    /// State event to the one that it replaces.
    previous: HashMap<i64, Arc<Pdu>>,
    /// Redacted event to its redaction.
    because: HashMap<String, Arc<Pdu>>,
}

impl Extras {
    /// Looks up what the events need.
    pub async fn load(rooms: &Rooms, room: &Room, events: &[Event]) -> Result<Self, Error> {
        let states = rooms.states_before(room, events).await?;
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
        let previous = replaced.into_iter().map(|(nid, _)| nid).zip(pdus).collect();
        let redacted: Vec<String> = events
            .iter()
            .filter(|event| event.stored.is_redacted())
            .map(|event| event.pdu.event_id.to_string())
            .collect();
        let mut because = HashMap::new();
        if !redacted.is_empty() {
            let mut conn = rooms.ctx().db.conn().await?;
            let found = storage::events::redactions_of(&mut conn, room.nid, &redacted).await?;
            drop(conn);
            let applied: Vec<_> = found
                .into_iter()
                .filter(|(_, _, applied)| *applied)
                .collect();
            let nids: Vec<i64> = applied.iter().map(|(_, nid, _)| *nid).collect();
            let pdus = rooms.pdus(room, &nids).await?;
            because = applied
                .into_iter()
                .map(|(target, ..)| target)
                .zip(pdus)
                .collect();
        }
        Ok(Self { previous, because })
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
        if let Some(txn_id) = txn_id {
            unsigned.insert("transaction_id".to_owned(), json!(txn_id));
        }
        if let Some(previous) = self.previous.get(&event.stored.nid.0) {
            let content: Value = previous.content_as().unwrap_or_default();
            unsigned.insert("prev_content".to_owned(), content);
            unsigned.insert("prev_sender".to_owned(), json!(previous.sender));
            unsigned.insert("replaces_state".to_owned(), json!(previous.event_id));
        }
        if let Some(redaction) = self.because.get(pdu.event_id.as_str()) {
            let redaction = to_client(redaction, Shape::Timeline, Map::new());
            unsigned.insert("redacted_because".to_owned(), json!(redaction));
        }
        to_client(pdu, shape, unsigned)
    }
}
