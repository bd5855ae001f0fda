//! A name and a password, as pages ask for them.

use std::net::SocketAddr;

use ruma::{OwnedUserId, UserId};

use crate::{
    http::{App, client::check_password, error::ApiError, limits::Kind},
    mail::text::{Language, escape},
    users::{self, login, threepids},
};

/// A field for a password; `kind`: what browsers fill in (`current-password` or `new-password`).
pub(in crate::http) fn password_field(name: &str, label: &str, kind: &str) -> String {
    format!(
        "<p><label for=\"{name}\">{label}</label><input id=\"{name}\" name=\"{name}\" \
         type=\"password\" required autocomplete=\"{kind}\" aria-describedby=\"alert\"></p>"
    )
}

/// The field for the password of an account.
pub(in crate::http) fn current_password(language: Language) -> String {
    let label = language.pick("Passwort", "Password");
    password_field("password", label, "current-password")
}

/// The fields, with the name that was given.
pub(in crate::http) fn fields(language: Language, user: &str) -> String {
    format!(
        "<p><label for=\"user\">{}</label>\
         <input id=\"user\" name=\"user\" value=\"{}\" required autocomplete=\"username\" \
         autocapitalize=\"none\" spellcheck=\"false\" aria-describedby=\"alert\"></p>{}",
        language.pick("Name oder E-Mail-Adresse", "Name or e-mail address"),
        escape(user),
        current_password(language),
    )
}

/// Who it is by name or e-mail address and password; or what to tell the reader.
pub(in crate::http) async fn check(
    app: &App,
    (address, language): (Option<SocketAddr>, Language),
    (named, password): (&str, &str),
) -> Result<Result<OwnedUserId, &'static str>, ApiError> {
    app.limits.check_address(Kind::LoginAddress, address)?;
    let user = if let Ok(mailbox) = threepids::canonical(named) {
        app.limits.check(Kind::LoginAccount, &mailbox)?;
        login::find_by_address(&app.ctx, &mailbox).await?
    } else {
        app.limits.check(Kind::LoginAccount, named)?;
        login::parse_user(&app.ctx, named)
    };
    check_of(app, language, (user.as_deref(), password)).await
}

/// Whether it is the password of a user (`None`: one that there is not); or what to tell the reader.
pub(in crate::http) async fn check_of(
    app: &App,
    language: Language,
    (user, password): (Option<&UserId>, &str),
) -> Result<Result<OwnedUserId, &'static str>, ApiError> {
    match check_password(app, user, password).await? {
        Ok(user) => Ok(Ok(user)),
        Err(users::Error::WrongCredentials) => Ok(Err(language.pick(
            "Name oder Passwort sind falsch.",
            "The name or the password is wrong.",
        ))),
        Err(users::Error::Deactivated | users::Error::Locked) => Ok(Err(
            language.pick("Dieses Konto ist gesperrt.", "This account is closed.")
        )),
        Err(error) => Err(error.into()),
    }
}
