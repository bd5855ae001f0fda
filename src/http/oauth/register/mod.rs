//! Making an account on our pages. Where an e-mail address is asked for, the browser keeps a secret until the
//! code is typed that a mail holds: it may be read on another device, and the page is still there after a reload.

mod forms;

use axum::response::Response;
use http::StatusCode;
use ruma::OwnedUserId;

use self::forms::{Draft, code_form, form, refusal, spent, unread};
use super::{
    ApiError, App,
    enter::{self, new_password},
    makes_accounts, send_on,
    visitor::{Given, Visitor},
};
use crate::{
    http::{limits::Kind, page::set_cookies, terms::has_read},
    storage::pending_accounts::Pending,
    users::{
        self,
        oauth::ACCOUNT_PATH,
        pending_accounts::{self, Wanted},
        registration, terms, threepids,
    },
};

/// How a page is entered on which a code is typed.
pub(super) const CODE: &str = "code";

/// The account that this browser asked for, with its secret.
async fn pending(visitor: &Visitor) -> Result<Option<(&str, Pending)>, ApiError> {
    let Some(secret) = visitor.secret.as_deref() else {
        return Ok(None);
    };
    let found = pending_accounts::find(&visitor.app.ctx, secret).await?;
    Ok(found.map(|pending| (secret, pending)))
}

/// The form, with what was given before, if it waits for a code.
pub(super) async fn ask(visitor: &Visitor) -> Result<Response, ApiError> {
    let pending = pending(visitor).await?;
    let draft = pending.as_ref().map(|(secret, it)| (*secret, it));
    let draft = draft.map(Draft::of_pending).unwrap_or_default();
    Ok(form(visitor, &draft, None))
}

/// The page on which a code is typed, however often it is opened.
pub(super) async fn resume(visitor: &Visitor) -> Result<Response, ApiError> {
    let Some((_, pending)) = pending(visitor).await? else {
        return Ok(over(visitor));
    };
    let wrong = pending_accounts::is_spent(&pending).then(|| (StatusCode::OK, spent(visitor)));
    Ok(code_form(visitor, &pending, wrong))
}

/// One of the forms of this page is sent.
pub(super) async fn submit(visitor: &Visitor, given: &Given) -> Result<Response, ApiError> {
    if !makes_accounts(&visitor.app.ctx) {
        return Err(users::Error::RegistrationClosed.into());
    }
    match &*given.step {
        "confirm" => confirm(visitor, given).await,
        "again" => send_again(visitor, given).await,
        _ => register(visitor, given).await,
    }
}

/// Makes an account, or keeps it until the code is typed. What is wrong is told before a mail goes out.
async fn register(visitor: &Visitor, given: &Given) -> Result<Response, ApiError> {
    let app = &visitor.app;
    app.limits
        .check_address(Kind::Registration, visitor.address)?;
    let refuse = |text: &str| {
        let wrong = Some((StatusCode::BAD_REQUEST, text));
        Ok(form(visitor, &Draft::of_given(given), wrong))
    };
    let terms = app.ctx.config.terms.as_ref();
    let agreed = (given.agreed.is_some(), &*given.version);
    if !terms.is_none_or(|terms| has_read(terms, agreed)) {
        return refuse(unread(visitor));
    }
    let password = match new_password(visitor, given) {
        Ok(password) => password,
        Err(text) => return refuse(&text),
    };
    let user = match check(app, given).await {
        Ok(user) => user,
        Err(error) => match refusal(visitor, &error) {
            Some(text) => return refuse(text),
            None => return Err(error.into()),
        },
    };
    if !app.ctx.config.registration.require_email {
        return match make(app, &user, given, password).await {
            Ok(()) => enter::enter(visitor, &user, &visitor.here).await,
            Err(error) => refusal(visitor, &error).map_or_else(|| Err(error.into()), refuse),
        };
    }
    let Ok(mailbox) = threepids::canonical(&given.email) else {
        return refuse(visitor.say(
            "An diese Adresse können wir keine E-Mail senden. Bitte prüfen Sie sie.",
            "We cannot send an e-mail to this address. Please check it.",
        ));
    };
    limit_mails(visitor, &mailbox)?;
    let wanted = Wanted {
        user: &user,
        password,
        email: &mailbox,
        token: Some(&*given.token).filter(|_| app.ctx.config.registration.require_token),
    };
    match pending_accounts::begin(&app.ctx, &given.key, wanted, &login(visitor)).await {
        Ok(secret) => Ok(visitor.waiting(&secret, &visitor.entered_by(CODE))),
        Err(error) => refusal(visitor, &error).map_or_else(|| Err(error.into()), refuse),
    }
}

