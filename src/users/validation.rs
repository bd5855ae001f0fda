//! Proofs that somebody reads an address: a mail with a link, which the reader opens (specification,
//! "requestToken"). What a client knows of it is a session id and a secret of its own.

use sqlx::PgConnection;
use url::Url;

use super::{Error, threepids, tokens, typed_code};
use crate::{
    clock::now_ms,
    config::Email,
    context::Context,
    mail::{
        Mailer,
        text::{self, Confirmation},
    },
    storage::{self, Tx, validations::Asked},
};

/// How long a link is good, and after that what it proved.
pub(super) const LIFE_MS: i64 = 3_600_000;
/// Mails to an address in a day, whoever asks for them and whatever for.
const SENDS_MAX: i64 = 10;
/// The day.
pub const KEEP_MS: i64 = 24 * 3_600_000;
/// Wrong tokens after which a link is good no more.
pub(super) const TRIES_MAX: i32 = 10;
/// Characters of a client secret, and of a session id (specification).
const ID_CHARS_MAX: usize = 255;
/// Characters of a secret of ours at least: 32 random bytes.
const SECRET_CHARS_MIN: usize = 43;
/// Bytes of an address that a browser is sent to.
const LINK_BYTES_MAX: usize = 1_024;

/// Where links in mails lead to, below the base address.
pub const CONFIRM_PATH: &str = "/_matrix/client/unstable/de.amtsbote.email/confirm";

/// What an address is proved for; a proof is good for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To add it to an account.
    Add = 1,
    /// To register.
    Register = 2,
    /// To set a new password.
    Password = 3,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The client's secret.
    pub client_secret: &'a str,
    /// Address.
    pub email: &'a str,
    /// A mail goes out for a greater number only.
    pub send_attempt: u64,
    /// Where the browser is sent afterwards.
    pub next_link: Option<&'a str>,
}

/// E-mail, where there is any.
fn mail_of(ctx: &Context) -> Result<(&Mailer, &Email), Error> {
    let both = ctx.mail.as_ref().zip(ctx.config.email.as_ref());
    both.ok_or(Error::AddressNotSupported)
}

/// Sends a mail to an address, unless that was done; returns the session id.
///
/// Whether somebody has the address, the answer for a new password does not tell, nor the time that
/// it takes: the mail goes out in the background.
pub async fn request(
    ctx: &Context,
    purpose: Purpose,
    request: Request<'_>,
) -> Result<String, Error> {
    let (mailer, email) = mail_of(ctx)?;
    if purpose == Purpose::Register && !ctx.config.registration.require_email {
        return Err(Error::AddressDenied);
    }
    check_id(request.client_secret, "client_secret")?;
    check_next_link(email, request.next_link)?;
    let address = threepids::canonical(request.email)?;
    let now = now_ms();
    let asked = Asked {
        purpose: purpose as i16,
        address: &address,
        secret_hash: &tokens::hash(request.client_secret),
        attempt: i64::try_from(request.send_attempt).unwrap_or(i64::MAX),
        next_link: request.next_link,
    };
    let token = tokens::fresh("ame");
    let mut tx = ctx.db.begin().await?;
    let is_known = storage::threepids::find_owner(&mut tx, &address).await?;
    let is_known = is_known.is_some();
    if is_known && purpose != Purpose::Password {
        return Err(Error::AddressInUse);
    }
    let sid = match note(tx, asked, &token, now).await? {
        Noted::Before(sid) => return Ok(sid),
        Noted::Now(sid) => sid,
    };
    let what = match purpose {
        Purpose::Add => Confirmation::Address,
        Purpose::Register => Confirmation::Registration,
        Purpose::Password if is_known => Confirmation::Password,
        // Nobody has the address: nobody there waits for a mail.
        Purpose::Password => return Ok(sid),
    };
    let base = email.base_url.trim_end_matches('/');
    let link = format!("{base}{CONFIRM_PATH}?sid={sid}&token={token}");
    let letter = text::confirmation(&address, &email.app_name, what, &link);
    if mailer.post(letter) {
        Ok(sid)
    } else {
        Err(Error::TooManyMails)
    }
}

/// A mail that is asked for.
enum Noted {
    /// It went out before: the session id.
    Before(String),
    /// It is to go out now.
    Now(String),
}

/// Notes that a mail with a token goes out, unless that was done.
async fn note(mut tx: Tx, asked: Asked<'_>, token: &str, now: i64) -> Result<Noted, Error> {
    if let Some(sid) = storage::validations::find_answered(&mut tx, asked, now).await? {
        return Ok(Noted::Before(sid));
    }
    let since = now - KEEP_MS;
    if storage::validations::count_sends(&mut tx, asked.address, since).await? >= SENDS_MAX {
        return Err(Error::TooManyMails);
    }
    let sid = tokens::fresh("ams");
    let made = (&*sid, &tokens::hash(token)[..]);
    let times = (now, now + LIFE_MS);
    if let Some(sid) = storage::validations::upsert(&mut tx, asked, made, times).await? {
        tx.commit().await?;
        return Ok(Noted::Now(sid));
    }
    let sid = storage::validations::find_answered(&mut tx, asked, now).await?;
    sid.map(Noted::Before).ok_or(Error::TooManyMails)
}

