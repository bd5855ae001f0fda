//! The configuration: what an administrator may set, with its defaults.
//!
//! Read from a TOML file and the environment ([`load`]), and checked as a whole: everything wrong
//! is told in one go. `config/example.toml` documents every key.

pub mod appservice;
pub mod email;
pub mod federation;
pub mod listener;
pub mod media;
pub mod oauth;
pub mod oidc;
pub mod rates;
pub mod terms;
pub mod validity;

mod problem;
mod read;
mod source;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use ruma::{OwnedServerName, RoomVersionId};

pub use self::{
    appservice::Appservice,
    email::{Email, EmailTls},
    federation::{Federation, ServerRule, UnlistedInRoom},
    listener::{ClientCertificate, Listener, Serve, Tls},
    media::Media,
    oauth::OAuth,
    oidc::{IdentityProvider, Sso},
    problem::{Error, Problem},
    rates::RateLimits,
    terms::Terms,
    validity::AccountValidity,
};

/// The room version of new rooms where nothing else is said.
const ROOM_VERSION: RoomVersionId = RoomVersionId::V12;

/// A configuration and what is worth saying about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Remarks on what is allowed, but perhaps not meant.
    pub warnings: Vec<String>,
}

/// Reads the configuration: the file, if one is given, and the environment, which wins.
///
/// Without a file everything has a default that suits a trial on one's own machine; with one,
/// `server_name` must be said.
pub fn load(file: Option<&Path>) -> Result<Loaded, Error> {
    load_with(file, std::env::vars())
}

/// [`load`] with variables other than those of this process.
pub fn load_with(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Error> {
    let table = match file {
        None => toml::Table::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?;
            text.parse().map_err(|source| Error::Syntax {
                path: path.to_owned(),
                source: Box::new(source),
            })?
        }
    };
    read::read(source::Source::new(table, env), file.is_some())
}

/// Everything an administrator may set, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our server name, the part of ids after the colon.
    pub server_name: OwnedServerName,
    /// Where we keep files: signing key, private PostgreSQL, media.
    pub data_dir: PathBuf,
    /// The file with the key that signs for us; made at the first start.
    pub signing_key_file: PathBuf,
    /// Where the server listens.
    pub listeners: Vec<Listener>,
    /// The database; `None`: the private one in `data_dir`.
    pub database_url: Option<Secret>,
    /// How the private database is run.
    pub private_database: PrivateDatabase,
    /// Who may make an account.
    pub registration: Registration,
    /// Rate limits.
    pub rate_limits: RateLimits,
    /// Rooms.
    pub rooms: Rooms,
    /// Events that are sent later.
    pub delayed_events: DelayedEvents,
    /// Rendezvous of devices.
    pub rendezvous: Rendezvous,
    /// Presence.
    pub presence: Presence,
    /// Media.
    pub media: Media,
    /// Push notifications.
    pub push: Push,
    /// The TURN server for calls.
    pub turn: Turn,
    /// Notices to users; `None`: off.
    pub server_notices: Option<ServerNotices>,
    /// Calls of many (`MatrixRTC`).
    pub rtc: Rtc,
    /// E-mail; `None`: there is none.
    pub email: Option<Email>,
    /// Login by single sign-on.
    pub sso: Sso,
    /// Identity providers that do it; empty: there is none.
    pub oidc: Vec<Arc<IdentityProvider>>,
    /// Login by OAuth 2.0; `None`: there is none.
    pub oauth: Option<OAuth>,
    /// What users accept; `None`: nothing.
    pub terms: Option<Terms>,
    /// For how long accounts are good; `None`: for ever.
    pub account_validity: Option<AccountValidity>,
    /// Whom users find by name.
    pub user_directory: UserDirectory,
    /// What is not in the specification yet, and changes what everybody sees.
    pub unstable: Unstable,
    /// Logging.
    pub log: Log,
    /// Which servers we have to do with.
    pub federation: Federation,
    /// Everything we call.
    pub outbound: Outbound,
    /// What `/.well-known/matrix/…` answers.
    pub well_known: WellKnown,
    /// Application services.
    pub appservices: Vec<Arc<Appservice>>,
}

/// How the private database is run, where no other is configured.
#[derive(Clone, Debug, Default)]
pub struct PrivateDatabase {
    /// Folder with PostgreSQL's programs; `None`: looked for in the usual places.
    pub programs: Option<PathBuf>,
    /// Account it runs under when we are root; `None`: the owner of the folder, or `postgres`.
    pub account: Option<String>,
}

/// A string that never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Who may make an account.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches of an administrator, each for itself"
)]
pub struct Registration {
    /// Anybody (with `require_token`: who has a token).
    pub open: bool,
    /// A registration token is needed.
    pub require_token: bool,
    /// An e-mail address is needed.
    pub require_email: bool,
    /// Anybody is a guest who wants to be.
    pub guests: bool,
    /// Tokens valid besides those in the database.
    pub tokens: Vec<Secret>,
    /// Shared secret of `/_synapse/admin/v1/register`.
    pub shared_secret: Option<Secret>,
    /// Characters that a new password has at least.
    pub password_length_min: usize,
}

/// Rooms.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Version of new rooms.
    pub default_version: RoomVersionId,
    /// Which new rooms are encrypted where the client does not say.
    pub encryption: Encryption,
    /// Whether nobody may do otherwise.
    pub encryption_required: bool,
    /// Days for which those who may redact are told what redacted events said; 0: it is gone at once.
    pub keep_redacted_days: u32,
}

/// Which new rooms are encrypted where the client does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// None.
    #[default]
    Off,
    /// Those that not everybody may enter.
    Private,
    /// All but spaces.
    All,
}

