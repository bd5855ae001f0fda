//! Receipts: up to where somebody has read.

use std::collections::{BTreeMap, HashMap};

use ruma::{
    EventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::federation::transactions::edu::{Edu, ReceiptContent, ReceiptData, ReceiptMap},
    events::receipt::{Receipt, ReceiptThread},
    serde::Raw,
};
use serde_json::{Value, json};

use super::{
    Error, Rooms,
    membership::{require_joined, require_plausible},
    pdus::hash_of,
    presence,
    resident::Room,
};
use crate::{
    clock::{from_ms, now_ms},
    context::Context,
    storage::{self, LogEntry, LogKind, RoomNid, UserNid, events::split_hash},
};

/// Which receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `m.read`
    Read = 1,
    /// `m.read.private`
    Private = 2,
}

/// A user of ours has read up to an event.
pub async fn set(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    kind: Kind,
    (event_id, thread): (&EventId, &str),
) -> Result<(), Error> {
    require_joined(rooms, room_id, user).await?;
    presence::active(rooms, user).await;
    let room = rooms.by_id(room_id).await?;
    let now = now_ms();
    let seq = place_of(rooms, &room, event_id).await?;
    let what = (event_id.as_str(), thread);
    store(rooms, room_id, user, kind, what, (now, seq)).await?;
    // Private receipts never leave.
    if kind == Kind::Read {
        let mut receipt = Receipt::new(ruma::MilliSecondsSinceUnixEpoch(from_ms(now)));
        if !thread.is_empty() {
            receipt.thread =
                ReceiptThread::try_from(Some(thread)).unwrap_or(ReceiptThread::Unthreaded);
        }
        let data = ReceiptData::new(receipt, vec![event_id.to_owned()]);
        let map = ReceiptMap::new(BTreeMap::from([(user.to_owned(), data)]));
        let content = ReceiptContent::new(BTreeMap::from([(room_id.to_owned(), map)]));
        if let Ok(edu) = Raw::new(&Edu::Receipt(content)) {
            rooms.tell_peers(room.nid, format!("receipt {room_id} {user} {thread}"), edu);
        }
    }
    Ok(())
}

/// Receipts by room, as content of one `m.receipt` event each.
pub async fn contents(
    ctx: &Context,
    receipts: &[storage::receipts::Receipt],
) -> Result<HashMap<RoomNid, Value>, storage::Error> {
    let readers: Vec<UserNid> = receipts.iter().map(|it| UserNid(it.user_nid)).collect();
    let readers = ctx.db.ids.user_ids_of(&readers).await?;
    let mut contents: HashMap<RoomNid, Value> = HashMap::new();
    for (receipt, user) in receipts.iter().zip(readers) {
        let mut data = json!({ "ts": receipt.ts });
        if !receipt.thread_id.is_empty() {
            data["thread_id"] = json!(receipt.thread_id);
        }
        let kind = if receipt.kind == Kind::Read as i16 {
            "m.read"
        } else {
            "m.read.private"
        };
        let of_room = contents.entry(RoomNid(receipt.room_nid));
        let content = of_room.or_insert_with(|| json!({}));
        content[&receipt.event_id][kind][user.as_str()] = data;
    }
    Ok(contents)
}

/// Where somebody has read to, as peers tell it: the id stands for an event that we may not have.
#[derive(Debug, serde::Deserialize)]
pub struct Remote {
    event_ids: Vec<String>,
    data: RemoteData,
}

#[derive(Debug, serde::Deserialize)]
struct RemoteData {
    ts: Option<i64>,
    thread_id: Option<String>,
}

/// A receipt EDU: by room, kind and user.
pub type RemoteReceipts = BTreeMap<OwnedRoomId, BTreeMap<String, BTreeMap<OwnedUserId, Remote>>>;

/// Bytes of an event id and of a thread id (specification, "Limits").
const ID_BYTES_MAX: usize = 255;

/// A user of a peer has read up to an event.
pub async fn set_remote(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    receipt: &Remote,
) -> Result<(), Error> {
    require_plausible(rooms, room_id, user).await?;
    let Some(event_id) = receipt.event_ids.first() else {
        return Ok(());
    };
    let thread = receipt.data.thread_id.as_deref().unwrap_or_default();
    if event_id.len() > ID_BYTES_MAX || thread.len() > ID_BYTES_MAX {
        return Err(Error::Invalid("the id of an event is too long".to_owned()));
    }
    let ts = receipt.data.ts.unwrap_or_else(now_ms);
    store(
        rooms,
        room_id,
        user,
        Kind::Read,
        (event_id, thread),
        (ts, None),
    )
    .await
}

/// Where an event is in the timeline; `None`: it is in none, or not here.
async fn place_of(rooms: &Rooms, room: &Room, event_id: &EventId) -> Result<Option<i64>, Error> {
    let event = rooms.event_by_id(room, event_id).await?;
    Ok(event.and_then(|event| event.stored.seq))
}

/// Stores a receipt. With a place in the timeline it is that of a user of ours, whose unread counts
/// change with it.
async fn store(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    kind: Kind,
    (event_id, thread): (&str, &str),
    (ts, seq): (i64, Option<i64>),
) -> Result<(), Error> {
    let room = rooms.by_id(room_id).await?;
    let user = rooms.ctx().db.ids.user(user).await?;
    let key = (room.nid, user);
    let of_thread = <&EventId>::try_from(thread).ok().and_then(hash_of);
    let mut tx = rooms.ctx().db.begin().await?;
    match (seq, thread, of_thread) {
        (Some(seq), "", _) => storage::unread::read_all(&mut tx, key, seq).await?,
        (Some(seq), "main", _) => storage::unread::read_main(&mut tx, key, seq).await?,
        (Some(seq), _, Some(hash)) => {
            let thread = (split_hash(&hash).0, seq);
            storage::unread::read_thread(&mut tx, key, thread).await?;
        }
        _ => {}
    }
    storage::receipts::upsert(&mut tx, key, (kind as i16, thread), event_id, ts).await?;
    let entry = LogEntry {
        kind: LogKind::Receipt,
        room: room.nid.0,
        user: user.0,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    storage::receipts::update_pos(&mut tx, key, (kind as i16, thread), pos).await?;
    tx.commit().await?;
    Ok(())
}
