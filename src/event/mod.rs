//! Events as the specification defines them: pure, no I/O, no clock.

pub mod auth;
pub mod build;
pub mod chain;
pub mod check;
pub mod client;
pub mod keys;
pub mod media;
pub mod owned_state;
pub mod pdu;
pub mod push;
pub mod redact;
pub mod relation;
pub mod resolve_v1;
pub mod sticky;
pub mod version;

/// Why something is not an event, or not a good one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not canonical JSON of this room version.
    #[error("not canonical JSON: {0}")]
    Json(String),
    /// A field is missing or of the wrong type.
    #[error("bad event: {0}")]
    Format(String),
    /// Larger than the specification allows.
    #[error("{0}")]
    TooLarge(String),
    /// The signature is missing or wrong.
    #[error("bad signature: {0}")]
    Signature(String),
    /// A signing key that does not parse.
    #[error("bad signing key: {0}")]
    Key(String),
}
