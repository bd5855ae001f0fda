//! Signatures of users on keys, as far as a server can check them before it shows them to others.

use ruma::{
    CanonicalJsonObject, SigningKeyAlgorithm,
    serde::{Base64, base64::Standard},
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};
use serde_json::Value;

/// Whether a key object (without its `signatures` and `unsigned`) is signed by an Ed25519 key.
pub(super) fn is_signed(object: &Value, public: &str, signature: &str) -> bool {
    let bytes = |text: &str| Base64::<Standard>::parse(text).ok();
    let (Some(public), Some(signature)) = (bytes(public), bytes(signature)) else {
        return false;
    };
    let object = serde_json::from_value::<CanonicalJsonObject>(object.clone());
    let Some(json) = object
        .ok()
        .and_then(|object| to_canonical_json_string_for_signing(&object).ok())
    else {
        return false;
    };
    let algorithm = SigningKeyAlgorithm::Ed25519;
    verify_canonical_json_bytes(
        &algorithm,
        public.as_bytes(),
        signature.as_bytes(),
        json.as_bytes(),
    )
    .is_ok()
}

#[cfg(test)]
mod tests {
    use ruma::signatures::{Ed25519KeyPair, sign_json};
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_signed_by_that_key_is_signed() {
        let pair = || {
            let document = Ed25519KeyPair::generate();
            Ed25519KeyPair::from_der(&document, "A".to_owned()).expect("a pair")
        };
        let one = pair();
        let public =
            |pair: &Ed25519KeyPair| Base64::<Standard, _>::new(pair.public_key().to_vec()).encode();
        let key = json!({ "user_id": "@a:x", "keys": { "ed25519:B": "B" } });
        let mut object: CanonicalJsonObject = serde_json::from_value(key.clone()).expect("JSON");
        sign_json("@a:x", &one, &mut object).expect("signs");
        let signed = serde_json::to_value(&object).expect("JSON");
        let signature = signed["signatures"]["@a:x"]["ed25519:A"].as_str();
        let signature = signature.expect("a signature");
        assert!(is_signed(&key, &public(&one), signature));
        assert!(is_signed(&signed, &public(&one), signature));
        assert!(!is_signed(&key, &public(&pair()), signature));
        let other = json!({ "user_id": "@b:x", "keys": { "ed25519:B": "B" } });
        assert!(!is_signed(&other, &public(&one), signature));
        for (public, signature) in [("", signature), (&*public(&one), "?"), ("AAAA", "AAAA")] {
            assert!(!is_signed(&key, public, signature));
        }
        assert!(!is_signed(&json!({ "x": 1.5 }), &public(&one), signature));
    }
}
