//! `[media]`: what is stored, and previews of what messages link to.

use std::str::FromStr;

use ipnet::IpNet;
use url::Url;

use super::{Secret, federation::host_form};

/// Media.
#[derive(Clone, Debug)]
pub struct Media {
    /// Bytes of the largest media, ours or a peer's.
    pub max_upload_bytes: u64,
    /// Bytes that the uploads of one user may take; `None`: any number.
    pub user_quota_bytes: Option<u64>,
    /// Days after which uploads go that nobody looked at and nothing refers to; `None`: they stay.
    pub local_lifetime_days: Option<u32>,
    /// Days after which copies of media of peers go that nobody looked at; `None`: they stay.
    pub remote_lifetime_days: Option<u32>,
    /// Whether the usual thumbnails of images are made before somebody asks for them.
    pub premade_thumbnails: bool,
    /// Whether the old addresses serve media to whoever asks.
    pub unauthenticated: bool,
    /// Previews of web pages.
    pub url_previews: UrlPreviews,
    /// The object store that holds the files; `None`: the data folder does.
    pub s3: Option<S3>,
}

/// An object store that speaks S3.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Where it is; empty: at Amazon.
    pub endpoint: String,
    /// Bucket.
    pub bucket: String,
    /// Region that requests are signed for.
    pub region: String,
    /// What keys of objects begin with.
    pub prefix: String,
    /// Who we are there.
    pub access_key_id: String,
    /// How we prove it.
    pub secret_access_key: Secret,
    /// Whether the bucket is named in the path, and not in the host.
    pub path_style: bool,
}

/// Previews of web pages that messages link to.
#[derive(Clone, Debug)]
pub struct UrlPreviews {
    /// Whether there are any.
    pub enabled: bool,
    /// The only URLs that are looked at; empty: all.
    pub allow: Vec<UrlPattern>,
    /// URLs that are not looked at.
    pub deny: Vec<UrlPattern>,
    /// Private, loopback and link-local ranges that may be called all the same.
    pub allow_ip_ranges: Vec<IpNet>,
    /// Ranges that may not be called, public ones too.
    pub deny_ip_ranges: Vec<IpNet>,
    /// Bytes of the largest page or image.
    pub max_bytes: u64,
    /// Languages that are asked for where the client names none.
    pub accept_language: String,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            max_upload_bytes: 100 << 20,
            user_quota_bytes: None,
            local_lifetime_days: None,
            remote_lifetime_days: None,
            premade_thumbnails: true,
            unauthenticated: false,
            url_previews: UrlPreviews {
                enabled: false,
                allow: Vec::new(),
                deny: Vec::new(),
                allow_ip_ranges: Vec::new(),
                deny_ip_ranges: Vec::new(),
                max_bytes: 10 << 20,
                accept_language: "de, en;q=0.5".to_owned(),
            },
            s3: None,
        }
    }
}

/// Which URLs: `[scheme://]host[:port][/path]`, each part with `*` for anything and `?` for one
/// character. The parts are compared one by one, so that no path can look like a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPattern {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
    path: Option<String>,
}

impl FromStr for UrlPattern {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("*", rest)) => (None, rest),
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme.to_owned()), rest),
            Some(_) => return Err(()),
            None => (None, text),
        };
        let (place, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
            None => (rest, None),
        };
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| ())?))
            }
            _ => (place, None),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "*?.-_[]:".contains(c);
        if host.is_empty() || !host.chars().all(fits) {
            return Err(());
        }
        Ok(Self {
            scheme,
            host: host_form(host),
            port,
            path,
        })
    }
}

impl UrlPattern {
    /// Whether a URL is one of these; `glob` compares a pattern to a text.
    pub fn fits(&self, url: &Url, glob: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let host = host_form(url.host_str().unwrap_or_default());
        let mut path = url.path().to_owned();
        if let Some(query) = url.query() {
            path.push('?');
            path.push_str(query);
        }
        let scheme = self.scheme.as_deref();
        let wanted = self.path.as_deref();
        scheme.is_none_or(|scheme| scheme == url.scheme())
            && glob(self.host.as_bytes(), host.as_bytes())
            && self
                .port
                .is_none_or(|port| url.port_or_known_default() == Some(port))
            && wanted.is_none_or(|wanted| glob(wanted.as_bytes(), path.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::UrlPattern;

    #[test]
    fn patterns_are_compared_part_by_part() {
        let pattern = |text: &str| text.parse::<UrlPattern>().unwrap();
        // Enough of a glob for this: a star at its beginning or its end.
        let glob = |glob: &[u8], text: &[u8]| match glob {
            [b'*', rest @ ..] => text.ends_with(rest),
            [rest @ .., b'*'] => text.starts_with(rest),
            _ => glob == text,
        };
        let fits = |text: &str, url: &str| pattern(text).fits(&url.parse().unwrap(), glob);
        assert!(fits("*.amt.example", "https://www.Amt.example./a"));
        assert!(!fits("*.amt.example", "https://evil.example/x.amt.example"));
        assert!(!fits(
            "*.amt.example",
            "https://www.amt.example@evil.example/"
        ));
        assert!(fits("https://a.example/b/*", "https://a.example/b/c?d"));
        assert!(!fits("https://a.example/b/*", "http://a.example/b/c"));
        assert!(!fits("https://a.example/b/*", "https://a.example/c"));
        assert!(fits("*://a.example:8080", "http://a.example:8080/c"));
        assert!(!fits("a.example:8080", "http://a.example/c"));
        assert!(fits("a.example:443", "https://a.example/c"));
        assert!(fits("[::1]", "https://[::1]/"));
        for wrong in ["", "ftp://a", "https://", "a b", "a:x", "a@b"] {
            assert!(wrong.parse::<UrlPattern>().is_err(), "{wrong}");
        }
    }
}
