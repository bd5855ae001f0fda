//! A client of OAuth 2.0, and the server and browser that it goes with.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::{
    browser::{Browser, Seen},
    http::{self, Ask as _},
    idp::BASE,
    server::Server,
    user::User,
};

/// What a server needs for it; anybody may make an account.
pub(crate) const CONFIG: &str = "[well_known]\nclient = \"https://matrix.amt.example\"\n\
     [oauth]\nenabled = true\n[registration]\nopen = true\nshared_secret = \"test secret\"\n";
/// Where the client waits.
pub(crate) const REDIRECT: &str = "https://chat.amt.example/back";
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more";

/// A client that has registered.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) redirect: String,
}

/// What a client says of itself.
pub(crate) fn metadata() -> Value {
    json!({
        "client_name": "Behörden<b>chat", "client_uri": "https://amt.example/",
        "redirect_uris": [REDIRECT], "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code"],
        "policy_uri": "https://amt.example/privacy",
        "token_endpoint_auth_method": "none",
    })
}

/// Asks an endpoint with a form.
pub(crate) async fn form(server: &Server, endpoint: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    let url = server.url(&format!("/_matrix/oauth2/{endpoint}"));
    let kind = "application/x-www-form-urlencoded";
    let request = http::client().post(url).header(CONTENT_TYPE, kind);
    let answer = request.body(form.finish()).ask().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Registers; the answer.
pub(crate) async fn register(server: &Server, metadata: &Value) -> (u16, Value) {
    let url = server.url("/_matrix/oauth2/register");
    let request = http::client().post(url).body(metadata.to_string());
    let answer = request.ask().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The scope of a device.
pub(crate) fn scope(device: &str) -> String {
    format!("urn:matrix:client:api:* urn:matrix:client:device:{device}")
}

impl Client {
    pub(crate) async fn of(server: &Server) -> Self {
        let (status, body) = register(server, &metadata()).await;
        assert_eq!(status, 201, "{body}");
        Self {
            id: body["client_id"].as_str().unwrap().to_owned(),
            redirect: REDIRECT.to_owned(),
        }
    }

    /// Where it sends a browser, with other parameters (empty: without).
    pub(crate) fn wants(&self, device: &str, others: &[(&str, &str)]) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let scope = scope(device);
        let usual = [
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect),
            ("scope", &scope),
            ("state", "st&te"),
            ("response_mode", "fragment"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let other = |name: &str| others.iter().find(|(key, _)| *key == name);
        let usual = usual.map(|(name, value)| *other(name).unwrap_or(&(name, value)));
        let more = others.iter().copied();
        let more = more.filter(|(name, _)| !usual.iter().any(|(key, _)| key == name));
        let all = usual
            .into_iter()
            .chain(more)
            .filter(|(_, value)| !value.is_empty());
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(all);
        format!("/_matrix/oauth2/authorize?{}", query.finish())
    }

    /// What a browser was told to bring it; by name.
    pub(crate) fn brought(&self, seen: &Seen, name: &str) -> Option<String> {
        let url: Url = seen.next().parse().unwrap();
        assert!(seen.next().starts_with(&self.redirect), "{seen:?}");
        let query = url.fragment().or(url.query()).unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let issuer = pairs.clone().find(|(key, _)| key == "iss");
        assert_eq!(issuer.unwrap().1, format!("{BASE}/"));
        let found = pairs.find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    }

    /// Exchanges a code, with other parameters.
    pub(crate) async fn redeem(
        &self,
        server: &Server,
        code: &str,
        others: &[(&str, &str)],
    ) -> (u16, Value) {
        let usual = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect),
            ("client_id", &self.id),
            ("code_verifier", VERIFIER),
        ];
        let other = |name: &str| others.iter().find(|(key, _)| *key == name);
        let fields = usual.map(|(name, value)| *other(name).unwrap_or(&(name, value)));
        form(server, "token", &fields).await
    }

    /// Exchanges a refresh token.
    pub(crate) async fn refresh(&self, server: &Server, token: &str) -> (u16, Value) {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", &self.id),
        ];
        form(server, "token", &fields).await
    }

    /// The whole way of a browser that is logged in: the code.
    pub(crate) async fn code(
        &self,
        server: &Server,
        browser: &mut Browser,
        device: &str,
    ) -> String {
        let address = self.wants(device, &[]);
        let seal = browser.go(server, &address).await.shown(200).hidden("seal");
        let fields = [("seal", &*seal), ("step", "allow")];
        let seen = browser.submit(server, &address, &fields).await;
        self.brought(&seen, "code").unwrap()
    }

    /// The whole way: a session of somebody who is logged in in a browser, and its tokens.
    pub(crate) async fn session(
        &self,
        server: &Server,
        browser: &mut Browser,
        device: &str,
    ) -> (User, Value) {
        let code = self.code(server, browser, device).await;
        let (status, tokens) = self.redeem(server, &code, &[]).await;
        assert_eq!(status, 200, "{tokens}");
        (user(server, &tokens).await, tokens)
    }
}

/// The user of an access token.
pub(crate) async fn user(server: &Server, tokens: &Value) -> User {
    let token = tokens["access_token"].as_str().unwrap();
    let user = User::with_token(&server.url(""), "@nobody:localhost", token);
    let (status, body) = user.get("/account/whoami").await;
    assert_eq!(status, 200, "{body}");
    User::with_token(&server.url(""), body["user_id"].as_str().unwrap(), token)
}

/// Logs a browser in on the page of the account.
pub(crate) async fn enter(server: &Server, user: &User) -> Browser {
    let mut browser = Browser::new();
    let name = user.id.split([':', '@']).nth(1).unwrap();
    let password = format!("password of {name}");
    let fields = [("step", "login"), ("user", name), ("password", &password)];
    let seen = browser.submit(server, "/_matrix/account", &fields).await;
    assert_eq!(seen.next(), "/_matrix/account");
    browser
}
