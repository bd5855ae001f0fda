//! Where browsers come from and go to: addresses of clients, and cookies.

use http::{HeaderMap, header};
use url::Url;

/// Schemes that a browser runs, or opens files by.
const SCHEMES_REFUSED: [&str; 8] = [
    "javascript",
    "data",
    "vbscript",
    "file",
    "blob",
    "about",
    "view-source",
    "filesystem",
];
/// How long a cookie is kept, in seconds: as long as a login may take.
const COOKIE_LIFE_S: u32 = 900;
/// Characters of the state that name its cookie: several logins may be under way in a browser.
const COOKIE_NAME_CHARS: usize = 16;

/// An address at which a client can wait: on the web, or one of an app.
pub(in crate::http) fn redirect_url(text: &str) -> Option<Url> {
    // What is no part of an address is dropped where it is read, so that two readers might differ.
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if text.chars().any(is_odd) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_web = ["http", "https"].contains(&url.scheme());
    let has_user = !url.username().is_empty() || url.password().is_some();
    let is_refused = SCHEMES_REFUSED.contains(&url.scheme()) || url.cannot_be_a_base() || has_user;
    (!is_refused && (!is_web || url.has_host())).then_some(url)
}

/// What people are told of an address: its host, or its scheme where it is none on the web.
pub(in crate::http) fn place(url: &Url) -> String {
    match url.host_str().filter(|host| !host.is_empty()) {
        Some(host) if ["http", "https"].contains(&url.scheme()) => host.to_owned(),
        _ => format!("{}:", url.scheme()),
    }
}

/// Whether an address is one of those that are listed, or below one.
pub(super) fn is_listed(list: &[Url], url: &Url) -> bool {
    list.iter().any(|listed| {
        let is_there = (
            listed.scheme(),
            listed.host_str(),
            listed.port_or_known_default(),
        ) == (url.scheme(), url.host_str(), url.port_or_known_default());
        let path = listed.path().trim_end_matches('/');
        let rest = url.path().strip_prefix(path);
        is_there && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn cookie_name(is_secure: bool, state: &str) -> Option<String> {
    // With that prefix no other host of the same domain can set it.
    let prefix = if is_secure { "__Host-" } else { "" };
    let part = state.get(..COOKIE_NAME_CHARS)?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    part.bytes()
        .all(is_plain)
        .then(|| format!("{prefix}amtsbote-sso-{part}"))
}

/// The cookie of a login: set, or (`None`) taken back.
pub(super) fn cookie(is_secure: bool, state: &str, value: Option<&str>) -> String {
    let name = cookie_name(is_secure, state).unwrap_or_default();
    let secure = if is_secure { "; Secure" } else { "" };
    let age = if value.is_some() { COOKIE_LIFE_S } else { 0 };
    let value = value.unwrap_or_default();
    // Lax: it is a link from elsewhere by which the browser comes back.
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}")
}

/// The cookie that goes with a state.
pub(super) fn cookie_of(headers: &HeaderMap, is_secure: bool, state: &str) -> Option<String> {
    cookie_named(headers, &cookie_name(is_secure, state)?)
}

/// The cookie of a name.
pub(in crate::http) fn cookie_named(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).into_iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';'));
    pairs.find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn clients_wait_on_the_web_or_in_apps_and_nowhere_else() {
        for good in [
            "https://chat.amt.example/#/room",
            "http://localhost:8080/",
            "io.element.desktop://vector/webapp/",
            "element://connect",
        ] {
            assert!(redirect_url(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "chat.amt.example",
            "//chat.amt.example/",
            "javascript:alert(1)",
            "JavaScript://x/%0aalert(1)",
            "java\tscript:alert(1)",
            "data:text/html,x",
            "mailto:a@b",
            "https://user@chat.amt.example/",
            "https://chat.amt.example\\@evil.example/",
            "https://chat.amt.example/\r\nSet-Cookie: a=b",
            "https://",
        ] {
            assert!(redirect_url(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_listed_by_its_host_and_whole_parts_of_its_path() {
        let list = ["https://chat.amt.example/app", "app://vector"].map(|it| it.parse().unwrap());
        for (url, expected) in [
            ("https://chat.amt.example/app", true),
            ("https://chat.amt.example:443/app/x?y#z", true),
            ("https://chat.amt.example/apple", false),
            ("https://chat.amt.example/app/../x", false),
            ("https://chat.amt.example.evil.example/app", false),
            ("https://chat.amt.example:8443/app", false),
            ("http://chat.amt.example/app", false),
            ("app://vector/webapp", true),
            ("app://vectors/", false),
        ] {
            assert_eq!(is_listed(&list, &url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_state_among_others() {
        let state = "st_0123456789abcdef";
        let set = cookie(true, state, Some("value"));
        assert!(set.starts_with("__Host-amtsbote-sso-st_0123456789abc=value; Path=/; "));
        assert!(set.contains("HttpOnly") && set.contains("Secure") && set.contains("SameSite=Lax"));
        let header = "a=b; __Host-amtsbote-sso-st_0123456789abc=value; x";
        let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(header))]);
        assert_eq!(cookie_of(&headers, true, state).as_deref(), Some("value"));
        assert_eq!(cookie_of(&headers, false, state), None);
        assert_eq!(cookie_of(&headers, true, "st_other_state_of_all"), None);
        assert_eq!(cookie_of(&headers, true, "short"), None);
        assert_eq!(cookie_of(&headers, true, "ä;=ääääääääääääääää"), None);
    }
}
