//! Accounts that end unless they are renewed, by a link in a mail or by an administrator. What an
//! account has stays when it ends: only its requests are refused.

use ruma::UserId;

use super::{Error, threepids, tokens};
use crate::{
    clock::now_ms,
    config::{AccountValidity, Email},
    context::Context,
    mail::{self, Mailer, text},
    storage::{self, UserNid},
};

/// Where links in mails lead to, below the base address.
pub const RENEW_PATH: &str = "/_matrix/client/unstable/account_validity/renew";
/// Accounts that are counted from now on, at once.
const BEGIN_ROWS: i64 = 1_000;
/// Mails of one run: it comes again soon.
const MAILS_MAX: usize = 500;

/// How long accounts are good here; an error where they have no end.
fn of(ctx: &Context) -> Result<AccountValidity, Error> {
    let validity = ctx.config.account_validity;
    validity.ok_or(Error::NotFound("account validity"))
}

fn mail_of(ctx: &Context) -> Result<(&Mailer, &Email), Error> {
    let both = ctx.mail.as_ref().zip(ctx.config.email.as_ref());
    both.ok_or(Error::AddressNotSupported)
}

/// Renews the account that a token of a mail is for; whose it is.
pub async fn renew(ctx: &Context, token: &str) -> Result<UserNid, Error> {
    let until = now_ms() + of(ctx)?.period_ms;
    let mut tx = ctx.db.begin().await?;
    let user = storage::validity::renew(&mut tx, &tokens::hash(token), until).await?;
    let user = user.ok_or(Error::WrongToken)?;
    tx.log(tokens::invalid_entry(user)).await?;
    tx.commit().await?;
    Ok(user)
}

/// Sets the end of an account of ours (`None`: a period from now), and whether it is mailed when that
/// comes near; whose it is, and until when, in milliseconds.
pub async fn set(
    ctx: &Context,
    user: &UserId,
    until: Option<i64>,
    is_mailed: bool,
) -> Result<(UserNid, i64), Error> {
    let until = until.unwrap_or(now_ms() + of(ctx)?.period_ms);
    let nid = ctx.db.ids.find_user(user).await?;
    let nid = nid.ok_or(Error::NotFound("user"))?;
    let mut tx = ctx.db.begin().await?;
    let account = storage::users::find(&mut tx, nid).await?;
    if account.is_none_or(|account| account.deactivated) {
        return Err(Error::NotFound("user"));
    }
    storage::validity::update_until(&mut tx, nid, until, is_mailed).await?;
    tx.log(tokens::invalid_entry(nid)).await?;
    tx.commit().await?;
    Ok((nid, until))
}

/// Mails a link to the addresses of an account.
pub async fn mail(ctx: &Context, user: UserNid) -> Result<(), Error> {
    of(ctx)?;
    let (mailer, email) = mail_of(ctx)?;
    let mut conn = ctx.db.conn().await?;
    let account = storage::users::find(&mut conn, user).await?;
    let until = account.and_then(|account| account.valid_until_ts);
    let until = until.ok_or(Error::Invalid("the account has no end"))?;
    drop(conn);
    let addresses = threepids::list(ctx, user).await?;
    if addresses.is_empty() {
        return Err(Error::UnknownAddress);
    }
    let token = tokens::fresh("amv");
    let mut conn = ctx.db.conn().await?;
    storage::validity::update_token(&mut conn, user, &tokens::hash(&token)).await?;
    drop(conn);
    for address in addresses {
        if !mailer.post(letter(email, &address.address, until, &token)) {
            return Err(Error::TooManyMails);
        }
    }
    Ok(())
}

fn letter(email: &Email, to: &str, until: i64, token: &str) -> mail::Letter {
    let base = email.base_url.trim_end_matches('/');
    let link = format!("{base}{RENEW_PATH}?token={token}");
    text::renewal(to, &email.app_name, until, &link)
}

/// Counts for accounts that were not counted so far, and mails those that end soon.
pub async fn advance(ctx: &Context) -> Result<(), Error> {
    let Some(validity) = ctx.config.account_validity else {
        return Ok(());
    };
    let mut conn = ctx.db.conn().await?;
    let times = (validity.period_ms, validity.period_ms / 10);
    while storage::validity::begin(&mut conn, now_ms(), times, BEGIN_ROWS).await? > 0 {}
    drop(conn);
    let Some(renew_at_ms) = validity.renew_at_ms else {
        return Ok(());
    };
    let (mailer, email) = mail_of(ctx)?;
    for _ in 0..MAILS_MAX {
        let token = tokens::fresh("amv");
        let hash = tokens::hash(&token);
        let mut conn = ctx.db.conn().await?;
        let claimed = storage::validity::claim(&mut conn, now_ms() + renew_at_ms, &hash).await?;
        let Some((user, until)) = claimed else {
            return Ok(());
        };
        drop(conn);
        let addresses = threepids::list(ctx, user).await?;
        for address in addresses {
            let letter = letter(email, &address.address, until, &token);
            match mailer.send(&letter).await {
                Ok(()) => {}
                Err(error @ mail::Error::Refused(_)) => {
                    tracing::warn!(%error, "a mail about the end of an account did not go out");
                }
                Err(error @ (mail::Error::Failed(_) | mail::Error::Setup(_))) => {
                    tracing::warn!(%error, "mails about the end of accounts wait for the relay");
                    let mut conn = ctx.db.conn().await?;
                    storage::validity::unclaim(&mut conn, user).await?;
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
