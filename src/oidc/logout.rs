//! A provider ends sessions (OpenID Connect Back-Channel Logout 1.0, section 2.6).

use serde_json::{Map, Value};

use super::{Error, Provider, Providers, jws::Unchecked, token};

/// What the event is called.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Seconds that a token may be old: what is meant is meant now.
const AGE_S_MAX: i64 = 600;

/// Whom a provider logs out.
#[derive(Clone, Debug)]
pub struct Logout {
    /// Id of the provider.
    pub provider: String,
    /// A person.
    pub subject: Option<String>,
    /// A session.
    pub sid: Option<String>,
    /// Id of the token.
    pub jti: String,
    /// From when on it is not good any more, in milliseconds.
    pub expires_ts: i64,
}

impl Providers {
    /// Whether any provider may end sessions.
    pub fn any_logs_out(&self) -> bool {
        let mut all = self.all().iter();
        all.any(|provider| provider.config.backchannel_logout)
    }

    /// Checks a logout token of whatever provider.
    pub async fn check_logout(&self, token: &str) -> Result<Logout, Error> {
        // Only to find the one that it has to be of; nothing of that is believed yet.
        let token = Unchecked::parse(token)?;
        let said = token.unchecked_claims();
        let said = said.ok_or(Error::Token("it is not readable"))?;
        let issuer = said.get("iss").and_then(Value::as_str);
        let mut why = Error::Token("it is of no provider that may end sessions");
        let named = self.all().iter().filter(|provider| {
            let is_issuer = issuer == Some(&provider.config.issuer);
            is_issuer && provider.config.backchannel_logout
        });
        // Two clients of one issuer are told apart by the audience.
        for provider in named {
            match provider.logout(&token).await {
                Ok(logout) => return Ok(logout),
                Err(error) => why = error,
            }
        }
        Err(why)
    }
}

impl Provider {
    async fn logout(&self, token: &Unchecked<'_>) -> Result<Logout, Error> {
        let claims = self.check(token).await?;
        if !matches!(token.kind.as_deref(), None | Some("jwt" | "logout+jwt")) {
            return Err(Error::Token("it is of another kind"));
        }
        if !is_logout(&claims) {
            return Err(Error::Token("it is no logout token"));
        }
        let made_s = token::seconds(&claims, "iat");
        let made_s = made_s.ok_or(Error::Token("it lacks a claim"))?;
        if (token::now_s() - made_s).abs() > AGE_S_MAX {
            return Err(Error::Token("it is of another time"));
        }
        let (subject, sid) = (token::name(&claims, "sub")?, token::name(&claims, "sid")?);
        if subject.is_none() && sid.is_none() {
            return Err(Error::Token("it names nobody"));
        }
        let jti = token::name(&claims, "jti")?;
        Ok(Logout {
            provider: self.config.id.clone(),
            subject,
            sid,
            jti: jti.ok_or(Error::Token("it lacks a claim"))?,
            // Its age bounds how long it can come again, whatever end it claims.
            expires_ts: (made_s + 2 * AGE_S_MAX) * 1_000,
        })
    }
}

/// An id token is none, and a logout token is no id token.
fn is_logout(claims: &Map<String, Value>) -> bool {
    let event = claims.get("events").and_then(|events| events.get(EVENT));
    event.is_some_and(Value::is_object) && !claims.contains_key("nonce")
}
