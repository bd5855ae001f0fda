//! What mails say, in German and English.

use std::fmt::Write as _;

use super::Letter;

/// A language that mails are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// German.
    German,
    /// English.
    English,
}

impl Language {
    /// By a language tag (RFC 5646): German for `de` and what begins with it, else English.
    pub fn of(tag: &str) -> Self {
        let first = tag.split(['-', '_']).next().unwrap_or_default();
        if first.eq_ignore_ascii_case("de") {
            Self::German
        } else {
            Self::English
        }
    }

    /// The first language of a header `Accept-Language` (RFC 9110) that is one of these; German where
    /// there is none, for that is what an agency speaks.
    pub fn accepted(header: &str) -> Self {
        let mut best = (0.0, Self::German);
        for range in header.split(',').take(RANGES_MAX) {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default();
            let first = tag.split('-').next().unwrap_or_default();
            let language = match first.to_ascii_lowercase().as_str() {
                "de" => Self::German,
                "en" => Self::English,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight = weight.map_or(Ok(1.0), str::parse::<f32>).unwrap_or(0.0);
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    /// Its language tag.
    pub fn tag(self) -> &'static str {
        self.pick("de", "en")
    }

    /// The text that is in it.
    pub fn pick<'a>(self, german: &'a str, english: &'a str) -> &'a str {
        match self {
            Self::German => german,
            Self::English => english,
        }
    }
}

/// Languages of a header that are looked at.
const RANGES_MAX: usize = 20;

/// What a mail asks its reader to confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// An address that is added to an account.
    Address,
    /// An address of a new account.
    Registration,
    /// A new password.
    Password,
}

/// A mail with a link by which the reader proves to read it. Nobody knows the language of the
/// reader: it is in both.
pub fn confirmation(to: &str, app: &str, what: Confirmation, link: &str) -> Letter {
    let (subject, german, english) = match what {
        Confirmation::Address => (
            "E-Mail-Adresse bestätigen / Confirm your e-mail address",
            "Jemand möchte diese E-Mail-Adresse in einem Konto eintragen. Wenn Sie das sind, öffnen \
             Sie bitte diesen Link:",
            "Somebody wants to add this e-mail address to an account. If that is you, please open \
             this link:",
        ),
        Confirmation::Registration => (
            "E-Mail-Adresse bestätigen / Confirm your e-mail address",
            "Jemand möchte mit dieser E-Mail-Adresse ein Konto anlegen. Wenn Sie das sind, öffnen Sie \
             bitte diesen Link:",
            "Somebody wants to make an account with this e-mail address. If that is you, please open \
             this link:",
        ),
        Confirmation::Password => (
            "Neues Passwort / New password",
            "Jemand möchte für das Konto mit dieser E-Mail-Adresse ein neues Passwort setzen. Wenn \
             Sie das sind, öffnen Sie bitte diesen Link:",
            "Somebody wants to set a new password for the account with this e-mail address. If that \
             is you, please open this link:",
        ),
    };
    let german_end =
        "Der Link gilt eine Stunde. Wenn Sie das nicht waren, brauchen Sie nichts zu tun.";
    let english_end = "The link is good for an hour. If it was not you, there is nothing to do.";
    let (german, english) = ((german, german_end), (english, english_end));
    bilingual((to, app, subject), Core::Link(link), german, english)
}

/// A mail with a code that the reader types into the page that asked for it, to make an account. Nobody
/// knows the language of the reader: it is in both.
pub fn code(to: &str, app: &str, code: &str) -> Letter {
    let subject = "E-Mail-Adresse bestätigen / Confirm your e-mail address";
    let german = (
        "Jemand möchte mit dieser E-Mail-Adresse ein Konto anlegen. Wenn Sie das sind, geben Sie bitte \
         diesen Code auf der Seite ein, auf der Sie begonnen haben:",
        "Der Code gilt eine Stunde. Geben Sie ihn sonst niemandem. Wenn Sie das nicht waren, brauchen \
         Sie nichts zu tun.",
    );
    let english = (
        "Somebody wants to make an account with this e-mail address. If that is you, please type this \
         code into the page where you began:",
        "The code is good for an hour. Give it to nobody else. If it was not you, there is nothing to \
         do.",
    );
    bilingual((to, app, subject), Core::Code(code), german, english)
}

/// A mail to somebody who has an account with the address with which somebody wants to make another.
/// Nobody knows the language of the reader: it is in both.
pub fn address_in_use(to: &str, app: &str, login: &str) -> Letter {
    let subject = "Sie haben schon ein Konto / You have an account already";
    let german = (
        "Jemand möchte mit dieser E-Mail-Adresse ein Konto anlegen. Es gibt aber schon eines mit ihr. \
         Wenn Sie das waren, melden Sie sich bitte mit der E-Mail-Adresse und Ihrem Passwort an:",
        "Wenn Sie das nicht waren, brauchen Sie nichts zu tun.",
    );
    let english = (
        "Somebody wants to make an account with this e-mail address, but there is one with it already. \
         If that was you, please log in with the e-mail address and your password:",
        "If it was not you, there is nothing to do.",
    );
    bilingual((to, app, subject), Core::Link(login), german, english)
}

/// A mail with a link by which the reader renews an account that ends at a time (milliseconds). Nobody
/// knows the language of the reader: it is in both.
pub fn renewal(to: &str, app: &str, until_ms: i64, link: &str) -> Letter {
    let day = jiff::Timestamp::from_millisecond(until_ms).unwrap_or_default();
    let day = day.to_zoned(jiff::tz::TimeZone::UTC);
    let german = format!(
        "Ihr Konto gilt bis zum {}. Wenn Sie es weiter brauchen, verlängern Sie es bitte über diesen \
         Link:",
        day.strftime("%d.%m.%Y")
    );
    let english = format!(
        "Your account is good until {}. If you need it any longer, please renew it by this link:",
        day.strftime("%Y-%m-%d")
    );
    let german_end = "Sonst können Sie es danach nicht mehr benutzen. Der Link verlängert das Konto, \
         geben Sie ihn nicht weiter.";
    let english_end = "Otherwise you cannot use it after that. The link renews the account, do not \
         pass it on.";
    let subject = "Konto verlängern / Renew your account";
    let (german, english) = ((&*german, german_end), (&*english, english_end));
    bilingual((to, app, subject), Core::Link(link), german, english)
}

/// What a mail is there for: it stands in a line by itself.
#[derive(Clone, Copy)]
enum Core<'a> {
    Link(&'a str),
    Code(&'a str),
}

/// What stands before the core of a mail and after it, in both languages.
fn bilingual(
    (to, app, subject): (&str, &str, &str),
    core: Core<'_>,
    (german, german_end): (&str, &str),
    (english, english_end): (&str, &str),
) -> Letter {
    let (Core::Link(line) | Core::Code(line)) = core;
    let text = format!(
        "{german}\n\n{line}\n\n{german_end}\n\n--\n\n{english}\n\n{line}\n\n{english_end}\n"
    );
    let line = escape(line);
    let shown = match core {
        Core::Link(_) => format!("<a href=\"{line}\">{line}</a>"),
        Core::Code(_) => format!("<strong>{line}</strong>"),
    };
    let part = |lang: &str, body: &str, end: &str| {
        format!(
            "<div lang=\"{lang}\"><p>{}</p><p>{shown}</p><p>{}</p></div>",
            escape(body),
            escape(end)
        )
    };
    let html = page(
        "de",
        subject,
        &format!(
            "{}<hr>{}",
            part("de", german, german_end),
            part("en", english, english_end)
        ),
    );
    Letter {
        to: to.to_owned(),
        subject: format!("{app}: {subject}"),
        text,
        html,
        unsubscribe: None,
    }
}

/// What is unread.
#[derive(Clone, Debug, Default)]
pub struct Unread {
    /// Messages.
    pub messages: i64,
    /// Rooms that they are in.
    pub rooms: i64,
    /// Invitations that wait for an answer.
    pub invitations: i64,
    /// Names of rooms, with their messages; empty: names are not told.
    pub names: Vec<(String, i64)>,
}

/// A mail about what is unread.
pub fn notice(
    to: &str,
    (app, client_url): (&str, Option<&str>),
    language: Language,
    unread: &Unread,
    unsubscribe: &str,
) -> Letter {
    let summary = summary(language, unread);
    let (greeting, open, end, lang) = match language {
        Language::German => (
            "Ungelesen für Sie:",
            "Öffnen",
            "Keine solchen E-Mails mehr",
            "de",
        ),
        Language::English => ("Unread for you:", "Open", "No more mails like this", "en"),
    };
    let mut text = format!("{greeting} {summary}.\n");
    let mut html = format!("<p>{} {}.</p>", escape(greeting), escape(&summary));
    if !unread.names.is_empty() {
        text.push('\n');
        html.push_str("<ul>");
        for (name, count) in &unread.names {
            let name = one_line(name);
            // Writing into a string cannot fail.
            let _ = writeln!(text, "- {name}: {count}");
            let _ = write!(html, "<li>{}: {count}</li>", escape(&name));
        }
        html.push_str("</ul>");
    }
    if let Some(url) = client_url {
        let _ = write!(text, "\n{open}: {url}\n");
        let _ = write!(
            html,
            "<p><a href=\"{}\">{}</a></p>",
            escape(url),
            escape(open)
        );
    }
    let _ = write!(text, "\n--\n{end}: {unsubscribe}\n");
    let _ = write!(
        html,
        "<hr><p><a href=\"{}\">{}</a></p>",
        escape(unsubscribe),
        escape(end)
    );
    Letter {
        to: to.to_owned(),
        subject: format!("{app}: {summary}"),
        html: page(lang, app, &html),
        text,
        unsubscribe: Some(unsubscribe.to_owned()),
    }
}

/// "3 new messages in 2 rooms, 1 invitation".
fn summary(language: Language, unread: &Unread) -> String {
    let german = language == Language::German;
    let counted = |count: i64, one: &str, many: &str| {
        let noun = if count == 1 { one } else { many };
        format!("{count} {noun}")
    };
    let mut parts = Vec::new();
    if unread.messages > 0 {
        parts.push(if german {
            format!(
                "{} in {}",
                counted(unread.messages, "neue Nachricht", "neue Nachrichten"),
                counted(unread.rooms, "Raum", "Räumen")
            )
        } else {
            format!(
                "{} in {}",
                counted(unread.messages, "new message", "new messages"),
                counted(unread.rooms, "room", "rooms")
            )
        });
    }
    if unread.invitations > 0 {
        parts.push(if german {
            counted(unread.invitations, "Einladung", "Einladungen")
        } else {
            counted(unread.invitations, "invitation", "invitations")
        });
    }
    parts.join(", ")
}

/// Names are foreign text: no line of theirs looks like one of ours.
fn one_line(text: &str) -> String {
    let plain = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(100);
    plain.collect()
}

fn page(lang: &str, title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"{lang}\"><head><meta charset=\"utf-8\"><title>{}</title></head>\
         <body>{body}</body></html>",
        escape(title)
    )
}

/// Text inside of HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{Language, Unread, notice};

