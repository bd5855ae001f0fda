//! Keys of users that sign for real.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ruma::signatures::{Ed25519KeyPair, sign_json};
use serde_json::{Value, json};

use super::scripted::event::canonical;

/// An Ed25519 key, known by its public part or by the id of a device.
pub(crate) struct Signer {
    pub(crate) user: String,
    pub(crate) id: String,
    pub(crate) public: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    fn new(user: &str, id: Option<&str>) -> Self {
        let document = Ed25519KeyPair::generate();
        let unnamed = Ed25519KeyPair::from_der(&document, "x".to_owned()).unwrap();
        let public = STANDARD_NO_PAD.encode(unnamed.public_key());
        let id = id.unwrap_or(&public).to_owned();
        Self {
            user: user.to_owned(),
            pair: Ed25519KeyPair::from_der(&document, id.clone()).unwrap(),
            id,
            public,
        }
    }

    /// The same object with a signature.
    pub(crate) fn sign(&self, object: Value) -> Value {
        let mut object = canonical(object);
        sign_json(&self.user, &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    /// The key object of a cross-signing key.
    pub(crate) fn object(&self, usage: &str) -> Value {
        json!({
            "user_id": self.user, "usage": [usage],
            "keys": { format!("ed25519:{}", self.public): self.public },
        })
    }
}

/// Cross-signing keys of a user.
pub(crate) struct Identity {
    pub(crate) master: Signer,
    pub(crate) self_signing: Signer,
    pub(crate) user_signing: Signer,
}

impl Identity {
    pub(crate) fn new(user: &str) -> Self {
        Self {
            master: Signer::new(user, None),
            self_signing: Signer::new(user, None),
            user_signing: Signer::new(user, None),
        }
    }

    /// An upload of all three.
    pub(crate) fn body(&self) -> Value {
        json!({
            "master_key": self.master.object("master"),
            "self_signing_key": self.master.sign(self.self_signing.object("self_signing")),
            "user_signing_key": self.master.sign(self.user_signing.object("user_signing")),
        })
    }
}

/// Identity keys of a device, signed by it.
pub(crate) fn device_keys(user: &str, device: &str) -> Value {
    let signer = Signer::new(user, Some(device));
    signer.sign(json!({
        "user_id": user, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("ed25519:{device}"): signer.public,
            format!("curve25519:{device}"): signer.public,
        },
    }))
}
