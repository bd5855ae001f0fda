//! An identity provider (OpenID Connect), and a browser that goes there: it keeps to the protocol, and to
//! what faults a test orders.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::{free_port, server::Server};

/// What our server is to browsers.
pub(crate) const BASE: &str = "https://matrix.amt.example";
/// A client that the operator knows.
pub(crate) const CLIENT: &str = "https://chat.amt.example/web";
const CLIENT_ID: &str = "amtsbote";
/// A secret with characters that are encoded before it is sent.
const SECRET: &str = "s3:cr/et";

/// A key that signs.
#[derive(Clone)]
pub(crate) struct Key {
    kid: String,
    pair: Arc<Pair>,
}

enum Pair {
    Rsa(rsa::KeyPair),
    Ec(EcdsaKeyPair),
}

impl Key {
    fn new(kid: &str, pair: Pair) -> Self {
        Self {
            kid: kid.to_owned(),
            pair: Arc::new(pair),
        }
    }

    /// An RSA key, as most providers have.
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        Self::new(kid, Pair::Rsa(pair))
    }

    /// A key of the curve P-256.
    pub(crate) fn ec(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::new(kid, Pair::Ec(pair))
    }

    fn published(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &*self.pair {
            Pair::Rsa(pair) => {
                // RFC 8017, appendix A.1.1: modulus and exponent, which have 256 and 3 bytes here.
                let der = pair.public_key().as_ref();
                let (n, e) = (&der[9..265], &der[267..]);
                json!({ "kty": "RSA", "kid": self.kid, "use": "sig", "alg": "RS256",
                        "n": b64(n), "e": b64(e) })
            }
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "kid": self.kid,
                        "x": b64(&point[1..33]), "y": b64(&point[33..]) })
            }
        }
    }

    pub(crate) fn sign(&self, claims: &Value, kind: &str) -> String {
        let algorithm = match &*self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
        };
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = json!({ "alg": algorithm, "kid": self.kid, "typ": kind });
        let message = format!("{}.{}", part(&head), part(claims));
        let rng = SystemRandom::new();
        let signature = match &*self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let bytes = message.as_bytes();
                pair.sign(&RSA_PKCS1_SHA256, &rng, bytes, &mut signature)
                    .unwrap();
                signature
            }
            Pair::Ec(pair) => pair
                .sign(&rng, message.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What the provider does, and what it has seen.
struct State {
    port: u16,
    /// Claims of who is logged in there.
    person: Value,
    /// What it says in the id token instead of what is right; null: it leaves that out.
    instead: Value,
    /// More of what its userinfo says.
    userinfo: Value,
    /// Signs tokens.
    signer: Key,
    /// Published.
    keys: Vec<Value>,
    /// Makes tokens that nobody has signed.
    unsigned: bool,
    /// Names itself so.
    issuer: String,
    /// Sends browsers back with that error.
    denying: Option<String>,
    /// Refuses all.
    is_down: bool,
    codes: HashMap<String, HashMap<String, String>>,
    /// How often each endpoint was asked.
    asked: BTreeMap<String, usize>,
    /// The last query of a browser.
    seen: HashMap<String, String>,
}

/// The provider. It ends when it is dropped.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// With Anna, who is logged in.
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let port = free_port();
        let signer = Key::rsa("first");
        let issuer = format!("http://127.0.0.1:{port}/realms/amt");
        let state = State {
            port,
            person: anna(),
            instead: json!({}),
            userinfo: json!({}),
            keys: vec![json!({ "kty": "unknown" }), signer.published()],
            signer,
            unsigned: false,
            issuer: issuer.clone(),
            denying: None,
            is_down: false,
            codes: HashMap::new(),
            asked: BTreeMap::new(),
            seen: HashMap::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let socket = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
        let router = axum::Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap();
            let form = std::str::from_utf8(&body).unwrap().to_owned();
            answer(&mut shared.lock().unwrap(), &parts, &form)
        });
        let task = tokio::spawn(async move {
            axum::serve(socket.unwrap(), router).await.unwrap();
        });
        Self {
            issuer,
            state,
            task,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The section of the configuration, with more of it.
    pub(crate) fn section(&self, id: &str, more: &str) -> String {
        format!(
            "[[oidc]]\nid = \"{id}\"\nname = \"Amt {id}\"\nissuer = \"{}\"\n\
             client_id = \"{CLIENT_ID}\"\nclient_secret = \"{SECRET}\"\n{more}\n",
            self.issuer
        )
    }

    /// A whole configuration.
    pub(crate) fn config(&self, more: &str) -> String {
        format!("{HEAD}{}", self.section("idp", more))
    }

    /// A server that lets people log in here.
    pub(crate) async fn serves(&self, more: &str) -> Server {
        Server::with(&self.config(more), None).await
    }

    /// Somebody else sits before the browser.
    pub(crate) fn becomes(&self, person: Value) {
        self.state().person = person;
    }

    /// Says something else in id tokens.
    pub(crate) fn says_instead(&self, claims: Value) {
        self.state().instead = claims;
    }

    /// Says that of people who are asked after.
    pub(crate) fn tells(&self, claims: Value) {
        self.state().userinfo = claims;
    }

    /// Signs with another key, which is published or not.
    pub(crate) fn signs_with(&self, key: &Key, is_published: bool) {
        let mut state = self.state();
        state.signer = key.clone();
        if is_published {
            state.keys = vec![key.published()];
        }
    }

    pub(crate) fn signer(&self) -> Key {
        self.state().signer.clone()
    }

    /// Does not sign tokens, or does again.
    pub(crate) fn leaves_unsigned(&self, on: bool) {
        self.state().unsigned = on;
    }

    /// Sends browsers back with an error.
    pub(crate) fn denies(&self, error: Option<&str>) {
        self.state().denying = error.map(ToOwned::to_owned);
    }

    /// Refuses all that is asked.
    pub(crate) fn is_down(&self, on: bool) {
        self.state().is_down = on;
    }

    /// Names itself otherwise.
    pub(crate) fn is_called(&self, issuer: &str) {
        issuer.clone_into(&mut self.state().issuer);
    }

    /// How often an endpoint was asked.
    pub(crate) fn asked(&self, endpoint: &str) -> usize {
        self.state()
            .asked
            .get(endpoint)
            .copied()
            .unwrap_or_default()
    }

    /// What a browser came with last.
    pub(crate) fn seen(&self, parameter: &str) -> Option<String> {
        self.state().seen.get(parameter).cloned()
    }

    /// A logout token with these claims besides, or instead, of the usual ones.
    pub(crate) fn logout_token(&self, claims: Value) -> String {
        let now = now_s();
        let usual = json!({
            "iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 120,
            "jti": format!("{:032x}", rand::random::<u128>()),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        let token = merged(usual, claims);
        self.signer().sign(&token, "logout+jwt")
    }
}

/// What a server needs besides providers.
pub(crate) const HEAD: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
    [well_known]\nclient = \"https://matrix.amt.example\"\n\
    [sso]\nclient_whitelist = [\"https://chat.amt.example/\"]\n";

/// What the provider knows of Anna.
pub(crate) fn anna() -> Value {
    json!({
        "sub": "0815-anna", "sid": "session one", "preferred_username": "Anna.Amt",
        "name": "Anna Amt", "email": "Anna@amt.example", "email_verified": true,
        "realm_access": { "roles": ["staff", "matrix"] },
    })
}

pub(crate) fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// An object with fields of another, where null takes one away.
fn merged(into: Value, other: Value) -> Value {
    let (Value::Object(mut into), Value::Object(other)) = (into, other) else {
        panic!("objects are needed");
    };
    for (key, value) in other {
        if value.is_null() {
            into.remove(&key);
        } else {
            into.insert(key, value);
        }
    }
    Value::Object(into)
}

fn pairs(text: &str) -> HashMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

fn reply(status: u16, body: &Value) -> Response {
    let answer = Response::builder().status(status);
    let answer = answer.header("content-type", "application/json");
    answer.body(Body::from(body.to_string())).unwrap()
}

fn answer(state: &mut State, parts: &http::request::Parts, form: &str) -> Response {
    let path = parts.uri.path().to_owned();
    let endpoint = path.rsplit('/').next().unwrap().to_owned();
    *state.asked.entry(endpoint.clone()).or_default() += 1;
    if state.is_down {
        return reply(503, &json!({}));
    }
    let header = parts.headers.get("authorization");
    let header = header.map_or("", |value| value.to_str().unwrap());
    let base = format!("http://127.0.0.1:{}/realms/amt", state.port);
    assert!(path.starts_with("/realms/amt/"), "{path}");
    match (parts.method.as_str(), endpoint.as_str()) {
        ("GET", "openid-configuration") => reply(
            200,
            &json!({
                "issuer": state.issuer,
                "authorization_endpoint": format!("{base}/authorize?kind=login"),
                "token_endpoint": format!("{base}/token"),
                "jwks_uri": format!("{base}/keys"),
                "userinfo_endpoint": format!("{base}/userinfo"),
            }),
        ),
        ("GET", "authorize") => authorize(state, &pairs(parts.uri.query().unwrap())),
        ("POST", "token") => {
            let login = STANDARD.encode("amtsbote:s3%3Acr%2Fet");
            assert_eq!(header, format!("Basic {login}"));
            token(state, &pairs(form))
        }
        ("GET", "keys") => reply(200, &json!({ "keys": state.keys })),
        ("GET", "userinfo") => {
            assert_eq!(header, "Bearer access");
            let usual = json!({ "sub": state.person["sub"] });
            reply(200, &merged(usual, state.userinfo.clone()))
        }
        _ => reply(404, &json!({})),
    }
}

/// The person is logged in already, and the browser is sent back at once.
fn authorize(state: &mut State, query: &HashMap<String, String>) -> Response {
    state.seen.clone_from(query);
    for (key, value) in [
        ("kind", "login"),
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(query[key], value);
    }
    assert!(query["scope"].split(' ').any(|scope| scope == "openid"));
    let mut back: Url = query["redirect_uri"].parse().unwrap();
    back.query_pairs_mut().append_pair("state", &query["state"]);
    if let Some(error) = &state.denying {
        back.query_pairs_mut().append_pair("error", error);
    } else {
        let code = format!("{:032x}", rand::random::<u128>());
        back.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("iss", &state.issuer);
        state.codes.insert(code, query.clone());
    }
    let answer = Response::builder().status(302);
    let answer = answer.header("location", back.as_str());
    answer.body(Body::empty()).unwrap()
}

fn token(state: &mut State, form: &HashMap<String, String>) -> Response {
    assert_eq!(form["grant_type"], "authorization_code");
    // A code is good once.
    let Some(asked) = state.codes.remove(&form["code"]) else {
        return reply(400, &json!({ "error": "invalid_grant" }));
    };
    assert_eq!(form["redirect_uri"], asked["redirect_uri"]);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(form["code_verifier"].as_bytes()));
    assert_eq!(challenge, asked["code_challenge"]);
    let now = now_s();
    let usual = json!({
        "iss": state.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300,
        "nonce": asked["nonce"],
    });
    let claims = merged(merged(usual, state.person.clone()), state.instead.clone());
    let id_token = if state.unsigned {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims))
    } else {
        state.signer.sign(&claims, "JWT")
    };
    let body = json!({ "access_token": "access", "token_type": "Bearer", "id_token": id_token });
    reply(200, &body)
}

/// Claims without those that are named.
pub(crate) fn without(person: Value, names: &[&str]) -> Value {
    let taken = names.iter().map(|name| ((*name).to_owned(), Value::Null));
    merged(person, Value::Object(taken.collect::<Map<_, _>>()))
}

/// Claims with others.
pub(crate) fn with(person: Value, others: Value) -> Value {
    merged(person, others)
}
