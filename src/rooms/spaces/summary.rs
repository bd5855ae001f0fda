//! What a room is called and who may come: the same for the directory, spaces and previews.

use ruma::{OwnedRoomId, RoomAliasId, RoomId, events::StateEventType, room::JoinRuleKind};
use serde_json::{Map, Value, json};

use crate::{
    event::version::RoomVersion,
    rooms::{Error, Rooms, resident::Room},
};

/// Bytes of one text of a peer's summary: an event could not hold more.
const TEXT_MAX: usize = 64 << 10;
/// Rooms that give access which are told and looked at.
const ALLOWED_MAX: usize = 100;
/// Texts of a summary, with the state and its field that they come from.
const TEXTS: [(StateEventType, &str, &str); 6] = [
    (StateEventType::RoomName, "name", "name"),
    (StateEventType::RoomTopic, "topic", "topic"),
    (StateEventType::RoomAvatar, "url", "avatar_url"),
    (
        StateEventType::RoomCanonicalAlias,
        "alias",
        "canonical_alias",
    ),
    (StateEventType::RoomCreate, "type", "room_type"),
    (StateEventType::RoomEncryption, "algorithm", "encryption"),
];

/// A summary of a room (specification, `RoomSummary`).
#[derive(Clone, Debug)]
pub struct Summary {
    /// Room id.
    pub room_id: OwnedRoomId,
    /// Name, topic and so on, the version, whether guests may join.
    fields: Map<String, Value>,
    /// Joined users.
    joined: u64,
    /// Join rule.
    join_rule: String,
    /// Whether anybody may read it.
    pub world_readable: bool,
    /// Whether anybody may join or knock.
    pub is_open: bool,
    /// Rooms whose members may join.
    pub allowed: Vec<OwnedRoomId>,
    /// Whether users of other servers may join.
    pub federates: bool,
}

impl Summary {
    /// Of a room of ours with so many joined users.
    pub async fn of_room(rooms: &Rooms, room: &Room, joined: i64) -> Result<Self, Error> {
        let others = [
            StateEventType::RoomJoinRules,
            StateEventType::RoomHistoryVisibility,
            StateEventType::RoomGuestAccess,
        ];
        let kinds = TEXTS.iter().map(|(kind, ..)| kind.clone()).chain(others);
        let keys: Vec<(StateEventType, String)> = kinds.map(|kind| (kind, String::new())).collect();
        let head = room.head();
        let slice = rooms.state_events(room, &head.state.entries, &keys).await?;
        let joined = u64::try_from(joined).unwrap_or(0);
        Ok(Self::build(&room.id, Some(&room.version), joined, |kind| {
            slice.get(kind, "")?.content_as()
        }))
    }

    /// Of a room whose state, or what there is of it, has these contents.
    pub fn build(
        room_id: &RoomId,
        version: Option<&RoomVersion>,
        joined: u64,
        content: impl Fn(&StateEventType) -> Option<Map<String, Value>>,
    ) -> Self {
        let text = |kind: &StateEventType, field: &str| -> Option<String> {
            content(kind)?.get(field)?.as_str().map(ToOwned::to_owned)
        };
        let mut fields = Map::new();
        for (kind, field, name) in &TEXTS {
            if let Some(value) = text(kind, field).filter(|value| !value.is_empty()) {
                fields.insert((*name).to_owned(), json!(value));
            }
        }
        if let Some(version) = version {
            fields.insert("room_version".to_owned(), json!(version.id));
        }
        let rules = content(&StateEventType::RoomJoinRules).unwrap_or_default();
        let named = rules.get("join_rule").and_then(Value::as_str);
        // Without rules nobody comes uninvited (authorization rules).
        let join_rule = named.unwrap_or("invite").to_owned();
        let doors = Doors::of(&join_rule, version);
        let is_set = |kind: &StateEventType, field: &str, to: &str| {
            text(kind, field).is_some_and(|value| value == to)
        };
        let guests = is_set(&StateEventType::RoomGuestAccess, "guest_access", "can_join");
        fields.insert("guest_can_join".to_owned(), json!(guests));
        let create = content(&StateEventType::RoomCreate).unwrap_or_default();
        Self {
            room_id: room_id.to_owned(),
            fields,
            joined,
            world_readable: is_set(
                &StateEventType::RoomHistoryVisibility,
                "history_visibility",
                "world_readable",
            ),
            is_open: doors.open,
            allowed: if doors.restricted {
                allowed(&rules)
            } else {
                Vec::new()
            },
            join_rule,
            federates: create.get("m.federate") != Some(&Value::Bool(false)),
        }
    }

