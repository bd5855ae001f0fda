//! Parts of an answer for rooms that the user is not in, and ephemeral parts.

use std::collections::HashMap;

use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Error,
    joined::{Scope, assemble_all, candidates},
    timeline,
};
use crate::{
    event::client::{Shape, to_client},
    rooms::{Rooms, receipts::contents},
    storage::{self, Pos, RoomNid, memberships::UserRoom},
    users::{push_rules, tokens::Session},
};

/// Account data that is not stored as such.
const PUSH_RULES: &str = "m.push_rules";

/// A room that the user left: its timeline up to that.
pub(super) async fn left(scope: Scope<'_>, row: &UserRoom) -> Result<Map<String, Value>, Error> {
    let Some(room) = scope.rooms.find(row.room).await? else {
        // An invitation that was refused or taken back, or such a knock.
        let events: Vec<Value> = row
            .stripped
            .as_deref()
            .and_then(|events| serde_json::from_str(events).ok())
            .unwrap_or_default();
        let mut answer = Map::new();
        let timeline = json!({ "events": events, "limited": false });
        answer.insert("timeline".to_owned(), timeline);
        return Ok(answer);
    };
    let scope = Scope {
        upto: row.pos.min(scope.upto),
        ..scope
    };
    let told = timeline::told(scope.rooms, &[(row.room, scope.since)]).await?;
    let wanted = [(row.room, scope.since == 0)];
    let found = candidates(scope, &wanted, told).await?;
    if let Some((_, mut answer)) = assemble_all(scope, found).await?.pop() {
        answer.remove("summary");
        return Ok(answer);
    }
    // Who never was inside, or forgot the room, sees the end of the invitation or of their stay and
    // nothing else.
    let own = match row.event {
        Some(event) => scope.rooms.pdus(&room, &[event]).await?,
        None => Vec::new(),
    };
    let events: Vec<Box<RawValue>> = own
        .iter()
        .map(|pdu| to_client(pdu, Shape::Sync, Map::new()))
        .collect();
    let mut answer = Map::new();
    let timeline = json!({ "events": events, "limited": false });
    answer.insert("timeline".to_owned(), timeline);
    Ok(answer)
}

/// Receipts by room, as content of one `m.receipt` event each.
pub(super) async fn receipts(
    scope: Scope<'_>,
    nids: &[RoomNid],
) -> Result<HashMap<RoomNid, Value>, Error> {
    let spans: Vec<(RoomNid, Pos)> = nids.iter().map(|room| (*room, scope.since)).collect();
    let user = scope.session.user_nid;
    let mut conn = scope.rooms.ctx().db.conn().await?;
    let rows = storage::receipts::list(&mut conn, user, (&spans, scope.upto), None).await?;
    drop(conn);
    Ok(contents(scope.rooms.ctx(), &rows).await?)
}

/// Account data that changed, as (type, event).
#[derive(Default)]
pub(super) struct AccountData {
    pub(super) global: Vec<(String, Value)>,
    pub(super) by_room: HashMap<RoomNid, Vec<(String, Value)>>,
}

/// Account data that changed in `(since, upto]`; push rules, which everybody has, go with it at the
/// beginning.
pub(super) async fn account_data(
    rooms: &Rooms,
    session: &Session,
    (since, upto): (Pos, Pos),
) -> Result<AccountData, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let user = session.user_nid;
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
        let event = json!({ "type": PUSH_RULES, "content": content });
        data.global.push((PUSH_RULES.to_owned(), event));
    }
    Ok(data)
}

/// Account data as an event.
pub(super) fn account_event(kind: &str, content: &str) -> Value {
    let content: Value = serde_json::from_str(content).unwrap_or_default();
    json!({ "type": kind, "content": content })
}

/// Notifications and highlights as clients are shown them: never below zero, and what highlights
/// notifies.
pub(super) fn unread(notify: i64, high: i64) -> (i64, i64) {
    let high = high.max(0);
    (notify.max(high), high)
}
