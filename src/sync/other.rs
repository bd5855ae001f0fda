//! Parts of an answer for rooms that the user is not in, and ephemeral parts.

use std::collections::{HashMap, HashSet};

use ruma::OwnedUserId;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Error,
    joined::{Candidate, Scope, assemble_all},
};
use crate::{
    event::client::{Shape, to_client},
    rooms::{Rooms, receipts::contents},
    storage::{self, RoomNid, memberships::UserRoom},
    users::{push_rules, tokens::Session},
};

/// Whom the user ignores (`m.ignored_user_list`).
pub(super) async fn ignored(
    rooms: &Rooms,
    session: &Session,
) -> Result<HashSet<OwnedUserId>, Error> {
    let user = session.user_nid;
    let mut conn = rooms.ctx().db.conn().await?;
    let list = storage::account_data::find(&mut conn, user, 0, push_rules::IGNORED).await?;
    let ignored = list.map(|list| push_rules::ignored(&list));
    Ok(ignored.into_iter().flatten().collect())
}

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
    let mut found = super::joined::candidates(scope, &[(row.room, false)]).await?;
    let Some(candidate) = found.pop() else {
        return Ok(Map::new());
    };
    let candidate = Candidate {
        fresh: scope.since == 0,
        ..candidate
    };
    match assemble_all(scope, vec![candidate]).await {
        Ok(mut parts) => {
            let mut answer = parts.pop().map_or_else(Map::new, |(_, part)| part);
            answer.remove("summary");
            Ok(answer)
        }
        // Somebody who never was inside sees the end of the invitation and nothing else.
        Err(Error::Rooms(crate::rooms::Error::NotJoined { .. })) => {
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
        Err(error) => Err(error),
    }
}

/// Receipts by room, as content of one `m.receipt` event each.
pub(super) async fn receipts(
    scope: Scope<'_>,
    nids: &[i64],
) -> Result<HashMap<RoomNid, Value>, Error> {
    let mut conn = scope.rooms.ctx().db.conn().await?;
    let range = (scope.since, scope.upto);
    let rows = storage::receipts::list(&mut conn, nids, range, scope.session.user_nid).await?;
    drop(conn);
    Ok(contents(scope.rooms.ctx(), &rows).await?)
}
