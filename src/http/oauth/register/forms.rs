//! What people are shown who make an account.

use axum::response::Response;
use http::StatusCode;

use super::super::{
    enter::{Wrong, link, new_password_fields},
    visitor::{Given, Visitor},
};
use crate::{
    http::{page::alert, terms::fields},
    mail::text::escape,
    storage::pending_accounts::Pending,
    users::{self, pending_accounts},
};

/// What stands in the form before somebody types.
#[derive(Default)]
pub(super) struct Draft<'a> {
    user: &'a str,
    email: &'a str,
    token: &'a str,
    /// Empty: a fresh one.
    key: &'a str,
}

impl<'a> Draft<'a> {
    pub(super) fn of_given(given: &'a Given) -> Self {
        Self {
            user: &given.user,
            email: &given.email,
            token: &given.token,
            key: &given.key,
        }
    }

    /// With the same key the same code stays good, if it is.
    pub(super) fn of_pending((secret, pending): (&'a str, &'a Pending)) -> Self {
        Self {
            user: &pending.localpart,
            email: &pending.address,
            token: pending.token.as_deref().unwrap_or_default(),
            key: if pending_accounts::is_spent(pending) {
                ""
            } else {
                secret
            },
        }
    }
}

/// The form by which somebody makes an account, with what went wrong.
pub(super) fn form(visitor: &Visitor, draft: &Draft<'_>, wrong: Wrong<'_>) -> Response {
    let title = visitor.say("Ein Konto anlegen", "Create an account");
    let config = &visitor.app.ctx.config;
    let label = visitor.say("Gewünschter Name", "The name that you want");
    let kind = "autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\"";
    let mut all = field(("user", label), draft.user, kind);
    if config.registration.require_email {
        let label = visitor.say("E-Mail-Adresse", "E-mail address");
        all += &field(
            ("email", label),
            draft.email,
            "type=\"email\" autocomplete=\"email\"",
        );
        let fresh = pending_accounts::secret();
        let key = Some(draft.key).filter(|key| !key.is_empty());
        all += &hidden("key", key.unwrap_or(&fresh));
    }
    all += &new_password_fields(visitor);
    if config.registration.require_token {
        let label = visitor.say("Token für die Registrierung", "Registration token");
        all += &field(("token", label), draft.token, "autocomplete=\"off\"");
    }
    if let Some(terms) = &config.terms {
        all += &fields(terms, visitor.language);
    }
    let body = alert(wrong.map(|(_, text)| text))
        + &one(visitor, "register", &all, title)
        + &link(
            &visitor.entered_by("login"),
            visitor.say("Ich habe schon ein Konto", "I have an account already"),
        );
    let status = wrong.map_or(StatusCode::OK, |(status, _)| status);
    visitor.page(status, title, &body, "")
}

/// The page on which the code is typed that a mail holds, with what went wrong.
pub(super) fn code_form(visitor: &Visitor, pending: &Pending, wrong: Wrong<'_>) -> Response {
    let title = visitor.say("E-Mail-Adresse bestätigen", "Confirm your e-mail address");
    let sent = visitor.say(
        "Wir haben eine E-Mail mit einem Code gesendet, an",
        "We have sent an e-mail with a code to",
    );
    let what = visitor.say(
        "Geben Sie ihn hier ein. Die E-Mail können Sie auch auf einem anderen Gerät lesen. Kommt keine, sehen Sie \
         bitte auch im Spam-Ordner nach.",
        "Type it here. You can read the e-mail on another device too. If none comes, please look into the spam \
         folder as well.",
    );
    let label = visitor.say("Code aus der E-Mail", "Code in the e-mail");
    let kind = "autocomplete=\"one-time-code\" autocapitalize=\"characters\" spellcheck=\"false\"";
    let body = format!(
        "{}<p>{sent} <strong>{}</strong>. {what}</p>{}{}{}",
        alert(wrong.map(|(_, text)| text)),
        escape(&pending.address),
        one(
            visitor,
            "confirm",
            &field(("code", label), "", kind),
            visitor.say("Bestätigen", "Confirm")
        ),
        one(
            visitor,
            "again",
            &hidden("attempt", &pending.attempt.to_string()),
            visitor.say("Einen neuen Code senden", "Send a new code")
        ),
        link(
            &visitor.entered_by("create"),
            visitor.say("Andere Angaben machen", "Change what I said")
        )
    );
    let status = wrong.map_or(StatusCode::OK, |(status, _)| status);
    visitor.page(status, title, &body, "")
}

/// What to tell somebody whose code is good no more.
pub(super) fn spent(visitor: &Visitor) -> &'static str {
    visitor.language.pick(
        "Zu viele falsche Codes: Der aus der letzten E-Mail gilt nicht mehr. Bitte lassen Sie sich einen neuen \
         senden.",
        "Too many wrong codes: the one in the last e-mail is not good any more. Please have a new one \
         sent.",
    )
}

/// What to tell somebody who did not agree to the terms as they are.
pub(super) fn unread(visitor: &Visitor) -> &'static str {
    visitor.language.pick(
        "Sie haben noch nicht zugestimmt, oder die Texte haben sich geändert.",
        "You have not agreed yet, or the texts have changed.",
    )
}

/// What to tell somebody who gets no account, where it is up to them.
pub(super) fn refusal(visitor: &Visitor, error: &users::Error) -> Option<&'static str> {
    let language = visitor.language;
    match error {
        users::Error::NameTaken | users::Error::Exclusive(_) => {
            Some(language.pick("Dieser Name ist vergeben.", "This name is taken."))
        }
        users::Error::NameInvalid(_) => Some(language.pick(
            "Ein Name besteht aus a-z, 0-9 und . _ = - / +.",
            "A name consists of a-z, 0-9 and . _ = - / +.",
        )),
        users::Error::WrongToken => Some(language.pick(
            "Dieses Token gilt nicht oder nicht mehr.",
            "This token is not valid, or not any more.",
        )),
        // Only who reads the address is told so.
        users::Error::AddressInUse => Some(language.pick(
            "Mit dieser E-Mail-Adresse gibt es inzwischen schon ein Konto.",
            "There is an account with this e-mail address already by now.",
        )),
        users::Error::TooManyMails => Some(language.pick(
            "Es sind schon viele E-Mails an diese Adresse gegangen. Bitte versuchen Sie es später noch einmal.",
            "Many e-mails went to this address already. Please try again later.",
        )),
        _ => None,
    }
}

/// A field of a form; `more`: its other attributes.
fn field((name, label): (&str, &str), value: &str, more: &str) -> String {
    format!(
        "<p><label for=\"{name}\">{label}</label><input id=\"{name}\" name=\"{name}\" value=\"{}\" \
         required {more} aria-describedby=\"alert\"></p>",
        escape(value)
    )
}

/// A field that is not shown.
fn hidden(name: &str, value: &str) -> String {
    format!(
        "<input type=\"hidden\" name=\"{name}\" value=\"{}\">",
        escape(value)
    )
}

/// A form with one button; `fields` as HTML.
fn one(visitor: &Visitor, step: &str, fields: &str, button: &str) -> String {
    format!(
        "<form method=\"post\">{}{fields}<button type=\"submit\" name=\"step\" value=\"{step}\">{button}\
         </button></form>",
        visitor.seal()
    )
}
