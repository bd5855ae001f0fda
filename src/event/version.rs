//! Room versions with their rules.

use std::sync::Arc;

use ruma::{
    RoomVersionId,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
};

/// A room version and its rules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RoomVersion {
    /// Its name.
    pub id: RoomVersionId,
    /// What differs between versions.
    pub rules: Arc<RoomVersionRules>,
    /// Whether state keys may begin with the id of their owner (MSC3757).
    pub owned_state: bool,
}

/// Versions of the specification in which rooms can be created and joined, oldest first.
pub const STABLE: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// Other versions that work the same way, by the one that each changes: those of MSC3757.
const UNSTABLE: [(&str, RoomVersionId); 2] = [
    ("org.matrix.msc3757.10", RoomVersionId::V10),
    ("org.matrix.msc3757.11", RoomVersionId::V11),
];

/// Versions that are not in the specification, in which rooms can be created and joined as well.
pub fn unstable() -> impl Iterator<Item = RoomVersionId> {
    UNSTABLE
        .iter()
        .filter_map(|(name, _)| RoomVersionId::try_from(*name).ok())
}

/// All versions in which rooms can be created and joined.
pub fn supported() -> Vec<RoomVersionId> {
    STABLE.into_iter().chain(unstable()).collect()
}

impl RoomVersion {
    /// The rules of a version; `None`: unknown.
    pub fn of(id: &RoomVersionId) -> Option<Self> {
        let changed = UNSTABLE.iter().find(|(name, _)| id.as_str() == *name);
        Some(Self {
            id: id.clone(),
            rules: Arc::new(changed.map_or(id, |(_, base)| base).rules()?),
            owned_state: changed.is_some(),
        })
    }

    /// The rules of a version in which we take part in rooms.
    pub fn supported(id: &RoomVersionId) -> Option<Self> {
        let version = Self::of(id)?;
        (version.owned_state || STABLE.contains(id)).then_some(version)
    }

    /// Whether the room id is the hash of the create event (v12 on).
    pub fn has_hashed_room_id(&self) -> bool {
        self.rules.authorization.room_create_event_id_as_room_id
    }

    /// Whether the sender makes up event ids and puts them into the event (v1 and v2).
    pub fn has_given_ids(&self) -> bool {
        matches!(self.rules.event_id_format, EventIdFormatVersion::V1)
    }

    /// Whether event ids are hashes in standard base64 (v3), not the URL-safe one (v4 on).
    pub fn has_standard_base64_ids(&self) -> bool {
        matches!(self.rules.event_id_format, EventIdFormatVersion::V2)
    }
}
