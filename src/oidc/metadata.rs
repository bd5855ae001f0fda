//! Where a provider's endpoints are (OpenID Connect Discovery 1.0, section 4).

use std::sync::{Arc, PoisonError};

use serde_json::Value;
use url::Url;

use super::{Error, Provider};
use crate::{
    clock::now_ms,
    config::oidc::{Endpoints, may_be_at},
};

/// How long what was read is good.
const LIFE_MS: i64 = 3_600_000;

/// Addresses of a provider.
pub(super) type Metadata = Endpoints;

impl Provider {
    /// Its addresses: as configured, or as its discovery document says. Where that is not reached any
    /// more, what it said last goes on to be good.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, Error> {
        let before = self.remembered_metadata();
        if let Some((read_ts, metadata)) = &before
            && now_ms() - read_ts < LIFE_MS
        {
            return Ok(metadata.clone());
        }
        let metadata = match (&self.config.endpoints, before) {
            (Some(configured), _) => Arc::new(configured.clone()),
            (None, before) => match (self.discover().await, before) {
                (Ok(read), _) => Arc::new(read),
                (Err(error), Some((_, old))) => {
                    tracing::warn!(%error, provider = self.config.id, "discovery failed");
                    old
                }
                (Err(error), None) => return Err(error),
            },
        };
        let kept = Some((now_ms(), metadata.clone()));
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(metadata)
    }

    fn remembered_metadata(&self) -> Option<(i64, Arc<Metadata>)> {
        let metadata = self.metadata.lock();
        metadata.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn discover(&self) -> Result<Metadata, Error> {
        let issuer = &self.config.issuer;
        let base = issuer.trim_end_matches('/');
        let url = Url::parse(&format!("{base}/.well-known/openid-configuration"));
        let url = url.map_err(|_| Error::Nonsense("its issuer is no address"))?;
        let document = self.client.get_from_provider(&url, None).await?;
        // Else whoever writes the document could speak for another.
        if document["issuer"].as_str() != Some(issuer) {
            return Err(Error::Nonsense(
                "its discovery document names another issuer",
            ));
        }
        Ok(Metadata {
            authorization: address(&url, &document["authorization_endpoint"])?,
            token: address(&url, &document["token_endpoint"])?,
            jwks: address(&url, &document["jwks_uri"])?,
            userinfo: match &document["userinfo_endpoint"] {
                Value::Null => None,
                endpoint => Some(address(&url, endpoint)?),
            },
        })
    }
}

fn address(issuer: &Url, value: &Value) -> Result<Url, Error> {
    let url = value.as_str().and_then(|text| Url::parse(text).ok());
    let url = url.filter(|url| may_be_at(issuer, url) && url.has_host());
    url.ok_or(Error::Nonsense(
        "its discovery document lacks an address, or one has no TLS",
    ))
}
