//! Accounts that end: the page that renews one, and the mail with its link.

use axum::{
    Form, Router,
    extract::{Query, State},
    response::Response,
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{
    App,
    error::ApiError,
    limits::{Kind, Whence},
    page::{Page, Reads, notice},
    reply::Object,
    request::Asking,
};
use crate::{
    mail::text::{Language, escape},
    users::{self, validity},
};

/// Paths that have a mail sent; whose account is over asks for it too.
const SEND_PATHS: [&str; 2] = [
    "/_synapse/client/email_account_validity/send_mail",
    "/_matrix/client/unstable/account_validity/send_mail",
];
/// Where links in mails led to before.
const OLD_RENEW_PATH: &str = "/_synapse/client/email_account_validity/renew";

pub(super) fn routes() -> Router<App> {
    let router = Router::new();
    let router = SEND_PATHS
        .into_iter()
        .fold(router, |router, path| router.route(path, post(send_mail)));
    [validity::RENEW_PATH, OLD_RENEW_PATH]
        .into_iter()
        .fold(router, |router, path| {
            router.route(path, get(renewal_page).post(renew))
        })
}

/// Whether a path is one that an account needs to be renewed.
pub(super) fn is_renewal(path: &str) -> bool {
    SEND_PATHS.contains(&path)
}

/// Where accounts have no end there is nothing of this.
fn check(app: &App) -> Result<(), ApiError> {
    let validity = app.ctx.config.account_validity;
    let switched_off = || ApiError::unrecognized(StatusCode::NOT_FOUND);
    validity.map(|_| ()).ok_or_else(switched_off)
}

/// `POST /_matrix/client/unstable/account_validity/send_mail`
///
/// Also at `/_synapse/client/email_account_validity/send_mail`, where clients know it.
async fn send_mail(State(app): State<App>, Asking(session): Asking) -> Result<Object, ApiError> {
    check(&app)?;
    app.limits.check_user(Kind::Mail, &session)?;
    validity::mail(&app.ctx, session.user_nid).await?;
    Ok(Object(json!({})))
}

/// What a link holds.
#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    token: String,
}

fn title(language: Language) -> &'static str {
    language.pick("Konto verlängern", "Renew your account")
}

/// `GET /_matrix/client/unstable/account_validity/renew`
///
/// Also at `/_synapse/client/email_account_validity/renew`. Only the button on the page renews:
/// programs open links in mails before their reader does.
async fn renewal_page(
    State(app): State<App>,
    Reads(language): Reads,
    Query(link): Query<Link>,
) -> Result<Response, ApiError> {
    check(&app)?;
    let body = format!(
        "<p>{}</p><form method=\"post\"><input type=\"hidden\" name=\"token\" value=\"{}\">\
         <button type=\"submit\">{}</button></form>",
        language.pick(
            "Brauchen Sie Ihr Konto weiter?",
            "Do you need your account any longer?"
        ),
        escape(&link.token),
        language.pick("Verlängern", "Renew")
    );
    let page = Page {
        status: StatusCode::OK,
        language,
        title: title(language),
        body: &body,
        script: None,
    };
    Ok(page.answer())
}

/// `POST /_matrix/client/unstable/account_validity/renew`
async fn renew(
    State(app): State<App>,
    Whence(address): Whence,
    Reads(language): Reads,
    Form(link): Form<Link>,
) -> Result<Response, ApiError> {
    check(&app)?;
    app.limits.check_address(Kind::MailLink, address)?;
    let (status, text) = match validity::renew(&app.ctx, &link.token).await {
        Ok(user) => {
            app.tokens.forget(user);
            let text = (
                "Ihr Konto ist verlängert. Sie können diese Seite schließen.",
                "Your account is renewed. You can close this page.",
            );
            (StatusCode::OK, text)
        }
        Err(users::Error::WrongToken) => {
            let text = (
                "Dieser Link gilt nicht oder nicht mehr. Es gilt nur der aus der neuesten E-Mail, \
                 und nur einmal.",
                "This link is not valid, or not any more. Only the one in the newest mail is, and \
                 only once.",
            );
            (StatusCode::NOT_FOUND, text)
        }
        Err(error) => return Err(error.into()),
    };
    Ok(notice(status, language, title(language), text))
}
