//! Pages for people: one language each, nothing from elsewhere, no script inline, in no frame. What
//! stands on them works without script; scripts only tell the client that shows a page.

pub(super) mod credentials;

use std::convert::Infallible;

use axum::{
    Router,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};

use super::App;
use crate::mail::text::{Language, escape};

/// Tells the client that a stage is done (specification, "Fallback").
pub(super) const AUTH_DONE: &str = "/_matrix/static/auth_done.js";
/// Tells the client what a login gave (specification, "Login Fallback").
pub(super) const LOGIN_DONE: &str = "/_matrix/static/login_done.js";
const STYLE: &str = "/_matrix/static/page.css";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(STYLE, get(style))
        .route(AUTH_DONE, get(auth_done))
        .route(LOGIN_DONE, get(login_done))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, text).into_response()
}

/// `GET /_matrix/static/page.css`
async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("page.css"))
}

/// `GET /_matrix/static/auth_done.js`
async fn auth_done() -> Response {
    file(
        "text/javascript; charset=utf-8",
        include_str!("auth_done.js"),
    )
}

/// `GET /_matrix/static/login_done.js`
async fn login_done() -> Response {
    file(
        "text/javascript; charset=utf-8",
        include_str!("login_done.js"),
    )
}

/// Sets cookies beside those that are set.
pub(super) fn set_cookies<'a>(response: &mut Response, cookies: impl IntoIterator<Item = &'a str>) {
    let cookies = cookies.into_iter();
    for value in cookies.filter_map(|cookie| HeaderValue::from_str(cookie).ok()) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// Sends the browser on. The address may hold a token: nothing keeps it, and nobody is told it.
pub(super) fn redirection<'a>(
    status: StatusCode,
    location: &str,
    cookies: impl IntoIterator<Item = &'a str>,
) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_LENGTH, "0"),
    ];
    let mut response = (status, headers).into_response();
    set_cookies(&mut response, cookies);
    response
}

/// The language that a reader's browser asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reads(pub(super) Language);

impl Reads {
    fn of(parts: &Parts) -> Self {
        let header = parts.headers.get(header::ACCEPT_LANGUAGE);
        let header = header.and_then(|header| header.to_str().ok());
        Self(Language::accepted(header.unwrap_or_default()))
    }
}

impl<S: Sync> FromRequestParts<S> for Reads {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// A page.
#[derive(Clone, Debug)]
pub(super) struct Page<'a> {
    /// Status.
    pub(super) status: StatusCode,
    /// Language.
    pub(super) language: Language,
    /// Title and heading, as text.
    pub(super) title: &'a str,
    /// What stands below it, as HTML.
    pub(super) body: &'a str,
    /// A script of ours.
    pub(super) script: Option<&'a str>,
}

impl Page<'_> {
    /// As an answer.
    pub(super) fn answer(&self) -> Response {
        self.answer_to("")
    }

    /// As an answer whose form may lead to somewhere else as well, as a source of a content security
    /// policy: browsers hold the answer to a form to that.
    pub(super) fn answer_to(&self, elsewhere: &str) -> Response {
        let title = escape(self.title);
        let script = self.script.map_or_else(String::new, |path| {
            format!("<script src=\"{path}\" defer></script>")
        });
        let html = format!(
            "<!DOCTYPE html><html lang=\"{}\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{title}</title><link rel=\"stylesheet\" href=\"{STYLE}\">{script}</head>\
             <body><main><h1>{title}</h1>{}</main></body></html>",
            self.language.tag(),
            self.body
        );
        let policy = format!(
            "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; \
             frame-ancestors 'none'; form-action 'self' {elsewhere}"
        );
        let headers: [(HeaderName, &str); 5] = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, policy.trim_end()),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (self.status, headers, html).into_response()
    }
}

/// A page without a form.
pub(super) fn notice(
    status: StatusCode,
    language: Language,
    title: &str,
    (german, english): (&str, &str),
) -> Response {
    let body = format!("<p>{}</p>", escape(language.pick(german, english)));
    Page {
        status,
        language,
        title,
        body: &body,
        script: None,
    }
    .answer()
}

/// What went wrong, as programs that read pages aloud tell at once; empty: nothing did.
pub(super) fn alert(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| {
        format!("<p role=\"alert\" id=\"alert\">{}</p>", escape(text))
    })
}
