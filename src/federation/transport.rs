//! How requests leave the house: TLS, and a proxy where there is one. Swapped as a whole when the
//! configuration is read again; requests under way end as they began.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use reqwest::redirect::Policy;

use super::{
    Error,
    gate::Gate,
    guard::{Guard, GuardedDns},
    rules::matches,
    tls,
};
use crate::config::{Outbound, federation::host_form};

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// Names that are nobody's outside (RFC 6761, RFC 6762, RFC 8375, and what networks are full of).
const INNER_NAMES: [&str; 8] = [
    "*.local",
    "*.localdomain",
    "*.internal",
    "*.intranet",
    "*.lan",
    "*.home",
    "*.corp",
    "*.home.arpa",
];

/// The clients in use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transport(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    guard: Guard,
    dns: GuardedDns,
    gate: Gate,
    clients: ArcSwap<Clients>,
}

#[derive(Debug)]
struct Clients {
    plain: reqwest::Client,
    following: reqwest::Client,
    /// Hosts that are called directly; `None`: there is no proxy, all are.
    direct: Option<Direct>,
    /// The proxy's name: it stands inside, most likely, and is not guarded.
    proxy_host: Option<String>,
}

/// Hosts that are called past the proxy.
#[derive(Clone, Debug, Default)]
struct Direct {
    names: Vec<String>,
    ranges: Vec<IpNet>,
}

impl Transport {
    /// Sets up TLS and HTTP.
    pub fn new(
        outbound: &Outbound,
        (guard, dns): (Guard, GuardedDns),
        gate: Gate,
    ) -> Result<Self, Error> {
        let clients = Clients::new(outbound, &guard, &dns, &gate)?;
        dns.trust(clients.proxy_host.clone());
        Ok(Self(Arc::new(Inner {
            guard,
            dns,
            gate,
            clients: ArcSwap::from_pointee(clients),
        })))
    }

    /// Takes a configuration that was read again.
    pub fn reload(&self, outbound: &Outbound) -> Result<(), Error> {
        let this = &self.0;
        let clients = Clients::new(outbound, &this.guard, &this.dns, &this.gate)?;
        this.guard.allow(&outbound.allow_ip_ranges);
        this.dns.trust(clients.proxy_host.clone());
        this.clients.store(Arc::new(clients));
        Ok(())
    }

    /// The client that follows no redirects.
    pub fn plain(&self) -> reqwest::Client {
        self.0.clients.load().plain.clone()
    }

    /// The client that follows redirects, which are guarded.
    pub fn following(&self) -> reqwest::Client {
        self.0.clients.load().following.clone()
    }

    /// Whether that host is called through the proxy, which then resolves its name.
    pub fn is_proxied(&self, host: &str) -> bool {
        let clients = self.0.clients.load();
        clients.direct.as_ref().is_some_and(|it| !it.has(host))
    }

    /// Whether that host may be called, as far as that can be told before its name is resolved.
    pub fn may_call_host(&self, host: &str) -> bool {
        may_call_host(&self.0.guard, host, self.is_proxied(host))
    }

    /// Whether that address may be called, as far as that can be told before its name is resolved.
    pub fn may_call(&self, url: &url::Url) -> bool {
        let allowed = url.host_str().is_some_and(|host| self.may_call_host(host));
        allowed && url.scheme() == "https"
    }
}

/// Literal addresses are judged as such. Names are judged by the addresses that they resolve to;
/// where a proxy resolves them, names of inner networks are refused here.
fn may_call_host(guard: &Guard, host: &str, is_proxied: bool) -> bool {
    let host = host_form(host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return guard.allows(address);
    }
    if !is_proxied {
        return true;
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return guard.allows([127, 0, 0, 1].into());
    }
    let mut names = INNER_NAMES.iter();
    !names.any(|name| matches(name.as_bytes(), host.as_bytes()))
}

impl Direct {
    fn new(patterns: &[String]) -> Self {
        let mut direct = Self::default();
        for pattern in patterns {
            if let Ok(range) = pattern.parse() {
                direct.ranges.push(range);
            } else {
                direct.names.push(host_form(pattern));
            }
        }
        direct
    }

