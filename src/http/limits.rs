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
pub use crate::config::rates::Kind;
use crate::{
    clock::Bucket,
    config::{RateLimits, rates::Rate},
    users::tokens::Session,
};

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
/// Characters by which who asks is told from others: names are as long as somebody likes.
const WHO_CHARS_MAX: usize = 300;

/// The buckets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    config: Arc<RateLimits>,
    buckets: Cache<(Kind, String), Arc<Mutex<Bucket>>>,
}

impl Limits {
    /// With full buckets.
    pub fn new(config: RateLimits) -> Self {
        let buckets = Cache::builder()
            .max_capacity(BUCKETS_MAX)
            .time_to_idle(Duration::from_hours(1))
            .build();
        Self {
            config: Arc::new(config),
            buckets,
        }
    }

    /// [`Limits::check`] of a user, unless an application service speaks for it that has none, or an
    /// administrator said otherwise.
    pub fn check_user(&self, kind: Kind, session: &Session) -> Result<(), ApiError> {
        self.check_by(session, kind, session.user_id.as_str())
    }

    /// [`Limits::check`] of something that a user does to others, such as a room or another user.
    pub fn check_by(&self, session: &Session, kind: Kind, whom: &str) -> Result<(), ApiError> {
        if !self.hold(session) {
            return Ok(());
        }
        match session.limit {
            Some((per_second, burst)) if kind == Kind::Message => {
                let rate = Rate {
                    per_second: per_second.into(),
                    burst: burst.max(1).into(),
                };
                self.take((kind, whom), rate)
            }
            Some(_) | None => self.check(kind, whom),
        }
    }

    /// Whether a user is held to limits at all.
    pub fn hold(&self, session: &Session) -> bool {
        let is_exempt = matches!(session.limit, Some((0, _)));
        self.config.enabled && session.is_limited() && !is_exempt
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
        self.take((kind, who), self.config.of(kind))
    }

    /// Says when there will be a token of `who`, where there is none, and takes none.
    pub fn look(&self, kind: Kind, who: &str) -> Result<(), ApiError> {
        let rate = self.config.of(kind);
        self.on((kind, who), rate, Bucket::look)
    }

    /// Takes a token of `who` for what has happened already.
    pub fn note(&self, kind: Kind, who: &str) {
        // Who has none is told so the next time.
        let _ = self.check(kind, who);
    }

    fn take(&self, of: (Kind, &str), rate: Rate) -> Result<(), ApiError> {
        self.on(of, rate, Bucket::take)
    }

    fn on(
        &self,
        (kind, who): (Kind, &str),
        Rate { per_second, burst }: Rate,
        act: impl FnOnce(&mut Bucket, (f64, f64)) -> Result<(), Duration>,
    ) -> Result<(), ApiError> {
        if !self.config.enabled {
            return Ok(());
        }
        let who: String = who.chars().take(WHO_CHARS_MAX).collect();
        let key = (kind, who);
        let full = || Arc::new(Mutex::new(Bucket::new(burst)));
        let bucket = self.buckets.get_with(key, full);
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(wait) = act(&mut bucket, (per_second, burst)) else {
            return Ok(());
        };
        Err(ApiError::limited(
            u64::try_from(wait.as_millis()).map_or(u64::MAX, |wait| wait.max(1)),
        ))
    }
}
