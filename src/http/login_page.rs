//! The page by which one logs in where a client cannot do it itself (specification, "Login
//! Fallback").

use axum::{
    Form, Router,
    extract::{Query, State},
    response::Response,
    routing::get,
};
use http::StatusCode;
use ruma::OwnedDeviceId;
use serde::Deserialize;

use super::{
    App,
    client::granted_body,
    error::ApiError,
    limits::Whence,
    page::{LOGIN_DONE, Page, Reads, alert, credentials},
};
use crate::mail::text::{Language, escape};

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
        "{}<form method=\"post\">{}<button type=\"submit\">{}</button></form>",
        alert(wrong.map(|(_, text)| text)),
        credentials::fields(language, user),
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
    let named = (&*given.user, &*given.password);
    match credentials::check(&app, (address, language), named).await? {
        Ok(user) => {
            let id = device.device_id.as_deref();
            let granted = app.tokens.grant(&user, id, name, false).await?;
            Ok(done(language, &granted_body(&user, &granted).to_string()))
        }
        Err(text) => {
            let told = Some((StatusCode::FORBIDDEN, text));
            Ok(form(language, &given.user, told))
        }
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
