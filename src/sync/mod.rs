//! What changed for me? Reads only.

pub mod encryption;
pub mod events;
mod fields;
pub mod filter;
mod hub;
mod joined;
mod memory;
mod other;
pub mod presence;
mod profiles;
pub mod sliding;
mod sticky;
mod timeline;
pub mod token;
pub mod v3;

pub use self::hub::Hub;
use crate::{rooms, storage};

/// The longest that a client may wait.
const TIMEOUT_MAX: std::time::Duration = std::time::Duration::from_mins(2);

/// Why a sync was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is none of ours.
    #[error("the since token is not valid")]
    BadToken,
    /// The filter cannot be read, or does not exist.
    #[error("filter: {0}")]
    BadFilter(String),
    /// A position of a sliding sync that we do not know, or no more: the client begins anew.
    #[error("this position is not known, or not any more")]
    UnknownPos,
    /// A request that makes no sense, or wants too much.
    #[error("{0}")]
    BadRequest(String),
    /// Rooms.
    #[error(transparent)]
    Rooms(#[from] rooms::Error),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
