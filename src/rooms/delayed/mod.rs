//! Delayed events (MSC4140): what a user wants sent later, unless somebody who knows its id cancels or
//! restarts it before. A call is left that way when a client is gone without a word.
//!
//! Each is a row until it is sent, so that restarts lose none. Who may send what where is decided
//! when its time comes.

mod sending;

use ruma::{
    RoomId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

pub use self::sending::run;
use super::{Error, Rooms, send::Txn, visibility};
use crate::{
    clock::now_ms,
    event::build::{Draft, EVENT_BYTES_MAX},
    storage::{
        UserNid,
        delayed_events::{self, Delayed},
    },
    users::tokens::Session,
};

/// Delayed events in one answer.
const PAGE_MAX: i64 = 100;
/// Bytes of a type or state key (specification, "Size limits").
const FIELD_BYTES_MAX: usize = 255;
/// Bytes of an id: ours are shorter.
const ID_BYTES_MAX: usize = 64;

/// What a node knows of delayed events.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Something may be due sooner than it was.
    wake: Notify,
}

/// Schedules an event; its id. A repeated transaction gives the first one.
pub async fn schedule(
    rooms: &Rooms,
    session: &Session,
    room_id: &RoomId,
    (draft, delay_ms): (&Draft, i64),
    txn: Option<Txn>,
) -> Result<String, Error> {
    let config = &rooms.ctx().config.delayed_events;
    let most = i64::from(config.max_delay_s) * 1_000;
    if most == 0 {
        let why = "delayed events are switched off here";
        return Err(Error::Forbidden(why.to_owned()));
    }
    let txn = txn.map(Txn::id);
    if let Some(txn) = txn {
        let mut conn = rooms.ctx().db.conn().await?;
        if let Some(known) = delayed_events::find_by_txn(&mut conn, txn).await? {
            return Ok(known);
        }
    }
    if delay_ms > most {
        return Err(Error::DelayTooLong(most));
    }
    check(draft)?;
    let room = visibility::joined(rooms, room_id, &session.user_id).await?;
    let new = Delayed {
        delay_id: format!("{:032x}", rand::random::<u128>()),
        user_nid: session.user_nid.0,
        room_nid: room.nid.0,
        kind: draft.kind.to_string(),
        state_key: draft.state_key.clone(),
        content: draft.content.get().to_owned(),
        claimed_ts: draft.ts,
        sticky_ms: draft.sticky_ms,
        seen_event: sending::standing(rooms, &room, draft)
            .await?
            .map(|event| event.event_id.to_string()),
        delay_ms,
        running_ts: now_ms(),
        ..Delayed::default()
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let most = i64::from(config.max_scheduled);
    if !delayed_events::insert(&mut conn, &new, txn, most).await? {
        let known = match txn {
            Some(txn) => delayed_events::find_by_txn(&mut conn, txn).await?,
            None => None,
        };
        return known.ok_or(Error::TooManyDelayed);
    }
    drop(conn);
    rooms.0.delayed.wake.notify_one();
    Ok(new.delay_id)
}

/// What can be no event now will be none later.
fn check(draft: &Draft) -> Result<(), Error> {
    if draft.kind == TimelineEventType::RoomCreate {
        return Err(Error::Invalid("a room is created once".to_owned()));
    }
    let key = draft.state_key.as_deref().unwrap_or_default();
    if key.len().max(draft.kind.to_string().len()) > FIELD_BYTES_MAX {
        return Err(Error::TooLarge("type or state key".to_owned()));
    }
    if !draft.content.get().starts_with('{') {
        return Err(Error::Invalid("content must be an object".to_owned()));
    }
    if draft.content.get().len() > EVENT_BYTES_MAX {
        return Err(Error::TooLarge("content".to_owned()));
    }
    Ok(())
}

/// What is done to a delayed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is not sent.
    Cancel,
    /// It waits anew.
    Restart,
    /// It is sent now.
    Send,
}

impl Action {
    /// By its name.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "cancel" => Some(Self::Cancel),
            "restart" => Some(Self::Restart),
            "send" => Some(Self::Send),
            _ => None,
        }
    }
}

