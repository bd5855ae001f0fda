//! The authorization rules, as ruma has them.

use std::sync::Arc;

use ruma::{
    EventId, UserId,
    events::{StateEventType, TimelineEventType},
    state_res::{
        Event, auth_types_for_event, check_state_dependent_auth_rules,
        check_state_independent_auth_rules,
        events::{RoomCreateEvent, RoomPowerLevelsEvent},
    },
};
use serde_json::value::RawValue;

use super::{
    owned_state,
    pdu::{Pdu, PduRef},
    version::RoomVersion,
};

/// Keys of the state that an event's `auth_events` come from.
pub fn types(
    kind: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    version: &RoomVersion,
) -> Result<Vec<(StateEventType, String)>, String> {
    auth_types_for_event(
        kind,
        sender,
        state_key,
        content,
        &version.rules.authorization,
    )
}

/// The rules that need no state: form of a create event, choice of auth events.
pub fn check_independent(
    version: &RoomVersion,
    pdu: &Arc<Pdu>,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<(), String> {
    check_state_independent_auth_rules(
        &version.rules.authorization,
        PduRef(pdu.clone()),
        |id: &EventId| fetch(id).map(PduRef),
    )
}

/// The rules against one state.
pub fn check(
    version: &RoomVersion,
    pdu: &Arc<Pdu>,
    state: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<(), String> {
    let pdu = owned_state::as_own(version, pdu, &state)?;
    check_state_dependent_auth_rules(
        &version.rules.authorization,
        PduRef(pdu),
        |kind: &StateEventType, key: &str| state(kind, key).map(PduRef),
    )
}

/// Whether nobody could send this event: creators stand above the levels and have no place among them,
/// and a state key that begins with an owner has to name one.
pub fn is_never_valid(version: &RoomVersion, pdu: &Pdu, create: Option<&Arc<Pdu>>) -> bool {
    let content: serde_json::Map<String, serde_json::Value> = pdu.content_as().unwrap_or_default();
    let named = content.get("users").and_then(serde_json::Value::as_object);
    let names_creators = pdu.kind == TimelineEventType::RoomPowerLevels
        && version
            .rules
            .authorization
            .explicitly_privilege_room_creators
        && create.zip(named).is_some_and(|(create, named)| {
            let power = Power::new(version, create, None);
            let mut users = named
                .keys()
                .filter_map(|user| <&UserId>::try_from(user.as_str()).ok());
            users.any(|user| power.of(user) == i64::MAX)
        });
    names_creators || owned_state::is_malformed(version, pdu)
}

/// Power of users in one state.
#[derive(Debug)]
pub struct Power {
    levels: Option<RoomPowerLevelsEvent<PduRef>>,
    creators: std::collections::HashSet<ruma::OwnedUserId>,
    version: RoomVersion,
}

impl Power {
    /// From the create and power levels events of a state.
    pub fn new(version: &RoomVersion, create: &Arc<Pdu>, levels: Option<&Arc<Pdu>>) -> Self {
        let create = RoomCreateEvent::new(PduRef(create.clone()));
        let creators = create
            .creators(&version.rules.authorization)
            .map(|creators| creators.into_iter().collect())
            .unwrap_or_default();
        Self {
            levels: levels.map(|levels| RoomPowerLevelsEvent::new(PduRef(levels.clone()))),
            creators,
            version: version.clone(),
        }
    }

    /// A user's level; creators of v12 rooms have the largest there is.
    pub fn of(&self, user: &UserId) -> i64 {
        let rules = &self.version.rules.authorization;
        let creator = self.creators.contains(user);
        if creator && rules.explicitly_privilege_room_creators {
            return i64::MAX;
        }
        match &self.levels {
            Some(levels) => levels.user_power_level(user, rules).map_or(0, i64::from),
            None if creator => 100,
            None => 0,
        }
    }

    /// The level that a named action (`redact`, `invite`, `kick`, `ban`) takes.
    pub fn needed(&self, action: &str) -> i64 {
        #[derive(serde::Deserialize)]
        struct Levels(std::collections::BTreeMap<String, serde_json::Value>);
        let default = if action == "invite" { 0 } else { 50 };
        let Some(levels) = &self.levels else {
            return default;
        };
        serde_json::from_str::<Levels>(levels.content().get())
            .ok()
            .and_then(|content| content.0.get(action).and_then(serde_json::Value::as_i64))
            .unwrap_or(default)
    }
}

impl Power {
    /// The level that sending a state event of a type takes.
    pub fn needed_for_state(&self, kind: &str) -> i64 {
        let Some(levels) = &self.levels else { return 0 };
        let content: serde_json::Value =
            serde_json::from_str(levels.content().get()).unwrap_or_default();
        content["events"][kind]
            .as_i64()
            .or_else(|| content["state_default"].as_i64())
            .unwrap_or(50)
    }
}
