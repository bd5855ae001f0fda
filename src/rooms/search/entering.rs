//! What is entered into the index of words, in the background.

use std::borrow::Cow;

use serde_json::{Map, Value, value::RawValue};

use crate::{
    rooms::{Error, Rooms},
    storage::{self, append::flag, search::Kind},
};

/// Events that are entered in one transaction.
const AT_ONCE: i64 = 500;
/// Transactions after which a search looks in what there is.
const ROUNDS_MAX: usize = 10;

/// In what an event of that type is searched.
fn kind(event_type: &str) -> Option<Kind> {
    match event_type {
        "m.room.message" => Some(Kind::Body),
        "m.room.name" => Some(Kind::Name),
        "m.room.topic" => Some(Kind::Topic),
        _ => None,
    }
}

/// The flag of events that are entered.
pub(in crate::rooms) fn flags(event_type: &str) -> i32 {
    kind(event_type).map_or(0, |_| flag::SEARCHABLE)
}

/// The words of an event with such a content.
pub(super) fn words(event_type: &str, content: &str) -> Option<(Kind, String)> {
    let kind = kind(event_type)?;
    let content: Map<String, Value> = serde_json::from_str(content).ok()?;
    let text = content.get(key(kind))?.as_str()?;
    // PostgreSQL has no NUL in texts.
    Some((kind, text.replace('\0', " ")))
}

/// Key of the content that is searched.
const fn key(kind: Kind) -> &'static str {
    match kind {
        Kind::Body => "body",
        Kind::Name => "name",
        Kind::Topic => "topic",
    }
}

/// Enters some of what is to be entered; how many events.
pub async fn advance(rooms: &Rooms) -> Result<usize, Error> {
    let mut tx = rooms.ctx().db.begin().await?;
    let todo = storage::search::take_todo(&mut tx, AT_ONCE).await?;
    if todo.is_empty() {
        return Ok(0);
    }
    let texts = storage::search::list_texts(&mut tx, &todo).await?;
    let docs = texts.into_iter().filter_map(|row| {
        let (kind, text) = stored_words(&row.json)?;
        Some((row, kind, text))
    });
    let docs: Vec<_> = docs.collect();
    if !docs.is_empty() {
        storage::search::insert(&mut tx, &docs).await?;
    }
    tx.commit().await?;
    Ok(todo.len())
}

/// Enters what was written before a search, so that it is found.
pub(super) async fn catch_up(rooms: &Rooms) -> Result<(), Error> {
    for _ in 0..ROUNDS_MAX {
        if advance(rooms).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// The words of an event as it is stored.
fn stored_words(json: &str) -> Option<(Kind, String)> {
    #[derive(serde::Deserialize)]
    struct Stored<'a> {
        #[serde(rename = "type", borrow)]
        event_type: Cow<'a, str>,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let stored: Stored<'_> = serde_json::from_str(json).ok()?;
    words(&stored.event_type, stored.content.get())
}
