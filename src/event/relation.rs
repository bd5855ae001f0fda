//! How an event relates to another (`m.relates_to`; specification, "Forming relationships between
//! events").

use ruma::{OwnedEventId, events::TimelineEventType};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::pdu::Pdu;

/// Events in a thread, by its root.
pub const THREAD: &str = "m.thread";
/// Replacements of an event.
pub const REPLACE: &str = "m.replace";
/// Reactions and their like.
pub const ANNOTATION: &str = "m.annotation";
/// References.
pub const REFERENCE: &str = "m.reference";

/// Bytes of a relation type, as many as an event type may have; a longer one is none.
const REL_TYPE_MAX: usize = 255;

/// The relation of an event to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Relation type.
    pub rel_type: String,
    /// The event that it relates to.
    pub event_id: OwnedEventId,
    /// What an annotation says.
    pub key: Option<String>,
    /// It has the form of a replacement; whether it is one depends on the event that it relates to.
    pub is_edit: bool,
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "m.relates_to")]
    relates_to: RelatesTo,
    #[serde(rename = "m.new_content")]
    new_content: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RelatesTo {
    rel_type: String,
    event_id: OwnedEventId,
    #[serde(default)]
    key: serde_json::Value,
}

impl Relation {
    /// The relation of an event. State events have none.
    pub fn of(pdu: &Pdu) -> Option<Self> {
        if pdu.is_state() {
            return None;
        }
        Self::of_content(&pdu.kind, &pdu.content)
    }

    /// The relation that the content of a message event makes.
    pub fn of_content(kind: &TimelineEventType, content: &RawValue) -> Option<Self> {
        // Most events relate to nothing, which costs no parsing then.
        if !content.get().contains("m.relates_to") {
            return None;
        }
        let content: Content = serde_json::from_str(content.get()).ok()?;
        let RelatesTo {
            rel_type,
            event_id,
            key,
        } = content.relates_to;
        if rel_type.is_empty() || rel_type.len() > REL_TYPE_MAX {
            return None;
        }
        // Of an encrypted event nobody here sees the new content.
        let has_content =
            content.new_content.is_some() || *kind == TimelineEventType::RoomEncrypted;
        Some(Self {
            is_edit: rel_type == REPLACE && has_content,
            key: key
                .as_str()
                .filter(|_| rel_type == ANNOTATION)
                .map(ToOwned::to_owned),
            rel_type,
            event_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::Relation;

    fn relation(kind: &str, content: &serde_json::Value) -> Option<Relation> {
        let content = to_raw_value(content).expect("JSON");
        Relation::of_content(&kind.into(), &content)
    }

    #[test]
    fn replacements_bring_new_content_or_are_encrypted() {
        let edit = json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$a" } });
        let is_edit =
            |kind: &str, content: &_| relation(kind, content).map(|relation| relation.is_edit);
        assert_eq!(is_edit("m.room.message", &edit), Some(false));
        assert_eq!(is_edit("m.room.encrypted", &edit), Some(true));
        let mut whole = edit.clone();
        whole["m.new_content"] = json!({ "body": "new" });
        assert_eq!(is_edit("m.room.message", &whole), Some(true));
    }

    #[test]
    fn what_cannot_be_read_relates_to_nothing() {
        for relates_to in [
            json!(1),
            json!({ "rel_type": "m.thread" }),
            json!({ "rel_type": 3, "event_id": "$a" }),
            json!({ "rel_type": "", "event_id": "$a" }),
            json!({ "rel_type": "x".repeat(256), "event_id": "$a" }),
            json!({ "m.in_reply_to": { "event_id": "$a" } }),
        ] {
            let content = json!({ "m.relates_to": relates_to });
            assert_eq!(relation("m.room.message", &content), None, "{content}");
        }
        let odd =
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": "$a", "key": {} } });
        assert_eq!(relation("m.reaction", &odd).expect("relates").key, None);
    }
}
