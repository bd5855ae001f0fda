//! Checks on an event of another server that need no state: form, hash and signatures.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName,
    events::room::policy::POLICY_SERVER_ED25519_SIGNING_KEY_ID as POLICY_KEY_ID,
    signatures::{
        PublicKeyMap, Verified, required_server_signatures_to_verify_event, verify_event,
    },
    state_res::check_pdu_format,
};

use super::{Error, build::EVENT_BYTES_MAX, version::RoomVersion};

/// Check 1 of receipt: valid for the room version, else it is dropped.
pub fn format(object: &CanonicalJsonObject, version: &RoomVersion) -> Result<(), Error> {
    let rules = &version.rules.event_format;
    check_pdu_format(object, rules).or_else(|why| {
        // ruma takes 65,535 bytes; the specification, and other servers, one more.
        let bytes = serde_json::to_string(object).map_or(0, |json| json.len());
        if bytes != EVENT_BYTES_MAX {
            return Err(Error::Format(why));
        }
        let mut smaller = object.clone();
        smaller.remove("signatures");
        check_pdu_format(&smaller, rules).map_err(Error::Format)
    })
}

/// Keys that are needed to verify an event, by server.
pub fn required_keys(
    object: &CanonicalJsonObject,
    version: &RoomVersion,
) -> Result<BTreeMap<OwnedServerName, BTreeSet<String>>, Error> {
    let servers = required_server_signatures_to_verify_event(object, &version.rules.signatures)
        .map_err(|error| Error::Format(error.to_string()))?;
    let signatures = object
        .get("signatures")
        .and_then(CanonicalJsonValue::as_object);
    let keys = servers.into_iter().map(|server| {
        let ids = signatures
            .and_then(|all| all.get(server.as_str()))
            .and_then(CanonicalJsonValue::as_object)
            .map(|of_server| {
                of_server
                    .keys()
                    // A policy server signs with a key that stands in the room, not in its key
                    // document, and speaks for nobody (specification, "Policy servers").
                    .filter(|id| id.starts_with("ed25519:") && *id != POLICY_KEY_ID)
                    .cloned()
                    .collect()
            })
            .unwrap_or_default();
        (server, ids)
    });
    Ok(keys.collect())
}

/// Checks 2 and 3 of receipt: signatures, else it is dropped; content hash, else its redacted form
/// is taken, which this returns.
pub fn verify(
    object: CanonicalJsonObject,
    keys: &PublicKeyMap,
    version: &RoomVersion,
) -> Result<CanonicalJsonObject, Error> {
    match verify_event(keys, &object, &version.rules) {
        Ok(Verified::All) => Ok(object),
        Ok(Verified::Signatures) => {
            ruma::canonical_json::redact(object, &version.rules.redaction, None)
                .map_err(|error| Error::Format(error.to_string()))
        }
        Err(error) => Err(Error::Signature(error.to_string())),
    }
}
