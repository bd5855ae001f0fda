//! How people log in on our pages: by password, through an identity provider, or by making an account
//! (`register`).

use std::fmt::Write as _;

use axum::response::Response;
use http::StatusCode;
use ruma::UserId;
use serde::Deserialize;

use super::{
    ApiError, App,
    client_login::provider_path,
    makes_accounts, register,
    visitor::{Asked, Given, Visitor, logged_in},
};
use crate::{
    http::page::{alert, credentials},
    mail::text::escape,
    storage::UserNid,
    users::{self, oauth::browser, passwords},
};

/// What the query of a page says about how to come in.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Way {
    /// What the client would like (OpenID Connect).
    prompt: String,
    /// What a link of ours says.
    enter: String,
}

impl Way {
    fn is_create(&self, app: &App) -> bool {
        let wants = self.enter == "create" || (self.prompt == "create" && self.enter.is_empty());
        wants && makes_accounts(&app.ctx)
    }

    /// Whether somebody is to type a code out of a mail.
    fn is_code(&self, app: &App) -> bool {
        self.enter == register::CODE && makes_accounts(&app.ctx)
    }
}

/// What went wrong, for the reader.
pub(super) type Wrong<'a> = Option<(StatusCode, &'a str)>;

/// The page where somebody logs in who is not.
pub(super) async fn ask(visitor: &Visitor, way: &Asked<Way>) -> Result<Response, ApiError> {
    if way.0.is_code(&visitor.app) {
        register::resume(visitor).await
    } else if way.0.is_create(&visitor.app) {
        register::ask(visitor).await
    } else {
        Ok(form(visitor, "", None))
    }
}

/// Somebody logs in, or makes an account; then the page is shown again.
pub(super) async fn submit(visitor: &Visitor, given: &Given) -> Result<Response, ApiError> {
    if given.step != "login" {
        return register::submit(visitor, given).await;
    }
    let named = (&*given.user, &*given.password);
    let whence = (visitor.address, visitor.language);
    match credentials::check(&visitor.app, whence, named).await? {
        Ok(user) => enter(visitor, &user, &visitor.here).await,
        Err(text) => {
            let wrong = Some((StatusCode::FORBIDDEN, text));
            Ok(form(visitor, &given.user, wrong))
        }
    }
}

/// Logs a browser in, and sends it on.
pub(super) async fn enter(
    visitor: &Visitor,
    user: &UserId,
    location: &str,
) -> Result<Response, ApiError> {
    let nid = visitor.app.ctx.db.ids.user(user).await?;
    let token = browser::open(&visitor.app.ctx, nid, None).await?;
    Ok(logged_in(visitor.base(), Some(&token), location))
}

/// A link in a line of its own.
pub(super) fn link(address: &str, text: &str) -> String {
    format!(
        "<p><a href=\"{}\">{}</a></p>",
        escape(address),
        escape(text)
    )
}

fn form(visitor: &Visitor, user: &str, wrong: Wrong<'_>) -> Response {
    let title = visitor.say("Anmelden", "Log in");
    let mut body = alert(wrong.map(|(_, text)| text));
    for provider in visitor.app.ctx.providers.all() {
        let text = format!(
            "{} {}",
            visitor.say("Anmelden über", "Log in with"),
            provider.config.name
        );
        body += &link(&provider_path(&provider.config.id, &visitor.here), &text);
    }
    // Writing into a string cannot fail.
    let _ = write!(
        body,
        "<form method=\"post\">{}{}<button type=\"submit\" name=\"step\" value=\"login\">{title}\
         </button></form>",
        visitor.seal(),
        credentials::fields(visitor.language, user)
    );
    if makes_accounts(&visitor.app.ctx) {
        let text = visitor.say("Ein Konto anlegen", "Create an account");
        body += &link(&visitor.entered_by("create"), text);
    }
    let status = wrong.map_or(StatusCode::OK, |(status, _)| status);
    visitor.page(status, title, &body, "")
}

/// Fields for a new password, which is typed twice.
pub(super) fn new_password_fields(visitor: &Visitor) -> String {
    let label = visitor.say("Neues Passwort", "New password");
    let again = visitor.say("Neues Passwort wiederholen", "Repeat the new password");
    let field = |name, label| credentials::password_field(name, label, "new-password");
    field("new_password", label) + &field("again", again)
}

/// The new password of a form; or what to tell the reader.
pub(super) fn new_password<'a>(visitor: &Visitor, given: &'a Given) -> Result<&'a str, String> {
    if given.new_password != given.again {
        let text = visitor.say(
            "Die beiden neuen Passwörter sind nicht gleich.",
            "The two new passwords are not the same.",
        );
        return Err(text.to_owned());
    }
    let length_min = visitor.app.ctx.config.registration.password_length_min;
    if passwords::check_strength(&given.new_password, length_min).is_err() {
        let text = visitor.say(
            "Das neue Passwort ist zu kurz oder zu lang. Zeichen mindestens:",
            "The new password is too short or too long. Characters at least:",
        );
        return Err(format!("{text} {length_min}"));
    }
    Ok(&given.new_password)
}

/// Whether somebody who is logged in has a password.
pub(super) async fn has_password(app: &App, user: UserNid) -> Result<bool, ApiError> {
    let flows = users::sso::flows(&app.ctx, user).await?;
    Ok(flows.concat().contains(&users::uia::PASSWORD_STAGE))
}
