//! What a provider says of people, as far as it is used.

use serde_json::{Map, Value};

use super::Provider;
use crate::config::oidc::Requirement;

/// Characters of a display name.
const DISPLAY_NAME_CHARS_MAX: usize = 255;

/// A claim by its name, or by the names of what it stands in, with dots in between.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut parts = name.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// A claim that is text.
fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let text = find(claims, name).and_then(Value::as_str).map(str::trim);
    text.filter(|text| !text.is_empty())
}

fn meets(claims: &Map<String, Value>, requirement: &Requirement) -> bool {
    let is_wanted = |value: &Value| {
        let said = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return false,
        };
        requirement.one_of.is_empty() || requirement.one_of.contains(&said)
    };
    match find(claims, &requirement.claim) {
        Some(Value::Array(values)) => values.iter().any(is_wanted),
        Some(value) => is_wanted(value),
        None => false,
    }
}

impl Provider {
    /// Whether somebody with these claims may log in.
    pub fn admits(&self, claims: &Map<String, Value>) -> bool {
        let mut requirements = self.config.requirements.iter();
        requirements.all(|requirement| meets(claims, requirement))
    }

    /// The user name that somebody would have: what cannot be in one is written as `=` and two
    /// digits (specification, "Mapping from other character sets").
    pub fn localpart(&self, claims: &Map<String, Value>) -> Option<String> {
        text(claims, &self.config.user_mapping.localpart_claim).map(localpart)
    }

    /// What somebody is called.
    pub fn display_name(&self, claims: &Map<String, Value>) -> Option<String> {
        let name = self.config.user_mapping.display_name_claim.as_deref()?;
        let name = text(claims, name)?.chars().filter(|c| !c.is_control());
        Some(name.take(DISPLAY_NAME_CHARS_MAX).collect())
    }

    /// Where somebody reads e-mail; not where the provider says that it does not know that.
    pub fn address<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a str> {
        let name = self.config.user_mapping.email_claim.as_deref()?;
        let is_doubted = claims.get("email_verified") == Some(&Value::Bool(false));
        text(claims, name).filter(|_| !is_doubted)
    }
}

fn localpart(name: &str) -> String {
    use std::fmt::Write as _;
    let mut localpart = String::new();
    for (at, byte) in name.to_lowercase().bytes().enumerate() {
        let is_plain = byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || b"./-+".contains(&byte)
            // In front it would look like a bridge's.
            || (byte == b'_' && at > 0);
        if is_plain {
            localpart.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(localpart, "={byte:02x}");
        }
    }
    localpart
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(claims) => claims,
            _ => Map::new(),
        }
    }

    #[test]
    fn names_become_localparts_and_different_names_different_ones() {
        for (name, expected) in [
            ("Anna.Amt", "anna.amt"),
            ("anna@amt.example", "anna=40amt.example"),
            ("müller", "m=c3=bcller"),
            ("_irc_x", "=5firc_x"),
            ("a=40b", "a=3d40b"),
            ("a:b", "a=3ab"),
        ] {
            assert_eq!(localpart(name), expected);
        }
    }

    #[test]
    fn requirements_look_into_lists_and_nested_claims() {
        let claims = claims(json!({
            "groups": ["a", "b"], "realm": { "roles": ["x"] }, "https://amt.example/ok": true,
            "none": null,
        }));
        let meets = |claim: &str, one_of: &[&str]| {
            let one_of = one_of.iter().map(|it| (*it).to_owned()).collect();
            let claim = claim.to_owned();
            meets(&claims, &Requirement { claim, one_of })
        };
        assert!(meets("groups", &["b"]) && meets("groups", &["z", "a"]) && meets("groups", &[]));
        assert!(meets("realm.roles", &["x"]) && meets("https://amt.example/ok", &["true"]));
        assert!(!meets("groups", &["ab"]) && !meets("realm", &["x"]) && !meets("none", &[]));
        assert!(!meets("realm.roles.x", &[]) && !meets("missing", &[]));
    }
}
