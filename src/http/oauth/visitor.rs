//! Browsers on our pages: who is logged in there, and whether a form came from one of them.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    Form,
    extract::{FromRequest, FromRequestParts, Query, Request},
    response::Response,
};
use http::{HeaderMap, Method, StatusCode, request::Parts};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::{ApiError, App, config};
use crate::{
    http::{
        limits::{Kind, Whence},
        page::{Page, Reads, redirection},
        request::read,
        sso::cookie_named,
    },
    mail::text::{Language, escape},
    users::{
        oauth::browser::{self, Browser},
        pending_accounts,
    },
};

/// Bytes of a form.
const FORM_BYTES_MAX: usize = 64 << 10;

/// Somebody who reads a page.
pub(super) struct Visitor {
    pub(super) app: App,
    pub(super) language: Language,
    pub(super) address: Option<SocketAddr>,
    /// The browser, if somebody is logged in.
    pub(super) browser: Option<Browser>,
    /// What the browser keeps of an account that it asked for, which waits for a code.
    pub(super) secret: Option<String>,
    /// The page, with its query.
    pub(super) here: String,
}

impl FromRequestParts<App> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let base = &config(&app.ctx)?.base_url;
        let Whence(address) = Whence::from_request_parts(parts, app).await?;
        app.limits.check_address(Kind::Sso, address)?;
        if parts.method != Method::GET && !is_from_here(&parts.headers, base) {
            return Err(ApiError::forbidden("the form was sent from elsewhere"));
        }
        let Ok(Reads(language)) = Reads::from_request_parts(parts, app).await;
        let browser = match cookie(&parts.headers, base) {
            Some(token) => browser::find(&app.ctx, &token).await?,
            None => None,
        };
        let here = parts.uri.path_and_query();
        Ok(Self {
            app: app.clone(),
            language,
            address,
            browser,
            secret: cookie_named(&parts.headers, &pending_name(base)),
            here: here.map_or("/", |here| here.as_str()).to_owned(),
        })
    }
}

/// Whether a browser sends a form that it was given by us. Which browser says nothing is old, and is held
/// to the seal of the form alone.
fn is_from_here(headers: &HeaderMap, base: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    // Our pages tell nobody where they are, so that browsers say "null" of them.
    let origin = text("origin").filter(|origin| *origin != "null");
    let ours = Url::parse(base).map(|base| base.origin().ascii_serialization());
    origin.is_none_or(|origin| ours.is_ok_and(|ours| ours == origin))
}

fn is_secure(base: &str) -> bool {
    base.starts_with("https://")
}

fn cookie_name(base: &str) -> &'static str {
    // With that prefix no other host of the same domain can set it.
    if is_secure(base) {
        "__Host-amtsbote"
    } else {
        "amtsbote"
    }
}

/// The cookie of an account that waits for a code.
fn pending_name(base: &str) -> String {
    format!("{}-new", cookie_name(base))
}

fn cookie(headers: &HeaderMap, base: &str) -> Option<String> {
    cookie_named(headers, cookie_name(base))
}

/// Sends a browser on that is logged in now (`None`: that is not any more).
pub(in crate::http) fn logged_in(base: &str, token: Option<&str>, location: &str) -> Response {
    let kept = token.map(|token| (token, browser::LIFE_MS));
    let cookie = cookie_of(base, cookie_name(base), kept);
    redirection(StatusCode::SEE_OTHER, location, [&*cookie])
}

/// A cookie for our pages, with how long it is kept (milliseconds); `None`: it is not any more.
fn cookie_of(base: &str, name: &str, kept: Option<(&str, i64)>) -> String {
    let secure = if is_secure(base) { "; Secure" } else { "" };
    let (value, ms) = kept.unwrap_or_default();
    let age = ms / 1_000;
    // Lax: it is a link from a client by which people come.
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}")
}

impl Visitor {
    /// A text in the language of the reader.
    pub(super) fn say<'a>(&self, german: &'a str, english: &'a str) -> &'a str {
        self.language.pick(german, english)
    }

    /// Where browsers find us.
    pub(super) fn base(&self) -> &str {
        let config = self.app.ctx.config.oauth.as_ref();
        config.map_or("", |config| &config.base_url)
    }

    /// A page; `elsewhere`: where its form may lead besides.
    pub(super) fn page(
        &self,
        status: StatusCode,
        title: &str,
        body: &str,
        elsewhere: &str,
    ) -> Response {
        let page = Page {
            status,
            language: self.language,
            title,
            body,
            script: None,
        };
        page.answer_to(elsewhere)
    }

