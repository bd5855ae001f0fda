//! Redaction.

use super::{Error, pdu::Pdu, version::RoomVersion};

/// The event with everything pruned that its room version does not keep. Same id.
pub fn redact(pdu: &Pdu, version: &RoomVersion) -> Result<Pdu, Error> {
    let object = ruma::canonical_json::redact(pdu.object()?, &version.rules.redaction, None)
        .map_err(|error| Error::Format(error.to_string()))?;
    let json = serde_json::to_string(&object).map_err(|error| Error::Json(error.to_string()))?;
    Pdu::from_stored(pdu.event_id.clone(), json, version, pdu.rejected)
}
