//! Children of a space, in the order they are shown in.

use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId};
use serde_json::{Map, Value, json};

use crate::{
    rooms::{Error, Rooms, resident::Room},
    storage,
};

/// Children of one space that are shown.
pub(super) const CHILDREN_MAX: usize = 1_000;
/// Children that are read to find those: the links that were taken back stay in the state.
const READ_MAX: usize = 4_000;
/// Bytes of the content of one: what is larger tells more than where the room is.
const CONTENT_MAX: usize = 4 << 10;
/// Servers of one that may be asked.
const VIA_MAX: usize = 10;
/// Characters of an order (specification, `m.space.child`).
const ORDER_MAX: usize = 50;

/// A room that a space names.
#[derive(Clone, Debug)]
pub(super) struct Child {
    /// The room.
    pub(super) room_id: OwnedRoomId,
    /// Servers that may know it.
    pub(super) via: Vec<OwnedServerName>,
    /// Whether it is suggested to members.
    pub(super) suggested: bool,
    order: Option<String>,
    sent_ts: i64,
    /// Stripped state with `origin_server_ts`.
    pub(super) json: Value,
    /// Bytes of that, about.
    pub(super) bytes: usize,
}

impl Child {
    /// From the parts of an `m.space.child` event; `None`: it names no child.
    fn new(
        (sender, sent_ts): (&UserId, i64),
        state_key: &str,
        content: &Map<String, Value>,
        content_bytes: usize,
    ) -> Option<Self> {
        if content_bytes > CONTENT_MAX {
            return None;
        }
        let via = content.get("via")?.as_array()?;
        if via.is_empty() || !via.iter().all(Value::is_string) {
            return None;
        }
        let servers = via.iter().filter_map(|name| name.as_str());
        let servers = servers.filter_map(|name| ServerName::parse(name).ok());
        Some(Self {
            room_id: RoomId::parse(state_key).ok()?,
            via: servers.take(VIA_MAX).collect(),
            suggested: content.get("suggested") == Some(&Value::Bool(true)),
            order: content.get("order").and_then(order),
            sent_ts,
            json: json!({
                "type": "m.space.child", "state_key": state_key, "content": content,
                "sender": sender, "origin_server_ts": sent_ts,
            }),
            bytes: content_bytes + state_key.len() + sender.as_str().len() + 100,
        })
    }

    fn from_peer(event: &Value) -> Option<Self> {
        if event["type"].as_str()? != "m.space.child" {
            return None;
        }
        let sender = UserId::parse(event["sender"].as_str()?).ok()?;
        let sent_ts = event["origin_server_ts"].as_i64()?;
        let sent_ts = sent_ts.clamp(0, ruma::Int::MAX.into());
        let content = event["content"].as_object()?;
        let bytes = event["content"].to_string().len();
        Self::new(
            (&sender, sent_ts),
            event["state_key"].as_str()?,
            content,
            bytes,
        )
    }
}

/// An order that counts; others are as none.
fn order(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let is_valid = !text.is_empty() && text.len() <= ORDER_MAX;
    let is_printable = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    (is_valid && is_printable).then(|| text.to_owned())
}

/// In order (specification, "Ordering of children within a space"): those with an order by that,
/// then by age of the link, then by room id.
fn sorted(mut children: Vec<Child>) -> Vec<Child> {
    children.sort_by(|one, other| {
        let key = |child: &Child| (child.order.is_none(), child.order.clone(), child.sent_ts);
        key(one)
            .cmp(&key(other))
            .then_with(|| one.room_id.cmp(&other.room_id))
    });
    children.truncate(CHILDREN_MAX);
    children
}

/// The children that the state of a room of ours names.
pub(super) async fn of_room(rooms: &Rooms, room: &Room) -> Result<Vec<Child>, Error> {
    let ids = &rooms.ctx().db.ids;
    let kind = ids.event_type("m.space.child").await?;
    let head = room.head();
    // Members have keys below zero, and are the most.
    let keys = head.state.entries.range(1..).map(|(skey, _)| *skey);
    let keys: Vec<i64> = keys.collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let keys = storage::spaces::list_of_type(&mut conn, kind, &keys).await?;
    drop(conn);
    let nids = keys.iter().filter_map(|skey| head.state.get(*skey));
    let nids: Vec<i64> = nids.take(READ_MAX).collect();
    let events = rooms.pdus(room, &nids).await?;
    let children = events.iter().filter_map(|event| {
        let content = event.content_as()?;
        let from = (&*event.sender, event.origin_server_ts);
        let bytes = event.content.get().len();
        Child::new(from, event.state_key.as_deref()?, &content, bytes)
    });
    Ok(sorted(children.collect()))
}

/// The children that a peer tells of a space.
pub(super) fn from_peer(told: &Map<String, Value>) -> Vec<Child> {
    let events = told.get("children_state").and_then(Value::as_array);
    let events = events.into_iter().flatten().take(READ_MAX);
    let mut seen = std::collections::HashSet::new();
    let children = events
        .filter_map(Child::from_peer)
        .filter(|child| seen.insert(child.room_id.clone()));
    sorted(children.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::from_peer;

    fn child(room: &str, ts: i64, content: &Value) -> Value {
        json!({
            "type": "m.space.child", "state_key": room, "sender": "@a:x",
            "origin_server_ts": ts, "content": content,
        })
    }

    fn ids(events: &[Value]) -> Vec<String> {
        let told = json!({ "children_state": events });
        let children = from_peer(told.as_object().unwrap());
        children
            .iter()
            .map(|child| child.room_id.to_string())
            .collect()
    }

    #[test]
    fn children_are_sorted_by_order_then_age_then_id() {
        let via = json!(["x"]);
        let with = |order: Value| json!({ "via": via, "order": order });
        let sorted = ids(&[
            child("!none2:x", 2, &json!({ "via": via })),
            child("!none1b:x", 1, &json!({ "via": via })),
            child("!none1a:x", 1, &json!({ "via": via })),
            child("!b:x", 1, &with(json!("b"))),
            child("!a2:x", 2, &with(json!("a"))),
            child("!a1:x", 1, &with(json!("a"))),
            child("!upper:x", 9, &with(json!("Z"))),
            child("!bad:x", 0, &with(json!("ä"))),
            child("!long:x", 0, &with(json!("x".repeat(51)))),
        ]);
        let expected = [
            "!upper:x",
            "!a1:x",
            "!a2:x",
            "!b:x",
            "!bad:x",
            "!long:x",
            "!none1a:x",
            "!none1b:x",
            "!none2:x",
        ];
        assert_eq!(sorted, expected);
    }

    #[test]
    fn what_names_no_child_is_none() {
        let via = json!({ "via": ["x"] });
        let mut other = child("!type:x", 1, &via);
        other["type"] = json!("m.space.parent");
        let found = ids(&[
            other,
            child("no room", 1, &via),
            child("!empty:x", 1, &json!({ "via": [] })),
            child("!none:x", 1, &json!({})),
            child("!number:x", 1, &json!({ "via": [1] })),
            child(
                "!large:x",
                1,
                &json!({ "via": ["x"], "y": "z".repeat(5_000) }),
            ),
            json!(7),
            child("!twice:x", 1, &via),
            child("!twice:x", 2, &via),
        ]);
        assert_eq!(found, ["!twice:x"]);
    }
}
