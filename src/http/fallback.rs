//! Pages for stages of user-interactive authentication that a client does not know (specification,
//! "Fallback"): the reader does the stage here, and the client asks again.

use axum::{
    Form, Router,
    extract::{Query, State},
    response::Response,
    routing::get,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App,
    error::ApiError,
    limits::{Kind, Whence},
    page::{AUTH_DONE, Page, Reads, alert, credentials, notice},
    path::Path,
    terms::{fields, has_read},
};
use crate::{
    mail::text::{Language, escape},
    users::{
        self, registration, terms, threepids,
        uia::{self, Pending},
        validation::{self, Purpose},
    },
};

pub(super) fn routes() -> Router<App> {
    [
        "/_matrix/client/v3/auth/{authType}/fallback/web",
        "/_matrix/client/r0/auth/{authType}/fallback/web",
    ]
    .into_iter()
    .fold(Router::new(), |router, path| {
        router.route(path, get(show).post(submit))
    })
}

/// Query of a page.
#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    session: String,
}

/// What a form sends; which of it, the stage says.
#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    password: String,
    #[serde(default)]
    token: String,
    agreed: Option<String>,
    /// Versions of the terms that were shown.
    #[serde(default)]
    version: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    sid: String,
    #[serde(default)]
    client_secret: String,
}

/// A stage that a page is for.
struct Stage<'a> {
    app: &'a App,
    language: Language,
    name: &'a str,
    session: &'a str,
    pending: Pending,
}

fn title(language: Language) -> &'static str {
    language.pick("Bitte bestätigen", "Please confirm")
}

/// The stage that is asked for, or the page that says that there is none.
async fn find<'a>(
    app: &'a App,
    language: Language,
    (name, session): (&'a str, &'a str),
) -> Result<Result<Stage<'a>, Response>, ApiError> {
    let none = |status: StatusCode, text: (&str, &str)| {
        Ok(Err(notice(status, language, title(language), text)))
    };
    let Some(pending) = uia::pending(&app.ctx, session).await? else {
        let text = (
            "Das gilt nicht mehr. Bitte beginnen Sie in Ihrem Programm noch einmal.",
            "This is over. Please begin again in your client.",
        );
        return none(StatusCode::BAD_REQUEST, text);
    };
    if !pending.stages.contains(&name) {
        let text = ("Danach ist nicht gefragt.", "This is not asked for.");
        return none(StatusCode::NOT_FOUND, text);
    }
    Ok(Ok(Stage {
        app,
        language,
        name,
        session,
        pending,
    }))
}