/// Checks what does not need the password; nothing is used up.
async fn check(app: &App, given: &Given) -> Result<OwnedUserId, users::Error> {
    let ctx = &app.ctx;
    let user = registration::user_id(ctx.server_name(), &given.user)?;
    registration::check_reserved(ctx, &user, None)?;
    registration::check_available(ctx, &user).await?;
    let needs_token = ctx.config.registration.require_token;
    if needs_token && !registration::is_token_valid(ctx, &given.token).await? {
        return Err(users::Error::WrongToken);
    }
    Ok(user)
}

async fn make(
    app: &App,
    user: &OwnedUserId,
    given: &Given,
    password: &str,
) -> Result<(), users::Error> {
    let ctx = &app.ctx;
    if ctx.config.registration.require_token {
        registration::use_token(ctx, &given.token).await?;
    }
    registration::create_account(ctx, user, Some(password), (false, None), None).await?;
    if ctx.config.terms.is_some() {
        terms::accept(ctx, ctx.db.ids.user(user).await?).await?;
    }
    Ok(())
}

/// As where a client asks for a mail.
fn limit_mails(visitor: &Visitor, mailbox: &str) -> Result<(), ApiError> {
    let limits = &visitor.app.limits;
    limits.check_address(Kind::Mail, visitor.address)?;
    limits.check(Kind::Mail, mailbox)
}

/// Where somebody logs in who has an account already.
fn login(visitor: &Visitor) -> String {
    format!("{}{ACCOUNT_PATH}", visitor.base())
}

/// Makes the account that waits, if the code is right.
async fn confirm(visitor: &Visitor, given: &Given) -> Result<Response, ApiError> {
    let ctx = &visitor.app.ctx;
    visitor
        .app
        .limits
        .check_address(Kind::MailLink, visitor.address)?;
    let Some((secret, pending)) = pending(visitor).await? else {
        return Ok(over(visitor));
    };
    let anew = |text: &str| {
        let wrong = Some((StatusCode::BAD_REQUEST, text));
        form(visitor, &Draft::of_pending((secret, &pending)), wrong)
    };
    if !pending_accounts::has_agreed(ctx, &pending) {
        return Ok(anew(unread(visitor)));
    }
    match pending_accounts::complete(ctx, (secret, &pending), &given.code).await {
        Ok(user) => {
            let mut answer = enter::enter(visitor, &user, &visitor.entered_by("")).await?;
            set_cookies(&mut answer, [&*visitor.pending_cookie(None)]);
            Ok(answer)
        }
        Err(users::Error::AddressUnproved) => wrong_code(visitor, secret).await,
        Err(error) => match refusal(visitor, &error) {
            Some(text) => Ok(anew(text)),
            None => Err(error.into()),
        },
    }
}

/// The page again, after a wrong code.
async fn wrong_code(visitor: &Visitor, secret: &str) -> Result<Response, ApiError> {
    // Meanwhile the same form may have made the account.
    let Some(pending) = pending_accounts::find(&visitor.app.ctx, secret).await? else {
        return Ok(over(visitor));
    };
    let text = if pending_accounts::is_spent(&pending) {
        spent(visitor)
    } else {
        visitor.say(
            "Dieser Code ist falsch. Es gilt der aus der neuesten E-Mail.",
            "This code is wrong. The one in the newest e-mail is good.",
        )
    };
    let wrong = Some((StatusCode::BAD_REQUEST, text));
    Ok(code_form(visitor, &pending, wrong))
}

/// Sends another mail.
async fn send_again(visitor: &Visitor, given: &Given) -> Result<Response, ApiError> {
    let ctx = &visitor.app.ctx;
    let Some((secret, pending)) = pending(visitor).await? else {
        return Ok(over(visitor));
    };
    limit_mails(visitor, &pending.address)?;
    // What is no number is none of ours, and asks for nothing.
    let attempt = given.attempt.parse().unwrap_or_default();
    let of = (secret, &pending);
    match pending_accounts::send_again(ctx, of, attempt, &login(visitor)).await {
        Ok(()) => Ok(visitor.waiting(secret, &visitor.entered_by(CODE))),
        Err(error) => match refusal(visitor, &error) {
            Some(text) => {
                let wrong = Some((StatusCode::BAD_REQUEST, text));
                Ok(code_form(visitor, &pending, wrong))
            }
            None => Err(error.into()),
        },
    }
}

/// Nothing waits for a code in this browser.
fn over(visitor: &Visitor) -> Response {
    if visitor.browser.is_some() {
        return send_on(&visitor.entered_by(""));
    }
    let text = visitor.say(
        "Hier wartet kein Konto (mehr) auf einen Code: Er ist abgelaufen oder schon benutzt. Haben Sie das \
         Konto schon, melden Sie sich bitte an; sonst beginnen Sie bitte noch einmal.",
        "No account waits for a code here (any more): it is over, or used already. If you have the \
         account, please log in; otherwise please begin once more.",
    );
    let wrong = Some((StatusCode::BAD_REQUEST, text));
    form(visitor, &Draft::default(), wrong)
}
