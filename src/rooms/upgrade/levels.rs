//! Power levels of the two rooms of an upgrade.

use std::sync::Arc;

use ruma::UserId;
use serde_json::{Map, Value, json};

use crate::event::{pdu::Pdu, version::RoomVersion};

type Levels = Map<String, Value>;

/// Power of creators of v12 rooms in rooms that know no such power.
const CREATOR: i64 = 100;
/// Power to end a room from v12 on, above what any user is given: creators have it.
const TOMBSTONE: i64 = 150;

/// Power levels for the new room. Creators of v12 rooms stand above all and may not be listed; in
/// older rooms they have to be.
pub(super) fn moved(
    mut levels: Levels,
    (version, create): (&RoomVersion, &Arc<Pdu>),
    target: &RoomVersion,
    creators: &[&UserId],
) -> Levels {
    numbers(&mut levels);
    let privileged = |version: &RoomVersion| {
        version
            .rules
            .authorization
            .explicitly_privilege_room_creators
    };
    if privileged(target) {
        if let Some(Value::Object(users)) = levels.get_mut("users") {
            users.retain(|user, _| !creators.iter().any(|creator| creator.as_str() == user));
        }
        if let Value::Object(events) = levels.entry("events").or_insert(json!({})) {
            let now = events.get("m.room.tombstone").and_then(Value::as_i64);
            let tombstone = now.unwrap_or(0).max(TOMBSTONE);
            events.insert("m.room.tombstone".to_owned(), json!(tombstone));
        }
    } else if privileged(version) {
        for kind in ["events", "users"] {
            for level in levels.get_mut(kind).into_iter().flat_map(object) {
                *level = json!(level.as_i64().unwrap_or(0).min(CREATOR));
            }
        }
        if let Value::Object(users) = levels.entry("users").or_insert(json!({})) {
            users.insert(create.sender.to_string(), json!(CREATOR));
            for creator in additional(create) {
                users.insert(creator, json!(CREATOR));
            }
        }
    }
    levels
}

fn additional(create: &Pdu) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(default)]
        additional_creators: Vec<String>,
    }
    create
        .content_as::<Content>()
        .map(|content| content.additional_creators)
        .unwrap_or_default()
}

fn object(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value
        .as_object_mut()
        .into_iter()
        .flat_map(|map| map.values_mut())
}

/// Old rooms have levels that are text; from v10 on they must be numbers.
fn numbers(levels: &mut Levels) {
    fn number(value: &mut Value) {
        if let Value::String(text) = value
            && let Ok(level) = text.trim().parse::<i64>()
        {
            *value = json!(level);
        }
    }
    for (key, value) in levels.iter_mut() {
        if matches!(&**key, "events" | "users" | "notifications") {
            object(value).for_each(number);
        } else {
            number(value);
        }
    }
}

/// Levels by which the user who upgrades may send all that moves, where those that move do not
/// suffice; for the time of the move.
pub(super) fn raised(levels: &Levels, target: &RoomVersion, user: &UserId) -> Option<Levels> {
    if target
        .rules
        .authorization
        .explicitly_privilege_room_creators
    {
        return None;
    }
    let level =
        |key: &str, default: i64| levels.get(key).and_then(Value::as_i64).unwrap_or(default);
    let of_events = levels
        .get("events")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|events| events.values().filter_map(Value::as_i64));
    let needed = of_events
        .chain([level("state_default", 50), level("ban", 50)])
        .max()
        .unwrap_or(50);
    let own = levels
        .get("users")
        .and_then(|users| users.get(user.as_str()))
        .and_then(Value::as_i64)
        .unwrap_or_else(|| level("users_default", 0));
    if own >= needed {
        return None;
    }
    let mut raised = levels.clone();
    if let Value::Object(users) = raised.entry("users").or_insert(json!({})) {
        users.insert(user.to_string(), json!(needed));
    }
    Some(raised)
}

/// Power levels that let nobody but moderators speak and invite in the old room; `None`: it is so
/// already.
pub(super) fn closed(mut levels: Levels) -> Option<Levels> {
    let before = levels.clone();
    numbers(&mut levels);
    let default = levels.get("users_default").and_then(Value::as_i64);
    let closed = (default.unwrap_or(0) + 1).max(50);
    for key in ["events_default", "invite"] {
        let now = levels.get(key).and_then(Value::as_i64).unwrap_or(0);
        levels.insert(key.to_owned(), json!(now.max(closed)));
    }
    (levels != before).then_some(levels)
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, user_id};
    use serde_json::json;

    use super::{closed, numbers, raised};
    use crate::event::version::RoomVersion;

    fn levels(value: serde_json::Value) -> super::Levels {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn levels_that_are_text_become_numbers() {
        let mut found = levels(json!({
            "ban": "50", "users": { "@a:b": " 100" }, "events": { "x": "7" }, "odd": "text",
        }));
        numbers(&mut found);
        let expected = json!({
            "ban": 50, "users": { "@a:b": 100 }, "events": { "x": 7 }, "odd": "text",
        });
        assert_eq!(found, levels(expected));
    }

    #[test]
    fn who_upgrades_has_the_power_to_for_a_while() {
        let version = RoomVersion::supported(&RoomVersionId::V11).unwrap();
        let user = user_id!("@a:b");
        let weak = levels(json!({ "users": { "@a:b": 60 }, "events": { "m.room.name": 80 } }));
        let strong = raised(&weak, &version, user).unwrap();
        assert_eq!(strong["users"]["@a:b"], 80);
        assert_eq!(raised(&strong, &version, user), None);
        let newest = RoomVersion::supported(&RoomVersionId::V12).unwrap();
        assert_eq!(raised(&weak, &newest, user), None);
    }

    #[test]
    fn the_old_room_is_closed_once() {
        let open = levels(json!({ "users_default": 60 }));
        let shut = closed(open).unwrap();
        assert_eq!(shut["events_default"], 61);
        assert_eq!(shut["invite"], 61);
        assert_eq!(closed(shut), None);
    }
}