/// Does something to a delayed event. Its id is all that is needed for it: a server of calls, which
/// sees who is gone, has no session of the user.
pub async fn manage(rooms: &Rooms, delay_id: &str, action: Action) -> Result<(), Error> {
    if delay_id.len() > ID_BYTES_MAX {
        return Err(Error::DelayedNotFound);
    }
    let now = now_ms();
    let mut conn = rooms.ctx().db.conn().await?;
    let is_done = match action {
        Action::Cancel => delayed_events::cancel(&mut conn, delay_id, now).await?,
        Action::Restart => delayed_events::restart(&mut conn, delay_id, now).await?,
        Action::Send => {
            let until = now + sending::LEASE_MS;
            let taken = delayed_events::claim(&mut conn, delay_id, until).await?;
            drop(conn);
            if let Some(taken) = taken {
                return sending::deliver(rooms, &taken).await;
            }
            conn = rooms.ctx().db.conn().await?;
            false
        }
    };
    if is_done {
        return Ok(());
    }
    let found = delayed_events::find(&mut conn, delay_id).await?;
    let found = found.ok_or(Error::DelayedNotFound)?;
    let was_sent = found.event_id.is_some() || found.sending;
    let was_cancelled = found.finalised_ts.is_some() && found.event_id.is_none();
    match action {
        // What is asked for is so already.
        Action::Cancel if was_cancelled => Ok(()),
        Action::Send if was_sent => Ok(()),
        _ => Err(Error::DelayedOver),
    }
}

/// Delayed events of a user, a page of them.
#[derive(Debug)]
pub struct Page {
    /// As clients see them.
    pub events: Vec<Value>,
    /// Where the next page begins.
    pub next: Option<i64>,
}

/// Those that are scheduled, the oldest first.
pub async fn scheduled(rooms: &Rooms, user: UserNid, from: Option<i64>) -> Result<Page, Error> {
    let span = (from.unwrap_or(0), PAGE_MAX);
    let mut conn = rooms.ctx().db.conn().await?;
    let found = delayed_events::list_scheduled(&mut conn, user, span).await?;
    drop(conn);
    page(rooms, found).await
}

/// Those that were sent or cancelled in the last day, the newest first.
pub async fn finalised(rooms: &Rooms, user: UserNid, from: Option<i64>) -> Result<Page, Error> {
    let span = (from.unwrap_or(i64::MAX), PAGE_MAX);
    let mut conn = rooms.ctx().db.conn().await?;
    let found = delayed_events::list_finalised(&mut conn, user, span).await?;
    drop(conn);
    page(rooms, found).await
}

/// One of a user.
pub async fn one(rooms: &Rooms, user: UserNid, delay_id: &str) -> Result<Value, Error> {
    if delay_id.len() > ID_BYTES_MAX {
        return Err(Error::DelayedNotFound);
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let found = delayed_events::find(&mut conn, delay_id).await?;
    drop(conn);
    let found = found.filter(|found| found.user_nid == user.0);
    let found = found.ok_or(Error::DelayedNotFound)?;
    let shown = page(rooms, vec![found]).await?.events.pop();
    shown.ok_or(Error::DelayedNotFound)
}

async fn page(rooms: &Rooms, found: Vec<Delayed>) -> Result<Page, Error> {
    let is_full = i64::try_from(found.len()).is_ok_and(|count| count == PAGE_MAX);
    let next = found.last().filter(|_| is_full).map(|last| last.delay_no);
    let nids: Vec<_> = found
        .iter()
        .map(|it| crate::storage::RoomNid(it.room_nid))
        .collect();
    let ids = rooms.ctx().db.ids.room_ids_of(&nids).await?;
    let events = found.iter().zip(ids).map(|(it, room_id)| {
        let content: Value = serde_json::from_str(&it.content).unwrap_or_default();
        let mut shown = json!({
            "delay_id": it.delay_id,
            "room_id": room_id,
            "type": it.kind,
            "content": content,
            "delay": it.delay_ms,
            "running_since": it.running_ts,
        });
        if let Some(key) = &it.state_key {
            shown["state_key"] = json!(key);
        }
        if let Some(ts) = it.finalised_ts {
            shown["finalised_ts"] = json!(ts);
            let outcome = if it.event_id.is_some() {
                "send"
            } else {
                "cancel"
            };
            shown["outcome"] = json!(outcome);
        }
        if let Some(event_id) = &it.event_id {
            shown["event_id"] = json!(event_id);
        }
        if let Some(error) = &it.error {
            shown["error"] = json!({ "errcode": "M_UNKNOWN", "error": error });
        }
        shown
    });
    Ok(Page {
        events: events.collect(),
        next,
    })
}

/// The type of a state event.
fn state_kind(kind: &str) -> StateEventType {
    StateEventType::from(kind.to_owned())
}
