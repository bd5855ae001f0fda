//! The page where users look after their account (specification, "Account management"): name, password,
//! devices, keys, and the end of it all.

use std::fmt::Write as _;

use axum::{Router, response::Response, routing::get};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{
    ApiError, App, enter, send_on,
    visitor::{Asked, Given, Visitor, logged_in},
};
use crate::{
    http::{
        client::close,
        page::{alert, credentials},
    },
    mail::text::escape,
    rooms::membership,
    storage::{self, devices::Device},
    users::{
        login,
        oauth::{self, ACCOUNT_PATH, REPLACE_ACTION, browser::Browser},
        profile,
    },
};

/// Characters of a name.
const NAME_CHARS_MAX: usize = 255;

pub(super) fn routes() -> Router<App> {
    Router::new().route(ACCOUNT_PATH, get(show).post(submit))
}

/// What a client opens the page for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    action: String,
    device_id: String,
    /// What was done just now.
    done: String,
}

/// A page about an account.
struct Page<'a> {
    visitor: &'a Visitor,
    browser: &'a Browser,
}

/// `GET /_matrix/account`
async fn show(
    visitor: Visitor,
    way: Asked<enter::Way>,
    Asked(request): Asked<Request>,
) -> Result<Response, ApiError> {
    let Some(browser) = &visitor.browser else {
        return enter::ask(&visitor, &way).await;
    };
    let page = Page {
        visitor: &visitor,
        browser,
    };
    page.show(&request, None).await
}

/// `POST /_matrix/account`
async fn submit(
    visitor: Visitor,
    Asked(request): Asked<Request>,
    given: Given,
) -> Result<Response, ApiError> {
    if given.enters() {
        return enter::submit(&visitor, &given).await;
    }
    let Some(browser) = visitor.sealed(&given) else {
        return Ok(send_on(&visitor.here));
    };
    let page = Page {
        visitor: &visitor,
        browser,
    };
    let wrong = match &*given.step {
        "name" => page.rename(&given).await?,
        "password" => page.change_password(&given).await?,
        "device" => page.end_device(&given).await?,
        "replace" => {
            oauth::allow_replacement(&visitor.app.ctx, browser.nid).await?;
            Ok(done("replace"))
        }
        "close" => page.close(&given).await?,
        _ => return visitor.leave(browser).await,
    };
    match wrong {
        Ok(response) => Ok(response),
        Err(text) => page.show(&request, Some(&text)).await,
    }
}

/// Shows the page again, so that nothing is sent twice.
fn done(what: &str) -> Response {
    send_on(&format!("{ACCOUNT_PATH}?done={what}"))
}

/// A link to a part of the page.
fn link(action: &str, text: &str) -> String {
    format!("<p><a href=\"{ACCOUNT_PATH}?action={action}\">{text}</a></p>")
}

fn heading(text: &str) -> String {
    format!("<h2>{text}</h2>")
}

/// An answer, or what to tell the reader.
type Done = Result<Result<Response, String>, ApiError>;

