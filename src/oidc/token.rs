//! Tokens of a provider: who signed them, and for whom (OpenID Connect Core 1.0, section 3.1.3.7).

use serde_json::{Map, Value};

use super::{Error, Provider, jws::Unchecked};
use crate::clock::now_ms;

/// Seconds that clocks may differ.
const LEEWAY_S: i64 = 60;
/// Bytes of the names by which a provider knows people and sessions (OpenID Connect Core 1.0,
/// section 2: 255 ASCII characters).
const NAME_BYTES_MAX: usize = 255;

/// What a token claims.
pub(super) type Claims = Map<String, Value>;

impl Provider {
    /// Checks what all tokens have in common: the signature, who made it, for whom, and until when.
    pub(super) async fn check(&self, token: &Unchecked<'_>) -> Result<Claims, Error> {
        let keys = self.keys(token.algorithm, token.kid.as_deref()).await?;
        let claims = token.verify(&keys)?;
        self.check_parties(&claims)?;
        check_times(&claims)?;
        Ok(claims)
    }

    /// Who made it, for whom, and whom it was given to where it is for several.
    fn check_parties(&self, claims: &Claims) -> Result<(), Error> {
        let own = self.config.client_id.as_str();
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&self.config.issuer) {
            return Err(Error::Token("it is another issuer's"));
        }
        let (is_for_us, is_for_several) = match claims.get("aud") {
            Some(Value::String(audience)) => (audience == own, false),
            Some(Value::Array(all)) => {
                (all.iter().any(|it| it.as_str() == Some(own)), all.len() > 1)
            }
            _ => (false, false),
        };
        if !is_for_us {
            return Err(Error::Token("it is for another"));
        }
        if (is_for_several || claims.contains_key("azp")) && text("azp") != Some(own) {
            return Err(Error::Token("it was made for another"));
        }
        Ok(())
    }
}

fn check_times(claims: &Claims) -> Result<(), Error> {
    let end = seconds(claims, "exp").ok_or(Error::Token("it lacks an end"))?;
    if end + LEEWAY_S < now_s() {
        return Err(Error::Token("it is over"));
    }
    let begin = seconds(claims, "nbf").unwrap_or(0);
    if begin - LEEWAY_S > now_s() {
        return Err(Error::Token("it is not good yet"));
    }
    Ok(())
}

/// Seconds since 1970.
pub(super) fn now_s() -> i64 {
    now_ms() / 1_000
}

/// A time in seconds; what is far from any is none.
pub(super) fn seconds(claims: &Claims, name: &str) -> Option<i64> {
    const FAR: f64 = 1e12;
    let seconds = claims.get(name)?.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "parts of a second do not matter, and the number is not large"
    )]
    (0.0..FAR).contains(&seconds).then_some(seconds as i64)
}

/// By which name a provider knows a person or a session; `None`: it is not there.
pub(super) fn name(claims: &Claims, claim: &str) -> Result<Option<String>, Error> {
    match claims.get(claim) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name))
            if !name.is_empty()
                && name.len() <= NAME_BYTES_MAX
                && !name.chars().any(char::is_control) =>
        {
            Ok(Some(name.clone()))
        }
        Some(_) => Err(Error::Token("a name in it is none")),
    }
}
