//! Pages of a login through an identity provider, in German and English: what is wrong, where one is
//! going, which provider to choose. They load nothing and, but for the one that tells a client that a
//! stage is done, run nothing.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, StatusCode, header};
use ruma::UserId;
use url::Url;

use super::whence::place;
use crate::{
    http::page::set_cookies,
    mail::text::escape,
    oidc,
    users::{self, sso::Error},
};

/// A page of two languages.
struct Page<'a> {
    status: StatusCode,
    /// Headings.
    title: (&'a str, &'a str),
    /// Text, as HTML.
    body: String,
    /// Nonce of the one script that it may run.
    nonce: Option<&'a str>,
    cookie: Option<&'a str>,
}

fn show(page: &Page<'_>) -> Response {
    let script = match page.nonce {
        Some(nonce) => format!("; script-src 'nonce-{nonce}'"),
        None => String::new(),
    };
    let policy = format!(
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'{script}"
    );
    let (german, english) = page.title;
    let html = format!(
        "<!DOCTYPE html><html lang=\"de\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{german}</title></head>\
         <body><main><h1>{german} / <span lang=\"en\">{english}</span></h1>{}</main></body></html>",
        page.body
    );
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, &policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = (page.status, headers, html).into_response();
    set_cookies(&mut response, page.cookie);
    response
}

fn paragraphs(german: &str, english: &str) -> String {
    format!("<p>{german}</p><p lang=\"en\">{english}</p>")
}

fn list(links: &[(String, String)]) -> String {
    let items = links.iter().map(|(address, name)| {
        let (address, name) = (escape(address), escape(name));
        format!("<li><a href=\"{address}\">{name}</a></li>")
    });
    format!("<ul>{}</ul>", items.collect::<String>())
}

/// People choose where they log in: address and name of each.
pub(super) fn choice(links: &[(String, String)]) -> Response {
    let text = paragraphs(
        "Wo möchten Sie sich anmelden?",
        "Where do you want to log in?",
    );
    show(&Page {
        status: StatusCode::OK,
        title: ("Anmeldung", "Login"),
        body: text + &list(links),
        nonce: None,
        cookie: None,
    })
}

/// Before a client that the operator does not know gets a session.
pub(super) fn confirmation(url: &Url, location: &Url, user: &UserId, cookie: &str) -> Response {
    let (place, user) = (escape(&place(url)), escape(user.as_str()));
    let text = paragraphs(
        &format!(
            "Sie sind als <strong>{user}</strong> angemeldet. Wenn Sie weitergehen, bekommt \
             <strong>{place}</strong> vollen Zugriff auf Ihr Konto. Gehen Sie nur weiter, wenn Sie \
             sich gerade dort anmelden wollten."
        ),
        &format!(
            "You are logged in as <strong>{user}</strong>. If you go on, <strong>{place}</strong> \
             gets full access to your account. Go on only if you wanted to log in there just now."
        ),
    );
    let link = format!(
        "<p><a href=\"{}\">Weiter zu {place} / <span lang=\"en\">Continue to {place}</span></a></p>",
        escape(location.as_str())
    );
    show(&Page {
        status: StatusCode::OK,
        title: ("Anmeldung bestätigen", "Confirm the login"),
        body: text + &link,
        nonce: None,
        cookie: Some(cookie),
    })
}

/// People are asked to prove once more who they are.
pub(super) fn stage(operation: &str, user: &UserId, links: &[(String, String)]) -> Response {
    let (german, english) = what(operation);
    let user = escape(user.as_str());
    let text = paragraphs(
        &format!(
            "Ihr Client möchte im Konto <strong>{user}</strong> {german}. Melden Sie sich dafür noch \
             einmal an. Wenn Sie das nicht veranlasst haben, schließen Sie diese Seite und wenden \
             Sie sich an Ihre Administration."
        ),
        &format!(
            "Your client wants to {english} in the account <strong>{user}</strong>. Log in once more \
             for that. If you did not ask for it, close this page and tell your administrators."
        ),
    );
    show(&Page {
        status: StatusCode::OK,
        title: ("Bestätigen, dass Sie es sind", "Confirm that it is you"),
        body: text + &list(links),
        nonce: None,
        cookie: None,
    })
}

/// What an operation of user-interactive authentication is to people.
fn what(operation: &str) -> (&'static str, &'static str) {
    match operation {
        "POST /delete_devices" => ("Geräte abmelden", "log devices out"),
        "POST /keys/device_signing/upload" => (
            "die Schlüssel ersetzen, mit denen Sie Ihre Geräte bestätigen",
            "replace the keys by which you confirm your devices",
        ),
        "POST /account/password" => ("das Passwort ändern", "change the password"),
        "POST /account/deactivate" => (
            "das Konto für immer schließen",
            "close the account for good",
        ),
        "POST /account/3pid/add" => ("eine E-Mail-Adresse eintragen", "add an e-mail address"),
        "POST /login/get_token" => ("ein weiteres Gerät anmelden", "log another device in"),
        other if other.starts_with("DELETE /devices/") => {
            ("ein Gerät abmelden", "log a device out")
        }
        _ => ("etwas Wichtiges ändern", "change something important"),
    }
}