/// Events that are sent later (MSC4140).
#[derive(Clone, Copy, Debug)]
pub struct DelayedEvents {
    /// Seconds after which, at most; 0: there are none.
    pub max_delay_s: u32,
    /// Events of one user that wait.
    pub max_scheduled: u32,
}

/// Rendezvous of devices: one logs another in by a QR code.
#[derive(Clone, Copy, Debug)]
pub struct Rendezvous {
    /// Whether it is offered.
    pub enabled: bool,
}

/// Presence.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Whether users here see who is there.
    pub enabled: bool,
    /// Whether servers tell each other.
    pub federation: bool,
}

/// Push notifications.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches of an administrator, each for itself"
)]
pub struct Push {
    /// Whether anything is sent.
    pub enabled: bool,
    /// Whether gateways are told who sent what where, and not only the ids of event and room.
    pub include_content: bool,
    /// Whether the badge counts rooms with something unread; else: what is unread.
    pub group_unread_count_by_room: bool,
    /// Whether names in texts that do not say whom they mention notify.
    pub names_in_texts: bool,
    /// Milliseconds by which a notice is delayed at most, each by others.
    pub jitter_ms: u32,
    /// Whether gateways may be called without TLS.
    pub allow_http: bool,
}

/// Whom users find by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserDirectory {
    /// Whether everybody of this server finds everybody of it.
    pub search_all_users: bool,
}

/// A TURN server, which relays calls of clients that do not reach each other.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Its addresses, as clients are told; empty: there is none.
    pub uris: Vec<String>,
    /// What it makes out credentials by.
    pub shared_secret: Option<Secret>,
    /// How long credentials are good.
    pub lifetime_seconds: u32,
}

/// What the agency tells its users in rooms of their own.
#[derive(Clone, Debug)]
pub struct ServerNotices {
    /// Name of the user that speaks.
    pub localpart: String,
    /// What that user is called.
    pub display_name: String,
    /// How it looks.
    pub avatar_url: Option<String>,
    /// Name of the rooms.
    pub room_name: String,
    /// Their topic.
    pub room_topic: Option<String>,
    /// How they look.
    pub room_avatar_url: Option<String>,
    /// Whether users are in their room without being asked.
    pub auto_join: bool,
}

/// Calls of many (`MatrixRTC`, MSC4143).
#[derive(Clone, Debug, Default)]
pub struct Rtc {
    /// Services that let users into calls on a `LiveKit` server; empty: there are none.
    pub livekit_service_urls: Vec<String>,
}

/// What is not in the specification yet, and changes what everybody sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unstable {
    /// Whether users subscribe to threads, and are told of no others (MSC4306, MSC4308).
    pub thread_subscriptions: bool,
    /// Whether empty account data is none (MSC3391).
    pub account_data_deletion: bool,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a tracing filter.
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// Certificate chain and private key of a client.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM file with the chain.
    pub certificate: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// Everything we call.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// PEM files with certificate authorities to trust besides those of the system.
    pub extra_ca: Vec<PathBuf>,
    /// PEM files with the only certificate authorities to trust; empty: those of the system.
    pub replace_ca: Vec<PathBuf>,
    /// Certificate and key by which we show who we are to who asks; `None`: we do not.
    pub client_identity: Option<Identity>,
    /// The proxy everything goes through, with credentials perhaps; `None`: no proxy.
    pub proxy: Option<Secret>,
    /// Hosts and ranges of addresses that are called past the proxy.
    pub proxy_no_proxy: Vec<String>,
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

impl Default for Config {
    /// What holds where nothing is said.
    fn default() -> Self {
        let data_dir = PathBuf::from("data");
        Self {
            server_name: ruma::server_name!("localhost").to_owned(),
            signing_key_file: data_dir.join("signing.key"),
            data_dir,
            listeners: vec![Listener {
                bind: ([127, 0, 0, 1], 8008).into(),
                serve: vec![Serve::Client, Serve::Federation, Serve::Admin],
                tls: None,
            }],
            database_url: None,
            private_database: PrivateDatabase::default(),
            registration: Registration {
                open: false,
                require_token: false,
                require_email: false,
                guests: false,
                tokens: Vec::new(),
                shared_secret: None,
                password_length_min: 8,
            },
            rate_limits: RateLimits::default(),
            rooms: Rooms {
                default_version: ROOM_VERSION,
                encryption: Encryption::Off,
                encryption_required: false,
                keep_redacted_days: 0,
            },
            delayed_events: DelayedEvents {
                max_delay_s: 86_400,
                max_scheduled: 100,
            },
            rendezvous: Rendezvous { enabled: false },
            presence: Presence {
                enabled: true,
                federation: false,
            },
            media: Media::default(),
            push: Push {
                enabled: true,
                include_content: false,
                group_unread_count_by_room: true,
                names_in_texts: false,
                jitter_ms: 0,
                allow_http: false,
            },
            turn: Turn {
                uris: Vec::new(),
                shared_secret: None,
                lifetime_seconds: 86_400,
            },
            server_notices: None,
            rtc: Rtc::default(),
            email: None,
            sso: Sso::default(),
            oidc: Vec::new(),
            oauth: None,
            terms: None,
            account_validity: None,
            user_directory: UserDirectory::default(),
            unstable: Unstable::default(),
            log: Log {
                level: "info".to_owned(),
                json: false,
            },
            federation: Federation::default(),
            outbound: Outbound::default(),
            well_known: WellKnown::default(),
            appservices: Vec::new(),
        }
    }
}
