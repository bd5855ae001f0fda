//! `[outbound]`.

use std::path::PathBuf;

use ipnet::IpNet;

use super::super::{Identity, Outbound, federation::server_pattern, source::Source};

pub(super) fn read(source: &mut Source) -> Outbound {
    let extra_ca = files(source, "outbound.extra_ca");
    let replace_ca = files(source, "outbound.replace_ca");
    if !extra_ca.is_empty() && !replace_ca.is_empty() {
        let remedy = "is given with outbound.extra_ca; put all authorities into one of the two";
        source.problem("outbound.replace_ca", None, remedy);
    }
    let remedy = "is not a range of addresses; write it as \"10.0.0.0/8\" or \"fd00::/8\"";
    let allow_ip_ranges = source.parse_list("outbound.allow_ip_ranges", remedy);
    let proxy = source.secret("outbound.proxy", "outbound.proxy_file");
    if let Some(proxy) = &proxy {
        let url = url::Url::parse(&proxy.0).ok();
        let is_proxy = url.is_some_and(|url| {
            ["http", "https"].contains(&url.scheme()) && url.host_str().is_some()
        });
        if !is_proxy {
            // Not shown: it may hold a password.
            let remedy = "is not a proxy; write it as http://proxy.amt.example:3128";
            source.problem("outbound.proxy", None, remedy);
        }
    }
    let key = "outbound.proxy_no_proxy";
    let mut proxy_no_proxy = Vec::new();
    for text in source.list(key) {
        if text.parse::<IpNet>().is_ok() {
            proxy_no_proxy.push(text);
        } else if let Some(pattern) = server_pattern(&text) {
            proxy_no_proxy.push(pattern);
        } else {
            let remedy = "is neither a host, such as \"*.amt.example\", nor a range of addresses";
            source.problem(key, Some(format!("{text:?}")), remedy);
        }
    }
    Outbound {
        extra_ca,
        replace_ca,
        client_identity: identity(source),
        proxy,
        proxy_no_proxy,
        allow_ip_ranges,
    }
}

fn files(source: &mut Source, key: &'static str) -> Vec<PathBuf> {
    let files: Vec<PathBuf> = source.list(key).into_iter().map(PathBuf::from).collect();
    for path in &files {
        source.check_readable(key, path);
    }
    files
}

fn identity(source: &mut Source) -> Option<Identity> {
    let certificate = source.readable("outbound.client_certificate");
    let key = source.readable("outbound.client_key");
    let remedy = "is missing; certificate and key of a client go together";
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            source.problem("outbound.client_key", None, remedy);
            None
        }
        (None, Some(_)) => {
            source.problem("outbound.client_certificate", None, remedy);
            None
        }
    }
}
