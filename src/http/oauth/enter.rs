//! How people log in on our pages: by password, through an identity provider, or by making an account.

use std::fmt::Write as _;

use axum::response::Response;
use http::StatusCode;
use ruma::OwnedUserId;
use serde::Deserialize;
use url::form_urlencoded;

use super::{
    ApiError, App,
    client_login::provider_path,
    makes_accounts,
    visitor::{Asked, Given, Visitor, logged_in},
};
use crate::{
    http::{
        limits::Kind,
        page::{alert, credentials},
        terms::{fields, has_read},
    },
    mail::text::escape,
    storage::UserNid,
    users::{self, oauth::browser, passwords, registration, terms},
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
}

type Wrong<'a> = Option<(StatusCode, &'a str)>;

/// The page where somebody logs in who is not.
pub(super) fn ask(visitor: &Visitor, way: &Asked<Way>) -> Response {
    if way.0.is_create(&visitor.app) {
        register_form(visitor, &Given::default(), None)
    } else {
        form(visitor, "", None)
    }
}

/// Somebody logs in, or makes an account; then the page is shown again.
pub(super) async fn submit(visitor: &Visitor, given: &Given) -> Result<Response, ApiError> {
    let user = if given.step == "register" {
        match register(visitor, given).await? {
            Ok(user) => user,
            Err(wrong) => {
                let wrong = Some((StatusCode::BAD_REQUEST, &*wrong));
                return Ok(register_form(visitor, given, wrong));
            }
        }
    } else {
        let named = (&*given.user, &*given.password);
        let whence = (visitor.address, visitor.language);
        match credentials::check(&visitor.app, whence, named).await? {
            Ok(user) => user,
            Err(text) => {
                let wrong = Some((StatusCode::FORBIDDEN, text));
                return Ok(form(visitor, &given.user, wrong));
            }
        }
    };
    let nid = visitor.app.ctx.db.ids.user(&user).await?;
    let token = browser::open(&visitor.app.ctx, nid, None).await?;
    Ok(logged_in(visitor.base(), Some(&token), &visitor.here))
}

/// This page, where people come in in that way.
fn here(visitor: &Visitor, way: &str) -> String {
    let (path, query) = visitor.here.split_once('?').unwrap_or((&visitor.here, ""));
    let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "enter");
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs).append_pair("enter", way);
    format!("{path}?{}", query.finish())
}

fn link(address: &str, text: &str) -> String {
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
        body += &link(&here(visitor, "create"), text);
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

fn register_form(visitor: &Visitor, given: &Given, wrong: Wrong<'_>) -> Response {
    let title = visitor.say("Ein Konto anlegen", "Create an account");
    let config = &visitor.app.ctx.config;
    let name = format!(
        "<p><label for=\"user\">{}</label><input id=\"user\" name=\"user\" value=\"{}\" required \
         autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\" \
         aria-describedby=\"alert\"></p>",
        visitor.say("Gewünschter Name", "The name that you want"),
        escape(&given.user),
    );
    let token = format!(
        "<p><label for=\"token\">{}</label><input id=\"token\" name=\"token\" value=\"{}\" \
         required autocomplete=\"off\" aria-describedby=\"alert\"></p>",
        visitor.say("Token für die Registrierung", "Registration token"),
        escape(&given.token)
    );
    let terms = config.terms.as_ref();
    let terms = terms.map(|terms| fields(terms, visitor.language));
    let token = if config.registration.require_token {
        &*token
    } else {
        ""
    };
    let all = name + &new_password_fields(visitor) + token + &terms.unwrap_or_default();
    let body = format!(
        "{}<form method=\"post\">{}{all}<button type=\"submit\" name=\"step\" \
         value=\"register\">{title}</button></form>{}",
        alert(wrong.map(|(_, text)| text)),
        visitor.seal(),
        link(
            &here(visitor, "login"),
            visitor.say("Ich habe schon ein Konto", "I have an account already")
        )
    );
    let status = wrong.map_or(StatusCode::OK, |(status, _)| status);
    visitor.page(status, title, &body, "")
}

/// Makes an account; or says what to tell the reader.
async fn register(
    visitor: &Visitor,
    given: &Given,
) -> Result<Result<OwnedUserId, String>, ApiError> {
    let app = &visitor.app;
    if !makes_accounts(&app.ctx) {
        return Err(users::Error::RegistrationClosed.into());
    }
    app.limits
        .check_address(Kind::Registration, visitor.address)?;
    let terms = app.ctx.config.terms.as_ref();
    let agreed = (given.agreed.is_some(), &*given.version);
    let has_read = terms.is_none_or(|terms| has_read(terms, agreed));
    if !has_read {
        let text = visitor.say(
            "Sie haben noch nicht zugestimmt, oder die Texte haben sich geändert.",
            "You have not agreed yet, or the texts have changed.",
        );
        return Ok(Err(text.to_owned()));
    }
    let password = match new_password(visitor, given) {
        Ok(password) => password,
        Err(text) => return Ok(Err(text)),
    };
    match make(app, given, password).await {
        Ok(user) => Ok(Ok(user)),
        Err(error) => match refusal(visitor, &error) {
            Some(text) => Ok(Err(text.to_owned())),
            None => Err(error.into()),
        },
    }
}

async fn make(app: &App, given: &Given, password: &str) -> Result<OwnedUserId, users::Error> {
    let ctx = &app.ctx;
    let user = registration::user_id(ctx.server_name(), &given.user)?;
    registration::check_reserved(ctx, &user, None)?;
    registration::check_available(ctx, &user).await?;
    if ctx.config.registration.require_token {
        registration::use_token(ctx, &given.token).await?;
    }
    registration::create_account(ctx, &user, Some(password), (false, None), None).await?;
    if ctx.config.terms.is_some() {
        terms::accept(ctx, ctx.db.ids.user(&user).await?).await?;
    }
    Ok(user)
}

/// What to tell somebody who gets no account, where it is up to them.
fn refusal<'a>(visitor: &Visitor, error: &users::Error) -> Option<&'a str> {
    let language = visitor.language;
    match error {
        users::Error::NameTaken | users::Error::Exclusive(_) => {
            Some(language.pick("Dieser Name ist vergeben.", "This name is taken."))
        }
        users::Error::NameInvalid(_) => Some(language.pick(
            "Ein Name besteht aus a-z, 0-9 und . _ = - / +.",
            "A name consists of a-z, 0-9 and . _ = - / +.",
        )),
        users::Error::WrongToken => Some(language.pick(
            "Dieses Token gilt nicht oder nicht mehr.",
            "This token is not valid, or not any more.",
        )),
        _ => None,
    }
}

/// Whether somebody who is logged in has a password.
pub(super) async fn has_password(app: &App, user: UserNid) -> Result<bool, ApiError> {
    let flows = users::sso::flows(&app.ctx, user).await?;
    Ok(flows.concat().contains(&users::uia::PASSWORD_STAGE))
}
