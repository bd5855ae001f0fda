//! Passwords: argon2id, on threads of their own, a few at a time.

use std::sync::LazyLock;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::phc::PasswordHash,
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::Error;

/// Longest password; hashing megabytes would be a way to keep us busy.
const LENGTH_MAX: usize = 512;

/// Each hash takes 19 MiB and a core: no more at once than there are cores.
static HASHING: LazyLock<Semaphore> = LazyLock::new(|| {
    Semaphore::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
});

/// What is checked for an unknown user, so that the answer takes as long as for a known one.
static DUMMY: LazyLock<Option<String>> =
    LazyLock::new(|| hash_now("no account has this password").ok());

/// OWASP's second choice of parameters: 19 MiB, two passes.
fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

fn hash_now(password: &str) -> Result<String, Error> {
    argon2()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| Error::Hashing(error.to_string()))
}

/// Checks what a new password has to be: of that many characters at least.
pub fn check_strength(password: &str, length_min: usize) -> Result<(), Error> {
    if password.chars().count() < length_min {
        return Err(Error::WeakPassword(format!(
            "a password has at least {length_min} characters"
        )));
    }
    if password.len() > LENGTH_MAX {
        return Err(Error::WeakPassword(format!(
            "a password has at most {LENGTH_MAX} bytes"
        )));
    }
    Ok(())
}

/// Hashes a password, in PHC form.
pub async fn hash(password: &str) -> Result<String, Error> {
    let password = Zeroizing::new(password.to_owned());
    let _permit = HASHING.acquire().await;
    tokio::task::spawn_blocking(move || hash_now(&password))
        .await
        .map_err(|error| Error::Hashing(error.to_string()))?
}

/// Whether a password matches; takes the same time where there is no hash.
pub async fn verify(password: &str, hash: Option<String>) -> bool {
    if password.len() > LENGTH_MAX {
        return false;
    }
    let password = Zeroizing::new(password.to_owned());
    let _permit = HASHING.acquire().await;
    let verified = tokio::task::spawn_blocking(move || {
        let known = hash.is_some();
        let Some(hash) = hash.or_else(|| DUMMY.clone()) else {
            return false;
        };
        let matches = PasswordHash::new(&hash)
            .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok());
        matches && known
    });
    verified.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::{hash, verify};

    #[tokio::test]
    async fn the_right_password_alone_passes() {
        let stored = hash("correct horse").await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify("correct horse", Some(stored.clone())).await);
        assert!(!verify("correct horse ", Some(stored)).await);
        assert!(!verify("correct horse", None).await);
        assert!(!verify("no account has this password", None).await);
        assert!(!verify("x", Some("nonsense".to_owned())).await);
    }
}
