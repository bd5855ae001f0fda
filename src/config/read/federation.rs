//! `[federation]`.

use std::collections::BTreeSet;

use toml::Value;

use super::super::{
    federation::{Federation, ServerRule, UnlistedInRoom, server_pattern},
    source::Source,
};

/// Entries of one list. More would be no list that people keep.
const ENTRIES_MAX: usize = 50_000;
/// Characters of a reason.
const REASON_MAX: usize = 1_000;
/// Days for which messages can wait: nobody is away for longer and comes back.
const DAYS_MAX: u32 = 3_650;
/// Messages that can wait for one server; more would fill disks for nobody.
const MESSAGES_MAX: u32 = 10_000_000;

pub(super) fn read(source: &mut Source) -> Federation {
    let remedy = "is not a choice; give \"refuse\", \"warn\" or \"allow\"";
    let defaults = Federation::default();
    Federation {
        allow: list(source, "federation.allow"),
        deny: list(source, "federation.deny"),
        unlisted_in_room: source
            .parse::<UnlistedInRoom>("federation.unlisted_in_room", remedy)
            .unwrap_or_default(),
        keep_messages_days: keep(
            source,
            "federation.keep_messages_days",
            (defaults.keep_messages_days, DAYS_MAX),
        ),
        keep_messages_max: keep(
            source,
            "federation.keep_messages_max",
            (defaults.keep_messages_max, MESSAGES_MAX),
        ),
    }
}

fn keep(source: &mut Source, key: &'static str, (default, most): (u32, u32)) -> u32 {
    let number = source.number(key).unwrap_or(default.into());
    match u32::try_from(number) {
        Ok(fits) if (1..=most).contains(&fits) => fits,
        _ => {
            let remedy = format!("is not between 1 and {most}");
            source.problem(key, Some(number.to_string()), remedy);
            default
        }
    }
}

fn list(source: &mut Source, key: &'static str) -> Vec<ServerRule> {
    let mut rules = Vec::new();
    let values = source.values(key);
    if values.len() > ENTRIES_MAX {
        source.problem(key, None, format!("has more than {ENTRIES_MAX} entries"));
    }
    for value in values.into_iter().take(ENTRIES_MAX) {
        match rule(&value) {
            Ok(rule) => rules.push(rule),
            Err(why) => source.problem(key, Some(value.to_string()), why),
        }
    }
    rules
}

fn rule(value: &Value) -> Result<ServerRule, String> {
    let table = match value {
        Value::String(server) => return entry(server, None, None),
        Value::Table(table) => table,
        _ => return Err("expected a server, or a table { server, reason, until }".to_owned()),
    };
    let known = BTreeSet::from(["server", "reason", "until"]);
    if let Some(key) = table.keys().find(|key| !known.contains(key.as_str())) {
        return Err(format!("there is no such key {key} in an entry"));
    }
    let server = table.get("server").and_then(Value::as_str);
    let server = server.ok_or("server is missing in an entry")?;
    let reason = match table.get("reason") {
        None => None,
        Some(Value::String(reason)) if reason.chars().count() <= REASON_MAX => Some(reason.clone()),
        Some(_) => return Err(format!("reason: expected at most {REASON_MAX} characters")),
    };
    let until = match table.get("until") {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Datetime(time)) => Some(time.to_string()),
        Some(_) => return Err("until: expected a time".to_owned()),
    };
    entry(server, reason, until.as_deref())
}

fn entry(server: &str, reason: Option<String>, until: Option<&str>) -> Result<ServerRule, String> {
    let pattern = server_pattern(server).ok_or_else(|| {
        format!(
            "{server:?} is not a host; write it as \"matrix.amt.example\" or \"*.amt.example\", \
             without a port"
        )
    })?;
    let until_ts = match until {
        None => None,
        Some(text) => {
            let time: jiff::Timestamp = text.parse().map_err(|_| {
                format!("{text:?} is not a time; write it as \"2027-01-31T12:00:00+01:00\"")
            })?;
            Some(time.as_millisecond())
        }
    };
    Ok(ServerRule {
        server: pattern,
        reason,
        until_ts,
    })
}
