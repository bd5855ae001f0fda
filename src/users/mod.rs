//! Accounts: who may log in, with what, and what belongs to them.

pub mod account_data;
pub mod administration;
pub mod announce;
pub mod devices;
pub mod erased;
pub mod invite_permission;
pub mod listing;
pub mod login;
pub mod login_token;
pub mod moderation;
pub mod oauth;
pub mod openid;
pub mod passwords;
pub mod pending_accounts;
pub mod profile;
pub mod push_rules;
pub mod pushers;
pub mod registration;
pub mod rendezvous;
pub mod seen;
pub mod sso;
pub mod terms;
pub mod threepids;
pub mod tokens;
pub mod typed_code;
pub mod uia;
pub mod validation;
pub mod validity;

use crate::storage;

/// Why something about an account was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Registration is closed.
    #[error("registration is closed")]
    RegistrationClosed,
    /// The name is taken.
    #[error("the user name is taken")]
    NameTaken,
    /// The name is no user name.
    #[error("{0}")]
    NameInvalid(String),
    /// Wrong user name or password, or the account is closed.
    #[error("wrong user name or password")]
    WrongCredentials,
    /// The account is closed.
    #[error("this account is closed")]
    Deactivated,
    /// The account is locked.
    #[error("this account is locked")]
    Locked,
    /// The account is suspended, and this is not for such ones.
    #[error("this account is suspended: it may read, and leave rooms")]
    Suspended,
    /// The account has to accept something first, by that link.
    #[error("terms have to be accepted first: {0}")]
    TermsOwed(String),
    /// The account is over, and was not renewed.
    #[error("this account has expired; renew it by the link in an e-mail")]
    Expired,
    /// Not for guests, or there are none here.
    #[error("this is not for guests")]
    NotForGuests,
    /// The password does not do.
    #[error("{0}")]
    WeakPassword(String),
    /// The token is unknown, used up, or over.
    #[error("the token is not valid")]
    WrongToken,
    /// The name is one that an application service has, or it is none of this one's.
    #[error("{0}")]
    Exclusive(&'static str),
    /// An application service speaks for a device that its user does not have.
    #[error("the user has no such device")]
    UnknownDevice,
    /// No login of that kind here.
    #[error("unknown kind of login")]
    UnknownLogin,
    /// No such user, device or field.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// Another user's.
    #[error("{0}")]
    Forbidden(&'static str),
    /// More than the specification allows.
    #[error("{0}")]
    ProfileTooLarge(&'static str),
    /// The name of a profile field is too long.
    #[error("the name of the field is too long")]
    KeyTooLarge,
    /// Not written this way.
    #[error("{0} cannot be set here")]
    NotSettable(String),
    /// Nothing of an account that administrators set.
    #[error("{0} cannot be set here")]
    NoSuchField(String),
    /// What the client sent is not what it has to be.
    #[error("{0}")]
    Invalid(&'static str),
    /// A parameter is not what it has to be.
    #[error("parameter {0} is not of its type, or too long")]
    Parameter(&'static str),
    /// No push gateway is there.
    #[error(transparent)]
    NoGateway(crate::federation::gateway::NoGateway),
    /// Nothing is sent to that address.
    #[error("no e-mail is sent: the address is not known to be yours")]
    UnknownAddress,
    /// Another account has that address.
    #[error("the e-mail address belongs to an account already")]
    AddressInUse,
    /// Another account is that person at the identity provider.
    #[error("the external id belongs to another account")]
    ExternalIdInUse,
    /// Nothing of that kind here.
    #[error("this server does not do that with such addresses")]
    AddressNotSupported,
    /// Nobody registers with an address.
    #[error("nobody registers with an e-mail address here")]
    AddressDenied,
    /// Nobody has proved to read the address.
    #[error("the e-mail address is not confirmed, or that was used already")]
    AddressUnproved,
    /// There is no identity server here.
    #[error("identity servers are not trusted here")]
    IdentityServer,
    /// Too many mails to an address, or to all.
    #[error("too many mails; try again later")]
    TooManyMails,
    /// What the client had to send and did not.
    #[error("missing parameters: {0}")]
    Missing(String),
    /// More authentication is needed.
    #[error("user-interactive authentication is needed")]
    Interactive(Box<uia::Challenge>),
    /// Hashing failed.
    #[error("password hashing: {0}")]
    Hashing(String),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}
