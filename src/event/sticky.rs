//! Sticky events (MSC4354): message events that everybody in the room is told of, for a while.

use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};
use serde::Deserialize;
use serde_json::Value;

use super::pdu::Pdu;

/// The field of an event that makes it sticky. Redaction takes it away.
pub const FIELD: &str = "msc4354_sticky";
/// In `unsigned`: how long the event stays so.
pub const TTL: &str = "msc4354_sticky_duration_ttl_ms";
/// The longest time, an hour (MSC4354).
pub const DURATION_MS_MAX: i64 = 3_600_000;

/// For how long an event is sticky; `None`: it is not.
pub fn duration_ms(pdu: &Pdu) -> Option<i64> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(rename = "msc4354_sticky")]
        sticky: Value,
    }
    // Hardly any event is, which costs no parsing then.
    if !pdu.json.contains(FIELD) {
        return None;
    }
    let fields: Fields = serde_json::from_str(&pdu.json).ok()?;
    let duration = fields.sticky.get("duration_ms")?.as_i64()?;
    (0..=DURATION_MS_MAX)
        .contains(&duration)
        .then_some(duration)
}

/// Until when an event is sticky that came at a time: what it says of its own time is not believed
/// where that is later.
pub fn ends_ts(pdu: &Pdu, received_ts: i64) -> Option<i64> {
    let duration = duration_ms(pdu)?;
    Some(
        pdu.origin_server_ts
            .min(received_ts)
            .saturating_add(duration),
    )
}

/// The value of the field.
pub(super) fn field(duration_ms: i64) -> CanonicalJsonValue {
    let mut sticky = CanonicalJsonObject::new();
    let duration = Int::try_from(duration_ms.clamp(0, DURATION_MS_MAX)).unwrap_or_default();
    sticky.insert(
        "duration_ms".to_owned(),
        CanonicalJsonValue::Integer(duration),
    );
    CanonicalJsonValue::Object(sticky)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{DURATION_MS_MAX, ends_ts};
    use crate::event::{pdu::Pdu, version::RoomVersion};

    fn ends(sticky: &Value, received_ts: i64) -> Option<i64> {
        let whole = json!({
            "room_id": "!room:a.example", "sender": "@bob:a.example", "origin_server_ts": 1_000,
            "type": "m.room.message", "depth": 1, "content": {}, "msc4354_sticky": sticky,
        });
        let id = ruma::event_id!("$event:a.example").to_owned();
        let version = RoomVersion::of(&ruma::RoomVersionId::V1).unwrap();
        let pdu = Pdu::from_stored(id, whole.to_string(), &version, false).unwrap();
        ends_ts(&pdu, received_ts)
    }

    #[test]
    fn only_what_is_valid_sticks_and_never_from_the_future() {
        assert_eq!(ends(&json!({ "duration_ms": 500 }), 2_000), Some(1_500));
        assert_eq!(ends(&json!({ "duration_ms": 500 }), 700), Some(1_200));
        let most = json!({ "duration_ms": DURATION_MS_MAX });
        assert_eq!(ends(&most, 2_000), Some(1_000 + DURATION_MS_MAX));
        for wrong in [
            json!({}),
            json!(5),
            json!({ "duration_ms": "5" }),
            json!({ "duration_ms": -1 }),
            json!({ "duration_ms": DURATION_MS_MAX + 1 }),
        ] {
            assert_eq!(ends(&wrong, 2_000), None, "{wrong}");
        }
    }
}
