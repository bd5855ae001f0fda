//! The page where a user logs in a device that has no browser (RFC 8628, section 3.3).

use axum::{Router, response::Response, routing::get};
use http::StatusCode;
use serde::Deserialize;

use super::{
    ApiError, App, Error, LINK_PATH,
    authorize::{decision, introduced},
    enter,
    visitor::{Asked, Given, Visitor},
};
use crate::{
    http::page::alert,
    mail::text::escape,
    users::oauth::{clients, link},
};

pub(super) fn routes() -> Router<App> {
    Router::new().route(LINK_PATH, get(show).post(submit))
}

/// What a link that a device shows holds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Link {
    user_code: String,
}

fn title(visitor: &Visitor) -> &'static str {
    visitor
        .language
        .pick("Ein Gerät anmelden", "Log a device in")
}

/// An error that is up to us.
fn failed(error: Error) -> ApiError {
    match error {
        Error::Account(error) => error.into(),
        error => ApiError::internal(&error),
    }
}

/// `GET /_matrix/oauth2/link`
async fn show(
    visitor: Visitor,
    way: Asked<enter::Way>,
    Asked(link): Asked<Link>,
) -> Result<Response, ApiError> {
    if visitor.browser.is_none() {
        return enter::ask(&visitor, &way).await;
    }
    if link.user_code.is_empty() {
        return Ok(form(&visitor, "", None));
    }
    consent(&visitor, &link.user_code).await
}

/// `POST /_matrix/oauth2/link`
async fn submit(visitor: Visitor, given: Given) -> Result<Response, ApiError> {
    if given.enters() {
        return enter::submit(&visitor, &given).await;
    }
    let Some(browser) = visitor.sealed(&given) else {
        return Ok(super::send_on(&visitor.here));
    };
    let is_allowed = match &*given.step {
        "leave" => return visitor.leave(browser).await,
        "allow" => true,
        "deny" => false,
        _ => return consent(&visitor, &given.code).await,
    };
    let answered = link::answer(&visitor.app.ctx, browser, &given.code, is_allowed);
    if !answered.await.map_err(failed)? {
        return Ok(over(&visitor, &given.code));
    }
    let text = if is_allowed {
        visitor.say(
            "Das Gerät wird jetzt angemeldet. Sie können diese Seite schließen.",
            "The device is being logged in. You can close this page.",
        )
    } else {
        visitor.say(
            "Das Gerät wird nicht angemeldet. Sie können diese Seite schließen.",
            "The device is not logged in. You can close this page.",
        )
    };
    Ok(visitor.notice(StatusCode::OK, title(&visitor), text))
}

/// The page where the code is typed that a device shows.
fn form(visitor: &Visitor, code: &str, wrong: Option<&str>) -> Response {
    let body = format!(
        "{}<form method=\"post\">{}<p><label for=\"code\">{}</label>\
         <input id=\"code\" name=\"code\" value=\"{}\" required autocomplete=\"off\" \
         autocapitalize=\"characters\" spellcheck=\"false\" aria-describedby=\"alert\"></p>\
         <button type=\"submit\" name=\"step\" value=\"code\">{}</button></form>",
        alert(wrong),
        visitor.seal(),
        visitor.say(
            "Code, den das Gerät zeigt",
            "The code that the device shows"
        ),
        escape(code),
        visitor.say("Weiter", "Continue")
    );
    let status = wrong.map_or(StatusCode::OK, |_| StatusCode::BAD_REQUEST);
    visitor.page(status, title(visitor), &body, "")
}

fn over(visitor: &Visitor, code: &str) -> Response {
    let wrong = visitor.say(
        "Dieser Code gilt nicht oder nicht mehr. Bitte prüfen Sie, was das Gerät zeigt.",
        "This code is not valid, or not any more. Please check what the device shows.",
    );
    form(visitor, code, Some(wrong))
}

/// The page where the user says whether it is their device.
async fn consent(visitor: &Visitor, typed: &str) -> Result<Response, ApiError> {
    let found = link::find(&visitor.app.ctx, typed).await.map_err(failed)?;
    let Some((code, waiting)) = found else {
        return Ok(over(visitor, typed));
    };
    let client = clients::find(&visitor.app.ctx, &waiting.client_id).await;
    let client = match client {
        Ok(client) => client,
        Err(Error::Client) => return Ok(over(visitor, typed)),
        Err(error) => return Err(failed(error)),
    };
    let warning = visitor.say(
        "Der Code muss von einem Gerät stammen, das Sie vor sich haben. Wer Ihnen einen Code schickt, \
         will in Ihr Konto.",
        "The code has to be that of a device in front of you. Whoever sends you a code wants to get \
         into your account.",
    );
    let body = format!(
        "{}<p><strong>{warning}</strong></p>{}",
        introduced(visitor, &client, client.host()),
        decision(
            visitor,
            &format!("<input type=\"hidden\" name=\"code\" value=\"{code}\">")
        )
    );
    Ok(visitor.page(StatusCode::OK, title(visitor), &body, ""))
}