    /// A page that says one thing.
    pub(super) fn notice(&self, status: StatusCode, title: &str, text: &str) -> Response {
        self.page(status, title, &format!("<p>{}</p>", escape(text)), "")
    }

    /// The hidden field by which we know a form of ours again.
    pub(super) fn seal(&self) -> String {
        let browser = self.browser.as_ref();
        let seal = browser.map_or("", |browser| &browser.seal);
        format!("<input type=\"hidden\" name=\"seal\" value=\"{seal}\">")
    }

    /// Who is logged in, if the form is one that this browser was given.
    pub(super) fn sealed(&self, given: &Given) -> Option<&Browser> {
        let browser = self.browser.as_ref();
        browser.filter(|browser| browser.has_sealed(&given.seal))
    }

    /// Sends the browser on, which keeps the secret of an account that waits for a code.
    pub(super) fn waiting(&self, secret: &str, location: &str) -> Response {
        let cookie = self.pending_cookie(Some(secret));
        redirection(StatusCode::SEE_OTHER, location, [&*cookie])
    }

    /// The cookie with that secret; `None`: it is not kept any more.
    pub(super) fn pending_cookie(&self, secret: Option<&str>) -> String {
        let kept = secret.map(|secret| (secret, pending_accounts::LIFE_MS));
        cookie_of(self.base(), &pending_name(self.base()), kept)
    }

    /// This page, where people come in in that way; empty: as the client led here.
    pub(super) fn entered_by(&self, way: &str) -> String {
        let (path, query) = self.here.split_once('?').unwrap_or((&self.here, ""));
        let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "enter");
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        if !way.is_empty() {
            query.append_pair("enter", way);
        }
        match &*query.finish() {
            "" => path.to_owned(),
            query => format!("{path}?{query}"),
        }
    }

    /// Logs the browser out, and shows the page again.
    pub(super) async fn leave(&self, browser: &Browser) -> Result<Response, ApiError> {
        browser::close(&self.app.ctx, browser).await?;
        Ok(logged_in(self.base(), None, &self.here))
    }
}

/// What forms send; which of it, the form says.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Given {
    /// What is to be done.
    pub(super) step: String,
    /// By which the form is known as ours.
    pub(super) seal: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) new_password: String,
    pub(super) again: String,
    pub(super) token: String,
    pub(super) email: String,
    /// By which a registration is known that is sent twice.
    pub(super) key: String,
    /// Number of the newest mail that the reader knew of.
    pub(super) attempt: String,
    /// Set where the box is checked.
    pub(super) agreed: Option<String>,
    /// Versions of the terms that were shown.
    pub(super) version: String,
    pub(super) code: String,
    pub(super) name: String,
    pub(super) device_id: String,
    /// Set where the box is checked.
    pub(super) erase: Option<String>,
    /// Set where the box is checked.
    pub(super) log_out: Option<String>,
}

impl Given {
    /// Whether somebody logs in by it, or makes an account.
    pub(super) fn enters(&self) -> bool {
        matches!(&*self.step, "login" | "register" | "confirm" | "again")
    }
}

impl FromRequest<App> for Given {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read(body, FORM_BYTES_MAX).await?;
        let request = Request::from_parts(parts, body.into());
        let form = Form::<Self>::from_request(request, &()).await;
        let form = form.map_err(|_| ApiError::invalid_param("this is no form of ours"))?;
        Ok(form.0)
    }
}

/// What stands in the query of a page, as far as it can be read.
pub(super) struct Asked<T>(pub(super) T);

impl<T: Default + serde::de::DeserializeOwned> FromRequestParts<App> for Asked<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        Ok(Self(query.map(|query| query.0).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{cookie, is_from_here};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        let pairs = pairs.map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn forms_come_from_our_pages() {
        let base = "https://matrix.amt.example/base";
        for good in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "https://matrix.amt.example")],
            &[("sec-fetch-site", "same-origin"), ("origin", "null")],
        ] {
            assert!(is_from_here(&headers(good), base), "{good:?}");
        }
        for bad in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "http://matrix.amt.example")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!is_from_here(&headers(bad), base), "{bad:?}");
        }
    }

    #[test]
    fn the_cookie_is_that_of_this_host() {
        let sent = headers(&[("cookie", "amtsbote=a; __Host-amtsbote=b")]);
        assert_eq!(cookie(&sent, "https://a.example").as_deref(), Some("b"));
        assert_eq!(cookie(&sent, "http://localhost").as_deref(), Some("a"));
        assert_eq!(cookie(&headers(&[]), "http://localhost"), None);
    }
}
