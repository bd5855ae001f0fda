//! `[[appservice]]`: registration files.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use regex::{Regex, RegexBuilder};
use ruma::{OwnedServerName, UserId};
use serde::Deserialize;
use url::Url;

use super::super::{
    Secret,
    appservice::{Appservice, Namespace},
    source::Source,
};

/// Bytes that a compiled pattern, and what it needs to match, may take: patterns of bridges are a
/// few names and wildcards.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Services of one server.
const SERVICES_MAX: usize = 200;

/// A registration file as it stands (specification, and the names that services use for what was
/// not yet part of it).
#[derive(Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a registration says each of it by itself"
)]
struct File {
    id: String,
    // Left out, it is null.
    url: Option<String>,
    as_token: String,
    hs_token: String,
    sender_localpart: String,
    #[serde(default = "yes")]
    rate_limited: bool,
    namespaces: Namespaces,
    #[serde(default)]
    protocols: Option<Vec<String>>,
    #[serde(default)]
    receive_ephemeral: bool,
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    push_ephemeral: bool,
    #[serde(default, rename = "org.matrix.msc3202")]
    devices: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Namespaces {
    #[serde(default)]
    users: Option<Vec<Entry>>,
    #[serde(default)]
    aliases: Option<Vec<Entry>>,
    #[serde(default)]
    rooms: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    exclusive: bool,
    regex: String,
}

/// Reads every registration. `server_name`: ours, which its users are of.
pub(super) fn read(source: &mut Source, server_name: &OwnedServerName) -> Vec<Arc<Appservice>> {
    let mut services: Vec<Arc<Appservice>> = Vec::new();
    let (mut ids, mut tokens): (HashSet<String>, BTreeMap<String, String>) = Default::default();
    let key = "registration";
    source.tables("appservice", |layer| {
        if !layer.has(key) {
            layer.problem(key, None, "is missing; name the registration file");
        }
        let Some(path) = layer.readable(key) else {
            return;
        };
        let Some(text) = layer.secret_file(key, &path) else {
            return;
        };
        let mut wrong = |remedy: String| problem(layer, &path, remedy);
        let service = match parse(&text, server_name) {
            Ok(service) => service,
            Err(remedies) => {
                remedies.into_iter().for_each(wrong);
                return;
            }
        };
        if !ids.insert(service.id.clone()) {
            wrong(format!(
                "another registration has the id {:?}; give each its own",
                service.id
            ));
        }
        let token = service.as_token.0.clone();
        if let Some(other) = tokens.insert(token, service.id.clone()) {
            wrong(format!(
                "has the as_token of {other:?}; tokens tell services apart, make a new one"
            ));
        }
        if services.len() >= SERVICES_MAX {
            wrong(format!("is one too many; there may be {SERVICES_MAX}"));
            return;
        }
        services.push(Arc::new(service));
    });
    services
}

fn problem(layer: &mut Source, path: &Path, remedy: String) {
    layer.problem(
        "registration",
        Some(format!("{:?}", path.display())),
        remedy,
    );
}

/// A registration, or everything that is wrong with it. What is wrong never shows what stands
/// there: it may be a token.
fn parse(text: &str, server_name: &OwnedServerName) -> Result<Appservice, Vec<String>> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let place = error
            .location()
            .map(|place| format!("line {}", place.line()));
        let place = place.unwrap_or_else(|| "the file".to_owned());
        let missing = missing(&error.without_snippet().to_string());
        vec![format!(
            "is no registration: {place} {missing}; it needs id, url (or null), as_token, \
             hs_token, sender_localpart and namespaces with lists of exclusive and regex, as YAML"
        )]
    })?;
    let mut wrong = Vec::new();
    for (name, value) in [
        ("id", &file.id),
        ("as_token", &file.as_token),
        ("hs_token", &file.hs_token),
        ("sender_localpart", &file.sender_localpart),
    ] {
        if value.is_empty() {
            wrong.push(format!("{name} is empty; give a value"));
        }
    }
    let url = url(file.url.as_deref()).unwrap_or_else(|remedy| {
        wrong.push(remedy);
        None
    });
    let is_token = |token: &str| token.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token(&file.as_token) || !is_token(&file.hs_token) {
        wrong.push("a token holds more than printable ASCII; make a new one".to_owned());
    }
    let sender = UserId::parse(format!("@{}:{server_name}", file.sender_localpart));
    let Namespaces {
        users,
        aliases,
        rooms,
    } = file.namespaces;
    let users = namespaces("users", users, &mut wrong);
    let aliases = namespaces("aliases", aliases, &mut wrong);
    let rooms = namespaces("rooms", rooms, &mut wrong);
    let sender = match sender {
        Ok(sender) if wrong.is_empty() => sender,
        Ok(_) => return Err(wrong),
        Err(_) => {
            wrong
                .push("sender_localpart is no user name; give one such as \"_irc_bot\"".to_owned());
            return Err(wrong);
        }
    };
    Ok(Appservice {
        id: file.id,
        url,
        as_token: Secret(file.as_token),
        hs_token: Secret(file.hs_token),
        sender,
        is_rate_limited: file.rate_limited,
        users,
        aliases,
        rooms,
        protocols: file.protocols.unwrap_or_default(),
        receives_ephemeral: file.receive_ephemeral || file.push_ephemeral,
        uses_old_names: file.push_ephemeral,
        receives_devices: file.devices,
    })
}

