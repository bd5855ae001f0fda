//! The page where a user says what a client may (RFC 6749, section 4.1; specification, "Authorisation code
//! flow").

use std::fmt::Write as _;

use axum::{Router, response::Response, routing::get};
use http::StatusCode;
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::{
    AUTHORIZE_PATH, ApiError, App, Error, code, enter, issuer, send_on, source,
    visitor::{Asked, Given, Visitor},
};
use crate::{
    http::sso,
    mail::text::escape,
    users::oauth::{
        CODE_GRANT,
        clients::{self, Client},
        code as codes,
        scope::{self, Scope},
    },
};

/// Bytes of what a client wants repeated.
const NONCE_BYTES_MAX: usize = 1_024;

pub(super) fn routes() -> Router<App> {
    Router::new().route(AUTHORIZE_PATH, get(show).post(submit))
}

/// What a client sends a browser here with.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    client_id: String,
    redirect_uri: String,
    response_type: String,
    response_mode: Option<String>,
    scope: String,
    state: Option<String>,
    code_challenge: String,
    code_challenge_method: String,
    /// What the client wants repeated in an id token (OpenID Connect).
    nonce: Option<String>,
    prompt: Option<String>,
}

/// A request that the client is told the end of, at the address where it waits.
struct Heard<'a> {
    request: &'a Request,
    client: Client,
    url: Url,
}

impl Heard<'_> {
    /// The address where the client waits, with the answer.
    fn answer(&self, visitor: &Visitor, answer: &[(&str, &str)]) -> Response {
        let issuer = visitor.app.ctx.config.oauth.as_ref().map(issuer);
        let mut pairs: Vec<(&str, &str)> = answer.to_vec();
        pairs.extend(self.request.state.as_deref().map(|state| ("state", state)));
        pairs.extend(issuer.as_deref().map(|issuer| ("iss", issuer)));
        let mut url = self.url.clone();
        if self.request.response_mode.as_deref() == Some("fragment") {
            let mut fragment = form_urlencoded::Serializer::new(String::new());
            fragment.extend_pairs(pairs);
            url.set_fragment(Some(&fragment.finish()));
        } else {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        send_on(url.as_str())
    }

    fn refuse(&self, visitor: &Visitor, error: &Error) -> Response {
        let code = code(error).map_or("server_error", |(_, code)| code);
        let told = [("error", code), ("error_description", &error.to_string())];
        self.answer(visitor, &told)
    }
}

/// The client and where it waits. What is wrong with these the user is told, and nobody else: the address
/// may be anybody's.
async fn hear<'a>(
    visitor: &Visitor,
    request: &'a Request,
) -> Result<Result<Heard<'a>, Response>, ApiError> {
    let title = visitor.say("Anmeldung nicht möglich", "The login is not possible");
    let refused = |german, english| {
        let text = visitor.say(german, english);
        Ok(Err(visitor.notice(StatusCode::BAD_REQUEST, title, text)))
    };
    let client = match clients::find(&visitor.app.ctx, &request.client_id).await {
        Ok(client) => client,
        Err(Error::Account(error)) => return Err(error.into()),
        Err(_) => {
            return refused(
                "Dieser Client ist hier nicht (mehr) bekannt. Bitte beginnen Sie dort noch einmal.",
                "This client is not known here (any more). Please begin there again.",
            );
        }
    };
    match client.redirect(&request.redirect_uri) {
        Some(url) => Ok(Ok(Heard {
            request,
            client,
            url,
        })),
        None => refused(
            "Der Client nennt eine Adresse, die er nicht angemeldet hat (redirect_uri).",
            "The client names an address that it has not registered (redirect_uri).",
        ),
    }
}

/// Checks what the client asks for.
fn check(heard: &Heard<'_>) -> Result<Scope, Error> {
    let request = heard.request;
    if !heard.client.may(CODE_GRANT) {
        return Err(Error::Unauthorized);
    }
    if !matches!(
        request.response_mode.as_deref(),
        None | Some("query" | "fragment")
    ) {
        return Err(Error::Request("response_mode must be query or fragment"));
    }
    if request.code_challenge_method != "S256" {
        return Err(Error::Request("code_challenge_method must be S256"));
    }
    codes::check_challenge(&request.code_challenge)?;
    let nonce = request.nonce.as_deref().unwrap_or_default();
    if nonce.len() > NONCE_BYTES_MAX || nonce.contains('\0') {
        return Err(Error::Request("nonce is too long, or no text"));
    }
    scope::parse(&request.scope)
}

/// What an error that RFC 6749 names otherwise is.
fn misfit(request: &Request) -> Option<(&'static str, &'static str)> {
    if request.response_type != "code" {
        return Some(("unsupported_response_type", "response_type must be code"));
    }
    // Somebody always has to say yes.
    (request.prompt.as_deref() == Some("none"))
        .then_some(("interaction_required", "the user has to be asked"))
}

