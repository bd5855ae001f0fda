//! Identity providers: what we ask them, and what of their answers is believed (OpenID Connect Core 1.0,
//! Discovery 1.0, Back-Channel Logout 1.0).

pub mod claims;
pub mod exchange;
pub mod logout;

mod jws;
mod keys;
mod metadata;
mod token;

use std::sync::{Arc, Mutex};

use self::{keys::Known, metadata::Metadata};
use crate::{
    clock::Bucket,
    config::{Config, oidc::IdentityProvider},
    federation,
};

/// Why a provider, or what it says, does not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not reached, or refuses.
    #[error("identity provider: {0}")]
    Call(#[from] federation::Error),
    /// It says what cannot be.
    #[error("identity provider: {0}")]
    Nonsense(&'static str),
    /// A token is not good.
    #[error("token of the identity provider: {0}")]
    Token(&'static str),
}

/// The providers of the configuration. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Providers(Arc<[Provider]>);

/// One provider, with what is known of it.
#[derive(Debug)]
pub struct Provider {
    /// What the configuration says.
    pub config: Arc<IdentityProvider>,
    client: federation::Client,
    /// Its addresses and when they were read, in milliseconds.
    metadata: Mutex<Option<(i64, Arc<Metadata>)>>,
    /// Its keys.
    known: Mutex<Option<Arc<Known>>>,
    /// Bounds how often its keys are read again: anybody may send a token that names a key.
    readings: Mutex<Bucket>,
}

impl Providers {
    /// Those of the configuration; none is called before it is needed.
    pub fn new(config: &Config, client: &federation::Client) -> Self {
        let providers = config.oidc.iter().map(|provider| Provider {
            config: provider.clone(),
            client: client.clone(),
            metadata: Mutex::default(),
            known: Mutex::default(),
            readings: Mutex::new(Bucket::new(keys::READINGS.1)),
        });
        Self(providers.collect())
    }

    /// All, in the order of the configuration.
    pub fn all(&self) -> &[Provider] {
        &self.0
    }

    /// The one with an id.
    pub fn find(&self, id: &str) -> Option<&Provider> {
        self.0.iter().find(|provider| provider.config.id == id)
    }
}
