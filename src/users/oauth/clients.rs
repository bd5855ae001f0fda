//! Clients that register (RFC 7591; specification, "Client registration"): what they say of themselves,
//! and where they may be sent.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::{CODE_GRANT, Error, GRANT_TYPES, LINK_GRANT, REFRESH_GRANT};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, oauth},
};

/// Clients that are kept: who says the same of itself is the same one.
const CLIENTS_MAX: i64 = 100_000;
/// Addresses at which a client waits, bytes of one, and characters of a name.
const REDIRECTS_MAX: usize = 20;
const URI_BYTES_MAX: usize = 2_048;
const NAME_CHARS_MAX: usize = 255;
/// Texts that may be there in several languages.
const LOCALIZED: [&str; 4] = ["client_name", "logo_uri", "tos_uri", "policy_uri"];
const LOCALIZED_MAX: usize = 40;

/// Of what kind a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApplicationType {
    /// A web application.
    #[default]
    Web,
    /// One that is installed.
    Native,
}

/// What a client says of itself, as far as it is taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metadata {
    client_uri: String,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default = "code_only")]
    response_types: Vec<String>,
    #[serde(default = "code_grant_only")]
    grant_types: Vec<String>,
    #[serde(default)]
    application_type: ApplicationType,
    #[serde(default, skip_deserializing)]
    token_endpoint_auth_method: PublicClient,
    /// Texts by name and language (`client_name`, `client_name#de`).
    #[serde(flatten)]
    texts: BTreeMap<String, serde_json::Value>,
}

/// How a client proves who it is: not at all, for what is in everybody's hands is no secret.
#[derive(Clone, Copy, Debug, Default, Serialize)]
enum PublicClient {
    #[default]
    #[serde(rename = "none")]
    None,
}

fn code_only() -> Vec<String> {
    vec!["code".to_owned()]
}

fn code_grant_only() -> Vec<String> {
    vec![CODE_GRANT.to_owned()]
}

/// A client that has registered.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    metadata: Metadata,
}

impl Client {
    /// Out of what is kept.
    pub(super) fn read(id: &str, metadata: &str) -> Result<Self, Error> {
        let metadata = serde_json::from_str(metadata);
        let metadata = metadata.map_err(|error| storage::Error::Inconsistent {
            table: "oauth_client",
            what: error.to_string(),
        })?;
        Ok(Self {
            id: id.to_owned(),
            metadata,
        })
    }

    /// What it calls itself; anybody may call themselves anything.
    pub fn name(&self) -> &str {
        let name = self.text("client_name", None);
        name.unwrap_or_else(|| self.host())
    }

    /// The host that it belongs to, by what it says.
    pub fn host(&self) -> &str {
        let rest = self.metadata.client_uri.strip_prefix("https://");
        rest.and_then(|rest| rest.split(['/', '?', '#', ':']).next())
            .unwrap_or_default()
    }

    /// A text that it gives in a language, or in none.
    pub fn text(&self, name: &str, language: Option<&str>) -> Option<&str> {
        let texts = &self.metadata.texts;
        let of_language = language.and_then(|tag| texts.get(&format!("{name}#{tag}")));
        of_language.or_else(|| texts.get(name))?.as_str()
    }

    /// Whether it has said that it would ask for tokens in this way.
    pub fn may(&self, grant_type: &str) -> bool {
        self.metadata
            .grant_types
            .iter()
            .any(|known| known == grant_type)
    }

    /// The address at which it waits, if it is one of those that it registered. On the machine of the user
    /// the port is as it likes (RFC 8252, section 7.3).
    pub fn redirect(&self, asked: &str) -> Option<Url> {
        let url = Url::parse(asked)
            .ok()
            .filter(|_| asked.len() <= URI_BYTES_MAX)?;
        let is_same = |known: &String| {
            known == asked || Url::parse(known).is_ok_and(|known| is_same_here(&known, url.clone()))
        };
        self.metadata
            .redirect_uris
            .iter()
            .any(is_same)
            .then_some(url)
    }
}