/// A stage is done: the client is told, as the specification wants it ("Fallback").
pub(super) fn stage_done(cookie: &str) -> Response {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let text = paragraphs(
        "Danke. Sie können diese Seite schließen und in Ihrem Client weitermachen.",
        "Thank you. You can close this page and go on in your client.",
    );
    let script = format!(
        "<script nonce=\"{nonce}\">\
         if (window.onAuthDone) window.onAuthDone();\
         else if (window.opener && window.opener.postMessage) \
         window.opener.postMessage(\"authDone\", \"*\");</script>"
    );
    show(&Page {
        status: StatusCode::OK,
        title: ("Bestätigt", "Confirmed"),
        body: text + &script,
        nonce: Some(&nonce),
        cookie: Some(cookie),
    })
}

fn refusal(status: StatusCode, german: &str, english: &str) -> Response {
    show(&Page {
        status,
        title: ("Anmeldung nicht möglich", "The login is not possible"),
        body: paragraphs(german, english),
        nonce: None,
        cookie: None,
    })
}

/// What a client named is no address that a browser may be sent to.
pub(super) fn bad_client() -> Response {
    refusal(
        StatusCode::BAD_REQUEST,
        "Der Client nennt keine Adresse, zu der die Anmeldung zurückführen kann (redirectUrl).",
        "The client names no address that the login could lead back to (redirectUrl).",
    )
}

/// A client names a provider that there is not.
pub(super) fn unknown_provider() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "Diesen Anmeldedienst gibt es hier nicht.",
        "There is no such identity provider here.",
    )
}

/// Why a login came to nothing. Of tokens and answers of a provider people are told no details; they
/// are in the log.
pub(super) fn failure(error: &Error) -> Response {
    tracing::warn!(%error, "a login through an identity provider failed");
    let (status, german, english) = told(error);
    refusal(status, german, english)
}

type Told = (StatusCode, &'static str, &'static str);

fn told(error: &Error) -> Told {
    match error {
        Error::NotUnderWay => (
            StatusCode::BAD_REQUEST,
            "Diese Anmeldung ist abgelaufen, wurde schon benutzt oder in einem anderen Browser \
             begonnen. Bitte beginnen Sie in Ihrem Client noch einmal, und lassen Sie Cookies zu.",
            "This login is over, was used already or was begun in another browser. Please begin \
             again in your client, and allow cookies.",
        ),
        Error::TooMany => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Gerade melden sich zu viele an. Bitte versuchen Sie es in einigen Minuten noch einmal.",
            "Too many are logging in just now. Please try again in some minutes.",
        ),
        Error::Denied(_) => (
            StatusCode::FORBIDDEN,
            "Der Anmeldedienst hat Sie nicht angemeldet, oder Sie haben abgebrochen.",
            "The identity provider did not log you in, or you cancelled.",
        ),
        Error::Provider(oidc::Error::Call(_)) => (
            StatusCode::BAD_GATEWAY,
            "Der Anmeldedienst ist nicht zu erreichen oder lehnt ab. Bitte versuchen Sie es später \
             noch einmal.",
            "The identity provider is not reached, or refuses. Please try again later.",
        ),
        Error::Provider(oidc::Error::Nonsense(_) | oidc::Error::Token(_)) => (
            StatusCode::BAD_GATEWAY,
            "Der Anmeldedienst antwortet mit etwas, dem nicht zu trauen ist. Bitte wenden Sie sich an \
             Ihre Administration.",
            "The identity provider answers with what cannot be trusted. Please tell your \
             administrators.",
        ),
        Error::Unmet => (
            StatusCode::FORBIDDEN,
            "Sie dürfen diesen Dienst nicht benutzen. Ihre Administration kann das ändern.",
            "You may not use this service. Your administrators can change that.",
        ),
        Error::OtherPerson => (
            StatusCode::FORBIDDEN,
            "Sie haben sich als jemand anderes angemeldet, oder es wird nicht mehr danach gefragt.",
            "You logged in as somebody else, or nobody asks for it any more.",
        ),
        Error::NoAccount | Error::NoName | Error::NameTaken | Error::Account(_) => {
            of_account(error)
        }
    }
}

fn of_account(error: &Error) -> Told {
    match error {
        Error::NoAccount => (
            StatusCode::FORBIDDEN,
            "Sie haben hier kein Konto. Ihre Administration kann eines anlegen.",
            "You have no account here. Your administrators can make one.",
        ),
        Error::NameTaken => (
            StatusCode::CONFLICT,
            "Ihr Benutzername gehört hier schon zu einem anderen Konto. Bitte wenden Sie sich an Ihre \
             Administration.",
            "Your user name belongs to another account here. Please tell your administrators.",
        ),
        Error::Account(users::Error::Deactivated) => (
            StatusCode::FORBIDDEN,
            "Dieses Konto ist geschlossen.",
            "This account is closed.",
        ),
        Error::Account(users::Error::Locked) => (
            StatusCode::FORBIDDEN,
            "Dieses Konto ist gesperrt. Bitte wenden Sie sich an Ihre Administration.",
            "This account is locked. Please tell your administrators.",
        ),
        Error::NoName => (
            StatusCode::BAD_GATEWAY,
            "Der Anmeldedienst nennt keinen Benutzernamen, mit dem ein Konto angelegt werden kann. \
             Bitte wenden Sie sich an Ihre Administration.",
            "The identity provider says no user name that an account could be made of. Please tell \
             your administrators.",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "Hier ist etwas schiefgegangen. Bitte versuchen Sie es noch einmal.",
            "Something went wrong here. Please try again.",
        ),
    }
}