    fn has(&self, host: &str) -> bool {
        let host = host_form(host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<std::net::IpAddr>()
            && self.ranges.iter().any(|range| range.contains(&address))
        {
            return true;
        }
        let fits = |name: &String| matches(name.as_bytes(), host.as_bytes());
        self.names.iter().any(fits)
    }
}

impl Clients {
    fn new(
        outbound: &Outbound,
        guard: &Guard,
        dns: &GuardedDns,
        gate: &Gate,
    ) -> Result<Self, Error> {
        let tls = tls::client_config(outbound)?;
        let direct = outbound
            .proxy
            .as_ref()
            .map(|_| Direct::new(&outbound.proxy_no_proxy));
        let proxy = match (&outbound.proxy, &direct) {
            (Some(proxy), Some(direct)) => Some(proxy_of(&proxy.0, direct)?),
            _ => None,
        };
        let build = |redirects: Policy| {
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(Arc::new(dns.clone()))
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(4)
                .pool_idle_timeout(Duration::from_secs(90))
                .no_proxy()
                .user_agent(concat!("Amtsbote/", env!("CARGO_PKG_VERSION")))
                .redirect(redirects);
            let builder = match &proxy {
                Some((proxy, _)) => builder.proxy(proxy.clone()),
                None => builder,
            };
            builder
                .build()
                .map_err(|error| Error::Setup(error.to_string()))
        };
        Ok(Self {
            plain: build(Policy::none())?,
            following: build(redirects(guard, direct.clone(), gate))?,
            direct,
            proxy_host: proxy.map(|(_, host)| host),
        })
    }
}

/// The proxy and its host. Its address may hold credentials: errors do not show it.
fn proxy_of(address: &str, direct: &Direct) -> Result<(reqwest::Proxy, String), Error> {
    let wrong = || Error::Setup("[outbound] proxy is no address of a proxy".to_owned());
    let mut url = url::Url::parse(address).map_err(|_| wrong())?;
    let host = url.host_str().ok_or_else(wrong)?.to_owned();
    let text = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text);
        decoded.decode_utf8_lossy().into_owned()
    };
    let user = text(url.username());
    let password = text(url.password().unwrap_or_default());
    url.set_username("").map_err(|()| wrong())?;
    url.set_password(None).map_err(|()| wrong())?;
    let direct = direct.clone();
    let proxy = reqwest::Proxy::custom(move |target| {
        let is_direct = target.host_str().is_some_and(|host| direct.has(host));
        (!is_direct).then(|| url.clone())
    });
    let proxy = if user.is_empty() {
        proxy
    } else {
        proxy.basic_auth(&user, &password)
    };
    Ok((proxy, host))
}

/// Redirects of a well-known document or of media: a few, HTTPS only, to nothing that is refused.
/// Names are checked where they are resolved.
fn redirects(guard: &Guard, direct: Option<Direct>, gate: &Gate) -> Policy {
    let (guard, gate) = (guard.clone(), gate.clone());
    Policy::custom(move |attempt| {
        let url = attempt.url();
        let allowed = url.host_str().is_some_and(|host| {
            let is_proxied = direct.as_ref().is_some_and(|direct| !direct.has(host));
            may_call_host(&guard, host, is_proxied) && !gate.denies_host(host)
        });
        if !allowed || url.scheme() != "https" || attempt.previous().len() > REDIRECTS_MAX {
            attempt.stop()
        } else {
            attempt.follow()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Direct, may_call_host};
    use crate::federation::guard::Guard;

    #[test]
    fn what_goes_past_the_proxy_is_told_by_name_and_by_range() {
        let direct = Direct::new(&["*.Amt.example".to_owned(), "10.0.0.0/8".to_owned()]);
        for past in ["a.amt.example", "10.1.2.3"] {
            assert!(direct.has(past), "{past}");
        }
        for through in ["amt.example", "11.1.2.3", "[::1]"] {
            assert!(!direct.has(through), "{through}");
        }
    }

    #[test]
    fn a_proxy_is_not_asked_for_what_is_inside() {
        let guard = Guard::new(&[]);
        let inside = [
            "127.0.0.1",
            "[::1]",
            "10.0.0.1",
            "localhost",
            "a.localhost",
            "db.internal.",
        ];
        for host in inside {
            assert!(!may_call_host(&guard, host, true), "{host}");
        }
        for host in ["amt.example", "1.1.1.1", "internal.example"] {
            assert!(may_call_host(&guard, host, true), "{host}");
        }
        assert!(may_call_host(&guard, "db.internal", false), "DNS decides");
        assert!(!may_call_host(&guard, "10.0.0.1", false));
    }
}