/// Whether addresses on the machine of the user differ in nothing but the port.
fn is_same_here(known: &Url, mut asked: Url) -> bool {
    is_loopback(known) && is_loopback(&asked) && asked.set_port(None).is_ok() && *known == asked
}

fn is_loopback(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address == std::net::Ipv4Addr::LOCALHOST,
            Some(Host::Ipv6(address)) => address == std::net::Ipv6Addr::LOCALHOST,
            None => false,
        }
}

/// Takes a client up; its id, and what is taken of what it said.
pub async fn register(ctx: &Context, said: &[u8]) -> Result<serde_json::Value, Error> {
    let metadata = check(said)?;
    // In an order of its own, so that the same is the same.
    let mut answer = serde_json::to_value(&metadata).unwrap_or_default();
    let text = answer.to_string();
    let id = URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()));
    let mut conn = ctx.db.conn().await?;
    if !oauth::insert_client(&mut conn, &id, &text, now_ms(), CLIENTS_MAX).await? {
        return Err(Error::TooMany);
    }
    drop(conn);
    answer["client_id"] = id.into();
    Ok(answer)
}

/// A client that has registered.
pub async fn find(ctx: &Context, id: &str) -> Result<Client, Error> {
    // What no database can hold is none.
    let id_ok = id.bytes().all(|byte| byte.is_ascii_graphic());
    if !id_ok {
        return Err(Error::Client);
    }
    let mut conn = ctx.db.conn().await?;
    let metadata = oauth::find_client(&mut conn, id, now_ms()).await?;
    Client::read(id, &metadata.ok_or(Error::Client)?)
}

/// The client that logged a device in.
pub async fn of_device(
    ctx: &Context,
    device: (UserNid, i32),
) -> Result<Option<Client>, storage::Error> {
    let mut conn = ctx.db.conn().await?;
    let found = oauth::find_client_of(&mut conn, device).await?;
    Ok(found.and_then(|(id, metadata)| Client::read(&id, &metadata).ok()))
}

/// Checks what a client says of itself, and leaves out what we do not take.
fn check(said: &[u8]) -> Result<Metadata, Error> {
    let wrong = |_| Error::Metadata("this is no metadata of a client, or has no client_uri");
    let mut metadata: Metadata = serde_json::from_slice(said).map_err(wrong)?;
    let base = https(&metadata.client_uri);
    let base = base.ok_or(Error::Metadata(
        "client_uri must be a https address of a host",
    ))?;
    metadata.response_types.retain(|kind| kind == "code");
    metadata
        .grant_types
        .retain(|kind| GRANT_TYPES.contains(&&**kind));
    metadata.grant_types.sort_unstable();
    metadata.grant_types.dedup();
    let has = |kind: &str| metadata.grant_types.iter().any(|known| known == kind);
    if !has(CODE_GRANT) && !has(LINK_GRANT) {
        return Err(Error::Metadata(
            "grant_types names none by which one logs in",
        ));
    }
    if has(CODE_GRANT) && metadata.redirect_uris.is_empty() {
        return Err(Error::RedirectUri("redirect_uris is missing"));
    }
    if metadata.redirect_uris.len() > REDIRECTS_MAX {
        return Err(Error::RedirectUri("redirect_uris names too many"));
    }
    for uri in &metadata.redirect_uris {
        if !may_wait(uri, metadata.application_type, &base) {
            return Err(Error::RedirectUri(
                "redirect_uris names an address that a client of that client_uri and \
                 application_type may not wait at",
            ));
        }
    }
    // Every client refreshes its tokens (specification, "Authorisation code grant").
    if !has(REFRESH_GRANT) {
        metadata.grant_types.push(REFRESH_GRANT.to_owned());
        metadata.grant_types.sort_unstable();
    }
    check_texts(&mut metadata.texts, &base)?;
    Ok(metadata)
}

