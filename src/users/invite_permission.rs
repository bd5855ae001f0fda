//! Whose invitations a user wants (specification "Invite permission", and MSC4155 with lists).

use std::collections::HashSet;

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;

use super::push_rules;
use crate::{
    federation::rules::matches,
    storage::{self, UserNid},
};

/// Account data of the specification.
const STABLE: &str = "m.invite_permission_config";
/// Account data of MSC4155.
const LISTS: &str = "org.matrix.msc4155.invite_permission_config";

/// Patterns that are looked at in a list, and bytes of one.
const PATTERNS_MAX: usize = 500;
const PATTERN_BYTES_MAX: usize = 255;

/// What is done with an invitation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// The user is told.
    Allow,
    /// It is taken, and the user is not told.
    Ignore,
    /// It is refused; where it came all the same, the user is not told.
    Block,
}

/// What a user has set. By default everybody may invite.
#[derive(Clone, Debug, Default)]
struct Permission {
    blocks_all: bool,
    lists: Lists,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    users: [Vec<String>; 3],
    servers: [Vec<String>; 3],
}

/// In the order in which lists count.
const VERDICTS: [(Verdict, &str); 3] = [
    (Verdict::Allow, "allowed"),
    (Verdict::Ignore, "ignored"),
    (Verdict::Block, "blocked"),
];

impl Permission {
    /// Reads both forms; what is not as it should be is as if it were not there.
    fn new(stable: Option<&str>, lists: Option<&str>) -> Self {
        #[derive(Default, Deserialize)]
        struct Stable {
            #[serde(default)]
            default_action: Value,
        }
        let stable: Option<Stable> = stable.and_then(|json| serde_json::from_str(json).ok());
        let lists: Option<Map<String, Value>> =
            lists.and_then(|json| serde_json::from_str(json).ok());
        Self {
            blocks_all: stable.is_some_and(|stable| stable.default_action == "block"),
            lists: lists
                .filter(|lists| lists.get("enabled") != Some(&Value::Bool(false)))
                .map(|lists| Lists {
                    users: VERDICTS.map(|(_, name)| patterns(&lists, &format!("{name}_users"))),
                    servers: VERDICTS.map(|(_, name)| patterns(&lists, &format!("{name}_servers"))),
                })
                .unwrap_or_default(),
        }
    }

    /// Whether everybody may invite.
    fn is_open(&self) -> bool {
        let lists = self.lists.users.iter().chain(&self.lists.servers);
        !self.blocks_all && lists.into_iter().all(Vec::is_empty)
    }

    /// What is done with an invitation by a user: what is said of the user comes first, then what is
    /// said of the server, then what is said of all.
    fn verdict(&self, sender: &UserId) -> Verdict {
        let server = sender.server_name().as_str();
        for (lists, text) in [
            (&self.lists.users, sender.as_str()),
            (&self.lists.servers, server),
        ] {
            for ((verdict, _), patterns) in VERDICTS.iter().zip(lists) {
                let fits = |pattern: &String| matches(pattern.as_bytes(), text.as_bytes());
                if patterns.iter().any(fits) {
                    return *verdict;
                }
            }
        }
        if self.blocks_all {
            Verdict::Block
        } else {
            Verdict::Allow
        }
    }
}

fn patterns(lists: &Map<String, Value>, name: &str) -> Vec<String> {
    let patterns = lists
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let patterns = patterns.filter_map(Value::as_str);
    patterns
        .filter(|pattern| pattern.len() <= PATTERN_BYTES_MAX)
        .take(PATTERNS_MAX)
        .map(ToOwned::to_owned)
        .collect()
}

/// What a user has said of others.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Whose messages and invitations they do not want (`m.ignored_user_list`).
    pub ignored: HashSet<OwnedUserId>,
    permission: Permission,
}

impl Wishes {
    /// Reads them, in one query.
    pub async fn read(conn: &mut PgConnection, user: UserNid) -> Result<Self, storage::Error> {
        let kinds = [push_rules::IGNORED, STABLE, LISTS].map(ToOwned::to_owned);
        let data = storage::account_data::list_kinds(conn, user, &kinds).await?;
        let of = |kind: &str| {
            let mut of_kind = data.iter().filter(|(of, _)| of == kind);
            of_kind.next().map(|(_, content)| content.as_str())
        };
        let ignored = of(push_rules::IGNORED).map(push_rules::ignored);
        Ok(Self {
            ignored: ignored.into_iter().flatten().collect(),
            permission: Permission::new(of(STABLE), of(LISTS)),
        })
    }

    /// Users and patterns that are named.
    pub fn count(&self) -> usize {
        let Lists { users, servers } = &self.permission.lists;
        let patterns = users.iter().chain(servers).map(Vec::len);
        self.ignored.len() + patterns.sum::<usize>()
    }

    /// Whether the user is told of every invitation.
    pub fn want_all(&self) -> bool {
        self.ignored.is_empty() && self.permission.is_open()
    }

    /// Whether the user is told of an invitation by somebody.
    pub fn want_invitation(&self, sender: &UserId) -> bool {
        !self.ignored.contains(sender) && self.permission.verdict(sender) == Verdict::Allow
    }

    /// Whether an invitation by somebody is refused.
    pub fn refuse_invitation(&self, sender: &UserId) -> bool {
        self.permission.verdict(sender) == Verdict::Block
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::{Permission, Verdict};

    #[test]
    fn users_count_before_servers_and_servers_before_all() {
        let lists = r#"{ "allowed_users": ["@good:*"], "blocked_users": ["@b?d:bad.example"],
            "ignored_servers": ["bad.*"], "blocked_servers": null, "allowed_servers": [7] }"#;
        let permission = Permission::new(Some(r#"{ "default_action": "block" }"#), Some(lists));
        for (user, verdict) in [
            (user_id!("@good:bad.example"), Verdict::Allow),
            (user_id!("@bad:bad.example"), Verdict::Block),
            (user_id!("@other:bad.example"), Verdict::Ignore),
            (user_id!("@other:fine.example"), Verdict::Block),
        ] {
            assert_eq!(permission.verdict(user), verdict, "{user}");
        }
        assert!(!permission.is_open());
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        for (stable, lists) in [
            (None, None),
            (Some("[]"), Some("7")),
            (
                Some("{ \"default_action\": 1 }"),
                Some("{ \"blocked_users\": \"@a:b\" }"),
            ),
            (
                None,
                Some(r#"{ "enabled": false, "blocked_servers": ["*"] }"#),
            ),
        ] {
            assert!(
                Permission::new(stable, lists).is_open(),
                "{stable:?} {lists:?}"
            );
        }
    }
}
