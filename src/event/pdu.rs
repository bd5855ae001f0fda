//! A persistent data unit: one event as servers exchange it.

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId,
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    state_res::Event,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Error, version::RoomVersion};
use crate::clock::from_ms;

/// An event, parsed once and never changed.
#[derive(Clone, Debug)]
pub struct Pdu {
    /// Event id.
    pub event_id: OwnedEventId,
    /// Room id, also for a v12 create event, which does not carry it.
    pub room_id: OwnedRoomId,
    /// Sender.
    pub sender: OwnedUserId,
    /// Milliseconds since 1970, as the sender claims.
    pub origin_server_ts: i64,
    /// Type.
    pub kind: TimelineEventType,
    /// State key; `None`: a message event.
    pub state_key: Option<String>,
    /// Content.
    pub content: Box<RawValue>,
    /// Predecessors.
    pub prev_events: Vec<OwnedEventId>,
    /// Events that authorize it.
    pub auth_events: Vec<OwnedEventId>,
    /// Event that it redacts, wherever the room version puts that.
    pub redacts: Option<OwnedEventId>,
    /// Distance from the create event, as claimed.
    pub depth: i64,
    /// Whether it failed authorization.
    pub rejected: bool,
    /// Canonical federation JSON with hashes and signatures, without `unsigned`.
    pub json: String,
}

/// The fields we read; everything else stays in the JSON.
#[derive(Deserialize)]
struct Fields {
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    origin_server_ts: i64,
    #[serde(rename = "type")]
    kind: TimelineEventType,
    state_key: Option<String>,
    content: Box<RawValue>,
    #[serde(default)]
    prev_events: Vec<Reference>,
    #[serde(default)]
    auth_events: Vec<Reference>,
    redacts: Option<OwnedEventId>,
    depth: i64,
}

/// How an event names another: by its id, or (v1 and v2) by its id and hashes that nobody reads.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(OwnedEventId),
    Pair(OwnedEventId, serde::de::IgnoredAny),
}

impl Reference {
    fn id(self) -> OwnedEventId {
        match self {
            Self::Id(id) | Self::Pair(id, _) => id,
        }
    }
}

/// The id of an event: the reference hash, or (v1 and v2) what the event says.
pub fn id_of(object: &CanonicalJsonObject, version: &RoomVersion) -> Result<OwnedEventId, Error> {
    let text = if version.has_given_ids() {
        object
            .get("event_id")
            .and_then(CanonicalJsonValue::as_str)
            .filter(|id| id.contains(':') && id.len() <= 255)
            .ok_or_else(|| Error::Format("event_id is missing".to_owned()))?
            .to_owned()
    } else {
        let hash = ruma::signatures::reference_hash(object, &version.rules)
            .map_err(|error| Error::Format(error.to_string()))?;
        format!("${hash}")
    };
    EventId::parse(text).map_err(|error| Error::Format(error.to_string()))
}

#[derive(Deserialize)]
struct Redacts {
    redacts: Option<OwnedEventId>,
}

#[derive(Deserialize)]
struct Membership {
    membership: MembershipState,
}

impl Pdu {
    /// Parses an event and finds its id. `unsigned` is
    /// dropped: what other servers put there is hearsay.
    pub fn from_object(
        mut object: CanonicalJsonObject,
        version: &RoomVersion,
    ) -> Result<Self, Error> {
        object.remove("unsigned");
        let event_id = id_of(&object, version)?;
        let json =
            serde_json::to_string(&object).map_err(|error| Error::Json(error.to_string()))?;
        Self::from_stored(event_id, json, version, false)
    }

    /// Parses an event that we stored; its id is known.
    pub fn from_stored(
        event_id: OwnedEventId,
        json: String,
        version: &RoomVersion,
        rejected: bool,
    ) -> Result<Self, Error> {
        let fields: Fields =
            serde_json::from_str(&json).map_err(|error| Error::Format(error.to_string()))?;
        let room_id = match fields.room_id {
            Some(room_id) => room_id,
            None if version.has_hashed_room_id() => room_id_of_create(&event_id)?,
            None => return Err(Error::Format("room_id is missing".to_owned())),
        };
        let redacts = if version.rules.redaction.content_field_redacts
            && fields.kind == TimelineEventType::RoomRedaction
        {
            serde_json::from_str::<Redacts>(fields.content.get())
                .ok()
                .and_then(|content| content.redacts)
        } else {
            fields.redacts
        };
        Ok(Self {
            event_id,
            room_id,
            sender: fields.sender,
            origin_server_ts: fields.origin_server_ts,
            kind: fields.kind,
            state_key: fields.state_key,
            content: fields.content,
            prev_events: fields.prev_events.into_iter().map(Reference::id).collect(),
            auth_events: fields.auth_events.into_iter().map(Reference::id).collect(),
            redacts,
            depth: fields.depth,
            rejected,
            json,
        })
    }

    /// The event as an object.
    pub fn object(&self) -> Result<CanonicalJsonObject, Error> {
        serde_json::from_str(&self.json).map_err(|error| Error::Json(error.to_string()))
    }

    /// The JSON as a raw value, for lists of PDUs.
    pub fn raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.json.clone()).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }

    /// Whether it is a state event.
    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// Content as a type; `None` where it is not of that form.
    pub fn content_as<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.content.get()).ok()
    }

    /// Membership, if it is a membership event.
    pub fn membership(&self) -> Option<MembershipState> {
        if self.kind != TimelineEventType::RoomMember {
            return None;
        }
        self.content_as::<Membership>()
            .map(|content| content.membership)
    }

    /// The target of a membership event.
    pub fn target(&self) -> Option<&UserId> {
        if self.kind != TimelineEventType::RoomMember {
            return None;
        }
        self.state_key
            .as_deref()
            .and_then(|key| <&UserId>::try_from(key).ok())
    }
}

/// A v12 room id is the id of its create event with another sigil.
pub fn room_id_of_create(create: &EventId) -> Result<OwnedRoomId, Error> {
    let hash = create.as_str().trim_start_matches('$');
    RoomId::parse(format!("!{hash}")).map_err(|error| Error::Format(error.to_string()))
}

/// An event as state resolution takes it.
#[derive(Clone, Debug)]
pub struct PduRef(pub Arc<Pdu>);

impl Event for PduRef {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.0.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        // A v12 create event must look to the rules as it looks on the wire.
        let hashed =
            self.0.kind == TimelineEventType::RoomCreate && self.0.room_id.server_name().is_none();
        (!hashed).then_some(&self.0.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.0.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(from_ms(self.0.origin_server_ts))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.0.kind
    }

    fn content(&self) -> &RawValue {
        &self.0.content
    }

    fn state_key(&self) -> Option<&str> {
        self.0.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.0.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.0.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.0.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.0.rejected
    }
}
