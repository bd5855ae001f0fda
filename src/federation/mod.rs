//! Outbound federation: we call peers.

mod body;
pub mod client;
pub mod destinations;
pub mod guard;
pub mod keys;
pub mod notary;
pub mod resolve;
pub mod sender;
pub mod signed;
pub mod tls;
pub mod turns;

pub use self::client::Client;
use crate::storage;

/// Why a peer was not reached, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer failed lately and is given a rest.
    #[error("{server} failed lately; next try in {seconds} s")]
    BackingOff {
        /// Peer.
        server: String,
        /// Rest of the pause.
        seconds: i64,
    },
    /// No address that we may call.
    #[error("cannot find {0}")]
    Unresolved(String),
    /// Connection, TLS, time-out.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// Peer.
        server: String,
        /// Cause.
        reason: String,
    },
    /// The peer answered with an error.
    #[error("{status} {errcode}: {message}")]
    Remote {
        /// HTTP status.
        status: u16,
        /// Matrix error code, if any.
        errcode: String,
        /// What it says.
        message: String,
    },
    /// The peer answered with what is no answer.
    #[error("{server} answered nonsense: {reason}")]
    Nonsense {
        /// Peer.
        server: String,
        /// What is wrong.
        reason: String,
    },
    /// The request could not be made.
    #[error("bad request: {0}")]
    Request(String),
    /// TLS or HTTP could not be set up.
    #[error("set-up: {0}")]
    Setup(String),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
