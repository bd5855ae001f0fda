//! Our signing keys.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD},
    },
};
use ruma::{
    CanonicalJsonObject, OwnedServerName, ServerName,
    signatures::{Ed25519KeyPair, KeyPair, sign_json},
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

/// Keys that a file may hold.
const KEYS_MAX: usize = 50;

/// The keys that sign for our server: one that is in use, and those it took the place of. `Debug`
/// shows names only. They can be replaced while they are in use.
pub struct SigningKeys {
    /// Our server name.
    pub server_name: OwnedServerName,
    ring: ArcSwap<Ring>,
}

/// The keys of a file.
struct Ring {
    active: Arc<Ed25519KeyPair>,
    retired: Vec<Retired>,
}

/// A key that is not used any more, or not much longer.
struct Retired {
    pair: Ed25519KeyPair,
    /// Milliseconds since 1970: what it signed until then counts.
    until: i64,
}

/// A key as others see it.
#[derive(Clone, Debug)]
pub struct Published {
    /// `ed25519:VERSION`.
    pub id: String,
    /// The public key, 32 bytes.
    pub public: [u8; 32],
    /// When it goes, or went, out of use, in milliseconds since 1970; `None`: it is in use.
    pub until: Option<i64>,
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKeys({} {})", self.server_name, self.key_id())
    }
}

impl SigningKeys {
    /// Reads the usual file format: `ed25519 VERSION BASE64` on a line is the key in use. Lines of
    /// keys that it took the place of follow, with `until MILLISECONDS` at their end.
    pub fn parse(server_name: &ServerName, text: &str) -> Result<Self, Error> {
        Ok(Self {
            server_name: server_name.to_owned(),
            ring: ArcSwap::from_pointee(parse(text)?),
        })
    }

    /// Takes the keys of another text in place of those so far.
    pub fn replace(&self, text: &str) -> Result<(), Error> {
        self.ring.store(Arc::new(parse(text)?));
        Ok(())
    }

    /// A new key in the same format. `version` names it.
    pub fn generate(version: &str) -> String {
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
        format!("ed25519 {version} {}\n", STANDARD_NO_PAD.encode(*seed))
    }

    /// The text of a file with a new key in use; the one so far counts until a time.
    pub fn rotate(text: &str, version: &str, until: i64) -> Result<Zeroizing<String>, Error> {
        parse(text)?;
        let mut rotated = Zeroizing::new(Self::generate(version));
        let mut lines = lines(text);
        if let Some(active) = lines.next() {
            for word in [active, " until ", &until.to_string(), "\n"] {
                rotated.push_str(word);
            }
        }
        for line in lines.take(KEYS_MAX - 2) {
            rotated.push_str(line);
            rotated.push('\n');
        }
        parse(&rotated)?;
        Ok(rotated)
    }

    /// `ed25519:VERSION` of the key in use.
    pub fn key_id(&self) -> String {
        id_of(&self.ring.load().active)
    }

    /// The public key in use, 32 bytes.
    pub fn public_key(&self) -> [u8; 32] {
        self.ring.load().active.public_key()
    }

    /// The key pair in use, for ruma.
    pub fn pair(&self) -> Arc<Ed25519KeyPair> {
        self.ring.load().active.clone()
    }

    /// All keys as others see them, the one in use first.
    pub fn published(&self) -> Vec<Published> {
        let ring = self.ring.load();
        let published = |pair: &Ed25519KeyPair, until| Published {
            id: id_of(pair),
            public: pair.public_key(),
            until,
        };
        let retired = ring.retired.iter();
        std::iter::once(published(&ring.active, None))
            .chain(retired.map(|key| published(&key.pair, Some(key.until))))
            .collect()
    }

