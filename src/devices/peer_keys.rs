//! Keys as peers send them: what is of another user or device, or too large, is left out.
//!
//! Signatures are not checked: clients do, with keys that they trust. What a server owes them is
//! that no user's keys are shown as another's.

use ruma::{UserId, api::federation::device::get_devices::v1 as get_devices, serde::Raw};
use serde_json::{Value, json};

use super::BYTES_MAX;
use crate::storage::device_lists::List;

/// Devices of one user.
pub(super) const DEVICES_MAX: usize = 1_000;
/// Bytes of all devices of one user.
const LIST_BYTES_MAX: usize = 4 << 20;
/// Bytes of the name of a device.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of the id of a device.
const ID_BYTES_MAX: usize = 255;

/// JSON that is small enough to be a key.
fn parse<T>(raw: &Raw<T>) -> Option<Value> {
    let text = raw.json().get();
    if text.len() > BYTES_MAX {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// The keys of a device, if they are those of this device of this user.
pub(super) fn device<T>(user: &UserId, id: &str, raw: &Raw<T>) -> Option<Value> {
    let key = parse(raw)?;
    let fits = key["user_id"] == user.as_str()
        && key["device_id"] == id
        && key["keys"].is_object()
        && id.len() <= ID_BYTES_MAX;
    fits.then_some(key)
}

/// A cross-signing key of a kind, if it is one of this user.
pub(super) fn cross<T>(user: &UserId, kind: &str, raw: &Raw<T>) -> Option<Value> {
    let key = parse(raw)?;
    let fits = key["user_id"] == user.as_str()
        && key["usage"]
            .as_array()
            .is_some_and(|usage| usage.contains(&json!(kind)))
        && super::cross_signing::public_part(&key).is_some()
        && key["keys"].as_object().is_some_and(|keys| keys.len() == 1);
    fits.then_some(key)
}

/// The name of a device, as far as we keep it.
pub(super) fn name(name: Option<String>) -> Option<String> {
    name.filter(|name| name.len() <= NAME_BYTES_MAX)
}

/// Cross-signing keys of a user: (kind, JSON).
pub(super) fn cross_keys<T>(
    user: &UserId,
    master: Option<&Raw<T>>,
    self_signing: Option<&Raw<T>>,
) -> Vec<(&'static str, String)> {
    let given = [("master", master), ("self_signing", self_signing)];
    given
        .into_iter()
        .filter_map(|(kind, raw)| Some((kind, cross(user, kind, raw?)?.to_string())))
        .collect()
}

/// An answer to `GET /user/devices/{userId}`; `None`: it is about somebody else.
pub(super) fn list(user: &UserId, answer: get_devices::Response) -> Option<List> {
    if answer.user_id != user {
        return None;
    }
    let mut list = List {
        stream_id: i64::try_from(u64::from(answer.stream_id)).ok(),
        devices: Vec::new(),
        cross: cross_keys(
            user,
            answer.master_key.as_ref(),
            answer.self_signing_key.as_ref(),
        ),
    };
    let mut bytes = 0;
    for entry in answer.devices {
        let Some(key) = device(user, entry.device_id.as_str(), &entry.keys) else {
            continue;
        };
        let key = key.to_string();
        bytes += key.len();
        if list.devices.len() >= DEVICES_MAX || bytes > LIST_BYTES_MAX {
            tracing::warn!(%user, "a peer lists more devices than are kept");
            break;
        }
        let name = name(entry.device_display_name);
        list.devices.push((entry.device_id.to_string(), name, key));
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use ruma::{encryption::DeviceKeys, user_id};

    use super::*;

    fn raw(value: &Value) -> Raw<DeviceKeys> {
        Raw::from_json(serde_json::value::to_raw_value(value).expect("JSON"))
    }

    #[test]
    fn keys_of_others_are_left_out() {
        let user = user_id!("@a:x.example");
        let keys = |user: &str, device: &str| {
            raw(&json!({ "user_id": user, "device_id": device, "keys": {} }))
        };
        assert!(device(user, "D", &keys("@a:x.example", "D")).is_some());
        assert!(device(user, "D", &keys("@b:x.example", "D")).is_none());
        assert!(device(user, "D", &keys("@a:x.example", "E")).is_none());
        let huge = json!({
            "user_id": user, "device_id": "D", "keys": { "k": "x".repeat(BYTES_MAX) },
        });
        assert!(device(user, "D", &raw(&huge)).is_none());
        let master = json!({
            "user_id": user, "usage": ["master"], "keys": { "ed25519:A": "A" },
        });
        assert!(cross(user, "master", &raw(&master)).is_some());
        assert!(cross(user, "self_signing", &raw(&master)).is_none());
        let other = user_id!("@b:x.example");
        assert!(cross(other, "master", &raw(&master)).is_none());
    }
}
