//! The page by which one logs in where a client cannot do it itself (specification, "Login
//! Fallback").

use axum::{
    Form, Router,
    extract::{Query, State},
    response::Response,
    routing::get,
};
use http::StatusCode;
use ruma::{OwnedDeviceId, UserId};
use serde::Deserialize;

use super::{
    App,
    client::granted_body,
    error::ApiError,
    limits::{Kind, Whence},
    page::{LOGIN_DONE, Page, Reads, alert},
};
use crate::{
    mail::text::{Language, escape},
    users::{self, login, threepids},
};

/// Characters of what a client says of its device.
const DEVICE_CHARS_MAX: usize = 255;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_matrix/static/client/login", get(show).post(submit))
        .route("/_matrix/static/client/login/", get(show).post(submit))
}

/// What a client adds to the address.
#[derive(Debug, Deserialize)]
struct Device {
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
}

/// What the form sends.
#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
}

fn title(language: Language) -> &'static str {
    language.pick("Anmelden", "Log in")
}

/// The form, with what went wrong; it goes to the same address, with its query.
fn form(language: Language, user: &str, wrong: Option<(StatusCode, &str)>) -> Response {
    let body = format!(
        "{}<form method=\"post\"><p><label for=\"user\">{}</label>\
         <input id=\"user\" name=\"user\" value=\"{}\" required autocomplete=\"username\" \
         autocapitalize=\"none\" spellcheck=\"false\" aria-describedby=\"alert\"></p>\
         <p><label for=\"password\">{}</label>\
         <input id=\"password\" name=\"password\" type=\"password\" required \
         autocomplete=\"current-password\" aria-describedby=\"alert\"></p>\
         <button type=\"submit\">{}</button></form>",
        alert(wrong.map(|(_, text)| text)),
        language.pick("Name oder E-Mail-Adresse", "Name or e-mail address"),
        escape(user),
        language.pick("Passwort", "Password"),
        title(language)
    );
    Page {
        status: wrong.map_or(StatusCode::OK, |(status, _)| status),
        language,
        title: title(language),
        body: &body,
        script: Some(LOGIN_DONE),
    }
    .answer()
}

/// `GET /_matrix/static/client/login/`
async fn show(Reads(language): Reads) -> Response {
    form(language, "", None)
}

/// `POST /_matrix/static/client/login/`
async fn submit(
    State(app): State<App>,
    Whence(address): Whence,
    Reads(language): Reads,
    Query(device): Query<Device>,
    Form(given): Form<Given>,
) -> Result<Response, ApiError> {
    app.limits.check_address(Kind::LoginAddress, address)?;
    let user = if let Ok(mailbox) = threepids::canonical(&given.user) {
        app.limits.check(Kind::LoginAccount, &mailbox)?;
        login::find_by_address(&app.ctx, &mailbox).await?
    } else {
        app.limits.check(Kind::LoginAccount, &given.user)?;
        login::parse_user(&app.ctx, &given.user)
    };
    let name = device.initial_device_display_name.as_deref();
    let is_long = |text: &str| text.chars().count() > DEVICE_CHARS_MAX;
    if name.is_some_and(is_long)
        || device
            .device_id
            .as_ref()
            .is_some_and(|it| is_long(it.as_str()))
    {
        return Err(ApiError::invalid_param("device_id or its name is too long"));
    }
    let who = user.as_deref().map(UserId::as_str);
    if let Some(who) = who {
        app.limits.look(Kind::LoginFailed, who)?;
    }
    match login::check_password(&app.ctx, user.as_deref(), &given.password).await {
        Ok(user) => {
            let id = device.device_id.as_deref();
            let granted = app.tokens.grant(&user, id, name, false).await?;
            Ok(done(language, &granted_body(&user, &granted).to_string()))
        }
        Err(users::Error::WrongCredentials) => {
            if let Some(who) = who {
                app.limits.note(Kind::LoginFailed, who);
            }
            let text = language.pick(
                "Name oder Passwort sind falsch.",
                "The name or the password is wrong.",
            );
            let told = Some((StatusCode::FORBIDDEN, text));
            Ok(form(language, &given.user, told))
        }
        Err(users::Error::Deactivated | users::Error::Locked) => {
            let text = language.pick("Dieses Konto ist gesperrt.", "This account is closed.");
            let told = Some((StatusCode::FORBIDDEN, text));
            Ok(form(language, &given.user, told))
        }
        Err(error) => Err(error.into()),
    }
}

/// The page that hands the client what the login gave.
fn done(language: Language, answer: &str) -> Response {
    let text = language.pick(
        "Sie sind angemeldet und können in Ihrem Programm weitermachen.",
        "You are logged in and can go on in your client.",
    );
    let body = format!(
        "<p id=\"answer\" data-answer=\"{}\">{text}</p>",
        escape(answer)
    );
    Page {
        status: StatusCode::OK,
        language,
        title: language.pick("Angemeldet", "Logged in"),
        body: &body,
        script: Some(LOGIN_DONE),
    }
    .answer()
}