impl Page<'_> {
    fn say(&self, german: &'static str, english: &'static str) -> &'static str {
        self.visitor.language.pick(german, english)
    }

    /// What was done just now.
    fn told(&self, what: &str) -> &'static str {
        match what {
            "name" => self.say("Der Name ist geändert.", "The name is changed."),
            "password" => self.say("Das Passwort ist geändert.", "The password is changed."),
            "device" => self.say("Das Gerät ist abgemeldet.", "The device is logged out."),
            "replace" => self.say(
                "Sie können die Schlüssel jetzt in Ihrem Client ersetzen, zehn Minuten lang.",
                "You can replace the keys in your client now, for ten minutes.",
            ),
            _ => "",
        }
    }

    async fn rename(&self, given: &Given) -> Done {
        if given.name.chars().count() > NAME_CHARS_MAX {
            return Ok(Err(self
                .say("Der Name ist zu lang.", "The name is too long.")
                .to_owned()));
        }
        let app = &self.visitor.app;
        let name = Some(Value::from(given.name.trim()));
        profile::set(&app.ctx, &self.browser.user, "displayname", name).await?;
        membership::spread_profile(&app.rooms, &self.browser.user).await?;
        Ok(Ok(done("name")))
    }

    /// Whether the password is that of the user; else what to tell the reader.
    async fn check(&self, password: &str) -> Result<Result<(), String>, ApiError> {
        let of = (Some(&*self.browser.user), password);
        let visitor = self.visitor;
        let checked = credentials::check_of(&visitor.app, visitor.language, of).await?;
        let wrong = self.say("Das Passwort ist falsch.", "The password is wrong.");
        Ok(checked.map(|_| ()).map_err(|_| wrong.to_owned()))
    }

    async fn change_password(&self, given: &Given) -> Done {
        if let Err(wrong) = self.check(&given.password).await? {
            return Ok(Err(wrong));
        }
        let password = match enter::new_password(self.visitor, given) {
            Ok(password) => password,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let app = &self.visitor.app;
        login::set_password(&app.ctx, &self.browser.user, password).await?;
        if given.log_out.is_some() {
            let mut conn = app.ctx.db.conn().await?;
            let devices = storage::devices::list_awake(&mut conn, self.browser.nid).await?;
            drop(conn);
            app.tokens.end(self.browser.nid, &devices).await?;
        }
        // All browsers were logged out; who did it goes on.
        let origin = self.browser.origin.as_ref();
        let token = oauth::browser::open(&app.ctx, self.browser.nid, origin).await?;
        let location = format!("{ACCOUNT_PATH}?done=password");
        Ok(Ok(logged_in(self.visitor.base(), Some(&token), &location)))
    }

    async fn end_device(&self, given: &Given) -> Done {
        let app = &self.visitor.app;
        let mut conn = app.ctx.db.conn().await?;
        let device = storage::devices::find(&mut conn, self.browser.nid, &given.device_id).await?;
        drop(conn);
        if let Some(device) = device {
            app.tokens
                .end(self.browser.nid, &[device.device_no])
                .await?;
        }
        Ok(Ok(done("device")))
    }

    async fn close(&self, given: &Given) -> Done {
        let app = &self.visitor.app;
        let user = &*self.browser.user;
        if enter::has_password(app, self.browser.nid).await? {
            if let Err(wrong) = self.check(&given.password).await? {
                return Ok(Err(wrong));
            }
        } else if given.user != user.as_str() {
            let wrong = self.say(
                "Bitte geben Sie die Kennung des Kontos genau so ein, wie sie hier steht.",
                "Please type the id of the account exactly as it stands here.",
            );
            return Ok(Err(wrong.to_owned()));
        }
        close(app, (user, self.browser.nid), given.erase.is_some()).await?;
        let title = self.say("Das Konto ist geschlossen", "The account is closed");
        let text = self.say(
            "Sie können diese Seite schließen.",
            "You can close this page.",
        );
        Ok(Ok(self.visitor.notice(StatusCode::OK, title, text)))
    }

    /// The page, or of it what a client asked for.
    async fn show(&self, request: &Request, wrong: Option<&str>) -> Result<Response, ApiError> {
        let (title, body) = match &*request.action {
            REPLACE_ACTION => self.replacement(),
            "org.matrix.account_deactivate" => self.end().await?,
            "org.matrix.device_view"
            | "org.matrix.session_view"
            | "org.matrix.device_delete"
            | "org.matrix.session_end"
                if !request.device_id.is_empty() =>
            {
                self.device(&request.device_id).await?
            }
            "org.matrix.devices_list" | "org.matrix.sessions_list" => self.devices().await?,
            _ => self.overview().await?,
        };
        let mut top = alert(wrong);
        let told = self.told(&request.done);
        if !told.is_empty() {
            // Writing into a string cannot fail.
            let _ = write!(top, "<p role=\"status\">{told}</p>");
        }
        let status = wrong.map_or(StatusCode::OK, |_| StatusCode::BAD_REQUEST);
        let body = format!("{top}{body}{}", self.foot(request));
        Ok(self.visitor.page(status, title, &body, ""))
    }

    /// A form with one button, which does a step.
    fn form(&self, step: &str, fields: &str, button: &str) -> String {
        format!(
            "<form method=\"post\">{}{fields}<button type=\"submit\" name=\"step\" \
             value=\"{step}\">{button}</button></form>",
            self.visitor.seal()
        )
    }

    fn foot(&self, request: &Request) -> String {
        let overview = self.say("Zum Konto", "To the account");
        let back = match &*request.action {
            "" => String::new(),
            _ => link("", overview),
        };
        let leave = self.say("Von dieser Seite abmelden", "Log out of this page");
        format!("<hr>{back}{}", self.form("leave", "", leave))
    }

    async fn overview(&self) -> Result<(&'static str, String), ApiError> {
        let visitor = self.visitor;
        let profile = profile::get(&visitor.app.ctx, &self.browser.user).await?;
        let name = profile.get("displayname").and_then(Value::as_str);
        let name = format!(
            "<p><label for=\"name\">{}</label><input id=\"name\" name=\"name\" value=\"{}\" \
             autocomplete=\"name\" aria-describedby=\"alert\"></p>",
            self.say("Angezeigter Name", "Display name"),
            escape(name.unwrap_or_default())
        );
        let mut body = format!(
            "<p><strong>{}</strong></p>{}",
            escape(self.browser.user.as_str()),
            self.form("name", &name, self.say("Namen ändern", "Change the name"))
        );
        if enter::has_password(&visitor.app, self.browser.nid).await? {
            let fields = format!(
                "{}{}<p><input type=\"checkbox\" id=\"log_out\" name=\"log_out\"> \
                 <label class=\"choice\" for=\"log_out\">{}</label></p>",
                credentials::current_password(self.visitor.language),
                enter::new_password_fields(visitor),
                self.say("Alle Geräte abmelden", "Log all devices out")
            );
            let change = self.say("Passwort ändern", "Change the password");
            body = body + &heading(change) + &self.form("password", &fields, change);
        }
        let devices = self.say("Geräte", "Devices");
        body = body + &heading(devices) + &self.list().await?;
        body += &link(
            REPLACE_ACTION,
            self.say("Schlüssel ersetzen", "Replace the keys"),
        );
        body += &link(
            "org.matrix.account_deactivate",
            self.say("Konto schließen", "Close the account"),
        );
        Ok((self.say("Ihr Konto", "Your account"), body))
    }

    fn replacement(&self) -> (&'static str, String) {
        let text = self.say(
            "Wenn Sie die Schlüssel ersetzen, mit denen Sie Ihre Geräte bestätigen, müssen Sie alle \
             Geräte und alle Personen neu bestätigen. Was nur mit den alten Schlüsseln zu lesen ist, \
             kann verloren gehen. Tun Sie das nur, wenn Sie weder ein bestätigtes Gerät noch den \
             Wiederherstellungsschlüssel haben.",
            "If you replace the keys by which you confirm your devices, you have to confirm all \
             devices and all people anew. What can be read by the old keys only may be lost. Do this \
             only if you have neither a confirmed device nor the recovery key.",
        );
        let button = self.say("Ersetzen erlauben", "Allow to replace them");
        let body = format!("<p>{text}</p>{}", self.form("replace", "", button));
        (self.say("Schlüssel ersetzen", "Replace the keys"), body)
    }

    async fn end(&self) -> Result<(&'static str, String), ApiError> {
        let user = escape(self.browser.user.as_str());
        let proof = if enter::has_password(&self.visitor.app, self.browser.nid).await? {
            credentials::current_password(self.visitor.language)
        } else {
            format!(
                "<p><label for=\"user\">{} ({user})</label><input id=\"user\" name=\"user\" required \
                 autocomplete=\"off\" aria-describedby=\"alert\"></p>",
                self.say("Kennung des Kontos", "Id of the account")
            )
        };
        let fields = format!(
            "{proof}<p><input type=\"checkbox\" id=\"erase\" name=\"erase\"> \
             <label class=\"choice\" for=\"erase\">{}</label></p>",
            self.say(
                "Auch meine Nachrichten vor denen verbergen, die später in die Räume kommen",
                "Also hide my messages from those who come into the rooms later"
            )
        );
        let text = self.say(
            "Das Konto wird für immer geschlossen: Sie verlassen alle Räume, alle Geräte werden \
             abgemeldet, und niemand kann den Namen noch einmal bekommen.",
            "The account is closed for good: you leave all rooms, all devices are logged out, and \
             nobody can have the name again.",
        );
        let title = self.say("Konto schließen", "Close the account");
        let body = format!("<p>{text} <strong>{user}</strong></p>");
        Ok((title, body + &self.form("close", &fields, title)))
    }

    async fn devices(&self) -> Result<(&'static str, String), ApiError> {
        Ok((self.say("Ihre Geräte", "Your devices"), self.list().await?))
    }

    /// The devices, with a link to each.
    async fn list(&self) -> Result<String, ApiError> {
        let mut conn = self.visitor.app.ctx.db.conn().await?;
        let devices = storage::devices::list(&mut conn, self.browser.nid).await?;
        drop(conn);
        let items = devices.iter().map(|device| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query
                .append_pair("action", "org.matrix.device_view")
                .append_pair("device_id", &device.device_id);
            let address = escape(&format!("{ACCOUNT_PATH}?{}", query.finish()));
            let name = device.display_name.as_deref().unwrap_or_default();
            let (name, id) = (escape(name), escape(&device.device_id));
            format!("<li><a href=\"{address}\">{name} ({id})</a></li>")
        });
        Ok(format!("<ul>{}</ul>", items.collect::<String>()))
    }

    async fn device(&self, id: &str) -> Result<(&'static str, String), ApiError> {
        let title = self.say("Ein Gerät", "A device");
        let mut conn = self.visitor.app.ctx.db.conn().await?;
        let device = storage::devices::find(&mut conn, self.browser.nid, id).await?;
        drop(conn);
        let Some(device) = device else {
            let text = self.say(
                "Dieses Gerät gibt es nicht (mehr).",
                "There is no such device.",
            );
            return Ok((title, format!("<p>{text}</p>")));
        };
        let of = (self.browser.nid, device.device_no);
        let client = oauth::clients::of_device(&self.visitor.app.ctx, of).await?;
        let client = client.as_ref().map(oauth::clients::Client::host);
        let fields = format!(
            "<input type=\"hidden\" name=\"device_id\" value=\"{}\">",
            escape(id)
        );
        let button = self.say("Dieses Gerät abmelden", "Log this device out");
        let body = self.facts(&device, client) + &self.form("device", &fields, button);
        Ok((title, body))
    }

    /// What is known of a device.
    fn facts(&self, device: &Device, client: Option<&str>) -> String {
        let seen = device.last_seen_ts.and_then(|ts| {
            let time = jiff::Timestamp::from_millisecond(ts).ok()?;
            Some(time.strftime("%Y-%m-%d %H:%M UTC").to_string())
        });
        let facts = [
            (self.say("Name", "Name"), device.display_name.as_deref()),
            (self.say("Kennung", "Id"), Some(&*device.device_id)),
            (self.say("Client", "Client"), client),
            (self.say("Zuletzt benutzt", "Last used"), seen.as_deref()),
            (self.say("von", "from"), device.last_seen_ip.as_deref()),
            (self.say("mit", "with"), device.last_seen_agent.as_deref()),
        ];
        let rows = facts.iter().filter_map(|(name, text)| {
            let text = escape((*text)?);
            Some(format!("<dt>{name}</dt><dd>{text}</dd>"))
        });
        format!("<dl>{}</dl>", rows.collect::<String>())
    }
}
