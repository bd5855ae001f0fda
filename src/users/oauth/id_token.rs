//! Who logged in, for clients that ask for it beside the tokens (OpenID Connect Core 1.0, section 2): those that
//! were written before the specification had OAuth 2.0 want it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ruma::UserId;
use serde_json::{Value, json};

use super::issuer;
use crate::{clock::now_ms, config::OAuth, context::Context};

/// How long it is good, in seconds.
const LIFE_S: i64 = 3_600;
/// How it is signed (RFC 8037): by the key that signs for us elsewhere. What is signed there begins with a brace, and
/// here with letters, so that the one is never taken for the other.
pub const ALGORITHM: &str = "EdDSA";

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The token of a user for a client; `nonce`: what the client wants repeated.
pub fn issue(
    ctx: &Context,
    config: &OAuth,
    (user, client): (&UserId, &str),
    nonce: Option<&str>,
) -> String {
    let now = now_ms() / 1_000;
    let mut claims = json!({
        "iss": issuer(config),
        "sub": user,
        "aud": client,
        "iat": now,
        "exp": now + LIFE_S,
    });
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    let head = json!({ "alg": ALGORITHM, "typ": "JWT", "kid": ctx.keys.key_id() });
    let message = format!("{}.{}", part(&head), part(&claims));
    let signature = ctx.keys.sign_bytes(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The keys by which tokens are checked (RFC 7517; RFC 8037, section 2).
pub fn keys(ctx: &Context) -> Value {
    let keys = ctx.keys.published().into_iter().map(|key| {
        json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM,
            "kid": key.id, "x": URL_SAFE_NO_PAD.encode(key.public),
        })
    });
    json!({ "keys": keys.collect::<Vec<_>>() })
}
