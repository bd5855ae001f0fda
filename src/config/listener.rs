//! Where the server listens.

use std::path::PathBuf;

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
    /// PEM file with the authorities of clients; `None`: clients show no certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show one.
    pub client_certificate: ClientCertificate,
}

/// Whether clients of a listener must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Who shows none is not heard.
    #[default]
    Require,
    /// Who shows none is heard; who shows a wrong one is not.
    Request,
}

/// A group of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl Serve {
    /// Every group, with its name in the configuration.
    pub const ALL: [(&'static str, Self); 4] = [
        ("client", Self::Client),
        ("federation", Self::Federation),
        ("admin", Self::Admin),
        ("metrics", Self::Metrics),
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Federation => "federation",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}
