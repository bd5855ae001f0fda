//! The configuration: what an administrator may set, with its defaults.

use std::path::PathBuf;

use ipnet::IpNet;
use ruma::{OwnedServerName, RoomVersionId};

/// Everything an administrator may set, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our server name, the part of ids after the colon.
    pub server_name: OwnedServerName,
    /// Where we keep files: signing key, private PostgreSQL, media.
    pub data_dir: PathBuf,
    /// Where the server listens.
    pub listeners: Vec<Listener>,
    /// The database; `None`: the private one in `data_dir`.
    pub database_url: Option<Secret>,
    /// Who may make an account.
    pub registration: Registration,
    /// Rate limits.
    pub rate_limits: RateLimits,
    /// Rooms.
    pub rooms: Rooms,
    /// Logging.
    pub log: Log,
    /// Everything we call.
    pub outbound: Outbound,
    /// What `/.well-known/matrix/…` answers.
    pub well_known: WellKnown,
}

/// A string that never shows in logs.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// One address to listen on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address and port.
    pub bind: std::net::SocketAddr,
    /// Which APIs it serves.
    pub serve: Vec<Serve>,
    /// Certificate chain and key (PEM files); `None`: plain HTTP.
    pub tls: Option<Tls>,
}

/// Certificate chain and private key.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file with the chain.
    pub certificate: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// A group of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve {
    /// Client-server API and `/.well-known/matrix/client`.
    Client,
    /// Server-server API, keys and `/.well-known/matrix/server`.
    Federation,
    /// `/_synapse/admin`.
    Admin,
    /// `/metrics`.
    Metrics,
}

/// Who may make an account.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Anybody (with `require_token`: who has a token).
    pub open: bool,
    /// A registration token is needed.
    pub require_token: bool,
    /// Tokens valid besides those in the database.
    pub tokens: Vec<Secret>,
    /// Shared secret of `/_synapse/admin/v1/register`.
    pub shared_secret: Option<Secret>,
}

/// Rate limits.
#[derive(Clone, Debug)]
pub struct RateLimits {
    /// Whether there are any.
    pub enabled: bool,
}

/// Rooms.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Version of new rooms.
    pub default_version: RoomVersionId,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a tracing filter.
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// Everything we call.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// PEM files with certificate authorities to trust besides those of the system.
    pub extra_ca: Vec<PathBuf>,
    /// Private, loopback and link-local ranges that may be called all the same.
    pub allow_ip_ranges: Vec<IpNet>,
}

/// What `/.well-known/matrix/…` answers.
#[derive(Clone, Debug, Default)]
pub struct WellKnown {
    /// Base URL for clients; `None`: 404.
    pub client: Option<String>,
    /// `host:port` for peers; `None`: 404.
    pub server: Option<String>,
    /// The support document; `None`: 404.
    pub support: Option<serde_json::Value>,
}
