//! Tokens by which a session opens another one on a new device (specification, "m.login.token" and
//! `POST /login/get_token`).

use ruma::OwnedUserId;

use super::{
    Error,
    tokens::{fresh, hash},
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid},
};

/// How long a token is good.
pub const LIFE_MS: i64 = 120_000;

/// A new token for a user, for one login. Only its hash is kept.
pub async fn issue(ctx: &Context, user: UserNid) -> Result<String, Error> {
    let token = fresh("aml");
    let mut conn = ctx.db.conn().await?;
    storage::login_tokens::insert(&mut conn, &hash(&token), user, now_ms() + LIFE_MS).await?;
    Ok(token)
}

/// Whose token it is. It is used up by that.
pub async fn redeem(ctx: &Context, token: &str) -> Result<OwnedUserId, Error> {
    let mut conn = ctx.db.conn().await?;
    let user = storage::login_tokens::take(&mut conn, &hash(token), now_ms()).await?;
    drop(conn);
    let user = user.ok_or(Error::Forbidden("the login token is not valid"))?;
    Ok(ctx.db.ids.user_id(user).await?)
}
