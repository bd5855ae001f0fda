//! Our signing key.

use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD},
    },
};
use ruma::{
    CanonicalJsonObject, OwnedServerName, ServerName,
    signatures::{Ed25519KeyPair, sign_json},
};
use zeroize::Zeroizing;

use super::Error;

/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];

/// Keys of other servers' making may end in bits that mean nothing, as that of the specification's
/// own example does.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key that signs for our server. `Debug` shows its name only.
pub struct SigningKeys {
    /// Our server name.
    pub server_name: OwnedServerName,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKeys({} {})", self.server_name, self.key_id())
    }
}

impl SigningKeys {
    /// Reads the first key of the usual file format: `ed25519 VERSION BASE64` on a line.
    pub fn parse(server_name: &ServerName, text: &str) -> Result<Self, Error> {
        let bad = |what: &str| Error::Key(what.to_owned());
        let line = text
            .lines()
            .find(|line| !line.trim().is_empty())
            .ok_or(bad("file is empty"))?;
        let mut words = line.split_whitespace();
        let (Some("ed25519"), Some(version), Some(seed)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(bad("expected `ed25519 VERSION BASE64`"));
        };
        if !version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            return Err(bad("the version may hold letters, digits and _ only"));
        }
        let seed = LENIENT.decode(seed).map(Zeroizing::new);
        let seed = seed.map_err(|_| bad("not base64"))?;
        if seed.len() != 32 {
            return Err(bad("a key has 32 bytes"));
        }
        let mut document = Zeroizing::new(PKCS8_PREFIX.to_vec());
        document.extend_from_slice(&seed);
        let pair = Ed25519KeyPair::from_der(&document, version.to_owned())
            .map_err(|error| Error::Key(error.to_string()))?;
        Ok(Self {
            server_name: server_name.to_owned(),
            pair,
        })
    }

    /// A new key in the same format. `version` names it.
    pub fn generate(version: &str) -> String {
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
        format!("ed25519 {version} {}\n", STANDARD_NO_PAD.encode(*seed))
    }

    /// `ed25519:VERSION`.
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.pair.version())
    }

    /// The public key, 32 bytes.
    pub fn public_key(&self) -> [u8; 32] {
        self.pair.public_key()
    }

    /// The key pair, for ruma.
    pub fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }

    /// Adds our signature to an object.
    pub fn sign_json(&self, object: &mut CanonicalJsonObject) -> Result<(), Error> {
        sign_json(self.server_name.as_str(), &self.pair, object)
            .map_err(|error| Error::Signature(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::SigningKeys;

    #[test]
    fn generated_key_parses_and_hides_its_secret() {
        let text = SigningKeys::generate("a_1");
        let keys = SigningKeys::parse(server_name!("a.example"), &text).unwrap();
        assert_eq!(keys.key_id(), "ed25519:a_1");
        assert_eq!(format!("{keys:?}"), "SigningKeys(a.example ed25519:a_1)");
    }

    #[test]
    fn the_key_of_the_specification_has_the_public_key_of_the_specification() {
        // Appendix "Cryptographic test vectors".
        let text = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
        let keys = SigningKeys::parse(server_name!("domain"), text).unwrap();
        let mut object = serde_json::from_str("{}").unwrap();
        keys.sign_json(&mut object).unwrap();
        assert_eq!(
            serde_json::to_value(&object).unwrap()["signatures"]["domain"]["ed25519:1"],
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
        );
    }

    #[test]
    fn broken_keys_are_refused() {
        for text in [
            "",
            "rsa 1 AAAA",
            "ed25519 1",
            "ed25519 1 AAAA",
            "ed25519 a:b AAAA",
        ] {
            assert!(
                SigningKeys::parse(server_name!("a.example"), text).is_err(),
                "{text}"
            );
        }
    }
}
