//! Tokens by which a session opens another one on a new device (specification, "m.login.token" and
//! `POST /login/get_token`).

use ruma::OwnedUserId;

use super::{
    Error,
    tokens::{Session, fresh, hash},
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, sso::Origin},
};

/// How long a token is good.
pub const LIFE_MS: i64 = 120_000;

/// A new token for a user, for one login. Only its hash is kept. `origin`: the session at an identity
/// provider that it comes of, which ends with that one.
pub async fn issue(ctx: &Context, user: UserNid, origin: Option<&Origin>) -> Result<String, Error> {
    let token = fresh("aml");
    let expires = now_ms() + LIFE_MS;
    let mut conn = ctx.db.conn().await?;
    storage::login_tokens::insert(&mut conn, &hash(&token), user, expires, origin).await?;
    Ok(token)
}

/// A new token for the user of a session, which opens another of the same origin.
pub async fn issue_for(ctx: &Context, session: &Session) -> Result<String, Error> {
    let device = (session.user_nid, session.device_no);
    let mut conn = ctx.db.conn().await?;
    let origin = storage::sso::find_session(&mut conn, device).await?;
    drop(conn);
    issue(ctx, session.user_nid, origin.as_ref()).await
}

/// Whose token it is, and of which session at an identity provider it comes. It is used up by that.
pub async fn redeem(ctx: &Context, token: &str) -> Result<(OwnedUserId, Option<Origin>), Error> {
    let mut conn = ctx.db.conn().await?;
    let found = storage::login_tokens::take(&mut conn, &hash(token), now_ms()).await?;
    drop(conn);
    let (user, origin) = found.ok_or(Error::Forbidden("the login token is not valid"))?;
    Ok((ctx.db.ids.user_id(user).await?, origin))
}
