//! Devices that are logged in with a browser elsewhere (RFC 8628): the device shows a short code, and the
//! user types it in a browser.

use super::{
    super::tokens::{self, Granted, Tokens},
    Error,
    browser::Browser,
    clients::Client,
    code,
    scope::Scope,
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, oauth::Link},
};

/// How long a device waits, in seconds.
pub const LIFE_S: i64 = 900;
/// How often it may ask, in seconds.
pub const INTERVAL_S: i64 = 5;
/// What it may be too early, in milliseconds: what it counts and what we do differ.
const EARLY_MS: i64 = 1_000;
/// Letters of a code: none that is read as another, and none that make words.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const CODE_CHARS: usize = 8;
/// How often a code is drawn that is another's.
const DRAWS: usize = 5;

/// A device that begins to wait.
#[derive(Clone)]
pub struct Begun {
    /// The code by which it asks.
    pub device_code: String,
    /// The code that the user types.
    pub user_code: String,
}

/// A code as people are shown it.
fn shown(code: &str) -> String {
    let (first, second) = code.split_at(CODE_CHARS / 2);
    format!("{first}-{second}")
}

/// A code as people type it: with hyphens, spaces and small letters as they like. `None`: it is none.
fn typed(text: &str) -> Option<String> {
    let kept = text.chars().filter(char::is_ascii_alphanumeric);
    let code: String = kept
        .map(|c| c.to_ascii_uppercase())
        .take(CODE_CHARS + 1)
        .collect();
    let is_code = code.len() == CODE_CHARS && code.bytes().all(|byte| LETTERS.contains(&byte));
    is_code.then_some(code)
}

/// A device begins to wait.
pub async fn begin(ctx: &Context, client: &Client, scope: &Scope) -> Result<Begun, Error> {
    let device_code = tokens::fresh("aml");
    let link = Link {
        client_id: client.id.clone(),
        device_id: scope.device_id.to_string(),
        scope: scope.granted.clone(),
        expires_ts: now_ms() + LIFE_S * 1_000,
        browser_hash: None,
        user_nid: None,
        denied: false,
    };
    let hash = tokens::hash(&device_code);
    let mut conn = ctx.db.conn().await?;
    for _ in 0..DRAWS {
        let draw = |_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
        let user_code: String = (0..CODE_CHARS).map(draw).collect();
        if storage::oauth::insert_link(&mut conn, (&hash, &user_code), &link).await? {
            return Ok(Begun {
                device_code,
                user_code: shown(&user_code),
            });
        }
    }
    Err(Error::TooMany)
}

/// The device that waits for what a user typed; with its code.
pub async fn find(ctx: &Context, text: &str) -> Result<Option<(String, Link)>, Error> {
    let Some(code) = typed(text) else {
        return Ok(None);
    };
    let mut conn = ctx.db.conn().await?;
    let link = storage::oauth::find_link(&mut conn, &code, now_ms()).await?;
    Ok(link.map(|link| (code, link)))
}

/// Answers a device; `false`: it does not wait any more.
pub async fn answer(
    ctx: &Context,
    browser: &Browser,
    code: &str,
    is_allowed: bool,
) -> Result<bool, Error> {
    let allowed = is_allowed.then_some((browser.nid, &browser.hash[..]));
    let mut conn = ctx.db.conn().await?;
    Ok(storage::oauth::answer_link(&mut conn, code, allowed, now_ms()).await?)
}

/// A device asks what came of it.
pub async fn poll(
    ctx: &Context,
    tokens: &Tokens,
    (client, device_code): (&Client, &str),
) -> Result<(Granted, String), Error> {
    let hash = tokens::hash(device_code);
    let now = now_ms();
    let mut conn = ctx.db.conn().await?;
    let found = storage::oauth::poll_link(&mut conn, &hash, now).await?;
    let found = found.filter(|(link, _)| link.client_id == client.id);
    let (link, before) = found.ok_or(Error::Grant("the device code is not valid"))?;
    if link.denied {
        return Err(Error::Denied);
    }
    if link.expires_ts <= now {
        return Err(Error::Late);
    }
    let Some((user, browser)) = link.user_nid.zip(link.browser_hash) else {
        let is_soon = now < before + INTERVAL_S * 1_000 - EARLY_MS;
        return Err(if is_soon {
            Error::TooSoon
        } else {
            Error::Pending
        });
    };
    if !storage::oauth::delete_link(&mut conn, &hash).await? {
        return Err(Error::Grant("the device code was used before"));
    }
    drop(conn);
    let of = (&*browser, client);
    let granted = code::grant(ctx, tokens, UserNid(user), of, &link.device_id).await?;
    Ok((granted, link.scope))
}

#[cfg(test)]
mod tests {
    use super::{shown, typed};

    #[test]
    fn codes_are_typed_as_people_like() {
        assert_eq!(shown("BCDFGHJK"), "BCDF-GHJK");
        for good in ["BCDF-GHJK", "bcdfghjk", " bcdf ghjk ", "b-c-d-f-g-h-j-k"] {
            assert_eq!(typed(good).as_deref(), Some("BCDFGHJK"), "{good}");
        }
        for bad in [
            "",
            "BCDF",
            "BCDFGHJKL",
            "ABCDEFGH",
            "BCDF-GHJ1",
            &"B".repeat(10_000),
        ] {
            assert_eq!(typed(bad), None, "{bad}");
        }
    }
}
