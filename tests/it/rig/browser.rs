//! A browser that is sent from place to place by hand.

use std::collections::BTreeMap;

use reqwest::redirect::Policy;
use serde_json::{Value, json};
use url::Url;

use super::{
    enc,
    http::Ask as _,
    idp::{BASE, CLIENT},
    pages::{self, Page},
    server::Server,
};

/// A browser: it keeps cookies, and is sent from place to place by hand.
pub(crate) struct Browser {
    http: reqwest::Client,
    pub(crate) cookies: BTreeMap<String, String>,
}

/// What a browser got.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    /// Where it is sent.
    pub(crate) location: Option<String>,
    pub(crate) headers: http::HeaderMap,
    pub(crate) page: String,
}

impl Seen {
    /// Where the browser is sent.
    pub(crate) fn next(&self) -> &str {
        let next = self.location.as_deref();
        assert!(matches!(self.status, 302 | 303), "{self:?}");
        next.unwrap()
    }

    /// A parameter of where it is sent.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let url: Url = self.next().parse().unwrap();
        let mut found = url.query_pairs().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.into_owned())
    }

    /// It is a page of one language that everybody can use.
    pub(crate) fn shown(&self, status: u16) -> Page {
        assert_eq!(self.status, status, "{self:?}");
        let policy = self.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors"));
        assert_eq!(self.headers["cache-control"], "no-store");
        pages::is_for_everybody(&self.page);
        Page {
            status,
            html: self.page.clone(),
        }
    }

    /// It is a page that says in two languages what is wrong, and runs nothing.
    pub(crate) fn is_refusal(&self, status: u16, german: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let policy = self.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("script"));
        assert!(self.page.contains(german), "{}", self.page);
        assert!(self.page.contains("<html lang=\"de\">") && self.page.contains("lang=\"en\""));
        assert!(!self.page.contains("<script"), "{}", self.page);
    }
}

impl Browser {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy();
        let http = http.redirect(Policy::none()).build().unwrap();
        Self {
            http,
            cookies: BTreeMap::new(),
        }
    }

    /// Goes to an address; ours is that of a server or node.
    pub(crate) async fn go(&mut self, server: &Server, address: &str) -> Seen {
        let request = self.http.get(at(server, address));
        self.send(request, address).await
    }

    /// Sends a form to a page of ours.
    pub(crate) async fn submit(
        &mut self,
        server: &Server,
        address: &str,
        fields: &[(&str, &str)],
    ) -> Seen {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let request = self.http.post(at(server, address)).body(form.finish());
        let kind = "application/x-www-form-urlencoded";
        let request = request.header("content-type", kind);
        // As browsers do for pages that tell nobody where they are.
        let request = request.header("origin", "null");
        self.send(request.header("sec-fetch-site", "same-origin"), address)
            .await
    }

    async fn send(&mut self, mut request: reqwest::RequestBuilder, address: &str) -> Seen {
        let ours = path(address);
        if ours.is_some() && !self.cookies.is_empty() {
            let cookies = self.cookies.iter();
            let cookies: Vec<String> = cookies
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            request = request.header("cookie", cookies.join("; "));
        }
        let answer = request.ask().await.unwrap();
        let headers = answer.headers().clone();
        for cookie in headers.get_all("set-cookie") {
            let (pair, attributes) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (key, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(key);
            } else {
                assert!(
                    key.starts_with("__Host-") && attributes.contains("HttpOnly"),
                    "{cookie:?}"
                );
                self.cookies.insert(key.to_owned(), value.to_owned());
            }
        }
        let location = headers.get("location");
        Seen {
            status: answer.status().as_u16(),
            location: location.map(|it| it.to_str().unwrap().to_owned()),
            headers,
            page: answer.text().await.unwrap(),
        }
    }

    /// Follows a client's link as far as to the provider, and back to our door: the address there.
    pub(crate) async fn leaves(&mut self, server: &Server, provider: &str) -> String {
        let client = enc(CLIENT);
        let path = format!("/_matrix/client/v3/login/sso/redirect/{provider}?redirectUrl={client}");
        let sent = self.go(server, &path).await;
        let back = self.go(server, sent.next()).await;
        let back = back.next().to_owned();
        assert!(
            back.starts_with(&format!("{BASE}/_synapse/client/oidc/callback?")),
            "{back}"
        );
        back
    }

    /// The whole way: what the browser gets in the end.
    pub(crate) async fn logs_in(&mut self, server: &Server) -> Seen {
        let back = self.leaves(server, "idp").await;
        self.go(server, &back).await
    }
}

/// The path of an address of ours.
fn path(address: &str) -> Option<&str> {
    let ours = address.strip_prefix(BASE);
    ours.or(Some(address).filter(|it| it.starts_with('/')))
}

/// Where an address is, ours being that of a server or node.
fn at(server: &Server, address: &str) -> String {
    path(address).map_or_else(|| address.to_owned(), |path| server.url(path))
}

/// Logs a client in with the token that it is sent; the answer.
pub(crate) async fn redeem(server: &Server, seen: &Seen) -> (u16, Value) {
    assert!(seen.next().starts_with(CLIENT), "{seen:?}");
    let token = seen.parameter("loginToken").unwrap();
    let http = super::http::client();
    let request = http.post(server.url("/_matrix/client/v3/login"));
    let body = json!({ "type": "m.login.token", "token": token });
    let answer = request.body(body.to_string()).ask().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}