    /// As a peer tells it of a room that we asked for; `None`: it is not that, or no summary.
    pub fn from_peer(told: &Map<String, Value>, room_id: &RoomId) -> Option<Self> {
        let text = |name: &str| {
            let text = told.get(name)?.as_str()?;
            (!text.is_empty() && text.len() <= TEXT_MAX).then_some(text)
        };
        if text("room_id")? != room_id.as_str() {
            return None;
        }
        let mut fields = Map::new();
        let names = TEXTS.iter().map(|(_, _, name)| *name);
        for name in names.chain(["room_version"]) {
            let Some(value) = text(name) else { continue };
            let is_good = match name {
                "canonical_alias" => RoomAliasId::parse(value).is_ok(),
                "avatar_url" => <&ruma::MxcUri>::from(value).is_valid(),
                _ => true,
            };
            if is_good {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        // What is not said means public (specification, `RoomSummary`).
        let join_rule = text("join_rule").unwrap_or("public").to_owned();
        let doors = Doors::of(&join_rule, None);
        let is = |name: &str| told.get(name).and_then(Value::as_bool).unwrap_or(false);
        fields.insert("guest_can_join".to_owned(), json!(is("guest_can_join")));
        let ids = told.get("allowed_room_ids").and_then(Value::as_array);
        let ids = ids.into_iter().flatten().take(ALLOWED_MAX);
        let allowed = ids.filter_map(|id| RoomId::parse(id.as_str()?).ok());
        Some(Self {
            room_id: room_id.to_owned(),
            fields,
            joined: told
                .get("num_joined_members")
                .and_then(Value::as_u64)
                .map_or(0, |joined| joined.min(ruma::UInt::MAX.into())),
            world_readable: is("world_readable"),
            is_open: doors.open,
            allowed: if doors.restricted {
                allowed.collect()
            } else {
                Vec::new()
            },
            join_rule,
            federates: true,
        })
    }

    /// Whether the room is a space.
    pub fn is_space(&self) -> bool {
        self.text("room_type") == Some("m.space")
    }

    /// One of its texts.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// How it goes over the wire.
    pub fn json(&self) -> Map<String, Value> {
        let mut json = self.fields.clone();
        json.insert("room_id".to_owned(), json!(self.room_id));
        json.insert("num_joined_members".to_owned(), json!(self.joined));
        json.insert("join_rule".to_owned(), json!(self.join_rule));
        json.insert("world_readable".to_owned(), json!(self.world_readable));
        if !self.allowed.is_empty() {
            json.insert("allowed_room_ids".to_owned(), json!(self.allowed));
        }
        json
    }

    /// Bytes in memory, about.
    pub fn weight(&self) -> usize {
        let texts = self.fields.values().filter_map(Value::as_str).map(str::len);
        500 + texts.sum::<usize>() + self.allowed.len() * 80
    }
}

/// What a join rule opens.
struct Doors {
    /// Anybody may join, or knock.
    open: bool,
    /// Members of other rooms may join.
    restricted: bool,
}

impl Doors {
    /// In a room of a version that knows the rule; of an unknown version the rule is believed.
    fn of(join_rule: &str, version: Option<&RoomVersion>) -> Self {
        let rules = version.map(|version| &version.rules.authorization);
        let knocks = rules.is_none_or(|rules| rules.knocking);
        let restricts = rules.is_none_or(|rules| rules.restricted_join_rule);
        let both = rules.is_none_or(|rules| rules.knock_restricted_join_rule);
        let (open, restricted) = match JoinRuleKind::from(join_rule) {
            JoinRuleKind::Public => (true, false),
            JoinRuleKind::Knock => (knocks, false),
            JoinRuleKind::Restricted => (false, restricts),
            JoinRuleKind::KnockRestricted => (both, both),
            _ => (false, false),
        };
        Self { open, restricted }
    }
}

/// Rooms that restricted join rules name.
fn allowed(rules: &Map<String, Value>) -> Vec<OwnedRoomId> {
    let allow = rules.get("allow").and_then(Value::as_array);
    let conditions = allow.into_iter().flatten().take(ALLOWED_MAX);
    let of_members = conditions
        .filter(|condition| condition["type"].as_str() == Some("m.room_membership"))
        .filter_map(|condition| RoomId::parse(condition["room_id"].as_str()?).ok());
    of_members.collect()
}

#[cfg(test)]
mod tests {
    use ruma::room_id;
    use serde_json::{Value, json};

    use super::Summary;

    fn of(told: &Value) -> Option<Summary> {
        Summary::from_peer(told.as_object().unwrap(), room_id!("!r:x"))
    }

    #[test]
    fn of_a_peers_summary_only_what_is_one_is_taken() {
        let summary = of(&json!({
            "room_id": "!r:x", "name": 7, "topic": "T", "avatar_url": "https://x/y",
            "canonical_alias": "no alias", "num_joined_members": -3, "extra": "E",
            "allowed_room_ids": ["!a:x", 5, "b"], "join_rule": "restricted",
            "world_readable": "yes", "room_type": "m.space",
        }));
        let summary = summary.unwrap();
        assert!(summary.is_space());
        assert_eq!(
            Value::Object(summary.json()),
            json!({
                "room_id": "!r:x", "topic": "T", "num_joined_members": 0,
                "allowed_room_ids": ["!a:x"], "join_rule": "restricted", "world_readable": false,
                "guest_can_join": false, "room_type": "m.space",
            })
        );
    }

    #[test]
    fn a_summary_of_another_room_is_none() {
        assert!(of(&json!({ "room_id": "!other:x" })).is_none());
        assert!(of(&json!({})).is_none());
        let long = "x".repeat(super::TEXT_MAX + 1);
        let summary = of(&json!({ "room_id": "!r:x", "name": long })).unwrap();
        assert_eq!(summary.text("name"), None);
    }
}
