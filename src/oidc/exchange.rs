//! The way there and back: the address that a browser is sent to, and what its code is worth (OpenID
//! Connect Core 1.0, section 3.1; PKCE, RFC 7636).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::Url;

use super::{Error, Provider, jws::Unchecked, token};
use crate::config::oidc::ClientAuth;

/// Bytes of a code.
const CODE_BYTES_MAX: usize = 4 << 10;

/// What goes with one login, and comes back with it.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// Where the browser comes back to.
    pub redirect_uri: &'a str,
    /// What the id token has to repeat.
    pub nonce: &'a str,
    /// What proves who began (PKCE).
    pub verifier: &'a str,
}

/// Who logged in.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Their id at the provider.
    pub subject: String,
    /// The session there, where the provider names it.
    pub sid: Option<String>,
    /// All that it says of them.
    pub claims: Map<String, Value>,
}

impl Provider {
    /// Where a browser is sent to log in. `again`: also who is logged in there already.
    pub async fn authorization(
        &self,
        way: Way<'_>,
        state: &str,
        again: bool,
    ) -> Result<Url, Error> {
        let mut url = self.metadata().await?.authorization.clone();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(way.verifier.as_bytes()));
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", way.redirect_uri)
            .append_pair("scope", &self.config.scopes.join(" "))
            .append_pair("state", state)
            .append_pair("nonce", way.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if again {
            query.append_pair("prompt", "login");
        }
        drop(query);
        Ok(url)
    }

    /// Whose code it is.
    pub async fn redeem(&self, code: &str, way: Way<'_>) -> Result<Identity, Error> {
        if code.is_empty() || code.len() > CODE_BYTES_MAX {
            return Err(Error::Nonsense("it sends no code"));
        }
        let answer = self.tokens(code, way).await?;
        let id_token = answer["id_token"].as_str();
        let id_token = id_token.ok_or(Error::Nonsense("it gives no id token"))?;
        let mut claims = self.check(&Unchecked::parse(id_token)?).await?;
        let nonce = claims
            .get("nonce")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !bool::from(nonce.as_bytes().ct_eq(way.nonce.as_bytes())) {
            return Err(Error::Token("it belongs to another login"));
        }
        let subject = token::name(&claims, "sub")?;
        let subject = subject.ok_or(Error::Token("it names nobody"))?;
        let sid = token::name(&claims, "sid")?;
        if self.config.userinfo {
            for (name, value) in self.userinfo(&answer, &subject).await? {
                claims.entry(name).or_insert(value);
            }
        }
        Ok(Identity {
            subject,
            sid,
            claims,
        })
    }

    /// The answer to a code.
    async fn tokens(&self, code: &str, way: Way<'_>) -> Result<Value, Error> {
        let metadata = self.metadata().await?;
        let client_id = self.config.client_id.as_str();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", way.redirect_uri),
            ("code_verifier", way.verifier),
        ];
        // RFC 6749, section 2.3.1: both are encoded before they are put together.
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut login = None;
        match (&self.config.client_secret, self.config.client_auth) {
            (Some(secret), ClientAuth::Basic) => {
                login = Some((encoded(client_id), encoded(&secret.0)));
            }
            (Some(secret), ClientAuth::Post) => {
                form.extend([("client_id", client_id), ("client_secret", &secret.0)]);
            }
            (None, _) => form.push(("client_id", client_id)),
        }
        let login = login.as_ref().map(|(name, secret)| (&**name, &**secret));
        let url = &metadata.token;
        Ok(self.client.post_to_provider(url, login, &form).await?)
    }

    /// More claims of a person, who has to be the same.
    async fn userinfo(&self, tokens: &Value, subject: &str) -> Result<Map<String, Value>, Error> {
        let metadata = self.metadata().await?;
        let url = metadata.userinfo.as_ref();
        let url = url.ok_or(Error::Nonsense("it has no userinfo endpoint"))?;
        let access_token = tokens["access_token"].as_str();
        let access_token = access_token.ok_or(Error::Nonsense("it gives no access token"))?;
        match self
            .client
            .get_from_provider(url, Some(access_token))
            .await?
        {
            Value::Object(claims) if claims.get("sub").and_then(Value::as_str) == Some(subject) => {
                Ok(claims)
            }
            _ => Err(Error::Nonsense("its userinfo is of another person")),
        }
    }
}
