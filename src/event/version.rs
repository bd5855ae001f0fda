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

/// Versions in which rooms can be created and joined, oldest first. 1 to 9 are known to the code
/// and wait for state resolution v1 and their own tests.
pub const SUPPORTED: [RoomVersionId; 3] =
    [RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12];

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

    /// Whether event ids are hashes in standard base64 (v3), not the URL-safe one (v4 on).
    pub fn has_standard_base64_ids(&self) -> bool {
        matches!(self.rules.event_id_format, EventIdFormatVersion::V2)
    }
}
