//! Relations of events from before they were kept, written in the background.

use ruma::events::TimelineEventType;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::row_of;
use crate::{
    event::relation::Relation,
    rooms::{Error, Rooms},
    storage::relation_todo,
};

/// Events that are looked at in one transaction; the room waits meanwhile.
const EVENTS_AT_ONCE: i64 = 500;

/// The fields that make a relation.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    kind: TimelineEventType,
    content: Box<RawValue>,
    origin_server_ts: i64,
}

/// Looks through some older events; whether there may be more.
pub async fn advance(rooms: &Rooms) -> Result<bool, Error> {
    let mut tx = rooms.ctx().db.begin().await?;
    let Some((room, after)) = relation_todo::lock(&mut tx).await? else {
        return Ok(false);
    };
    let events = relation_todo::list(&mut tx, room, after, EVENTS_AT_ONCE).await?;
    let mut rows = Vec::new();
    for event in &events {
        let Ok(fields) = serde_json::from_str::<Fields>(&event.json) else {
            continue;
        };
        let Some(relation) = Relation::of_content(&fields.kind, &fields.content) else {
            continue;
        };
        let what = (event.nid, fields.origin_server_ts);
        rows.extend(row_of(rooms, what, relation).await?.map(|row| (event, row)));
    }
    if !rows.is_empty() {
        relation_todo::insert(&mut tx, room, &rows).await?;
    }
    let full = i64::try_from(events.len()).unwrap_or(EVENTS_AT_ONCE) >= EVENTS_AT_ONCE;
    let last = events.last().map(|event| event.nid);
    relation_todo::advance(&mut tx, room, last.filter(|_| full)).await?;
    tx.commit().await?;
    Ok(true)
}
