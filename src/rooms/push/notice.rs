//! What a push gateway is told (specification, Push Gateway API). Unless the operator wants more,
//! that is where something is and how much is unread, and nothing of what it is.

use std::collections::{BTreeSet, HashMap};

use ruma::events::StateEventType;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Error, Rooms};
use crate::{
    event::pdu::Pdu,
    rooms::resident::Room,
    storage::{
        RoomNid,
        push_queue::{Due, Waiting},
    },
};

/// The body of a request.
#[derive(Debug)]
pub(super) struct Notice(pub(super) Value);

/// Notices of what waits, with the positions of it.
pub(super) async fn of(
    rooms: &Rooms,
    due: &Due,
    waiting: &[&Waiting],
    unread: i32,
) -> Result<Vec<(i64, Notice)>, Error> {
    let nids: BTreeSet<RoomNid> = waiting.iter().map(|row| row.room).collect();
    let nids: Vec<RoomNid> = nids.into_iter().collect();
    let ids = rooms.ctx().db.ids.room_ids_of(&nids).await?;
    let room_ids: HashMap<RoomNid, _> = nids.iter().copied().zip(ids).collect();
    let mut more = if rooms.ctx().config.push.include_content && !is_terse(due) {
        details(rooms, due, waiting).await?
    } else {
        HashMap::new()
    };
    let mut notices = Vec::with_capacity(waiting.len());
    for row in waiting {
        let tweaks: Value = serde_json::from_str(&row.tweaks).unwrap_or_default();
        let mut notice = more.remove(&row.event).unwrap_or_default();
        if let Some(event_id) = &row.event_id {
            notice.insert("event_id".to_owned(), json!(event_id));
        }
        notice.insert("room_id".to_owned(), json!(room_ids.get(&row.room)));
        let prio = if row.high { "high" } else { "low" };
        notice.insert("prio".to_owned(), json!(prio));
        notices.push((row.pos, finish(due, notice, unread, Some(tweaks))));
    }
    Ok(notices)
}

/// A notice that only tells how much is unread.
pub(super) fn badge(due: &Due, unread: i32) -> Notice {
    finish(due, Map::new(), unread, None)
}

fn finish(due: &Due, mut notice: Map<String, Value>, unread: i32, tweaks: Option<Value>) -> Notice {
    let mut data: Map<String, Value> = serde_json::from_str(&due.data).unwrap_or_default();
    data.remove("url");
    let mut device = json!({
        "app_id": due.app_id,
        "pushkey": due.pushkey,
        "pushkey_ts": due.set_ts / 1_000,
        "data": data,
    });
    if let Some(tweaks) = tweaks {
        device["tweaks"] = tweaks;
    }
    // Zero is told as well, although the specification would rather leave it out: nothing else takes
    // a number away that the app shows.
    notice.insert("counts".to_owned(), json!({ "unread": unread }));
    notice.insert("devices".to_owned(), json!([device]));
    Notice(json!({ "notification": notice }))
}

/// Whether the client wants the ids alone.
fn is_terse(due: &Due) -> bool {
    #[derive(Deserialize)]
    struct Data {
        format: Option<String>,
    }
    let data = serde_json::from_str::<Data>(&due.data);
    data.is_ok_and(|data| data.format.as_deref() == Some("event_id_only"))
}

/// What events are and where, by event.
async fn details(
    rooms: &Rooms,
    due: &Due,
    waiting: &[&Waiting],
) -> Result<HashMap<i64, Map<String, Value>>, Error> {
    let user_id = rooms.ctx().db.ids.user_id(due.user).await?;
    let pairs: Vec<(i64, i64)> = waiting.iter().map(|row| (row.room.0, row.event)).collect();
    let mut details = HashMap::new();
    for (room, events) in rooms.events_of(&pairs).await? {
        for event in events {
            let pdu = &event.pdu;
            let mut more = around(rooms, &room, pdu).await?;
            more.insert("type".to_owned(), json!(pdu.kind.to_string()));
            more.insert("sender".to_owned(), json!(pdu.sender));
            more.insert("content".to_owned(), json!(pdu.content));
            if pdu.target() == Some(&user_id) {
                more.insert("user_is_target".to_owned(), json!(true));
            }
            details.insert(event.stored.nid.0, more);
        }
    }
    Ok(details)
}

/// What room and sender are called.
async fn around(rooms: &Rooms, room: &Room, pdu: &Pdu) -> Result<Map<String, Value>, Error> {
    let places = [
        (StateEventType::RoomName, "", "name", "room_name"),
        (
            StateEventType::RoomCanonicalAlias,
            "",
            "alias",
            "room_alias",
        ),
        (
            StateEventType::RoomMember,
            pdu.sender.as_str(),
            "displayname",
            "sender_display_name",
        ),
    ];
    let keys = places.clone().map(|(kind, key, ..)| (kind, key.to_owned()));
    let head = room.head();
    let slice = rooms.state_events(room, &head.state.entries, &keys).await?;
    let mut named = Map::new();
    for (kind, key, field, name) in places {
        let content = slice.get(&kind, key);
        let content = content.and_then(|event| event.content_as::<Map<String, Value>>());
        if let Some(Value::String(text)) = content.and_then(|mut content| content.remove(field)) {
            named.insert(name.to_owned(), Value::String(text));
        }
    }
    Ok(named)
}