/// `GET /_matrix/client/v3/auth/{authType}/fallback/web`
async fn show(
    State(app): State<App>,
    Whence(address): Whence,
    Reads(language): Reads,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, ApiError> {
    app.limits.check_address(Kind::MailLink, address)?;
    let stage = find(&app, language, (&name, &which.session)).await?;
    let stage = match stage {
        Ok(stage) => stage,
        Err(page) => return Ok(page),
    };
    if stage.pending.is_done(&name) {
        return Ok(stage.done());
    }
    Ok(stage.ask(None))
}

/// `POST /_matrix/client/v3/auth/{authType}/fallback/web`
async fn submit(
    State(app): State<App>,
    Whence(address): Whence,
    Reads(language): Reads,
    Path(name): Path<String>,
    Query(which): Query<Which>,
    Form(given): Form<Given>,
) -> Result<Response, ApiError> {
    let stage = find(&app, language, (&name, &which.session)).await?;
    let stage = match stage {
        Ok(stage) => stage,
        Err(page) => return Ok(page),
    };
    if stage.pending.is_done(&name) {
        return Ok(stage.done());
    }
    app.limits.check_address(stage.kind(&given), address)?;
    if name == uia::EMAIL_STAGE && given.sid.is_empty() {
        return stage.mail(&given.email).await;
    }
    let user = stage.pending.user.as_ref().map(|(id, _)| id);
    if let Some(user) = user.filter(|_| name == uia::PASSWORD_STAGE) {
        app.limits.check(Kind::LoginAccount, user.as_str())?;
        app.limits.look(Kind::LoginFailed, user.as_str())?;
    }
    let is_read = name != terms::STAGE || stage.has_read(&given);
    let auth = json!({
        "token": given.token,
        "password": given.password,
        "identifier": { "type": "m.id.user", "user": user },
        "threepid_creds": { "sid": given.sid, "client_secret": given.client_secret },
    });
    let wrong = if is_read {
        stage.complete(&auth).await?
    } else {
        Some(())
    };
    if let (Some(()), Some(user), uia::PASSWORD_STAGE) = (wrong, user, &*name) {
        app.limits.note(Kind::LoginFailed, user.as_str());
    }
    Ok(match wrong {
        None => stage.done(),
        Some(()) if name == uia::EMAIL_STAGE => stage.ask_again(&given.sid, &given.client_secret),
        Some(()) => stage.ask(Some(stage.wrong())),
    })
}

impl Stage<'_> {
    /// What of the address that asks is limited.
    fn kind(&self, given: &Given) -> Kind {
        match self.name {
            uia::PASSWORD_STAGE => Kind::LoginAddress,
            uia::TOKEN_STAGE => Kind::RegistrationToken,
            uia::EMAIL_STAGE if given.sid.is_empty() => Kind::Mail,
            _ => Kind::MailLink,
        }
    }

    /// Whether the reader agreed to the terms as they are now.
    fn has_read(&self, given: &Given) -> bool {
        let terms = self.app.ctx.config.terms.as_ref();
        let agreed = (given.agreed.is_some(), &*given.version);
        terms.is_some_and(|terms| has_read(terms, agreed))
    }

    /// Does the stage; `Some`: it failed, through the reader's fault.
    async fn complete(&self, auth: &Value) -> Result<Option<()>, ApiError> {
        let session = (self.session, &self.pending);
        match uia::complete(&self.app.ctx, session, self.name, auth).await {
            Ok(wrong) => Ok(wrong.map(|_| ())),
            Err(users::Error::WrongCredentials | users::Error::Locked) => Ok(Some(())),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a mail with a link, which the reader opens before going on.
    async fn mail(&self, email: &str) -> Result<Response, ApiError> {
        let wrong = self.language.pick(
            "An diese Adresse können wir keine E-Mail senden. Bitte prüfen Sie sie.",
            "We cannot send an e-mail to this address. Please check it.",
        );
        let Ok(mailbox) = threepids::canonical(email) else {
            return Ok(self.ask(Some(wrong)));
        };
        self.app.limits.check(Kind::Mail, &mailbox)?;
        let purpose = if self.pending.path == uia::REGISTER {
            Purpose::Register
        } else {
            Purpose::Password
        };
        let client_secret = registration::random_token(32);
        let request = validation::Request {
            client_secret: &client_secret,
            email: &mailbox,
            send_attempt: 1,
            next_link: None,
        };
        match validation::request(&self.app.ctx, purpose, request).await {
            Ok(sid) => Ok(self.ask_for_link(&sid, &client_secret, None)),
            Err(users::Error::AddressInUse) => Ok(self.ask(Some(wrong))),
            Err(error) => Err(error.into()),
        }
    }

    /// What to say where the reader was wrong.
    fn wrong(&self) -> &'static str {
        match self.name {
            uia::PASSWORD_STAGE => self
                .language
                .pick("Das Passwort ist falsch.", "The password is wrong."),
            uia::TOKEN_STAGE => self.language.pick(
                "Dieses Token gilt nicht oder nicht mehr.",
                "This token is not valid, or not any more.",
            ),
            _ => self.language.pick(
                "Sie haben noch nicht zugestimmt, oder die Texte haben sich geändert.",
                "You have not agreed yet, or the texts have changed.",
            ),
        }
    }

    /// The form of the stage, with what went wrong.
    fn ask(&self, wrong: Option<&str>) -> Response {
        let language = self.language;
        let button = language.pick("Weiter", "Continue");
        let (fields, button) = match self.name {
            uia::PASSWORD_STAGE => (self.password(), button),
            uia::TOKEN_STAGE => (
                format!(
                    "<p><label for=\"token\">{}</label>\
                     <input id=\"token\" name=\"token\" required autocomplete=\"off\" \
                     aria-describedby=\"alert\"></p>",
                    language.pick("Token für die Registrierung", "Registration token")
                ),
                button,
            ),
            uia::EMAIL_STAGE => (
                format!(
                    "<p>{}</p><p><label for=\"email\">{}</label>\
                     <input id=\"email\" name=\"email\" type=\"email\" required \
                     autocomplete=\"email\" aria-describedby=\"alert\"></p>",
                    language.pick(
                        "Wir senden Ihnen eine E-Mail mit einem Link.",
                        "We send you an e-mail with a link."
                    ),
                    language.pick("E-Mail-Adresse", "E-mail address")
                ),
                language.pick("E-Mail senden", "Send the e-mail"),
            ),
            terms::STAGE => (self.terms(), language.pick("Zustimmen", "Agree")),
            _ => (String::new(), button),
        };
        self.form(&fields, button, wrong)
    }

    fn password(&self) -> String {
        let user = self.pending.user.as_ref();
        let user = user.map_or("", |(id, _)| id.as_str());
        format!(
            "<p><label for=\"user\">{}</label>\
             <input id=\"user\" value=\"{}\" readonly autocomplete=\"username\"></p>{}",
            self.language.pick("Konto", "Account"),
            escape(user),
            credentials::current_password(self.language)
        )
    }

    fn terms(&self) -> String {
        let terms = self.app.ctx.config.terms.as_ref();
        terms.map_or_else(String::new, |terms| fields(terms, self.language))
    }

    fn form(&self, fields: &str, button: &str, wrong: Option<&str>) -> Response {
        // The form goes to the same address, with its query.
        let body = format!(
            "{}<form method=\"post\">{fields}<button type=\"submit\">{button}</button></form>",
            alert(wrong)
        );
        Page {
            status: if wrong.is_some() {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::OK
            },
            language: self.language,
            title: title(self.language),
            body: &body,
            script: None,
        }
        .answer()
    }

    /// The button that the reader presses when the link in the mail was opened.
    fn ask_for_link(&self, sid: &str, client_secret: &str, wrong: Option<&str>) -> Response {
        let fields = format!(
            "<p>{}</p><input type=\"hidden\" name=\"sid\" value=\"{}\">\
             <input type=\"hidden\" name=\"client_secret\" value=\"{}\">",
            self.language.pick(
                "Bitte öffnen Sie den Link in der E-Mail, bestätigen Sie dort, und gehen Sie dann \
                 hier weiter.",
                "Please open the link in the e-mail, confirm there, and then go on here."
            ),
            escape(sid),
            escape(client_secret)
        );
        let button = self.language.pick("Weiter", "Continue");
        self.form(&fields, button, wrong)
    }

    fn ask_again(&self, sid: &str, client_secret: &str) -> Response {
        let wrong = self.language.pick(
            "Die Adresse ist noch nicht bestätigt.",
            "The address is not confirmed yet.",
        );
        self.ask_for_link(sid, client_secret, Some(wrong))
    }

    /// The page that tells the client, and the reader.
    fn done(&self) -> Response {
        let text = self.language.pick(
            "Vielen Dank. Sie können diese Seite schließen und in Ihrem Programm weitermachen.",
            "Thank you. You can close this page and go on in your client.",
        );
        Page {
            status: StatusCode::OK,
            language: self.language,
            title: self.language.pick("Bestätigt", "Confirmed"),
            body: &format!("<p>{text}</p>"),
            script: Some(AUTH_DONE),
        }
        .answer()
    }
}
