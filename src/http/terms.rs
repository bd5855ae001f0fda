//! Terms that users accept: the pages where they do, and what is refused until then.

use std::fmt::Write as _;

use axum::{
    Form, Router,
    extract::{Query, State},
    response::Response,
    routing::get,
};
use http::{Method, StatusCode, request::Parts};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::{
    App,
    error::ApiError,
    limits::{Kind, Whence},
    page::{Page, Reads, alert, notice},
    path::Path,
    standing::named,
};
use crate::{
    config::{Terms, terms::Place},
    mail::text::{Language, escape},
    rooms::server_notices,
    users::{self, terms, tokens::Session},
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(terms::PATH, get(consent_page).post(consent))
        .route(
            &format!("{}/{{policy}}/{{language}}", terms::PATH),
            get(text),
        )
}

/// Refuses what a user who has not accepted the terms may not do. Who reads, leaves or takes back is not
/// held to them, nor who enters the room in which the server tells of them.
pub(super) async fn admit(parts: &Parts, session: &Session, app: &App) -> Result<(), ApiError> {
    let is_required = app.ctx.config.terms.as_ref().is_some_and(|it| it.required);
    if !is_required || !session.owes_terms {
        return Ok(());
    }
    let rest = named(parts.uri.path());
    let changes = parts.method != Method::GET;
    let entered = match *rest {
        ["join", room] | ["rooms", room, "join"] => Some(room),
        ["createRoom"]
        | ["knock", _]
        | [
            "rooms",
            _,
            "knock" | "invite" | "kick" | "ban" | "unban" | "upgrade",
        ] => None,
        ["rooms", _, "send" | "state" | "delayed_event", ..] if changes => None,
        _ => return Ok(()),
    };
    if let Some(room) = entered {
        let room = percent_decode_str(room).decode_utf8_lossy();
        if server_notices::is_room_of(&app.rooms, &room, session.user_nid).await? {
            return Ok(());
        }
    }
    Err(terms::refusal(&app.ctx, &session.user_id).await?.into())
}

fn of(app: &App) -> Result<&Terms, ApiError> {
    let terms = app.ctx.config.terms.as_ref();
    terms.ok_or_else(|| ApiError::unrecognized(StatusCode::NOT_FOUND))
}

/// The policies, as a list of links; each in the language of the reader if there is such a text.
fn list(terms: &Terms, language: Language) -> String {
    let mut html = "<ul>".to_owned();
    for policy in &terms.policies {
        let of_reader = policy
            .texts
            .iter()
            .find(|(tag, _)| tag.split('-').next() == Some(language.tag()));
        let Some((tag, text)) = of_reader.or_else(|| policy.texts.iter().next()) else {
            continue;
        };
        let url = terms::url(terms, policy, tag);
        // Writing into a string cannot fail.
        let _ = write!(
            html,
            "<li><a href=\"{}\" lang=\"{tag}\" hreflang=\"{tag}\" rel=\"noreferrer\">{}</a> ({} {})</li>",
            escape(&url),
            escape(&text.name),
            language.pick("Version", "version"),
            escape(&policy.version)
        );
    }
    html.push_str("</ul>");
    html
}

/// The box by which a reader accepts.
fn choice(language: Language) -> String {
    format!(
        "<p><input type=\"checkbox\" id=\"agreed\" name=\"agreed\" required aria-describedby=\"alert\"> \
         <label class=\"choice\" for=\"agreed\">{}</label></p>",
        language.pick(
            "Ich habe das gelesen und stimme zu.",
            "I have read this and agree."
        )
    )
}

/// What a form asks of who has to accept: the policies, which versions they are, and the box.
pub(super) fn fields(terms: &Terms, language: Language) -> String {
    format!(
        "<p>{}</p>{}<input type=\"hidden\" name=\"version\" value=\"{}\">{}",
        language.pick(
            "Bitte lesen Sie, was für diesen Dienst gilt:",
            "Please read what holds for this service:"
        ),
        list(terms, language),
        escape(&terms::version(terms)),
        choice(language)
    )
}

/// Whether a reader agreed to the terms as they are now: whether the box is checked, and which versions
/// were shown.
pub(super) fn has_read(terms: &Terms, (agreed, version): (bool, &str)) -> bool {
    agreed && version == terms::version(terms)
}

/// What a link holds, and what the form sends.
#[derive(Deserialize)]
struct Link {
    /// Localpart of the user.
    #[serde(default)]
    u: String,
    /// Proof that the link is for that user.
    #[serde(default)]
    h: String,
    /// Versions that were shown.
    #[serde(default)]
    v: String,
    /// Set where the box is checked.
    agreed: Option<String>,
}

fn title(language: Language) -> &'static str {
    language.pick("Bedingungen dieses Dienstes", "Terms of this service")
}

/// The form, with what went wrong.
fn form(
    terms: &Terms,
    language: Language,
    link: &Link,
    (status, wrong): (StatusCode, Option<&str>),
) -> Response {
    let intro = language.pick(
        "Bitte lesen Sie, was für diesen Dienst gilt, und stimmen Sie zu, um ihn weiter zu benutzen:",
        "Please read what holds for this service, and agree in order to go on using it:",
    );
    let body = format!(
        "{}<p>{intro}</p>{}<form method=\"post\">\
         <input type=\"hidden\" name=\"u\" value=\"{}\"><input type=\"hidden\" name=\"h\" value=\"{}\">\
         <input type=\"hidden\" name=\"v\" value=\"{}\">{}<button type=\"submit\">{}</button></form>",
        alert(wrong),
        list(terms, language),
        escape(&link.u),
        escape(&link.h),
        escape(&terms::version(terms)),
        choice(language),
        language.pick("Zustimmen", "Agree")
    );
    Page {
        status,
        language,
        title: title(language),
        body: &body,
        script: None,
    }
    .answer()
}

