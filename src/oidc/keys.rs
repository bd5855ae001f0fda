//! Keys that a provider signs with, as it publishes them (RFC 7517).

use std::sync::{Arc, PoisonError};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{
    Error, Provider,
    jws::{Algorithm, PublicKey},
};
use crate::clock::now_ms;

/// How long what was read is good: a key that was withdrawn is not believed for longer.
const LIFE_MS: i64 = 3_600_000;
/// Keys of a provider that are looked at.
const KEYS_MAX: usize = 50;
/// How often keys are read again because a token names one that is not known: so many a second, and
/// so many at once. A provider that changes its keys is read once, and whoever makes names up is not
/// followed.
pub(super) const READINGS: (f64, f64) = (1.0 / 60.0, 5.0);

/// Keys of a provider.
#[derive(Debug)]
pub(super) struct Known {
    read_ts: i64,
    keys: Vec<Key>,
}

/// One key.
#[derive(Clone, Debug)]
struct Key {
    kid: Option<String>,
    /// The one algorithm that it is for, where the provider says so.
    algorithm: Option<Algorithm>,
    public: PublicKey,
}

impl Provider {
    /// Keys that may have signed a token, by what its head says. Where there is none, the provider may
    /// have a new one: its keys are read again, not too often.
    pub(super) async fn keys(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<Vec<PublicKey>, Error> {
        let known = self.remembered();
        let (known, is_read) = match known {
            Some(known) if now_ms() - known.read_ts < LIFE_MS => (known, false),
            _ => (self.read_keys().await?, true),
        };
        let found = known.fitting(algorithm, kid);
        if !found.is_empty() {
            return Ok(found);
        }
        if !is_read && self.may_read() {
            let found = self.read_keys().await?.fitting(algorithm, kid);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(Error::Token("its key is not one of the provider's"))
    }

    fn remembered(&self) -> Option<Arc<Known>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    fn may_read(&self) -> bool {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.take(READINGS).is_ok()
    }

    async fn read_keys(&self) -> Result<Arc<Known>, Error> {
        let metadata = self.metadata().await?;
        let set = self.client.get_from_provider(&metadata.jwks, None).await?;
        let Value::Array(keys) = &set["keys"] else {
            return Err(Error::Nonsense("it publishes no keys"));
        };
        let known = Arc::new(Known {
            read_ts: now_ms(),
            // What is no key of a kind that we know is for others.
            keys: keys.iter().take(KEYS_MAX).filter_map(key).collect(),
        });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }
}

impl Known {
    fn fitting(&self, algorithm: Algorithm, kid: Option<&str>) -> Vec<PublicKey> {
        let fits = |key: &&Key| {
            let is_named = kid.is_none() || key.kid.as_deref() == kid;
            let is_for = key.algorithm.is_none_or(|it| it == algorithm);
            is_named && is_for && key.public.is_for(algorithm)
        };
        let fitting = self.keys.iter().filter(fits);
        fitting.map(|key| key.public.clone()).collect()
    }
}

/// A public key for signatures.
fn key(value: &Value) -> Option<Key> {
    let text = |name: &str| value[name].as_str();
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let algorithm = match text("alg") {
        Some(name) => Some(Algorithm::named(name)?),
        None => None,
    };
    // SEC 1, section 2.3.3: a point that is not compressed.
    let point = |len: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == len && y.len() == len).then(|| [vec![4], x, y].concat())
    };
    let public = match (text("kty")?, text("crv")) {
        ("RSA", _) => PublicKey::Rsa(bytes("n")?, bytes("e")?),
        ("EC", Some("P-256")) => PublicKey::P256(point(32)?),
        ("EC", Some("P-384")) => PublicKey::P384(point(48)?),
        ("OKP", Some("Ed25519")) => PublicKey::Ed25519(bytes("x")?),
        _ => return None,
    };
    Some(Key {
        kid: text("kid").map(ToOwned::to_owned),
        algorithm,
        public,
    })
}