    /// Our signature of bytes, 64 of them.
    pub fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        self.ring.load().active.sign(message).as_bytes().to_vec()
    }

    /// Adds our signature to an object.
    pub fn sign_json(&self, object: &mut CanonicalJsonObject) -> Result<(), Error> {
        sign(&self.server_name, &self.ring.load().active, object)
    }

    /// Adds the signatures of all keys that count at a time: what a document of our keys carries.
    pub fn sign_with_all(&self, object: &mut CanonicalJsonObject, now: i64) -> Result<(), Error> {
        let ring = self.ring.load();
        sign(&self.server_name, &ring.active, object)?;
        for key in ring.retired.iter().filter(|key| key.until > now) {
            sign(&self.server_name, &key.pair, object)?;
        }
        Ok(())
    }
}

fn sign(
    server_name: &ServerName,
    pair: &Ed25519KeyPair,
    object: &mut CanonicalJsonObject,
) -> Result<(), Error> {
    sign_json(server_name.as_str(), pair, object)
        .map_err(|error| Error::Signature(error.to_string()))
}

fn id_of(pair: &Ed25519KeyPair) -> String {
    format!("ed25519:{}", pair.version())
}

fn bad(what: &str) -> Error {
    Error::Key(what.to_owned())
}

/// Lines that say something.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn parse(text: &str) -> Result<Ring, Error> {
    let mut lines = lines(text);
    let first = lines.next().ok_or_else(|| bad("file is empty"))?;
    let (active, None) = parse_line(first)? else {
        return Err(bad("the first key is the one in use and has no end"));
    };
    let mut retired = Vec::new();
    for line in lines {
        let (pair, until) = parse_line(line)?;
        let until = until.ok_or_else(|| bad("keys after the first say `until` when"))?;
        let known = std::iter::once(&active).chain(retired.iter().map(|key: &Retired| &key.pair));
        if known
            .map(Ed25519KeyPair::version)
            .any(|version| version == pair.version())
        {
            return Err(bad("two keys have the same name"));
        }
        retired.push(Retired { pair, until });
        if retired.len() >= KEYS_MAX {
            return Err(bad("too many keys"));
        }
    }
    Ok(Ring {
        active: Arc::new(active),
        retired,
    })
}

fn parse_line(line: &str) -> Result<(Ed25519KeyPair, Option<i64>), Error> {
    let mut words = line.split_whitespace();
    let (Some("ed25519"), Some(version), Some(seed)) = (words.next(), words.next(), words.next())
    else {
        return Err(bad("expected `ed25519 VERSION BASE64`"));
    };
    let until = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some("until"), Some(ts), None) => {
            Some(ts.parse().map_err(|_| bad("`until` needs milliseconds"))?)
        }
        _ => return Err(bad("after a key only `until MILLISECONDS` may follow")),
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
    Ok((pair, until))
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
            "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1 until 5",
            "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1 soon",
        ] {
            assert!(
                SigningKeys::parse(server_name!("a.example"), text).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_that_was_replaced_is_told_with_its_end() {
        let first = SigningKeys::generate("one");
        let keys = SigningKeys::parse(server_name!("a.example"), &first).unwrap();
        let second = SigningKeys::rotate(&first, "two", 1_000).unwrap();
        keys.replace(&second).unwrap();
        let third = SigningKeys::rotate(&second, "three", 2_000).unwrap();
        keys.replace(&third).unwrap();
        let told: Vec<_> = keys
            .published()
            .into_iter()
            .map(|key| (key.id, key.until))
            .collect();
        let expected = [("three", None), ("two", Some(2_000)), ("one", Some(1_000))];
        let expected = expected.map(|(version, until)| (format!("ed25519:{version}"), until));
        assert_eq!(told, expected);
        let mut object = serde_json::from_str("{}").unwrap();
        keys.sign_with_all(&mut object, 1_500).unwrap();
        let signed = serde_json::to_value(&object).unwrap();
        let signed = signed["signatures"]["a.example"].as_object().unwrap();
        assert_eq!(
            signed.keys().collect::<Vec<_>>(),
            ["ed25519:three", "ed25519:two"]
        );
        assert!(keys.replace(&format!("{first}{first}")).is_err());
        assert!(SigningKeys::rotate(&third, "one", 3_000).is_err());
    }
}
