//! What changed for me? Reads only.

mod encryption;
pub mod filter;
mod hub;
mod joined;
mod other;
pub mod presence;
pub mod token;
pub mod v3;

pub use self::hub::Hub;
use crate::{rooms, storage};

/// Why a sync was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is none of ours.
    #[error("the since token is not valid")]
    BadToken,
    /// The filter cannot be read, or does not exist.
    #[error("filter: {0}")]
    BadFilter(String),
    /// Rooms.
    #[error(transparent)]
    Rooms(#[from] rooms::Error),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
