//! The section `[email]`.

use std::{net::IpAddr, str::FromStr};

use lettre::message::Mailbox;
use url::Url;

use super::super::{Email, EmailTls, WellKnown, source::Source};

/// Characters of what the service is called.
const APP_NAME_CHARS_MAX: usize = 60;
/// A day: who waits longer for a mail does not mean it.
const DELAY_S_MAX: u64 = 86_400;
/// A month.
const PAUSE_S_MAX: u64 = 30 * 86_400;

/// Every key of the section is read, so that each is known; without a relay there is no mail.
pub(super) fn read(source: &mut Source, well_known: &WellKnown) -> Option<Email> {
    let is_given = source.has("email");
    let smtp_host = source.text("email.smtp_host");
    let remedy = "is not a choice; give \"starttls\", \"tls\" or \"none\"";
    let tls = source.parse::<EmailTls>("email.tls", remedy);
    let tls = tls.unwrap_or_default();
    let default_port = if tls == EmailTls::Tls { 465 } else { 587 };
    let port = number(source, "email.smtp_port", default_port, u64::from(u16::MAX));
    let user = source.text("email.username");
    let password = source.secret("email.password", "email.password_file");
    let from = mailbox(source, "email.from");
    let reply_to = mailbox(source, "email.reply_to");
    let client_url = client_url(source);
    let email = Email {
        smtp_port: u16::try_from(port).unwrap_or(default_port.try_into().unwrap_or(587)),
        tls,
        login: login(source, user.zip(password.clone()), password.is_some()),
        from: from.clone().unwrap_or_default(),
        reply_to,
        app_name: app_name(source),
        base_url: well_known.client.clone().unwrap_or_default(),
        client_url,
        next_link_hosts: next_link_hosts(source),
        names_rooms: names_rooms(source),
        notice_delay_s: seconds(source, "email.notice_delay_s", 600, DELAY_S_MAX),
        notice_pause_max_s: seconds(source, "email.notice_pause_max_s", 86_400, PAUSE_S_MAX),
        smtp_host: smtp_host.clone().unwrap_or_default(),
    };
    if !is_given && smtp_host.is_none() {
        return None;
    }
    if smtp_host.is_none_or(|host| host.is_empty()) {
        let remedy = "is missing; name the host of your mail relay, such as \"mail.amt.example\"";
        source.problem("email.smtp_host", None, remedy);
    }
    if from.is_none() && !source.has("email.from") {
        let remedy = "is missing; give the sender, such as \"Amt <matrix@amt.example>\"";
        source.problem("email.from", None, remedy);
    }
    if well_known.client.is_none() {
        let remedy = "is missing; links in mails begin with it, so that [email] needs it";
        source.problem("well_known.client", None, remedy);
    }
    if tls == EmailTls::None && email.login.is_some() && !is_here(&email.smtp_host) {
        let remedy = "would send the password in the clear; give \"starttls\" or \"tls\"";
        source.problem("email.tls", Some("\"none\"".to_owned()), remedy);
    }
    Some(email)
}

/// Whether a relay is on this machine.
pub(super) fn is_here(host: &str) -> bool {
    host == "localhost" || IpAddr::from_str(host).is_ok_and(|address| address.is_loopback())
}

impl FromStr for EmailTls {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "none" => Ok(Self::None),
            "starttls" => Ok(Self::StartTls),
            "tls" => Ok(Self::Tls),
            _ => Err(()),
        }
    }
}

fn number(source: &mut Source, key: &'static str, default: u64, most: u64) -> u64 {
    let number = source.number(key).unwrap_or(default);
    if number == 0 || number > most {
        let remedy = format!("is out of bounds; give a number from 1 to {most}");
        source.problem(key, Some(number.to_string()), remedy);
    }
    number
}

fn seconds(source: &mut Source, key: &'static str, default: u32, most: u64) -> u32 {
    let number = number(source, key, default.into(), most);
    u32::try_from(number).unwrap_or(default)
}

fn login<S>(
    source: &mut Source,
    both: Option<(String, S)>,
    has_password: bool,
) -> Option<(String, S)> {
    if both.is_none() && (has_password || source.has("email.username")) {
        let remedy = "username and password (or password_file) go together";
        source.problem("email.username", None, remedy);
    }
    both
}

/// An address, perhaps with a name.
fn mailbox(source: &mut Source, key: &'static str) -> Option<String> {
    let text = source.text(key)?;
    if text.parse::<Mailbox>().is_err() {
        let remedy = "is not an address; write it as \"Amt <matrix@amt.example>\"";
        source.problem(key, Some(format!("{text:?}")), remedy);
    }
    Some(text)
}

fn next_link_hosts(source: &mut Source) -> Vec<String> {
    let key = "email.next_link_hosts";
    let hosts = source.list(key);
    let is_host = |host: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-[]:".contains(c);
        host.chars().all(is_plain) && url::Host::parse(host).is_ok()
    };
    for host in hosts.iter().filter(|host| !is_host(host)) {
        let remedy = "is not a host; give it without scheme, port and path";
        source.problem(key, Some(format!("{host:?}")), remedy);
    }
    hosts
}

fn app_name(source: &mut Source) -> String {
    let key = "email.app_name";
    let name = source.text(key).unwrap_or_else(|| "Amtsbote".to_owned());
    let is_long = name.is_empty() || name.chars().count() > APP_NAME_CHARS_MAX;
    if is_long || name.chars().any(char::is_control) {
        let remedy = "is not a name; give 1 to 60 characters";
        source.problem(key, Some(format!("{name:?}")), remedy);
    }
    name
}

fn client_url(source: &mut Source) -> Option<String> {
    let key = "email.client_url";
    let text = source.text(key)?;
    let url = Url::parse(&text).ok();
    if !url.is_some_and(|url| ["http", "https"].contains(&url.scheme())) {
        let remedy = "is not a web address; give the one where people open their client";
        source.problem(key, Some(format!("{text:?}")), remedy);
    }
    Some(text)
}

fn names_rooms(source: &mut Source) -> bool {
    let key = "email.notice_content";
    let text = source.text(key).unwrap_or_else(|| "none".to_owned());
    if !["none", "rooms"].contains(&text.as_str()) {
        let remedy = "is not a choice; give \"none\" or \"rooms\"";
        source.problem(key, Some(format!("{text:?}")), remedy);
    }
    text == "rooms"
}
