//! An identity provider ends sessions that came of it (OpenID Connect Back-Channel Logout 1.0).

use std::collections::BTreeMap;

use super::Error;
use crate::{
    clock::now_ms,
    context::Context,
    oidc,
    storage::{self, UserNid, sso::Ended},
    users::tokens::{Tokens, hash},
};

/// Devices that are logged out at a time.
const DEVICES_AT_ONCE: i64 = 500;

/// Obeys a logout token: what was logged in by the session or person that it names is logged out, as
/// by its user. A token is good once; it counts as used when all is done, so that a provider may send
/// it again where that failed.
pub async fn obey(ctx: &Context, tokens: &Tokens, token: &str) -> Result<(), Error> {
    let logout = ctx.providers.check_logout(token).await?;
    let jti_hash = hash(&logout.jti);
    let ended = Ended {
        provider: &logout.provider,
        subject: logout.subject.as_deref(),
        sid: logout.sid.as_deref(),
    };
    let mut conn = ctx.db.conn().await?;
    if storage::sso::has_logout(&mut conn, ended.provider, &jti_hash).await? {
        return Err(oidc::Error::Token("it was used already").into());
    }
    storage::sso::delete_login_tokens(&mut conn, ended).await?;
    storage::browser_sessions::delete_ended(&mut conn, ended).await?;
    drop(conn);
    let mut count = 0;
    loop {
        let mut conn = ctx.db.conn().await?;
        let devices = storage::sso::list_devices(&mut conn, ended, DEVICES_AT_ONCE).await?;
        drop(conn);
        if devices.is_empty() {
            break;
        }
        count += devices.len();
        let mut by_user: BTreeMap<i64, Vec<i32>> = BTreeMap::new();
        for (user, device) in devices {
            by_user.entry(user.0).or_default().push(device);
        }
        for (user, devices) in by_user {
            tokens.end(UserNid(user), &devices).await?;
        }
    }
    tracing::info!(
        provider = logout.provider,
        devices = count,
        "sessions were ended"
    );
    let mut conn = ctx.db.conn().await?;
    let expires = logout.expires_ts.max(now_ms());
    storage::sso::insert_logout(&mut conn, &logout.provider, &jti_hash, expires).await?;
    Ok(())
}