/// A request that can be granted; or what is answered to it.
async fn ready<'a>(
    visitor: &Visitor,
    request: &'a Request,
) -> Result<Result<(Heard<'a>, Scope), Response>, ApiError> {
    let heard = match hear(visitor, request).await? {
        Ok(heard) => heard,
        Err(page) => return Ok(Err(page)),
    };
    if let Some((code, why)) = misfit(request) {
        let told = [("error", code), ("error_description", why)];
        return Ok(Err(heard.answer(visitor, &told)));
    }
    Ok(match check(&heard) {
        Ok(scope) => Ok((heard, scope)),
        Err(error) => Err(heard.refuse(visitor, &error)),
    })
}

/// `GET /_matrix/oauth2/authorize`
async fn show(
    visitor: Visitor,
    way: Asked<enter::Way>,
    Asked(request): Asked<Request>,
) -> Result<Response, ApiError> {
    let (heard, _) = match ready(&visitor, &request).await? {
        Ok(ready) => ready,
        Err(answer) => return Ok(answer),
    };
    match visitor.browser {
        Some(_) => Ok(consent(&visitor, &heard)),
        None => enter::ask(&visitor, &way).await,
    }
}

/// `POST /_matrix/oauth2/authorize`
async fn submit(
    visitor: Visitor,
    Asked(request): Asked<Request>,
    given: Given,
) -> Result<Response, ApiError> {
    let (heard, scope) = match ready(&visitor, &request).await? {
        Ok(ready) => ready,
        Err(answer) => return Ok(answer),
    };
    if given.enters() {
        return enter::submit(&visitor, &given).await;
    }
    let Some(browser) = visitor.sealed(&given) else {
        return Ok(send_on(&visitor.here));
    };
    match &*given.step {
        "allow" => {
            let wanted = codes::Wanted {
                scope: &scope,
                redirect_uri: &request.redirect_uri,
                challenge: &request.code_challenge,
                nonce: request.nonce.as_deref(),
            };
            let issued = codes::issue(&visitor.app.ctx, browser, &heard.client, wanted).await;
            match issued {
                Ok(code) => Ok(heard.answer(&visitor, &[("code", &code)])),
                Err(Error::Account(error)) => Err(error.into()),
                Err(error) => Ok(heard.refuse(&visitor, &error)),
            }
        }
        "leave" => visitor.leave(browser).await,
        _ => Ok(heard.refuse(&visitor, &Error::Denied)),
    }
}

/// What people are told of where a client waits.
pub(super) fn place(visitor: &Visitor, url: &Url) -> String {
    match url.host_str() {
        Some("localhost" | "127.0.0.1" | "[::1]") => visitor
            .say("ein Programm auf diesem Gerät", "a program on this device")
            .to_owned(),
        _ => sso::place(url),
    }
}

/// The sentence that says what somebody is about to do; `who`: who gets access, as HTML.
pub(super) fn warning(visitor: &Visitor, who: &str) -> String {
    let user = visitor.browser.as_ref();
    let user = user.map_or_else(String::new, |browser| escape(browser.user.as_str()));
    format!(
        "<p>{who} {} <strong>{user}</strong>. {}</p>",
        visitor.say(
            "bekommt vollen Zugriff auf das Konto",
            "gets full access to the account"
        ),
        visitor.say(
            "Stimmen Sie nur zu, wenn Sie sich gerade dort anmelden wollten.",
            "Allow it only if you wanted to log in there just now."
        )
    )
}

/// What people are told of a client that wants to be theirs: its name says nothing for sure, but the
/// `place` where it waits does.
pub(super) fn introduced(visitor: &Visitor, client: &Client, place: &str) -> String {
    let (name, place) = (escape(client.name()), escape(place));
    let mut body = warning(visitor, &format!("<strong>{name}</strong> ({place})"));
    let language = Some(visitor.language.tag());
    for (key, text) in [
        (
            "policy_uri",
            visitor.say(
                "Datenschutz dieses Clients",
                "Privacy policy of this client",
            ),
        ),
        (
            "tos_uri",
            visitor.say("Bedingungen dieses Clients", "Terms of this client"),
        ),
    ] {
        if let Some(address) = client.text(key, language) {
            let address = escape(address);
            // Writing into a string cannot fail.
            let _ = write!(
                body,
                "<p><a href=\"{address}\" rel=\"noreferrer\">{text}</a></p>"
            );
        }
    }
    body
}

/// The buttons by which people decide; `more`: hidden fields.
pub(super) fn decision(visitor: &Visitor, more: &str) -> String {
    let button = |step: &str, text: &str| {
        format!("<button type=\"submit\" name=\"step\" value=\"{step}\">{text}</button> ")
    };
    format!(
        "<form method=\"post\">{}{more}<p>{}{}</p><p>{}</p></form>",
        visitor.seal(),
        button("allow", visitor.say("Zustimmen", "Allow")),
        button("deny", visitor.say("Ablehnen", "Deny")),
        button(
            "leave",
            visitor.say("Mit einem anderen Konto anmelden", "Use another account")
        )
    )
}

fn consent(visitor: &Visitor, heard: &Heard<'_>) -> Response {
    let title = visitor.say("Zugriff erlauben?", "Allow access?");
    let body =
        introduced(visitor, &heard.client, &place(visitor, &heard.url)) + &decision(visitor, "");
    visitor.page(StatusCode::OK, title, &body, &source(&heard.url))
}
