//! Which addresses we may call: none inside the agency's network unless it is allowed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;
use moka::sync::Cache;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Ranges that are nobody's public address (RFC 6890 and its successors).
const REFUSED: [&str; 26] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Decides on addresses.
#[derive(Clone, Debug)]
pub struct Guard {
    refused: Arc<[IpNet]>,
    /// Swapped when the configuration is read again.
    allowed: Arc<ArcSwap<Vec<IpNet>>>,
    /// Likewise; these win.
    denied: Arc<ArcSwap<Vec<IpNet>>>,
}

impl Guard {
    /// With the ranges that the administrator allows all the same.
    pub fn new(allowed: &[IpNet]) -> Self {
        let refused = REFUSED
            .iter()
            .filter_map(|range| range.parse().ok())
            .collect();
        Self {
            refused,
            allowed: Arc::new(ArcSwap::from_pointee(allowed.to_vec())),
            denied: Arc::default(),
        }
    }

    /// Other ranges that are allowed all the same, from here on.
    pub fn allow(&self, allowed: &[IpNet]) {
        self.allowed.store(Arc::new(allowed.to_vec()));
    }

    /// More ranges that are refused, allowed or not, from here on.
    pub fn deny(&self, denied: &[IpNet]) {
        self.denied.store(Arc::new(denied.to_vec()));
    }

    /// Whether we may call that address.
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6 clothes is judged as what it is.
        let address = match address {
            IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&address));
        !within(self.denied.load().as_slice())
            && (within(self.allowed.load().as_slice()) || !within(&self.refused))
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped, or through a NAT64 (RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() else {
        return address.to_ipv4_mapped();
    };
    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

/// Resolves names for the HTTP client: SRV targets take the place of the name they are for, and
/// only addresses that may be called come out. The check is on the very addresses that are
/// connected to, so a name that changes its mind in between gains nothing.
#[derive(Clone, Debug)]
pub struct GuardedDns {
    guard: Guard,
    /// Name to SRV target.
    pub(super) targets: Cache<String, String>,
    /// The proxy's name, whose addresses are not guarded.
    trusted: Arc<ArcSwapOption<String>>,
}

impl GuardedDns {
    /// For all outgoing connections.
    pub fn new(guard: Guard) -> Self {
        let targets = Cache::builder()
            .max_capacity(10_000)
            .time_to_live(std::time::Duration::from_hours(1))
            .build();
        Self {
            guard,
            targets,
            trusted: Arc::default(),
        }
    }

    /// Sets the proxy's name.
    pub(super) fn trust(&self, proxy: Option<String>) {
        self.trusted.store(proxy.map(Arc::new));
    }
}

impl Resolve for GuardedDns {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let trusted = this.trusted.load_full();
            let is_trusted = trusted.is_some_and(|proxy| proxy.as_str() == name.as_str());
            let host = this
                .targets
                .get(name.as_str())
                .unwrap_or_else(|| name.as_str().to_owned());
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found
                .filter(|address| is_trusted || this.guard.allows(address.ip()))
                .collect();
            if addresses.is_empty() {
                return Err(format!("no address of {host} may be called").into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Guard;

    #[test]
    fn only_public_addresses_pass() {
        let guard = Guard::new(&[]);
        for refused in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "192.168.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "224.0.0.1",
        ] {
            assert!(!guard.allows(refused.parse().unwrap()), "{refused}");
        }
        for allowed in ["1.1.1.1", "2a00:1450::1", "172.32.0.1", "64:ff9b::1.1.1.1"] {
            assert!(guard.allows(allowed.parse().unwrap()), "{allowed}");
        }
    }

    #[test]
    fn ranges_can_be_allowed() {
        let guard = Guard::new(&["127.0.0.0/8".parse().unwrap()]);
        assert!(guard.allows("127.0.0.1".parse().unwrap()));
        assert!(guard.allows("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!guard.allows("10.0.0.1".parse().unwrap()));
        guard.deny(&[
            "127.0.0.0/30".parse().unwrap(),
            "1.0.0.0/8".parse().unwrap(),
        ]);
        for denied in ["127.0.0.1", "::ffff:127.0.0.1", "1.1.1.1"] {
            assert!(!guard.allows(denied.parse().unwrap()), "{denied}");
        }
        assert!(guard.allows("127.0.0.5".parse().unwrap()));
    }
}
