//! Making an event of our own: canonical JSON, content hash, signature, size limits.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, Int, OwnedEventId, RoomId, UserId,
    events::TimelineEventType, signatures::hash_and_sign_event,
};
use serde_json::{json, value::RawValue};

use super::{Error, keys::SigningKeys, pdu::Pdu, sticky, version::RoomVersion};

/// Bytes of a type, state key, or id (specification, "Size limits").
const FIELD_BYTES_MAX: usize = 255;
/// Bytes of an event with signatures (same place).
pub const EVENT_BYTES_MAX: usize = 65_536;
/// Largest depth of room version 6 on.
const DEPTH_MAX: i64 = (1 << 53) - 1;
/// Largest number of predecessors.
pub const PREV_EVENTS_MAX: usize = 20;

/// What one of our users wants to send.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Type.
    pub kind: TimelineEventType,
    /// State key; `None`: a message event.
    pub state_key: Option<String>,
    /// Content, a JSON object.
    pub content: Box<RawValue>,
    /// Event to redact.
    pub redacts: Option<OwnedEventId>,
    /// Claimed time; `None`: now.
    pub ts: Option<i64>,
    /// For how long it is sticky (MSC4354).
    pub sticky_ms: Option<i64>,
}

impl Draft {
    /// A message event.
    pub fn message(kind: TimelineEventType, content: Box<RawValue>) -> Self {
        Self {
            kind,
            state_key: None,
            content,
            redacts: None,
            ts: None,
            sticky_ms: None,
        }
    }

    /// A state event.
    pub fn state(kind: TimelineEventType, state_key: String, content: Box<RawValue>) -> Self {
        Self {
            kind,
            state_key: Some(state_key),
            content,
            redacts: None,
            ts: None,
            sticky_ms: None,
        }
    }

    /// A state event with content from a type of ours.
    pub fn state_of(
        kind: TimelineEventType,
        state_key: &str,
        content: &impl serde::Serialize,
    ) -> Result<Self, Error> {
        let content = serde_json::value::to_raw_value(content)
            .map_err(|error| Error::Json(error.to_string()))?;
        Ok(Self::state(kind, state_key.to_owned(), content))
    }

    /// A redaction.
    pub fn redaction(event: OwnedEventId, reason: Option<&str>) -> Result<Self, Error> {
        let content = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
        let content = serde_json::value::to_raw_value(&content)
            .map_err(|error| Error::Json(error.to_string()))?;
        Ok(Self {
            redacts: Some(event),
            ..Self::message(TimelineEventType::RoomRedaction, content)
        })
    }
}

/// Where the event goes in the graph.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Room; `None` for a create event whose id becomes the room id (v12).
    pub room_id: Option<&'a RoomId>,
    /// Predecessors.
    pub prev_events: Vec<OwnedEventId>,
    /// Events that authorize it.
    pub auth_events: Vec<OwnedEventId>,
    /// Its depth.
    pub depth: i64,
}

/// Builds, hashes and signs an event.
pub fn build(
    draft: &Draft,
    place: &Place<'_>,
    sender: &UserId,
    now_ms: i64,
    version: &RoomVersion,
    keys: &SigningKeys,
) -> Result<Pdu, Error> {
    let mut object = unsigned_object(draft, place, sender, now_ms, version)?;
    hash_and_sign_event(
        keys.server_name.as_str(),
        &*keys.pair(),
        &mut object,
        &version.rules.redaction,
    )
    .map_err(|error| Error::TooLarge(error.to_string()))?;
    let pdu = Pdu::from_object(object, version)?;
    if pdu.json.len() > EVENT_BYTES_MAX {
        return Err(Error::TooLarge(format!(
            "event has {} bytes, {EVENT_BYTES_MAX} are allowed",
            pdu.json.len()
        )));
    }
    Ok(pdu)
}

/// The event before it is hashed and signed, as `make_join` and its kin hand it out.
pub fn unsigned_object(
    draft: &Draft,
    place: &Place<'_>,
    sender: &UserId,
    now_ms: i64,
    version: &RoomVersion,
) -> Result<CanonicalJsonObject, Error> {
    check_field("type", draft.kind.to_string().len())?;
    check_field("state_key", draft.state_key.as_ref().map_or(0, String::len))?;
    check_field("sender", sender.as_str().len())?;
    check_field("room_id", place.room_id.map_or(0, |id| id.as_str().len()))?;

    let content: CanonicalJsonValue = serde_json::from_str(draft.content.get())
        .map_err(|error| Error::Json(error.to_string()))?;
    let CanonicalJsonValue::Object(mut content) = content else {
        return Err(Error::Format("content must be an object".to_owned()));
    };
    let mut object = CanonicalJsonObject::new();
    let mut put = |key: &str, value: CanonicalJsonValue| object.insert(key.to_owned(), value);
    if let Some(redacts) = &draft.redacts {
        let redacts = CanonicalJsonValue::String(redacts.to_string());
        if version.rules.redaction.content_field_redacts {
            content.insert("redacts".to_owned(), redacts);
        } else {
            put("redacts", redacts);
        }
    }
    put("type", CanonicalJsonValue::String(draft.kind.to_string()));
    put("content", CanonicalJsonValue::Object(content));
    put("sender", CanonicalJsonValue::String(sender.to_string()));
    put("origin_server_ts", integer(draft.ts.unwrap_or(now_ms)));
    put("depth", integer(place.depth.min(DEPTH_MAX)));
    put("prev_events", ids(&place.prev_events, version));
    put("auth_events", ids(&place.auth_events, version));
    if let Some(duration_ms) = draft.sticky_ms {
        put(sticky::FIELD, sticky::field(duration_ms));
    }
    if version.has_given_ids() {
        let id = CanonicalJsonValue::String(new_id(sender.server_name()));
        put("event_id", id);
    }
    if let Some(room_id) = place.room_id {
        put("room_id", CanonicalJsonValue::String(room_id.to_string()));
    }
    if let Some(state_key) = &draft.state_key {
        put("state_key", CanonicalJsonValue::String(state_key.clone()));
    }
    Ok(object)
}

fn check_field(name: &str, bytes: usize) -> Result<(), Error> {
    if bytes > FIELD_BYTES_MAX {
        return Err(Error::TooLarge(format!(
            "{name} has more than {FIELD_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn integer(value: i64) -> CanonicalJsonValue {
    CanonicalJsonValue::Integer(Int::try_from(value).unwrap_or_default())
}

/// An event id as servers made them up in room versions 1 and 2.
pub fn new_id(server: &ruma::ServerName) -> String {
    format!("${:032x}:{server}", rand::random::<u128>())
}

fn ids(ids: &[OwnedEventId], version: &RoomVersion) -> CanonicalJsonValue {
    let ids = ids.iter().map(|id| {
        let id = CanonicalJsonValue::String(id.to_string());
        if version.has_given_ids() {
            // The second part once held hashes.
            let hashes = CanonicalJsonValue::Object(CanonicalJsonObject::new());
            CanonicalJsonValue::Array(vec![id, hashes])
        } else {
            id
        }
    });
    CanonicalJsonValue::Array(ids.collect())
}
