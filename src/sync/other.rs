//! Parts of an answer for rooms that the user is not in, and ephemeral parts.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::{Map, Value, value::RawValue};

use super::{
    Error,
    fields::{self, Fields, raw},
    joined::{Scope, assemble_all, candidates},
    timeline,
};
use crate::{
    event::client::{Shape, to_client},
    rooms::{Rooms, receipts::contents, resident::Room},
    storage::{self, Pos, RoomNid, Topic, memberships::UserRoom},
    users::{push_rules, tokens::Session},
};

/// Account data that is not stored as such.
const PUSH_RULES: &str = "m.push_rules";

/// Rooms that the user left: their timelines up to that, with few queries for all of them.
pub(super) async fn left(
    scope: Scope<'_>,
    rows: &[&UserRoom],
) -> Result<Vec<(RoomNid, Fields)>, Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let nids: Vec<RoomNid> = rows.iter().map(|row| row.room).collect();
    let held = scope.rooms.find_many(&nids).await?;
    let parts = timelines(scope, rows, &held).await?;
    let mut parts: HashMap<RoomNid, Fields> = parts.into_iter().collect();
    let ends = rows.iter().filter_map(|row| {
        let room = held.get(&row.room)?;
        let event = row.event.filter(|_| !parts.contains_key(&row.room))?;
        Some((room.as_ref(), vec![event]))
    });
    scope.rooms.prepare_pdus(&ends.collect::<Vec<_>>()).await?;
    let mut left = Vec::with_capacity(rows.len());
    for row in rows {
        let part = match (parts.remove(&row.room), held.get(&row.room)) {
            (Some(part), _) => part,
            (None, room) => end(scope.rooms, row, room.map(AsRef::as_ref)).await?,
        };
        left.push((row.room, part));
    }
    Ok(left)
}

/// What the user may see of rooms that they left.
async fn timelines(
    scope: Scope<'_>,
    rows: &[&UserRoom],
    held: &HashMap<RoomNid, Arc<Room>>,
) -> Result<Vec<(RoomNid, Fields)>, Error> {
    let rows = rows.iter().filter(|row| held.contains_key(&row.room));
    let is_first = scope.since == 0;
    let wanted = rows.clone();
    let wanted = wanted.map(|row| (row.room, is_first, row.pos.min(scope.upto)));
    let wanted: Vec<(RoomNid, bool, Pos)> = wanted.collect();
    let known = wanted.iter().filter(|_| !is_first);
    let known: Vec<(RoomNid, Pos)> = known.map(|(room, ..)| (*room, scope.since)).collect();
    let told = timeline::told(scope.rooms, &known).await?;
    let mut found = candidates(scope, &wanted, told).await?;
    let forgotten: HashMap<RoomNid, bool> = rows.map(|row| (row.room, row.forgotten)).collect();
    for candidate in &mut found {
        candidate.forgotten = forgotten.get(&candidate.timeline.room.nid).copied();
    }
    let parts = assemble_all(scope, found).await?.into_iter();
    let parts = parts.map(|(room, mut part)| {
        part.fields.remove("summary");
        (room, part.fields)
    });
    Ok(parts.collect())
}

/// Who never was inside, or forgot the room, sees the end of the invitation or of their stay and nothing
/// else; of a room that we do not hold, the refused or taken back invitation, or such a knock.
async fn end(rooms: &Rooms, row: &UserRoom, room: Option<&Room>) -> Result<Fields, Error> {
    let events: Vec<Box<RawValue>> = match (room, row.event, &row.stripped) {
        (Some(room), Some(event), _) => {
            let own = rooms.pdus(room, &[event]).await?;
            let shown = own
                .iter()
                .map(|pdu| to_client(pdu, Shape::Sync, Map::new()));
            shown.collect()
        }
        (None, _, Some(stripped)) => serde_json::from_str(stripped).unwrap_or_default(),
        _ => Vec::new(),
    };
    let timeline = BTreeMap::from([("events", raw(&events)), ("limited", raw(&false))]);
    Ok(Fields::from([("timeline".to_owned(), raw(&timeline))]))
}

/// Receipts by room, as content of one `m.receipt` event each.
pub(super) async fn receipts(
    scope: Scope<'_>,
    nids: &[RoomNid],
) -> Result<HashMap<RoomNid, Value>, Error> {
    let db = &scope.rooms.ctx().db;
    let spans: Vec<(RoomNid, Pos)> = nids.iter().map(|room| (*room, scope.since)).collect();
    let spans = db.stream.recent().with_news(Topic::Receipts, &spans);
    if spans.is_empty() {
        return Ok(HashMap::new());
    }
    let user = scope.session.user_nid;
    let mut conn = db.conn().await?;
    let rows = storage::receipts::list(&mut conn, user, (&spans, scope.upto), None).await?;
    drop(conn);
    Ok(contents(scope.rooms.ctx(), &rows).await?)
}

/// Account data that changed, as (type, event).
#[derive(Default)]
pub(super) struct AccountData {
    pub(super) global: Vec<(String, Box<RawValue>)>,
    pub(super) by_room: HashMap<RoomNid, Vec<(String, Box<RawValue>)>>,
}

/// Account data that changed in `(since, upto]`; push rules, which everybody has, go with it at the
/// beginning.
pub(super) async fn account_data(
    rooms: &Rooms,
    session: &Session,
    (since, upto): (Pos, Pos),
) -> Result<AccountData, Error> {
    let (db, user) = (&rooms.ctx().db, session.user_nid);
    if since > 0 && !db.stream.recent().has_since(Topic::Account, user.0, since) {
        return Ok(AccountData::default());
    }
    let mut conn = db.conn().await?;
    let rows = storage::account_data::list_since(&mut conn, user, since, upto).await?;
    drop(conn);
    let mut data = AccountData::default();
    let mut rules = None;
    for (room, kind, content) in rows {
        if room == 0 && kind == PUSH_RULES {
            rules = Some(content);
            continue;
        }
        let event = account_event(&kind, &content);
        let list = if room == 0 {
            &mut data.global
        } else {
            data.by_room.entry(RoomNid(room)).or_default()
        };
        list.push((kind, event));
    }
    if since == 0 || rules.is_some() {
        let content = push_rules::content(rooms.ctx(), &session.user_id, rules.as_deref());
        let event = fields::event(PUSH_RULES, &content);
        data.global.push((PUSH_RULES.to_owned(), event));
    }
    Ok(data)
}

/// Account data as an event.
pub(super) fn account_event(kind: &str, content: &str) -> Box<RawValue> {
    match serde_json::from_str::<&RawValue>(content) {
        Ok(content) => fields::event(kind, content),
        Err(_) => fields::event(kind, RawValue::NULL),
    }
}

/// Notifications and highlights as clients are shown them: never below zero, and what highlights
/// notifies.
pub(super) fn unread(notify: i64, high: i64) -> (i64, i64) {
    let high = high.max(0);
    (notify.max(high), high)
}
