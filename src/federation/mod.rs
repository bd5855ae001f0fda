//! Outbound federation: we call peers.

pub mod body;
pub mod client;
pub mod destinations;
pub mod gate;
pub mod gateway;
pub mod guard;
pub mod keys;
pub mod notary;
pub mod provider;
pub mod resolve;
pub mod rules;
pub mod sender;
pub mod signed;
pub mod tls;
pub mod transport;
pub mod turns;
pub mod web;

mod vouched;

use ruma::OwnedServerName;

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
    /// We have nothing to do with that server.
    #[error("this server does not federate with {0}")]
    Refused(OwnedServerName),
    /// A server that we have nothing to do with is in a room.
    #[error("servers that this one does not federate with are in the room, such as {0}")]
    RefusedInRoom(OwnedServerName),
    /// What an administrator wants cannot be a rule about servers.
    #[error("{0}")]
    Rule(String),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
