//! Pages that links in mails lead to. A link alone does nothing: programs that look for malice open
//! it before its reader does. The page has a button, and no script.

use axum::{
    Form, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::{
    App,
    error::ApiError,
    limits::{Kind, Whence},
};
use crate::{
    mail::text::escape,
    users::{
        self, pushers,
        validation::{self, CONFIRM_PATH},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(CONFIRM_PATH, get(confirm_page).post(confirm))
        .route(
            pushers::UNSUBSCRIBE_PATH,
            get(unsubscribe_page).post(unsubscribe),
        )
}

/// What a link to confirm an address holds.
#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    sid: String,
    #[serde(default)]
    token: String,
}

/// What a link that ends mails holds.
#[derive(Deserialize)]
struct Subscription {
    #[serde(default)]
    token: String,
}

/// `GET /_matrix/client/unstable/de.amtsbote.email/confirm`
async fn confirm_page(State(app): State<App>, Query(link): Query<Link>) -> Response {
    let body = format!(
        "<h1 lang=\"de\">E-Mail-Adresse bestätigen</h1>\
         <p lang=\"de\">Wenn Sie das veranlasst haben, bestätigen Sie es bitte hier.</p>\
         <p lang=\"en\">Confirm your e-mail address: if you asked for this, please confirm it here.</p>\
         <form method=\"post\"><input type=\"hidden\" name=\"sid\" value=\"{}\">\
         <input type=\"hidden\" name=\"token\" value=\"{}\">\
         <button type=\"submit\">Bestätigen / Confirm</button></form>",
        escape(&link.sid),
        escape(&link.token)
    );
    page(&app, StatusCode::OK, &body)
}

/// `POST /_matrix/client/unstable/de.amtsbote.email/confirm`
async fn confirm(
    State(app): State<App>,
    Whence(address): Whence,
    Form(link): Form<Link>,
) -> Result<Response, ApiError> {
    app.limits.check_address(Kind::MailLink, address)?;
    match validation::confirm(&app.ctx, &link.sid, &link.token).await {
        Ok(Some(next)) => {
            let mut answer = page(&app, StatusCode::SEE_OTHER, CONFIRMED);
            if let Ok(next) = HeaderValue::try_from(next) {
                answer.headers_mut().insert(header::LOCATION, next);
            }
            Ok(answer)
        }
        Ok(None) => Ok(page(&app, StatusCode::OK, CONFIRMED)),
        Err(users::Error::AddressUnproved | users::Error::Parameter(_)) => {
            Ok(page(&app, StatusCode::BAD_REQUEST, OVER))
        }
        Err(error) => Err(error.into()),
    }
}

const CONFIRMED: &str = "<p lang=\"de\">Die E-Mail-Adresse ist bestätigt. Sie können diese Seite \
     schließen und dort weitermachen, wo Sie begonnen haben.</p>\
     <p lang=\"en\">The e-mail address is confirmed. You can close this page and go on where you \
     began.</p>";
const OVER: &str = "<p lang=\"de\">Dieser Link gilt nicht oder nicht mehr. Es gilt nur der aus der \
     neuesten E-Mail.</p>\
     <p lang=\"en\">This link is not valid, or not any more. Only the one in the newest mail is.</p>";

/// `GET /_matrix/client/unstable/de.amtsbote.email/unsubscribe`
async fn unsubscribe_page(State(app): State<App>) -> Response {
    // The form goes to the same address, with its query.
    let body = "<p lang=\"de\">Möchten Sie keine E-Mails über Ungelesenes mehr?</p>\
         <p lang=\"en\">Do you want no more mails about what is unread?</p>\
         <form method=\"post\"><button type=\"submit\">Keine E-Mails mehr / No more mails</button>\
         </form>";
    page(&app, StatusCode::OK, body)
}

/// `POST /_matrix/client/unstable/de.amtsbote.email/unsubscribe`
///
/// Mail programs do this themselves (RFC 8058).
async fn unsubscribe(
    State(app): State<App>,
    Whence(address): Whence,
    Query(subscription): Query<Subscription>,
) -> Result<Response, ApiError> {
    app.limits.check_address(Kind::MailLink, address)?;
    pushers::unsubscribe(&app.ctx, &subscription.token).await?;
    // The same where there was nothing to end: whoever tries tokens learns nothing.
    let body = "<p lang=\"de\">Sie bekommen keine E-Mails über Ungelesenes mehr. In Ihrem Programm \
         können Sie sie wieder einschalten.</p>\
         <p lang=\"en\">You get no more mails about what is unread. You can turn them on again in \
         your client.</p>";
    Ok(page(&app, StatusCode::OK, body))
}

/// A page that loads nothing, runs nothing, stands in no frame, and leads nowhere but to hosts of
/// the configuration.
fn page(app: &App, status: StatusCode, body: &str) -> Response {
    let email = app.ctx.config.email.as_ref();
    let title = email.map_or("", |email| &email.app_name);
    let mut policy =
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
            .to_owned();
    for host in email.into_iter().flat_map(|email| &email.next_link_hosts) {
        policy.push(' ');
        policy.push_str(host);
        policy.push_str(":*");
    }
    let html = format!(
        "<!DOCTYPE html><html lang=\"de\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title></head>\
         <body><main>{body}</main></body></html>",
        escape(title)
    );
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, &policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, html).into_response()
}
