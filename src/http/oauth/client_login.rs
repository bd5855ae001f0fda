//! Clients that know the older login by single sign-on alone (specification, "OAuth 2.0 aware clients"), and
//! the way to identity providers from our pages.

use axum::{Router, extract::State, response::Response, routing::get};
use http::StatusCode;
use serde::Deserialize;
use url::form_urlencoded;

use super::{
    ApiError, App,
    authorize::{decision, place, warning},
    config, enter, send_on, source,
    visitor::{Asked, Given, Visitor},
};
use crate::{
    http::{path::Path, sso},
    mail::text::escape,
    users::{login_token, sso::Goal},
};

/// The page where the user says so.
const LOGIN_PATH: &str = "/_matrix/oauth2/sso";
/// From where browsers go to a provider.
const PROVIDER_PATH: &str = "/_matrix/oauth2/provider";
/// Bytes of the page that a browser comes back to.
const BACK_BYTES_MAX: usize = 8 << 10;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(LOGIN_PATH, get(show).post(submit))
        .route(&format!("{PROVIDER_PATH}/{{id}}"), get(go))
}

/// Where a browser goes that a client sends to the older login, where that is done on our pages.
pub(in crate::http) fn is_path(redirect_url: &str, action: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("redirectUrl", redirect_url);
    if action == Some("register") {
        query.append_pair("prompt", "create");
    }
    format!("{LOGIN_PATH}?{}", query.finish())
}

/// From where a browser goes to a provider, and comes back to a page of ours.
pub(super) fn provider_path(id: &str, back: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("back", back);
    // An id stands for itself in a path.
    format!("{PROVIDER_PATH}/{id}?{}", query.finish())
}

/// What a client sends a browser here with.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wanted {
    #[serde(rename = "redirectUrl")]
    redirect_url: String,
}

/// The page that says that the client cannot wait there.
fn refusal(visitor: &Visitor) -> Response {
    let title = visitor.say("Anmeldung nicht möglich", "The login is not possible");
    let text = visitor.say(
        "Der Client nennt keine Adresse, zu der die Anmeldung zurückführen kann (redirectUrl).",
        "The client names no address that the login could lead back to (redirectUrl).",
    );
    visitor.notice(StatusCode::BAD_REQUEST, title, text)
}

/// `GET /_matrix/oauth2/sso`
async fn show(
    visitor: Visitor,
    way: Asked<enter::Way>,
    Asked(asked): Asked<Wanted>,
) -> Result<Response, ApiError> {
    let Some(url) = sso::redirect_url(&asked.redirect_url) else {
        return Ok(refusal(&visitor));
    };
    if visitor.browser.is_none() {
        return enter::ask(&visitor, &way).await;
    }
    let who = format!("<strong>{}</strong>", escape(&place(&visitor, &url)));
    let body = warning(&visitor, &who) + &decision(&visitor, "");
    let title = visitor.say("Zugriff erlauben?", "Allow access?");
    Ok(visitor.page(StatusCode::OK, title, &body, &source(&url)))
}

/// `POST /_matrix/oauth2/sso`
async fn submit(
    visitor: Visitor,
    Asked(asked): Asked<Wanted>,
    given: Given,
) -> Result<Response, ApiError> {
    let Some(mut url) = sso::redirect_url(&asked.redirect_url) else {
        return Ok(refusal(&visitor));
    };
    if given.enters() {
        return enter::submit(&visitor, &given).await;
    }
    let Some(browser) = visitor.sealed(&given) else {
        return Ok(send_on(&visitor.here));
    };
    match &*given.step {
        "allow" => {
            let origin = browser.origin.as_ref();
            let token = login_token::issue(&visitor.app.ctx, browser.nid, origin).await?;
            url.query_pairs_mut().append_pair("loginToken", &token);
            Ok(send_on(url.as_str()))
        }
        "leave" => visitor.leave(browser).await,
        _ => {
            let title = visitor.say("Abgelehnt", "Denied");
            let text = visitor.say(
                "Sie können diese Seite schließen.",
                "You can close this page.",
            );
            Ok(visitor.notice(StatusCode::OK, title, text))
        }
    }
}

/// What a link to a provider holds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Back {
    back: String,
}

/// `GET /_matrix/oauth2/provider/{id}`
async fn go(
    State(app): State<App>,
    _: Visitor,
    Path(id): Path<String>,
    Asked(Back { back }): Asked<Back>,
) -> Result<Response, ApiError> {
    config(&app.ctx)?;
    // A page of ours, and nothing that a browser takes for another server.
    let is_ours = back.len() <= BACK_BYTES_MAX
        && back.starts_with("/_matrix/")
        && back
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let provider = app.ctx.providers.find(&id).filter(|_| is_ours);
    match provider {
        Some(provider) => Ok(sso::begin(&app, provider, Goal::Page { path: &back }).await),
        None => Err(ApiError::not_found(
            "there is no such identity provider, or page",
        )),
    }
}