/// Checks names and addresses that people are shown, and leaves out everything else.
fn check_texts(texts: &mut BTreeMap<String, serde_json::Value>, base: &Url) -> Result<(), Error> {
    texts.retain(|key, text| {
        let name = key.split('#').next().unwrap_or_default();
        LOCALIZED.contains(&name) && text.is_string() && !key.contains(char::is_whitespace)
    });
    if texts.len() > LOCALIZED_MAX {
        return Err(Error::Metadata("there are texts in too many languages"));
    }
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        let is_good = if key.starts_with("client_name") {
            let is_odd = |c: char| c.is_control();
            text.chars().count() <= NAME_CHARS_MAX && !text.chars().any(is_odd)
        } else {
            https(text).is_some_and(|url| is_below(&url, base))
        };
        if !is_good {
            return Err(Error::Metadata(
                "a name is too long, or an address is not below client_uri",
            ));
        }
    }
    Ok(())
}

/// An address on the web without anybody's name in it.
fn https(text: &str) -> Option<Url> {
    // What is no part of an address is dropped where it is read, so that two readers might differ.
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let url = Url::parse(text)
        .ok()
        .filter(|_| is_plain && text.len() <= URI_BYTES_MAX)?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    let is_lower = text.starts_with("https://");
    (is_lower && !has_user && url.host().is_some()).then_some(url)
}

/// Whether an address is on the host of another, or below it.
fn is_below(url: &Url, base: &Url) -> bool {
    match (url.host(), base.host()) {
        (Some(Host::Domain(host)), Some(Host::Domain(base))) => {
            let above = host.strip_suffix(base);
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        }
        (host, base) => host == base,
    }
}

