//! Events as clients see them.

use ruma::events::TimelineEventType;
use serde_json::{Map, Value, value::RawValue};

use super::{pdu::Pdu, sticky};

/// Which fields a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In `/sync`, where the room is known from around it.
    Sync,
    /// Everywhere else.
    Timeline,
    /// Type, state key, content and sender: previews for who is not in the room.
    Stripped,
}

/// The event for a client; `unsigned` is left out where it is empty.
pub fn to_client(pdu: &Pdu, shape: Shape, unsigned: Map<String, Value>) -> Box<RawValue> {
    let mut out = String::with_capacity(pdu.content.get().len() + 400);
    out.push('{');
    field(&mut out, "content", &content(pdu));
    text(&mut out, "sender", pdu.sender.as_str());
    text(&mut out, "type", &pdu.kind.to_string());
    if let Some(state_key) = &pdu.state_key {
        text(&mut out, "state_key", state_key);
    }
    // Who is invited is shown the create event whole (MSC4311).
    if shape != Shape::Stripped || pdu.kind == TimelineEventType::RoomCreate {
        text(&mut out, "event_id", pdu.event_id.as_str());
        field(
            &mut out,
            "origin_server_ts",
            &pdu.origin_server_ts.to_string(),
        );
        if shape == Shape::Timeline {
            text(&mut out, "room_id", pdu.room_id.as_str());
        }
        if let Some(duration_ms) = sticky::duration_ms(pdu) {
            let sticky = format!("{{\"duration_ms\":{duration_ms}}}");
            field(&mut out, sticky::FIELD, &sticky);
        }
        if let Some(redacts) = &pdu.redacts
            && pdu.kind == TimelineEventType::RoomRedaction
        {
            // Old clients look here, new ones in content, whatever the room version.
            text(&mut out, "redacts", redacts.as_str());
        }
        if !unsigned.is_empty() {
            field(&mut out, "unsigned", &Value::Object(unsigned).to_string());
        }
    }
    out.push('}');
    // Everything above is JSON already.
    RawValue::from_string(out).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Content, with `redacts` for clients that look for it there.
fn content(pdu: &Pdu) -> String {
    if pdu.kind == TimelineEventType::RoomRedaction
        && let Some(redacts) = &pdu.redacts
        && let Ok(Value::Object(mut content)) = serde_json::from_str(pdu.content.get())
    {
        content
            .entry("redacts")
            .or_insert_with(|| Value::String(redacts.to_string()));
        return Value::Object(content).to_string();
    }
    pdu.content.get().to_owned()
}

fn field(out: &mut String, name: &str, json: &str) {
    if out.len() > 1 {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
    out.push_str(json);
}

fn text(out: &mut String, name: &str, value: &str) {
    let json = serde_json::to_string(value).unwrap_or_else(|_| "\"\"".to_owned());
    field(out, name, &json);
}
