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
}

/// Versions in which rooms can be created and joined, oldest first.
pub const SUPPORTED: [RoomVersionId; 12] = [
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

impl RoomVersion {
    /// The rules of a version; `None`: unknown.
    pub fn of(id: &RoomVersionId) -> Option<Self> {
        Some(Self {
            id: id.clone(),
            rules: Arc::new(id.rules()?),
        })
    }

    /// The rules of a version in which we take part in rooms.
    pub fn supported(id: &RoomVersionId) -> Option<Self> {
        if SUPPORTED.contains(id) {
            Self::of(id)
        } else {
            None
        }
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