fn wrong_link(language: Language) -> Response {
    let text = (
        "Dieser Link gilt nicht. Bitte öffnen Sie ihn so, wie Sie ihn bekommen haben.",
        "This link is not valid. Please open it the way you were given it.",
    );
    notice(StatusCode::FORBIDDEN, language, title(language), text)
}

/// `GET /_matrix/consent`
///
/// Without a proof of who reads it, the terms alone.
async fn consent_page(
    State(app): State<App>,
    Whence(address): Whence,
    Reads(language): Reads,
    Query(link): Query<Link>,
) -> Result<Response, ApiError> {
    let terms = of(&app)?;
    if link.u.is_empty() && link.h.is_empty() {
        let page = Page {
            status: StatusCode::OK,
            language,
            title: title(language),
            body: &list(terms, language),
            script: None,
        };
        return Ok(page.answer());
    }
    app.limits.check_address(Kind::MailLink, address)?;
    match terms::reader(&app.ctx, &link.u, &link.h).await {
        Ok((_, user)) if terms::has_accepted(&app.ctx, user).await? => {
            let text = (
                "Sie haben dem schon zugestimmt, was für diesen Dienst gilt.",
                "You have agreed already to what holds for this service.",
            );
            Ok(notice(StatusCode::OK, language, title(language), text))
        }
        Ok(_) => Ok(form(terms, language, &link, (StatusCode::OK, None))),
        Err(users::Error::Forbidden(_)) => Ok(wrong_link(language)),
        Err(error) => Err(error.into()),
    }
}

/// `POST /_matrix/consent`
async fn consent(
    State(app): State<App>,
    Whence(address): Whence,
    Reads(language): Reads,
    Form(link): Form<Link>,
) -> Result<Response, ApiError> {
    let terms = of(&app)?;
    app.limits.check_address(Kind::MailLink, address)?;
    let user = match terms::reader(&app.ctx, &link.u, &link.h).await {
        Ok((_, user)) => user,
        Err(users::Error::Forbidden(_)) => return Ok(wrong_link(language)),
        Err(error) => return Err(error.into()),
    };
    if link.agreed.is_none() {
        let wrong = language.pick(
            "Sie haben noch nicht zugestimmt.",
            "You have not agreed yet.",
        );
        let told = (StatusCode::BAD_REQUEST, Some(wrong));
        return Ok(form(terms, language, &link, told));
    }
    if link.v != terms::version(terms) {
        let wrong = language.pick(
            "Die Texte haben sich inzwischen geändert. Bitte lesen Sie sie noch einmal.",
            "The texts have changed meanwhile. Please read them once more.",
        );
        let told = (StatusCode::CONFLICT, Some(wrong));
        return Ok(form(terms, language, &link, told));
    }
    terms::accept(&app.ctx, user).await?;
    app.tokens.forget(user);
    let text = (
        "Vielen Dank. Sie können diese Seite schließen und dort weitermachen, wo Sie begonnen haben.",
        "Thank you. You can close this page and go on where you began.",
    );
    Ok(notice(StatusCode::OK, language, title(language), text))
}

/// `GET /_matrix/consent/{policy}/{language}`
///
/// A text that is kept here. Paragraphs are parted by empty lines; a line that begins with `#` is a heading.
async fn text(
    State(app): State<App>,
    Reads(language): Reads,
    Path((policy, tag)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let mut policies = of(&app)?.policies.iter();
    let found = policies.find(|known| known.id == policy);
    let found = found.and_then(|policy| Some((policy, policy.texts.get(&tag)?)));
    let Some((policy, (name, Place::Here(text)))) =
        found.map(|(policy, text)| (policy, (&text.name, &text.place)))
    else {
        let text = (
            "Diesen Text gibt es hier nicht.",
            "There is no such text here.",
        );
        let title = title(language);
        return Ok(notice(StatusCode::NOT_FOUND, language, title, text));
    };
    let mut body = format!("<p>Version {}</p>", escape(&policy.version));
    let _ = write!(body, "<div lang=\"{tag}\">");
    for paragraph in paragraphs(text) {
        // Writing into a string cannot fail.
        let _ = match paragraph.strip_prefix('#') {
            Some(heading) => write!(
                body,
                "<h2>{}</h2>",
                escape(heading.trim_matches(['#', ' ']))
            ),
            None => write!(body, "<p>{}</p>", escape(&paragraph)),
        };
    }
    body.push_str("</div>");
    let page = Page {
        status: StatusCode::OK,
        language,
        title: name,
        body: &body,
        script: None,
    };
    Ok(page.answer())
}

/// Paragraphs of a plain text, each in one line; a heading is one by itself.
fn paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in text.lines().map(str::trim) {
        let is_heading = line.starts_with('#');
        match paragraphs.last_mut() {
            Some(last) if is_open && !line.is_empty() && !is_heading => {
                last.push(' ');
                last.push_str(line);
            }
            _ if line.is_empty() => {}
            _ => paragraphs.push(line.to_owned()),
        }
        is_open = !line.is_empty() && !is_heading;
    }
    paragraphs
}

#[cfg(test)]
mod tests {
    use super::paragraphs;

    #[test]
    fn a_text_is_taken_apart_into_paragraphs() {
        let text = "# One\nfirst\n  line\r\n\n\nsecond\n## Two\nthird";
        let parts = ["# One", "first line", "second", "## Two", "third"];
        assert_eq!(paragraphs(text), parts);
        assert!(paragraphs(" \n\n").is_empty());
    }
}
