//! The web at large: pages that messages link to. Anybody may write a link, so what is called here
//! is checked hop by hop, with ranges of addresses of its own.

use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_LANGUAGE};
use url::Url;

use super::{
    Client, Error,
    gate::Gate,
    guard::{Guard, GuardedDns},
    transport::Transport,
};
use crate::config::{Config, Outbound};

/// Calls servers of which we know nothing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Web {
    guard: Guard,
    transport: Transport,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Content types.
    pub accept: &'a str,
    /// Languages.
    pub accept_language: &'a str,
    /// How long it may take until all is read.
    pub timeout: Duration,
}

/// The way out is that of all requests; what may be called differs: an address that peers may have
/// is none that every user may look at.
fn outbound(config: &Config) -> Outbound {
    Outbound {
        allow_ip_ranges: config.media.url_previews.allow_ip_ranges.clone(),
        // Who we are is nobody's business there.
        client_identity: None,
        ..config.outbound.clone()
    }
}

impl Client {
    /// The web at large.
    pub fn web(&self) -> &Web {
        &self.0.web
    }
}

impl Web {
    pub(super) fn new(config: &Config, gate: Gate) -> Result<Self, Error> {
        let outbound = outbound(config);
        let guard = Guard::new(&outbound.allow_ip_ranges);
        guard.deny(&config.media.url_previews.deny_ip_ranges);
        let dns = GuardedDns::new(guard.clone());
        let transport = Transport::new(&outbound, (guard.clone(), dns), gate)?;
        Ok(Self { guard, transport })
    }

    pub(super) fn reload(&self, config: &Config) -> Result<(), Error> {
        self.guard.deny(&config.media.url_previews.deny_ip_ranges);
        self.transport.reload(&outbound(config))
    }

    /// One `GET`, redirects not followed. Names are checked by the very addresses that are
    /// connected to. Why a call failed is not told in detail: who asks would learn what there is
    /// inside.
    pub async fn get(&self, url: &Url, wish: Wish<'_>) -> Result<reqwest::Response, Error> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let is_web = ["http", "https"].contains(&url.scheme());
        let has_user = !url.username().is_empty() || url.password().is_some();
        if !is_web || has_user || !self.transport.may_call_host(&host) {
            return Err(Error::Unresolved(host));
        }
        let request = self.transport.plain().get(url.clone());
        let request = request
            .header(ACCEPT, wish.accept)
            .header(ACCEPT_LANGUAGE, wish.accept_language)
            .timeout(wish.timeout);
        request.send().await.map_err(|_| Error::Unresolved(host))
    }
}
