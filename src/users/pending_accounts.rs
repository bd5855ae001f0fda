//! Accounts that wait until whoever makes one on our pages has proved to read an e-mail address: what was
//! asked for is kept here, a mail holds a code, and the account is made when that is typed into the page.
//! The browser keeps a secret by which it is known again.

use ruma::{OwnedUserId, UserId};

use super::{
    Error, passwords, registration, terms,
    tokens::{fresh, hash},
    validation::{self, Purpose, TRIES_MAX},
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, pending_accounts::Pending},
};

/// How long a browser keeps the secret: as long as a code is good, and after that what it proved.
pub const LIFE_MS: i64 = 2 * validation::LIFE_MS;
/// Number of the first mail.
const FIRST: i64 = 1;

/// What somebody asks for, once it was checked. There is a password in it: it is not shown.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The user.
    pub user: &'a UserId,
    /// The password.
    pub password: &'a str,
    /// The address.
    pub email: &'a str,
    /// Registration token, where one is asked for.
    pub token: Option<&'a str>,
}

/// A secret for a browser.
pub fn secret() -> String {
    fresh("amk")
}

/// Keeps what somebody asks for, who agreed to the terms where there are any, and sends a mail with a code.
/// `secret` is one that the browser was given; one that we never gave is replaced. Returns it.
///
/// The same once more sends no second mail. `login`: where who has an account with the address logs in.
pub async fn begin(
    ctx: &Context,
    given: &str,
    wanted: Wanted<'_>,
    login: &str,
) -> Result<String, Error> {
    let secret = if validation::is_secret(given) {
        given.to_owned()
    } else {
        secret()
    };
    let length_min = ctx.config.registration.password_length_min;
    passwords::check_strength(wanted.password, length_min)?;
    let password_hash = passwords::hash(wanted.password).await?;
    let of = (&*secret, wanted.email);
    let sid = validation::request_code(ctx, of, FIRST, login).await?;
    let terms = ctx.config.terms.as_ref().map(terms::version);
    let kept = storage::pending_accounts::Wanted {
        sid: &sid,
        localpart: wanted.user.localpart(),
        password_hash: &password_hash,
        token: wanted.token,
        terms: terms.as_deref(),
    };
    let mut conn = ctx.db.conn().await?;
    storage::pending_accounts::upsert(&mut conn, &hash(&secret), kept).await?;
    Ok(secret)
}

/// What a browser asked for; `None`: nothing, or it is over.
pub async fn find(ctx: &Context, secret: &str) -> Result<Option<Pending>, Error> {
    let mut conn = ctx.db.conn().await?;
    Ok(storage::pending_accounts::find(&mut conn, &hash(secret), now_ms()).await?)
}

/// Whether there were so many wrong codes that the code in the newest mail is good no more.
pub fn is_spent(pending: &Pending) -> bool {
    pending.tries >= TRIES_MAX
}

/// Whether what was agreed to are the terms as they are now.
pub fn has_agreed(ctx: &Context, pending: &Pending) -> bool {
    let terms = ctx.config.terms.as_ref().map(terms::version);
    terms.is_none() || terms == pending.terms
}

/// Sends another mail, whose code makes the one before void. `attempt`: the number of the newest mail that the
/// reader knew of; where there is a newer one already nothing happens.
pub async fn send_again(
    ctx: &Context,
    (secret, pending): (&str, &Pending),
    attempt: i64,
    login: &str,
) -> Result<(), Error> {
    if attempt == pending.attempt {
        let of = (secret, &*pending.address);
        validation::request_code(ctx, of, attempt + 1, login).await?;
    }
    Ok(())
}

/// Makes the account, if the code is right. Where the name, the token or the address is gone meanwhile, the
/// code stays good.
pub async fn complete(
    ctx: &Context,
    (secret, pending): (&str, &Pending),
    code: &str,
) -> Result<OwnedUserId, Error> {
    validation::confirm_code(ctx, (&pending.sid, secret), code).await?;
    let user = registration::user_id(ctx.server_name(), &pending.localpart)?;
    registration::check_reserved(ctx, &user, None)?;
    let nid = ctx.db.ids.user(&user).await?;
    let mut tx = ctx.db.begin().await?;
    let proof = (&*pending.sid, secret);
    let (address, proved_ts) = validation::take_in(&mut tx, Purpose::Register, proof).await?;
    let hash_of_password = Some(&*pending.password_hash);
    registration::insert(&mut tx, (nid, &user), hash_of_password, (false, None)).await?;
    registration::add_address(&mut tx, nid, Some((&address, proved_ts))).await?;
    if ctx.config.registration.require_token {
        let token = pending.token.as_deref().unwrap_or_default();
        registration::use_token_in(ctx, &mut tx, token).await?;
    }
    if ctx.config.terms.is_some() {
        terms::accept_in(ctx, &mut tx, nid).await?;
    }
    storage::pending_accounts::delete(&mut tx, &hash(secret)).await?;
    tx.commit().await?;
    Ok(user)
}
