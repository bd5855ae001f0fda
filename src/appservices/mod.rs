//! Application services (bridges, bots): who they are, what is theirs, and how they are called.
//!
//! What they are to hear is followed and sent by `rooms::feed`.

pub mod call;
pub mod query;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use moka::future::Cache;
use ruma::{RoomAliasId, UserId};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    config::{Appservice, Config, Outbound},
    federation::{self, tls},
};

/// Questions to services at the same time: anybody can make us ask.
const QUESTIONS_MAX: usize = 50;
/// How long an answer to a question holds.
const ANSWER_LIFE: Duration = Duration::from_secs(10);
/// Answers that are remembered.
const ANSWERS_MAX: u64 = 10_000;

/// Why a service was not asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to call.
    #[error("the application service has no url")]
    NoUrl,
    /// No connection, or it broke.
    #[error("the application service was not reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the application service did not answer in time")]
    TimedOut,
    /// The answer was no success.
    #[error("the application service answered with {status}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Beginning of the body.
        body: String,
    },
    /// The answer is not what it has to be.
    #[error("the application service answered nonsense: {0}")]
    Nonsense(String),
}

/// The services of this server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Vec<Arc<Appservice>>,
    http: ArcSwap<reqwest::Client>,
    questions: Semaphore,
    /// Whether a user or an alias is there, by its id.
    answers: Cache<String, bool>,
}

impl Services {
    /// Those of the configuration.
    pub fn new(config: &Config) -> Result<Self, federation::Error> {
        Ok(Self(Arc::new(Inner {
            all: config.appservices.clone(),
            http: ArcSwap::from_pointee(client(&config.outbound)?),
            questions: Semaphore::new(QUESTIONS_MAX),
            answers: Cache::builder()
                .max_capacity(ANSWERS_MAX)
                .time_to_live(ANSWER_LIFE)
                .build(),
        })))
    }

    /// Takes authorities that were read again.
    pub fn reload(&self, outbound: &Outbound) -> Result<(), federation::Error> {
        self.0.http.store(Arc::new(client(outbound)?));
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Appservice>] {
        &self.0.all
    }

    /// The one of that id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Appservice>> {
        self.all().iter().find(|service| service.id == id)
    }

    /// The one that has that token.
    pub fn by_token(&self, token: &str) -> Option<&Arc<Appservice>> {
        let same = |known: &str| bool::from(known.as_bytes().ct_eq(token.as_bytes()));
        // All are looked at: how long that takes does not tell which was nearly right.
        let mut found = None;
        for service in self.all() {
            if same(&service.as_token.0) {
                found = Some(service);
            }
        }
        found
    }

    /// Whether a user is one of a service.
    pub fn has_user(&self, user: &UserId) -> bool {
        self.all().iter().any(|service| service.has_user(user))
    }

    /// Whether a service other than the one who asks claims that user of ours for itself alone.
    pub fn claims_user(&self, user: &UserId, asking: Option<&Appservice>) -> bool {
        let mut others = self.others(asking);
        others.any(|service| service.claims_user(user))
    }

    /// Whether a service other than the one who asks claims that alias of ours for itself alone.
    pub fn claims_alias(&self, alias: &RoomAliasId, asking: Option<&Appservice>) -> bool {
        let mut others = self.others(asking);
        others.any(|service| service.claims_alias(alias))
    }

    /// A place for a question; `None`: too many others wait for theirs.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        let place = tokio::time::timeout(call::QUESTION_TIMEOUT, self.0.questions.acquire());
        place.await.ok()?.ok()
    }

    fn others<'a>(
        &'a self,
        asking: Option<&'a Appservice>,
    ) -> impl Iterator<Item = &'a Arc<Appservice>> {
        let all = self.all().iter();
        all.filter(move |it| asking.is_none_or(|asking| asking.id != it.id))
    }
}

/// Operators say where their services are: addresses inside are what they mean, and no proxy stands
/// between. Nobody else may send us elsewhere.
fn client(outbound: &Outbound) -> Result<reqwest::Client, federation::Error> {
    let built = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(outbound)?)
        .connect_timeout(call::CONNECT_TIMEOUT)
        .pool_max_idle_per_host(4)
        .no_proxy()
        .user_agent(concat!("Amtsbote/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .build();
    built.map_err(|error| federation::Error::Setup(error.to_string()))
}