/// Whether a client may wait at an address (specification, "Redirect URI validation").
fn may_wait(uri: &str, kind: ApplicationType, base: &Url) -> bool {
    if let Some(url) = https(uri) {
        return url.fragment().is_none() && is_below(&url, base);
    }
    let is_plain = uri
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if kind == ApplicationType::Web || !is_plain || uri.len() > URI_BYTES_MAX {
        return false;
    }
    let Ok(url) = Url::parse(uri) else {
        return false;
    };
    let has_user = !url.username().is_empty() || url.password().is_some();
    if url.fragment().is_some() || has_user {
        return false;
    }
    if is_loopback(&url) {
        // A port that is the usual one is dropped where the address is read.
        let authority = uri.split('/').nth(2).unwrap_or_default();
        return url.port().is_none() && !authority.trim_start_matches('[').ends_with(":80");
    }
    let Some(Host::Domain(host)) = base.host() else {
        return false;
    };
    let labels: Vec<&str> = host.rsplit('.').collect();
    let reversed = labels.join(".");
    let rest = url.scheme().strip_prefix(&reversed);
    let is_own = labels.len() > 1 && rest.is_some_and(|it| it.is_empty() || it.starts_with('.'));
    let after = uri.get(url.scheme().len() + 1..).unwrap_or_default();
    is_own && url.host().is_none() && !after.starts_with("//")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ApplicationType, Client, check, may_wait};

    fn said(more: &Value) -> Vec<u8> {
        let mut said = json!({
            "client_uri": "https://amt.example/",
            "redirect_uris": ["https://chat.amt.example/back"],
        });
        said.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        said.to_string().into_bytes()
    }

    #[test]
    fn clients_wait_where_the_specification_lets_them() {
        let base = "https://example.com/".parse().unwrap();
        let web = [
            "https://example.com/callback",
            "https://app.example.com/callback",
            "https://example.com:5173/?query=value",
        ];
        let native = [
            "com.example.app:/callback",
            "com.example:/",
            "com.example:callback",
            "http://localhost/callback",
            "http://127.0.0.1/callback",
            "http://[::1]/callback",
        ];
        for uri in web {
            assert!(may_wait(uri, ApplicationType::Web, &base), "{uri}");
            assert!(may_wait(uri, ApplicationType::Native, &base), "{uri}");
        }
        for uri in native {
            assert!(!may_wait(uri, ApplicationType::Web, &base), "{uri}");
            assert!(may_wait(uri, ApplicationType::Native, &base), "{uri}");
        }
        for uri in [
            "https://example.com/callback#fragment",
            "http://example.com/callback",
            "https://badexample.com/callback",
            "https://example.com.evil.example/callback",
            "https://a@example.com/callback",
            "https://example.com\\@evil.example/",
            "example:/callback",
            "com.example.app://callback",
            "com.example.app:///callback",
            "com.examples:/callback",
            "https://localhost/callback",
            "http://localhost:1234/callback",
            "http://localhost:80/callback",
            "http://[::1]:80/callback",
            "http://localhost.evil.example/callback",
            "javascript:alert(1)",
            "com.example:/call back",
            "com.example:/#x",
            "",
        ] {
            assert!(!may_wait(uri, ApplicationType::Native, &base), "{uri}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out_and_what_is_wrong_refused() {
        let taken = check(&said(&json!({
            "client_name": "Amt", "client_name#de": "Das Amt", "logo_uri": 5, "jwks": {},
            "grant_types": ["refresh_token", "authorization_code", "password"],
            "token_endpoint_auth_method": "client_secret_basic",
        })));
        let taken = serde_json::to_value(taken.unwrap()).unwrap();
        assert_eq!(
            taken,
            json!({
                "client_uri": "https://amt.example/",
                "redirect_uris": ["https://chat.amt.example/back"],
                "response_types": ["code"],
                "grant_types": ["authorization_code", "refresh_token"],
                "application_type": "web",
                "token_endpoint_auth_method": "none",
                "client_name": "Amt", "client_name#de": "Das Amt",
            })
        );
        for bad in [
            json!({ "client_uri": "http://amt.example/" }),
            json!({ "client_uri": "amt.example" }),
            json!({ "client_uri": 5 }),
            json!({ "redirect_uris": [] }),
            json!({ "redirect_uris": ["https://other.example/"] }),
            json!({ "grant_types": ["refresh_token"] }),
            json!({ "policy_uri": "https://other.example/" }),
            json!({ "client_name": "x".repeat(300) }),
            json!({ "client_name": "a\nb" }),
            json!({ "application_type": "other" }),
        ] {
            assert!(check(&said(&bad)).is_err(), "{bad}");
        }
        for bad in [&b""[..], b"[]", b"\xff", b"{}"] {
            assert!(check(bad).is_err());
        }
    }

    #[test]
    fn an_address_is_one_that_was_registered_and_only_here_the_port_is_free() {
        let uris = json!({
            "application_type": "native",
            "redirect_uris": ["http://localhost/back?a=b", "https://chat.amt.example/back"],
        });
        let metadata = serde_json::to_string(&check(&said(&uris)).unwrap()).unwrap();
        let client = Client::read("id", &metadata).unwrap();
        for good in [
            "https://chat.amt.example/back",
            "http://localhost/back?a=b",
            "http://localhost:4711/back?a=b",
        ] {
            assert!(client.redirect(good).is_some(), "{good}");
        }
        for bad in [
            "https://chat.amt.example:444/back",
            "https://chat.amt.example/back/",
            "https://chat.amt.example/back?x",
            "http://127.0.0.1:4711/back?a=b",
            "http://localhost:4711/back",
            "https://localhost:4711/back?a=b",
            "http://x@localhost:4711/back?a=b",
        ] {
            assert!(client.redirect(bad).is_none(), "{bad}");
        }
        assert_eq!(client.name(), "amt.example");
        assert!(client.may("refresh_token") && !client.may("password"));
    }
}
