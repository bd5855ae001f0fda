//! Rate limits of a node: token buckets by kind and by who asks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::extract::FromRequestParts;
use http::request::Parts;
use moka::sync::Cache;

use super::{App, error::ApiError, request::address};
use crate::{clock::Bucket, users::tokens::Session};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Logins from an address, or to an account.
    Login,
    /// Registrations from an address.
    Registration,
    /// Events of a user.
    Message,
    /// Rooms that a user makes.
    RoomCreation,
    /// Invitations of a user.
    Invite,
    /// Uploads of a user.
    Media,
    /// Presence that a user sets.
    Presence,
    /// OpenID tokens of a user.
    OpenId,
    /// Pushers that a user sets, and pages of what notified a user.
    Push,
    /// Reports of a user.
    Report,
    /// What an address tells of bound third-party identifiers: peers are called for it.
    Binding,
    /// Mails that an address of the network asks for, or that go to a mailbox.
    Mail,
    /// Links in mails that somebody opens.
    MailLink,
    /// Summaries of rooms that somebody asks for without a session: peers may be called for them.
    Preview,
    /// Previews of web pages that a user asks for.
    UrlPreview,
    /// Rendezvous of devices that an address makes.
    Rendezvous,
    /// What an address does to delayed events: a server of calls restarts those of all who are in
    /// them.
    Delayed,
    /// Steps of logins through identity providers from an address, which may be that of a whole agency.
    Sso,
}

impl Kind {
    /// Tokens a second and at most; defaults that operators know from elsewhere, a little more
    /// generous where people would meet them.
    fn rate(self) -> (f64, f64) {
        match self {
            Self::Login => (0.1, 10.0),
            Self::Registration => (0.17, 5.0),
            Self::Message => (5.0, 50.0),
            Self::RoomCreation => (0.05, 10.0),
            Self::Invite => (0.3, 20.0),
            Self::Media => (10.0, 50.0),
            Self::OpenId | Self::Preview | Self::Rendezvous => (0.5, 20.0),
            Self::Mail => (0.02, 10.0),
            Self::Presence | Self::Push | Self::MailLink | Self::Report => (1.0, 20.0),
            // A room full of links shows many at once.
            Self::Binding | Self::UrlPreview => (1.0, 50.0),
            Self::Delayed => (100.0, 1_000.0),
            Self::Sso => (5.0, 200.0),
        }
    }
}

/// Where a request came from, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub struct Whence(pub Option<SocketAddr>);

impl FromRequestParts<App> for Whence {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        Ok(Self(address(parts)))
    }
}

/// Buckets that are kept.
const BUCKETS_MAX: u64 = 200_000;

/// The buckets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    enabled: bool,
    buckets: Cache<(Kind, String), Arc<Mutex<Bucket>>>,
}

impl Limits {
    /// Off: everything passes.
    pub fn new(enabled: bool) -> Self {
        let buckets = Cache::builder()
            .max_capacity(BUCKETS_MAX)
            .time_to_idle(Duration::from_hours(1))
            .build();
        Self { enabled, buckets }
    }

    /// [`Limits::check`] of a user, unless an application service speaks for it that has none.
    pub fn check_user(&self, kind: Kind, session: &Session) -> Result<(), ApiError> {
        if !session.is_limited() {
            return Ok(());
        }
        self.check(kind, session.user_id.as_str())
    }

    /// [`Limits::check`] of where a request came from, as far as that is known.
    pub fn check_address(&self, kind: Kind, address: Option<SocketAddr>) -> Result<(), ApiError> {
        match address {
            Some(address) => self.check(kind, &address.ip().to_string()),
            None => Ok(()),
        }
    }

    /// Takes a token of `who`, or says when there will be one.
    pub fn check(&self, kind: Kind, who: &str) -> Result<(), ApiError> {
        if !self.enabled {
            return Ok(());
        }
        let rate = kind.rate();
        let key = (kind, who.to_owned());
        let full = || Arc::new(Mutex::new(Bucket::new(rate.1)));
        let bucket = self.buckets.get_with(key, full);
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(wait) = bucket.take(rate) else {
            return Ok(());
        };
        Err(ApiError::limited(
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        ))
    }
}
