//! Events as a peer makes them, right or wrong on purpose.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, RoomVersionId,
    room_version_rules::RoomVersionRules,
    signatures::{
        Ed25519KeyPair, KeyPair as _, add_content_hash_to_event, reference_hash, sign_event,
        sign_json,
    },
};
use serde_json::{Value, json};

/// A signing key of a server.
pub(crate) struct Key {
    pub(crate) server: String,
    pair: Ed25519KeyPair,
}

impl Key {
    pub(crate) fn new(server: &str, version: &str) -> Self {
        let document = Ed25519KeyPair::generate();
        Self {
            server: server.to_owned(),
            pair: Ed25519KeyPair::from_der(&document, version.to_owned()).unwrap(),
        }
    }

    /// `ed25519:VERSION`.
    pub(crate) fn id(&self) -> String {
        format!("ed25519:{}", self.pair.version())
    }

    pub(crate) fn public(&self) -> String {
        STANDARD_NO_PAD.encode(self.pair.public_key())
    }

    pub(crate) fn sign(&self, value: Value) -> CanonicalJsonObject {
        let mut object = canonical(value);
        sign_json(&self.server, &self.pair, &mut object).unwrap();
        object
    }

    /// The signature of any bytes.
    pub(crate) fn signature(&self, bytes: &[u8]) -> String {
        self.pair.sign(bytes).base64()
    }

    /// A key document with this key, good until then, and with old ones.
    pub(crate) fn document(&self, valid_until_ts: i64, old: &Value) -> Value {
        let document = self.sign(json!({
            "server_name": self.server,
            "verify_keys": { self.id(): { "key": self.public() } },
            "old_verify_keys": old,
            "valid_until_ts": valid_until_ts,
        }));
        serde_json::to_value(document).unwrap()
    }

    /// Signs an event as it is, its hash too.
    pub(crate) fn sign_event(&self, object: &mut CanonicalJsonObject, version: &str) {
        let rules = rules(version);
        sign_event(&self.server, &self.pair, object, &rules.redaction).unwrap();
    }
}

pub(crate) fn canonical(value: Value) -> CanonicalJsonObject {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn rules(version: &str) -> RoomVersionRules {
    RoomVersionId::try_from(version).unwrap().rules().unwrap()
}

/// Whether senders make up event ids (room versions 1 and 2).
pub(super) fn has_given_ids(version: &str) -> bool {
    ["1", "2"].contains(&version)
}

/// How events name others.
pub(super) fn references(ids: &[String], version: &str) -> Value {
    let hash = json!({ "sha256": "" });
    let reference = |id: &String| {
        if has_given_ids(version) {
            json!([id, hash])
        } else {
            json!(id)
        }
    };
    ids.iter().map(reference).collect()
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

/// An event that is not signed yet.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) version: String,
    pub(crate) object: CanonicalJsonObject,
}

impl Draft {
    /// The same with another value of a field.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        let value = CanonicalJsonValue::try_from(value).unwrap();
        self.object.insert(field.to_owned(), value);
        self
    }

    /// The same on other events (`prev_events`, `auth_events`).
    pub(crate) fn on(self, field: &str, ids: &[String]) -> Self {
        let references = references(ids, &self.version);
        self.with(field, references)
    }

    /// The event with its hash, the signature of a key, and its id.
    pub(crate) fn sign(self, key: &Key) -> Event {
        let Self {
            version,
            mut object,
        } = self;
        object.remove("hashes");
        object.remove("signatures");
        add_content_hash_to_event(&mut object).unwrap();
        key.sign_event(&mut object, &version);
        Event::of(object, &version)
    }
}

/// An event with its id.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) object: CanonicalJsonObject,
}

impl Event {
    pub(crate) fn of(object: CanonicalJsonObject, version: &str) -> Self {
        let id = if has_given_ids(version) {
            let given = object.get("event_id").and_then(CanonicalJsonValue::as_str);
            given.unwrap_or_default().to_owned()
        } else {
            format!("${}", reference_hash(&object, &rules(version)).unwrap())
        };
        Self {
            id,
            version: version.to_owned(),
            object,
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::to_value(&self.object).unwrap()
    }

    /// The event with a field changed after it was signed.
    pub(crate) fn forged(&self, field: &str, value: Value) -> Self {
        let mut object = self.object.clone();
        let value = CanonicalJsonValue::try_from(value).unwrap();
        object.insert(field.to_owned(), value);
        Self::of(object, &self.version)
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        let text = self.object.get(field).and_then(CanonicalJsonValue::as_str);
        text.unwrap_or_default()
    }

    /// Type and state key of a state event.
    pub(crate) fn key(&self) -> Option<(String, String)> {
        let key = self.object.get("state_key")?.as_str()?;
        Some((self.text("type").to_owned(), key.to_owned()))
    }

    /// Ids in `prev_events` or `auth_events`.
    pub(crate) fn ids(&self, field: &str) -> Vec<String> {
        let list = self
            .object
            .get(field)
            .and_then(CanonicalJsonValue::as_array);
        let ids = list.into_iter().flatten().filter_map(|id| match id {
            CanonicalJsonValue::Array(pair) => pair.first()?.as_str(),
            id => id.as_str(),
        });
        ids.map(ToOwned::to_owned).collect()
    }

    pub(crate) fn number(&self, field: &str) -> i64 {
        let number = self.object.get(field);
        number
            .and_then(CanonicalJsonValue::as_integer)
            .map_or(0, i64::from)
    }
}
