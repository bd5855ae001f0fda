//! Rate limits: what is limited, and how.

use std::collections::BTreeMap;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Events of others that a user redacts.
    AdminRedaction,
    /// What an address tells of bound third-party identifiers: peers are called for it.
    Binding,
    /// What an address does to delayed events: a server of calls restarts those of all who are in
    /// them.
    Delayed,
    /// Invitations of a user.
    InviteIssuer,
    /// Invitations to a room.
    InviteRoom,
    /// Invitations that a user gets.
    InviteUser,
    /// Joins of a user, to rooms that this server is in.
    JoinLocal,
    /// Joins of a user, to rooms that this server is not in: peers are called for them.
    JoinRemote,
    /// Joins to a room.
    JoinRoom,
    /// Logins to an account.
    LoginAccount,
    /// Logins from an address.
    LoginAddress,
    /// Wrong passwords for an account.
    LoginFailed,
    /// Mails that an address of the network asks for, or that go to a mailbox.
    Mail,
    /// Links in mails that somebody opens, and pages without a session.
    MailLink,
    /// Uploads of a user.
    Media,
    /// Events of a user.
    Message,
    /// OpenID tokens of a user.
    OpenId,
    /// Presence that a user sets.
    Presence,
    /// Summaries of rooms that somebody asks for without a session: peers may be called for them.
    Preview,
    /// Pushers that a user sets, and pages of what notified a user.
    Push,
    /// Registrations from an address.
    Registration,
    /// Registration tokens that an address asks of whether they are valid.
    RegistrationToken,
    /// Rendezvous of devices that an address makes.
    Rendezvous,
    /// Reports of a user.
    Report,
    /// Rooms that a user makes.
    RoomCreation,
    /// Steps of logins in browsers from an address (OAuth 2.0, identity providers), which may be that of a
    /// whole agency.
    Sso,
    /// Previews of web pages that a user asks for.
    UrlPreview,
    /// Searches of a user for users.
    UserDirectory,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Times a second, in the long run.
    pub per_second: f64,
    /// Times at once.
    pub burst: f64,
}

/// Every kind with its name in the configuration and what holds where nothing is said: what operators
/// know from elsewhere, a little more generous where people would meet it.
const KINDS: [(Kind, &str, f64, f64); 28] = [
    (Kind::AdminRedaction, "admin_redaction", 10.0, 200.0),
    (Kind::Binding, "binding", 1.0, 50.0),
    (Kind::Delayed, "delayed", 100.0, 1_000.0),
    (Kind::InviteIssuer, "invite_issuer", 0.3, 20.0),
    (Kind::InviteRoom, "invite_room", 0.3, 50.0),
    (Kind::InviteUser, "invite_user", 0.02, 20.0),
    (Kind::JoinLocal, "join_local", 0.5, 50.0),
    (Kind::JoinRemote, "join_remote", 0.05, 10.0),
    (Kind::JoinRoom, "join_room", 5.0, 200.0),
    (Kind::LoginAccount, "login_account", 0.1, 10.0),
    (Kind::LoginAddress, "login_address", 0.1, 10.0),
    (Kind::LoginFailed, "login_failed", 0.17, 10.0),
    (Kind::Mail, "mail", 0.02, 10.0),
    (Kind::MailLink, "mail_link", 1.0, 20.0),
    (Kind::Media, "media", 10.0, 50.0),
    (Kind::Message, "message", 5.0, 50.0),
    (Kind::OpenId, "openid", 0.5, 20.0),
    (Kind::Presence, "presence", 1.0, 20.0),
    (Kind::Preview, "preview", 0.5, 20.0),
    (Kind::Push, "push", 1.0, 20.0),
    (Kind::Registration, "registration", 0.17, 5.0),
    (Kind::RegistrationToken, "registration_token", 0.1, 5.0),
    (Kind::Rendezvous, "rendezvous", 0.5, 20.0),
    (Kind::Report, "report", 1.0, 20.0),
    (Kind::RoomCreation, "room_creation", 0.05, 10.0),
    (Kind::Sso, "sso", 5.0, 200.0),
    // A room full of links shows many at once.
    (Kind::UrlPreview, "url_preview", 1.0, 50.0),
    // Clients search with each letter that is typed.
    (Kind::UserDirectory, "user_directory", 1.0, 200.0),
];

impl Kind {
    /// The kind of a name in the configuration.
    pub fn of(name: &str) -> Option<Self> {
        let mut kinds = KINDS.iter();
        let found = kinds.find(|(_, known, ..)| *known == name);
        found.map(|(kind, ..)| *kind)
    }

    /// Names of all kinds, in order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|(_, name, ..)| *name)
    }
}

/// Rate limits.
#[derive(Clone, Debug)]
pub struct RateLimits {
    /// Whether there are any.
    pub enabled: bool,
    /// What the operator wants otherwise.
    pub rates: BTreeMap<Kind, Rate>,
}

impl Default for RateLimits {
    /// On, as this file says.
    fn default() -> Self {
        Self {
            enabled: true,
            rates: BTreeMap::new(),
        }
    }
}

impl RateLimits {
    /// The rate of a kind.
    pub fn of(&self, kind: Kind) -> Rate {
        let default = || {
            let mut kinds = KINDS.iter();
            let found = kinds.find(|(known, ..)| *known == kind);
            let (per_second, burst) = found.map_or((1.0, 20.0), |it| (it.2, it.3));
            Rate { per_second, burst }
        };
        self.rates.get(&kind).copied().unwrap_or_else(default)
    }
}
