//! Codes by which a client gets the tokens that a user allowed in a browser (RFC 6749, section 4.1; PKCE,
//! RFC 7636).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ruma::DeviceId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    super::tokens::{self, Cause, Granted, Tokens},
    Error,
    browser::Browser,
    clients::Client,
    scope::Scope,
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, oauth::Code},
};

/// How long a code is good.
const LIFE_MS: i64 = 60_000;
/// Characters of a challenge (SHA-256 in base64), and of what proves it.
const CHALLENGE_CHARS: usize = 43;
const VERIFIER_CHARS: std::ops::RangeInclusive<usize> = 43..=128;

/// What a client has to repeat.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The code.
    pub code: &'a str,
    /// The client.
    pub client: &'a Client,
    /// Where the browser took the code.
    pub redirect_uri: &'a str,
    /// What proves that it began.
    pub verifier: &'a str,
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether a challenge can be one.
pub fn check_challenge(challenge: &str) -> Result<(), Error> {
    if challenge.len() == CHALLENGE_CHARS && challenge.bytes().all(is_unreserved) {
        Ok(())
    } else {
        Err(Error::Request("code_challenge is no SHA-256 in base64url"))
    }
}

/// What a client wants, and by what it is known again.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// What it may.
    pub scope: &'a Scope,
    /// Where the browser takes the code.
    pub redirect_uri: &'a str,
    /// What it proves by that it began.
    pub challenge: &'a str,
    /// What it wants repeated in an id token.
    pub nonce: Option<&'a str>,
}

/// A code that the browser takes to the client.
pub async fn issue(
    ctx: &Context,
    browser: &Browser,
    client: &Client,
    wanted: Wanted<'_>,
) -> Result<String, Error> {
    let code = tokens::fresh("amc");
    let kept = Code {
        client_id: client.id.clone(),
        user_nid: browser.nid.0,
        device_id: wanted.scope.device_id.to_string(),
        scope: wanted.scope.granted.clone(),
        redirect_uri: wanted.redirect_uri.to_owned(),
        challenge: wanted.challenge.to_owned(),
        nonce: wanted.nonce.map(str::to_owned),
        browser_hash: browser.hash.to_vec(),
    };
    let mut conn = ctx.db.conn().await?;
    let expires = now_ms() + LIFE_MS;
    storage::oauth::insert_code(&mut conn, &tokens::hash(&code), &kept, expires).await?;
    Ok(code)
}

/// Exchanges a code, which is good once: who shows it a second time ends what came of it. Also what it
/// stood for.
pub async fn redeem(
    ctx: &Context,
    tokens: &Tokens,
    shown: Shown<'_>,
) -> Result<(Granted, Code), Error> {
    let wrong = || Error::Grant("the code is not valid");
    let hash = tokens::hash(shown.code);
    let mut conn = ctx.db.conn().await?;
    let found = storage::oauth::find_code(&mut conn, &hash, now_ms()).await?;
    let (code, used) = found.ok_or_else(wrong)?;
    let owner = UserNid(code.user_nid);
    if code.client_id != shown.client.id || code.redirect_uri != shown.redirect_uri {
        return Err(wrong());
    }
    if !proves(shown.verifier, &code.challenge) {
        return Err(Error::Grant("code_verifier does not prove that you began"));
    }
    if used || !storage::oauth::use_code(&mut conn, &hash).await? {
        let of = (&*code.device_id, &*code.client_id);
        let device = storage::oauth::find_session(&mut conn, owner, of).await?;
        drop(conn);
        tokens.end(owner, device.as_slice()).await?;
        return Err(Error::Grant("the code was used before"));
    }
    drop(conn);
    let granted = grant(
        ctx,
        tokens,
        owner,
        (&code.browser_hash, shown.client),
        &code.device_id,
    );
    Ok((granted.await?, code))
}

/// Whether a verifier is that of a challenge.
fn proves(verifier: &str, challenge: &str) -> bool {
    let is_one = VERIFIER_CHARS.contains(&verifier.len()) && verifier.bytes().all(is_unreserved);
    let computed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    is_one && bool::from(computed.as_bytes().ct_eq(challenge.as_bytes()))
}

/// Opens the session that a user allowed in a browser, which has to be logged in still.
pub(super) async fn grant(
    ctx: &Context,
    tokens: &Tokens,
    user: UserNid,
    (browser_hash, client): (&[u8], &Client),
    device_id: &str,
) -> Result<Granted, Error> {
    let mut conn = ctx.db.conn().await?;
    let browser = storage::browser_sessions::find(&mut conn, browser_hash, now_ms()).await?;
    let browser = browser.filter(|browser| browser.user == user);
    let browser = browser.ok_or(Error::Grant("the browser is not logged in any more"))?;
    drop(conn);
    let name: String = client.name().chars().take(100).collect();
    let cause = Cause {
        origin: browser.origin.as_ref(),
        client: Some(&client.id),
    };
    let user = ctx.db.ids.user_id(user).await?;
    let device = <&DeviceId>::from(device_id);
    let granted = tokens.grant_of(&user, Some(device), Some(&name), true, cause);
    Ok(granted.await?)
}

#[cfg(test)]
mod tests {
    use super::{check_challenge, proves};

    #[test]
    fn a_verifier_proves_its_challenge_alone() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        check_challenge(challenge).unwrap();
        assert!(proves(verifier, challenge));
        for bad in [
            "",
            "x",
            challenge,
            &verifier.replace('d', "D"),
            &"ä".repeat(43),
        ] {
            assert!(!proves(bad, challenge), "{bad}");
        }
        for bad in ["", verifier.get(1..).unwrap(), &"+".repeat(43)] {
            assert!(check_challenge(bad).is_err(), "{bad}");
        }
    }
}
