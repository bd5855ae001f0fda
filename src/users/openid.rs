//! Tokens with which a user proves to others who they are (specification, "OpenID").

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

/// How long a token is good: as long as others expect it, an hour.
pub const LIFE_SECONDS: i64 = 3_600;

/// A new token for a user. Only its hash is kept, and it opens nothing here.
pub async fn issue(ctx: &Context, user: UserNid) -> Result<String, Error> {
    let token = fresh("amo");
    let expires_ts = now_ms() + LIFE_SECONDS * 1_000;
    let mut conn = ctx.db.conn().await?;
    storage::openid_tokens::insert(&mut conn, &hash(&token), user, expires_ts).await?;
    Ok(token)
}

/// Whose token it is.
pub async fn owner(ctx: &Context, token: &str) -> Result<OwnedUserId, Error> {
    let mut conn = ctx.db.conn().await?;
    let user = storage::openid_tokens::find(&mut conn, &hash(token), now_ms()).await?;
    drop(conn);
    let user = user.ok_or(Error::WrongToken)?;
    Ok(ctx.db.ids.user_id(user).await?)
}
