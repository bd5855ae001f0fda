//! Signed tokens (JWS in its compact form, RFC 7515; algorithms, RFC 7518 and RFC 8037). The mathematics
//! is AWS-LC's, as everywhere in TLS.

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Error;

/// Bytes of a token.
const BYTES_MAX: usize = 64 << 10;

/// Algorithms by which tokens may be signed: with keys that the provider alone has. Those with a shared
/// secret are none of them, nor is "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// By its name (RFC 7518, section 3.1).
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    /// How an RSA key signs.
    fn of_rsa(self) -> Option<&'static signature::RsaParameters> {
        match self {
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 | Self::Es384 | Self::EdDsa => None,
        }
    }
}

/// A public key.
#[derive(Clone, Debug)]
pub(super) enum PublicKey {
    /// Modulus and exponent.
    Rsa(Vec<u8>, Vec<u8>),
    /// A point of P-256.
    P256(Vec<u8>),
    /// A point of P-384.
    P384(Vec<u8>),
    /// A point of Ed25519.
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Whether it signs by that algorithm.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa(..) => algorithm.of_rsa().is_some(),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        let verified =
            match self {
                Self::Rsa(n, e) => match algorithm.of_rsa() {
                    Some(parameters) => {
                        RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
                    }
                    None => return false,
                },
                Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature),
                Self::P384(point) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
                    .verify(message, signature),
                Self::Ed25519(point) => {
                    UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
                }
            };
        verified.is_ok()
    }
}

/// A token whose signature nobody has checked yet.
pub(super) struct Unchecked<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// Kind of the token, in small letters.
    pub(super) kind: Option<String>,
    message: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// What a reader has to understand, of which we understand nothing.
    crit: Option<Value>,
}

impl<'a> Unchecked<'a> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, Error> {
        if token.len() > BYTES_MAX {
            return Err(Error::Token("it is too long"));
        }
        let unreadable = || Error::Token("it is not readable");
        let (message, signature) = token.rsplit_once('.').ok_or_else(unreadable)?;
        let (head, payload) = message.split_once('.').ok_or_else(unreadable)?;
        let decoded = URL_SAFE_NO_PAD.decode(head).map_err(|_| unreadable())?;
        let head: Head = serde_json::from_slice(&decoded).map_err(|_| unreadable())?;
        if head.crit.is_some() {
            return Err(unreadable());
        }
        let algorithm = Algorithm::named(&head.alg);
        Ok(Self {
            algorithm: algorithm
                .ok_or(Error::Token("it is signed in a way that is not accepted"))?,
            kid: head.kid,
            kind: head.typ.map(|kind| kind.to_ascii_lowercase()),
            message,
            payload,
            signature: URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| unreadable())?,
        })
    }

    /// Its claims, where one of the keys has signed them.
    pub(super) fn verify<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k PublicKey>,
    ) -> Result<Map<String, Value>, Error> {
        let message = self.message.as_bytes();
        let mut keys = keys.into_iter();
        if !keys.any(|key| key.verifies(self.algorithm, message, &self.signature)) {
            return Err(Error::Token("its signature is not good"));
        }
        self.unchecked_claims()
            .ok_or(Error::Token("it is not readable"))
    }

    /// What it claims, whoever has signed that.
    pub(super) fn unchecked_claims(&self) -> Option<Map<String, Value>> {
        let payload = URL_SAFE_NO_PAD.decode(self.payload).ok()?;
        serde_json::from_slice(&payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.3, and RFC 8037, appendix A.4.
    #[test]
    fn the_examples_of_the_standards_are_good_and_changed_ones_are_not() {
        let b64 = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let (x, y) = (
            "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        );
        let key = PublicKey::P256([vec![4], b64(x), b64(y)].concat());
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
                     Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXF\
                     CgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let claims = Unchecked::parse(token).unwrap().verify([&key]).unwrap();
        assert_eq!(claims["iss"], "joe");
        let changed = token.replacen("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqb2Uj", 1);
        assert!(Unchecked::parse(&changed).unwrap().verify([&key]).is_err());
        let other = PublicKey::Ed25519(b64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
        assert!(Unchecked::parse(token).unwrap().verify([&other]).is_err());
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-\
                     09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let token = Unchecked::parse(token).unwrap();
        // The signature is good; the payload is no object of claims.
        let Err(Error::Token(why)) = token.verify([&other]) else {
            panic!("no claims")
        };
        assert_eq!(why, "it is not readable");
    }

    #[test]
    fn what_is_signed_in_no_way_or_an_odd_one_is_refused() {
        let head = |head: &str| format!("{}.e30.", URL_SAFE_NO_PAD.encode(head));
        for bad in [
            head(r#"{"alg":"none"}"#),
            head(r#"{"alg":"None"}"#),
            head(r#"{"alg":"HS256"}"#),
            head(r#"{"alg":"RS1"}"#),
            head(r#"{"alg":["RS256"]}"#),
            head(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#),
            head("{}"),
            head("[]"),
            ".e30.".to_owned(),
            "e30".to_owned(),
            String::new(),
            "x".repeat(BYTES_MAX + 1),
        ] {
            assert!(Unchecked::parse(&bad).is_err(), "{bad:.80}");
        }
    }
}