    #[test]
    fn counts_are_told_in_the_language_of_the_reader() {
        for (tag, language) in [
            ("de", Language::German),
            ("de-AT", Language::German),
            ("DE_de", Language::German),
            ("den", Language::English),
            ("fr", Language::English),
            ("", Language::English),
        ] {
            assert_eq!(Language::of(tag), language, "{tag}");
        }
        let mut unread = Unread {
            messages: 3,
            rooms: 2,
            ..Unread::default()
        };
        let of = |language, unread: &Unread| {
            notice("a@b.example", ("Bote", None), language, unread, "https://x").subject
        };
        assert_eq!(
            of(Language::German, &unread),
            "Bote: 3 neue Nachrichten in 2 Räumen"
        );
        (unread.messages, unread.rooms, unread.invitations) = (1, 1, 1);
        assert_eq!(
            of(Language::English, &unread),
            "Bote: 1 new message in 1 room, 1 invitation"
        );
    }

    #[test]
    fn pages_speak_what_the_browser_asks_for() {
        for (header, tag) in [
            ("", "de"),
            ("fr", "de"),
            ("en", "en"),
            ("en-GB,en;q=0.9,de;q=0.8", "en"),
            ("de;q=0.3, EN;q=0.4", "en"),
            ("fr, de-AT;q=0.5, en;q=0.5", "de"),
            ("en;q=0, de;q=x", "de"),
        ] {
            assert_eq!(Language::accepted(header).tag(), tag, "{header}");
        }
    }

    #[test]
    fn names_of_rooms_are_text_and_nothing_else() {
        let unread = Unread {
            messages: 1,
            rooms: 1,
            names: vec![("<b>x</b>\r\nBcc: y".to_owned(), 1)],
            ..Unread::default()
        };
        let letter = notice(
            "a@b.example",
            ("Bote", Some("https://chat.example/?a=1&b=2")),
            Language::English,
            &unread,
            "https://x",
        );
        assert!(letter.html.contains("&lt;b&gt;x&lt;/b&gt;  Bcc: y: 1"));
        assert!(letter.html.contains("?a=1&amp;b=2"));
        assert!(letter.text.contains("- <b>x</b>  Bcc: y: 1\n"));
    }
}
