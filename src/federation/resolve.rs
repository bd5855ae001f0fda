//! From a server name to where it answers (specification, "Resolving server names").

use std::{net::IpAddr, time::Duration};

use hickory_resolver::{TokioResolver, proto::rr::RData};
use moka::{Expiry, future::Cache};
use ruma::ServerName;

use super::{Error, guard::GuardedDns, transport::Transport};

/// Where a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host for the URL: what the certificate must be for. IPv6 in brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `Host` header.
    pub header: String,
}

/// Port without any other indication.
const PORT: u16 = 8448;
/// Bytes of a well-known document.
const WELL_KNOWN_MAX: usize = 50 << 10;
/// Time for a well-known document.
const WELL_KNOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a delegation is kept when its headers do not say.
const WELL_KNOWN_DEFAULT: Duration = Duration::from_hours(24);
/// The longest it is kept.
const WELL_KNOWN_LONGEST: Duration = Duration::from_hours(48);
/// How long it is remembered that there is none, or that it could not be had.
const WELL_KNOWN_NEGATIVE: Duration = Duration::from_mins(15);

/// Finds servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Resolver {
    well_known: Cache<String, Delegation>,
    transport: Transport,
    dns: Option<TokioResolver>,
    targets: GuardedDns,
}

#[derive(Clone, Debug)]
struct Delegation {
    to: Option<String>,
    keep: Duration,
}

struct Keep;

impl Expiry<String, Delegation> for Keep {
    fn expire_after_create(
        &self,
        _: &String,
        delegation: &Delegation,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(delegation.keep)
    }
}

impl Resolver {
    /// `transport` resolves through `targets`.
    pub fn new(transport: Transport, targets: GuardedDns) -> Self {
        let dns = TokioResolver::builder_tokio()
            .and_then(hickory_resolver::ResolverBuilder::build)
            .inspect_err(|error| tracing::warn!(%error, "no DNS configuration: no SRV look-ups"))
            .ok();
        let well_known = Cache::builder()
            .max_capacity(10_000)
            .expire_after(Keep)
            .build();
        Self {
            well_known,
            transport,
            dns,
            targets,
        }
    }

    /// Where that server answers.
    pub async fn resolve(&self, server: &ServerName) -> Result<Destination, Error> {
        // Steps 1 and 2: an IP literal, or a port.
        if let Some(destination) = self.literal(server)? {
            return Ok(destination);
        }
        let host = server.host();
        // Step 3.
        if let Some(delegated) = self.delegation(host).await {
            let name = <&ServerName>::try_from(delegated.as_str())
                .map_err(|_| Error::Unresolved(server.to_string()))?;
            if let Some(destination) = self.literal(name)? {
                return Ok(destination);
            }
            return Ok(self.by_srv(name.host()).await);
        }
        // Steps 4 to 6.
        Ok(self.by_srv(host).await)
    }

    /// A name that says itself where to go.
    fn literal(&self, server: &ServerName) -> Result<Option<Destination>, Error> {
        let host = server.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = bare.parse().ok();
        if !self.transport.may_call_host(host) {
            return Err(Error::Unresolved(server.to_string()));
        }
        if address.is_none() && server.port().is_none() {
            return Ok(None);
        }
        Ok(Some(Destination {
            host: host.to_owned(),
            port: server.port().unwrap_or(PORT),
            header: server.as_str().to_owned(),
        }))
    }

    /// Host by SRV, or port 8448; certificate and `Host` are those of the name itself.
    async fn by_srv(&self, host: &str) -> Destination {
        let mut port = PORT;
        if let Some((target, srv_port)) = self.srv(host).await {
            self.targets.targets.insert(host.to_owned(), target);
            port = srv_port;
        }
        Destination {
            host: host.to_owned(),
            port,
            header: host.to_owned(),
        }
    }

    async fn srv(&self, host: &str) -> Option<(String, u16)> {
        // A proxy goes to the name itself: it cannot be told to go elsewhere for it.
        if self.transport.is_proxied(host) {
            return None;
        }
        let dns = self.dns.as_ref()?;
        for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
            let Ok(found) = dns.srv_lookup(format!("{service}.{host}.")).await else {
                continue;
            };
            let best = found
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::SRV(srv) => Some(srv),
                    _ => None,
                })
                .min_by_key(|srv| (srv.priority, u16::MAX - srv.weight));
            if let Some(srv) = best {
                let target = srv.target.to_utf8();
                return Some((target.trim_end_matches('.').to_owned(), srv.port));
            }
        }
        None
    }

    async fn delegation(&self, host: &str) -> Option<String> {
        let entry = self
            .well_known
            .get_with(host.to_owned(), self.fetch(host))
            .await;
        entry.to
    }

    async fn fetch(&self, host: &str) -> Delegation {
        #[derive(serde::Deserialize)]
        struct Document {
            #[serde(rename = "m.server")]
            server: String,
        }
        let none = Delegation {
            to: None,
            keep: WELL_KNOWN_NEGATIVE,
        };
        let url = format!("https://{host}/.well-known/matrix/server");
        let http = self.transport.following();
        let request = http.get(url).timeout(WELL_KNOWN_TIMEOUT).send();
        let Ok(mut answer) = request.await else {
            return none;
        };
        if !answer.status().is_success() {
            return none;
        }
        let keep = lifetime(answer.headers());
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            if body.len() + chunk.len() > WELL_KNOWN_MAX {
                return none;
            }
            body.extend_from_slice(&chunk);
        }
        match serde_json::from_slice::<Document>(&body) {
            Ok(document) => Delegation {
                to: Some(document.server),
                keep,
            },
            Err(_) => none,
        }
    }
}

/// How long a document may be kept by its `Cache-Control`.
fn lifetime(headers: &reqwest::header::HeaderMap) -> Duration {
    let control = headers
        .get("cache-control")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    for directive in control.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache")
        {
            return Duration::from_mins(1);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=")
            && let Ok(seconds) = seconds.parse()
        {
            return Duration::from_secs(seconds).clamp(Duration::from_mins(1), WELL_KNOWN_LONGEST);
        }
    }
    WELL_KNOWN_DEFAULT
}
