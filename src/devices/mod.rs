//! Devices: their public keys, and messages to them.

pub mod cross_signing;
pub mod dehydrated;
pub mod key_backup;
pub mod keys;
pub mod lists;
pub mod signatures;
pub mod to_device;
pub mod upload;

mod peer_keys;
mod signed;

use crate::storage;

/// Bytes of a key with its signatures, and of a message to a device.
const BYTES_MAX: usize = 65_536;

/// Why something about devices was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the client sent is not what it has to be.
    #[error("{0}")]
    Invalid(String),
    /// A part of it is missing or of another type.
    #[error("{0}")]
    BadJson(&'static str),
    /// A signature is missing or wrong.
    #[error("{0}")]
    InvalidSignature(&'static str),
    /// Something that has to be there before.
    #[error("{0}")]
    Missing(&'static str),
    /// Not for this user.
    #[error("{0}")]
    Forbidden(String),
    /// No such thing.
    #[error("{0}")]
    NotFound(&'static str),
    /// Keys go into the newest backup only, which is this one.
    #[error("the backup in use is version {0}")]
    WrongBackup(String),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
