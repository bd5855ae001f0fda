//! Login by OAuth 2.0 (specification, "OAuth 2.0 API"): clients register, users say in a browser what
//! they may, and they get tokens for that. Everything that is under way stands in the database, so that
//! any node may go on with it.

pub mod browser;
pub mod clients;
pub mod code;
pub mod id_token;
pub mod link;
pub mod scope;

use sqlx::PgConnection;

use super::tokens::{Granted, Tokens};
use crate::{
    clock::now_ms,
    config::OAuth,
    context::Context,
    storage::{self, UserNid},
};

/// The page where users look after their account.
pub const ACCOUNT_PATH: &str = "/_matrix/account";
/// What they do there to let the cross-signing keys be replaced.
pub const REPLACE_ACTION: &str = "org.matrix.cross_signing_reset";
/// How long cross-signing keys may be replaced, once a user has said so.
const REPLACE_MS: i64 = 10 * 60_000;
/// How long codes are kept after they are over: who shows one again is told that it is over.
const KEEP_MS: i64 = 24 * 3_600_000;
/// How long a client is kept that nobody uses.
const KEEP_CLIENTS_MS: i64 = 7 * 24 * 3_600_000;

/// Grants that a client may ask for at the token endpoint.
pub const GRANT_TYPES: [&str; 3] = [CODE_GRANT, REFRESH_GRANT, LINK_GRANT];
/// By a code that a browser took (RFC 6749, section 4.1).
pub const CODE_GRANT: &str = "authorization_code";
/// By a refresh token (RFC 6749, section 6).
pub const REFRESH_GRANT: &str = "refresh_token";
/// By a code of a device that waited (RFC 8628).
pub const LINK_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Why a client does not get what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is missing, or is not what it has to be.
    #[error("{0}")]
    Request(&'static str),
    /// There is no such client.
    #[error("the client is not registered")]
    Client,
    /// The code or token is none, over, used up, or another's.
    #[error("{0}")]
    Grant(&'static str),
    /// The client has not said that it would ask in this way.
    #[error("the client has not registered for that")]
    Unauthorized,
    /// Tokens are not got in this way.
    #[error("grants of that type are not supported")]
    GrantType,
    /// The scope is none of ours.
    #[error("{0}")]
    Scope(&'static str),
    /// What a client says of itself does not do.
    #[error("{0}")]
    Metadata(&'static str),
    /// An address at which it waits does not do.
    #[error("{0}")]
    RedirectUri(&'static str),
    /// The user said no.
    #[error("the user has denied it")]
    Denied,
    /// The user has not said anything yet.
    #[error("nobody has allowed it yet")]
    Pending,
    /// The device asks too often.
    #[error("asked too soon")]
    TooSoon,
    /// The device has waited for too long.
    #[error("nobody has allowed it in time")]
    Late,
    /// More clients, or devices that wait, than are kept.
    #[error("there are too many")]
    TooMany,
    /// About the account.
    #[error(transparent)]
    Account(#[from] super::Error),
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Self::Account(error.into())
    }
}

/// Exchanges a refresh token of a client.
pub async fn refresh(tokens: &Tokens, client: &str, token: &str) -> Result<Granted, Error> {
    match tokens.refresh(token, Some(client)).await {
        Ok(granted) => Ok(granted),
        Err(super::Error::WrongToken) => Err(Error::Grant("the refresh token is not valid")),
        Err(error) => Err(error.into()),
    }
}

/// Ends the session that an access token or a refresh token belongs to, if there is one (RFC 7009).
pub async fn revoke(ctx: &Context, tokens: &Tokens, token: &str) -> Result<(), Error> {
    let mut conn = ctx.db.conn().await?;
    let hash = super::tokens::hash(token);
    let device = storage::oauth::find_device(&mut conn, &hash).await?;
    drop(conn);
    if let Some((user, device)) = device {
        tokens.end(user, &[device]).await?;
    }
    Ok(())
}

/// Lets the user's clients replace the cross-signing keys once, for a while.
pub async fn allow_replacement(ctx: &Context, user: UserNid) -> Result<(), super::Error> {
    let mut conn = ctx.db.conn().await?;
    storage::oauth::update_cross_signing(&mut conn, user, now_ms() + REPLACE_MS).await?;
    Ok(())
}

/// Takes that up; `false`: the user has not said so.
pub(super) async fn take_replacement(ctx: &Context, user: UserNid) -> Result<bool, storage::Error> {
    let mut conn = ctx.db.conn().await?;
    storage::oauth::take_cross_signing(&mut conn, user, now_ms()).await
}

/// What we call ourselves.
pub fn issuer(config: &OAuth) -> String {
    format!("{}/", config.base_url)
}

/// The page where a user says so.
pub(super) fn replacement_page(config: &OAuth) -> String {
    format!("{}{ACCOUNT_PATH}?action={REPLACE_ACTION}", config.base_url)
}

/// Deletes what is over; returns how many rows of one kind, at most `limit`.
pub async fn sweep(conn: &mut PgConnection, now: i64, limit: i64) -> Result<u64, storage::Error> {
    let browsers = storage::browser_sessions::delete_expired(conn, now, limit).await?;
    let codes = storage::oauth::delete_expired(conn, now - KEEP_MS, limit).await?;
    let clients = storage::oauth::delete_unused(conn, now - KEEP_CLIENTS_MS, limit).await?;
    Ok(browsers.max(codes).max(clients))
}
