//! Browsers that are logged in to our pages.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ruma::OwnedUserId;
use subtle::ConstantTimeEq;

use super::super::{
    Error,
    tokens::{fresh, hash},
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, sso::Origin},
};

/// How long a browser stays logged in: a working day.
pub const LIFE_MS: i64 = 12 * 3_600_000;
/// Browsers of one user.
const MOST: i64 = 20;

/// A browser that is logged in.
#[derive(Clone)]
pub struct Browser {
    /// Who is logged in.
    pub user: OwnedUserId,
    /// The same, interned.
    pub nid: UserNid,
    /// The session at an identity provider that it comes of.
    pub origin: Option<Origin>,
    pub(super) hash: [u8; 32],
    /// What forms of this browser carry.
    pub seal: String,
}

impl Browser {
    /// Whether a form was one that we gave this browser: other sites can make it send forms, but
    /// do not know what stands on our pages.
    pub fn has_sealed(&self, seal: &str) -> bool {
        bool::from(self.seal.as_bytes().ct_eq(seal.as_bytes()))
    }
}

/// Logs a browser in; what it keeps as a cookie.
pub async fn open(ctx: &Context, user: UserNid, origin: Option<&Origin>) -> Result<String, Error> {
    let token = fresh("amb");
    let expires = now_ms() + LIFE_MS;
    let mut conn = ctx.db.conn().await?;
    storage::browser_sessions::insert(&mut conn, &hash(&token), user, expires, origin, MOST)
        .await?;
    Ok(token)
}

/// The browser of a cookie; `None`: nobody is logged in there.
pub async fn find(ctx: &Context, token: &str) -> Result<Option<Browser>, Error> {
    let hash = hash(token);
    let mut conn = ctx.db.conn().await?;
    let found = storage::browser_sessions::find(&mut conn, &hash, now_ms()).await?;
    drop(conn);
    let Some(found) = found else { return Ok(None) };
    Ok(Some(Browser {
        user: ctx.db.ids.user_id(found.user).await?,
        nid: found.user,
        origin: found.origin,
        hash,
        seal: URL_SAFE_NO_PAD.encode(self::hash(&format!("seal {token}"))),
    }))
}

/// Logs a browser out.
pub async fn close(ctx: &Context, browser: &Browser) -> Result<(), Error> {
    let mut conn = ctx.db.conn().await?;
    storage::browser_sessions::delete(&mut conn, &browser.hash).await?;
    Ok(())
}
