//! Devices that are logged in with a browser elsewhere (RFC 8628): the device shows a short code, and the
//! user types it in a browser.

use super::{
    super::{
        tokens::{self, Granted, Tokens},
        typed_code,
    },
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
        let user_code = typed_code::fresh();
        if storage::oauth::insert_link(&mut conn, (&hash, &user_code), &link).await? {
            return Ok(Begun {
                device_code,
                user_code: typed_code::shown(&user_code),
            });
        }
    }
    Err(Error::TooMany)
}

/// The device that waits for what a user typed; with its code.
pub async fn find(ctx: &Context, text: &str) -> Result<Option<(String, Link)>, Error> {
    let Some(code) = typed_code::typed(text) else {
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