/// Sends a mail to an address of who registers, with a code that is typed where it was asked for, unless
/// mail `attempt` was sent before; returns the session id. `secret` is what the browser keeps.
///
/// Whether somebody has the address the answer does not tell, nor the time that it takes: then the mail
/// says so, with the address of the page (`login`) where its reader logs in, and no code is right.
pub async fn request_code(
    ctx: &Context,
    (secret, email): (&str, &str),
    attempt: i64,
    login: &str,
) -> Result<String, Error> {
    let (mailer, config) = mail_of(ctx)?;
    check_id(secret, "client_secret")?;
    let address = threepids::canonical(email)?;
    let asked = Asked {
        purpose: Purpose::Register as i16,
        address: &address,
        secret_hash: &tokens::hash(secret),
        attempt,
        next_link: None,
    };
    let code = typed_code::fresh();
    let mut tx = ctx.db.begin().await?;
    let owner = storage::threepids::find_owner(&mut tx, &address).await?;
    let (token, letter) = if owner.is_some() {
        let letter = text::address_in_use(&address, &config.app_name, login);
        (tokens::fresh("ame"), letter)
    } else {
        let shown = typed_code::shown(&code);
        let letter = text::code(&address, &config.app_name, &shown);
        (token_of(secret, &code), letter)
    };
    match note(tx, asked, &token, now_ms()).await? {
        Noted::Before(sid) => Ok(sid),
        Noted::Now(sid) if mailer.post(letter) => Ok(sid),
        Noted::Now(_) => Err(Error::TooManyMails),
    }
}

/// The token that a code is: who reads the database could guess a short code by its hash, but does not know
/// the secret.
fn token_of(secret: &str, code: &str) -> String {
    format!("{secret} {code}")
}

/// Somebody types a code into the page that asked for it.
pub async fn confirm_code(
    ctx: &Context,
    (sid, secret): (&str, &str),
    text: &str,
) -> Result<(), Error> {
    // What is no code is a wrong one.
    let code = typed_code::typed(text).unwrap_or_default();
    confirm(ctx, sid, &token_of(secret, &code)).await?;
    Ok(())
}

/// The reader of a mail confirms it; returns where the browser is sent, if anywhere.
pub async fn confirm(ctx: &Context, sid: &str, token: &str) -> Result<Option<String>, Error> {
    mail_of(ctx)?;
    check_id(sid, "sid")?;
    let mut conn = ctx.db.conn().await?;
    let now = now_ms();
    let times = (now, now + LIFE_MS);
    let hash = tokens::hash(token);
    let proof = (sid, &hash[..]);
    let found = storage::validations::update_validated(&mut conn, proof, TRIES_MAX, times).await?;
    found.ok_or(Error::AddressUnproved)
}

/// Uses a proof up; returns the address, and when it was proved.
pub async fn take(
    ctx: &Context,
    purpose: Purpose,
    (sid, client_secret): (&str, &str),
) -> Result<(String, i64), Error> {
    mail_of(ctx)?;
    check_id(sid, "sid")?;
    check_id(client_secret, "client_secret")?;
    let mut conn = ctx.db.conn().await?;
    take_in(&mut conn, purpose, (sid, client_secret)).await
}

/// [`take`] as part of a transaction.
pub(super) async fn take_in(
    conn: &mut PgConnection,
    purpose: Purpose,
    (sid, secret): (&str, &str),
) -> Result<(String, i64), Error> {
    let secret = tokens::hash(secret);
    let proof = (sid, &secret[..]);
    let taken = storage::validations::take(conn, purpose as i16, proof, now_ms()).await?;
    taken.ok_or(Error::AddressUnproved)
}

/// Whether a text can be a secret that a browser keeps: one that others do not guess.
pub(super) fn is_secret(text: &str) -> bool {
    text.len() >= SECRET_CHARS_MIN && check_id(text, "client_secret").is_ok()
}

fn check_id(id: &str, name: &'static str) -> Result<(), Error> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || ".=_-".contains(c);
    if id.is_empty() || id.len() > ID_CHARS_MAX || !id.chars().all(is_legal) {
        return Err(Error::Parameter(name));
    }
    Ok(())
}

/// Nobody is sent to where the operator did not say: a link in a mail of ours would be trusted.
fn check_next_link(email: &Email, link: Option<&str>) -> Result<(), Error> {
    let Some(link) = link else {
        return Ok(());
    };
    let url = Url::parse(link)
        .ok()
        .filter(|_| link.len() <= LINK_BYTES_MAX);
    let is_allowed = url.is_some_and(|url| {
        let is_bare = url.username().is_empty() && url.password().is_none();
        let hosts = &email.next_link_hosts;
        ["http", "https"].contains(&url.scheme())
            && is_bare
            && url
                .host_str()
                .is_some_and(|host| hosts.iter().any(|known| known.eq_ignore_ascii_case(host)))
            // As it stands in a header.
            && link.bytes().all(|byte| byte.is_ascii_graphic())
    });
    if is_allowed {
        Ok(())
    } else {
        Err(Error::Invalid(
            "next_link leads to where nobody is sent from here",
        ))
    }
}
