//! The waist of the house: infrastructure that every domain function needs, and nothing else.

use std::{ops::Deref, sync::Arc};

use ruma::ServerName;

use crate::{
    appservices::Services, config::Config, event::keys::SigningKeys, federation, mail::Mailer,
    oidc::Providers, storage::Db,
};

/// Infrastructure handles. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

/// What a [`Context`] holds.
#[derive(Debug)]
pub struct Inner {
    /// The configuration.
    pub config: Config,
    /// The database.
    pub db: Db,
    /// The key that signs for us.
    pub keys: Arc<SigningKeys>,
    /// Calls peers.
    pub federation: federation::Client,
    /// Application services.
    pub appservices: Services,
    /// Sends mails; `None`: there is no e-mail.
    pub mail: Option<Mailer>,
    /// Identity providers.
    pub providers: Providers,
}

impl Context {
    /// Puts the infrastructure together.
    pub fn new(
        config: Config,
        db: Db,
        keys: Arc<SigningKeys>,
        federation: federation::Client,
    ) -> Result<Self, federation::Error> {
        let appservices = Services::new(&config)?;
        let mail = Mailer::new(&config);
        let mail = mail.map_err(|error| federation::Error::Setup(error.to_string()))?;
        let providers = Providers::new(&config, &federation);
        Ok(Self(Arc::new(Inner {
            config,
            db,
            keys,
            federation,
            appservices,
            mail,
            providers,
        })))
    }

    /// Our server name.
    pub fn server_name(&self) -> &ServerName {
        &self.config.server_name
    }
}

impl Deref for Context {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