fn namespaces(kind: &str, entries: Option<Vec<Entry>>, wrong: &mut Vec<String>) -> Vec<Namespace> {
    let mut namespaces = Vec::new();
    for entry in entries.unwrap_or_default() {
        match pattern(&entry.regex) {
            Ok(pattern) => namespaces.push(Namespace {
                is_exclusive: entry.exclusive,
                pattern,
            }),
            Err(error) => wrong.push(format!(
                "namespaces.{kind}: {:?} is no regular expression that we can use: {error}",
                entry.regex
            )),
        }
    }
    namespaces
}

/// What of an error of the parser may be shown: which field is missing, no values.
fn missing(error: &str) -> String {
    let field = error.split("missing field `").nth(1);
    match field.and_then(|rest| rest.split('`').next()) {
        Some(field) => format!("lacks {field}"),
        None => "is not what it has to be".to_owned(),
    }
}

fn url(text: Option<&str>) -> Result<Option<Url>, String> {
    // Old registrations say so that there is nothing to call.
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let url = Url::parse(text).ok();
    let usable = |url: &Url| ["http", "https"].contains(&url.scheme()) && url.host_str().is_some();
    url.filter(usable).map(Some).ok_or_else(|| {
        "url is not a web address; write it as \"http://127.0.0.1:29300\", or null".to_owned()
    })
}

/// Patterns hold from the beginning of an id, and not to its end unless they say so, as services
/// are used to it.
fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(&format!("^(?:{text})"))
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        // The last line says what is wrong, those before show where.
        other => other
            .to_string()
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};

    use super::*;

    const GOOD: &str = "id: irc\nurl: null\nas_token: hidden-a\nhs_token: hidden-h\n\
        sender_localpart: _irc_bot\nnamespaces:\n  users:\n  - exclusive: true\n    regex: '@_irc_.*'\n";

    #[test]
    fn a_registration_is_read_and_what_is_wrong_is_told_without_secrets() {
        let server = server_name!("a.example").to_owned();
        let service = parse(GOOD, &server).unwrap();
        assert!(service.claims_user(user_id!("@_irc_x:a.example")));
        assert!(service.has_user(user_id!("@_irc_bot:a.example")));
        assert!(!service.has_user(user_id!("@_irc_x:b.example")));
        assert!(!service.has_user(user_id!("@x_irc_:a.example")));
        assert!(!format!("{service:?}").contains("hidden"));
        for (from, to, hint) in [
            ("id: irc\n", "", "lacks id"),
            ("'@_irc_.*'", "'(?!x)'", "look-around"),
            ("url: null", "url: 'ftp://x'", "web address"),
            ("_irc_bot", "''", "sender_localpart is empty"),
            ("id: irc", "id: [hidden", "line"),
            ("'@_irc_.*'", "'(\\w{100}){100}'", "too large"),
        ] {
            let wrong = parse(&GOOD.replacen(from, to, 1), &server).unwrap_err();
            let wrong = wrong.join("\n");
            assert!(wrong.contains(hint), "{wrong}");
            assert!(!wrong.contains("hidden"), "{wrong}");
        }
    }
}
