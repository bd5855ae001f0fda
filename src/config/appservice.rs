//! Application services: what a registration file says.

use regex::Regex;
use ruma::{OwnedUserId, RoomAliasId, RoomId, ServerName, UserId};
use url::Url;

use super::Secret;

/// A registration (specification, Application Service API, "Registration").
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a registration says each of it by itself"
)]
pub struct Appservice {
    /// Its id, which never changes.
    pub id: String,
    /// Where it listens; `None`: it wants to hear nothing.
    pub url: Option<Url>,
    /// What it shows us.
    pub as_token: Secret,
    /// What we show it.
    pub hs_token: Secret,
    /// Its own user.
    pub sender: OwnedUserId,
    /// Whether its users are held to the rate limits; its own user never is.
    pub is_rate_limited: bool,
    /// Users that are its.
    pub users: Vec<Namespace>,
    /// Aliases that are its.
    pub aliases: Vec<Namespace>,
    /// Rooms that it hears of.
    pub rooms: Vec<Namespace>,
    /// Networks that it knows users and places of.
    pub protocols: Vec<String>,
    /// Whether it hears of typing, receipts, presence and messages to devices.
    pub receives_ephemeral: bool,
    /// Whether it looks for that under the names from before it was in the specification (MSC2409).
    pub uses_old_names: bool,
    /// Whether it hears of devices and their keys (MSC3202).
    pub receives_devices: bool,
}

/// A set of ids.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Whether nobody else may have them.
    pub is_exclusive: bool,
    /// What they look like, from their beginning.
    pub pattern: Regex,
}

impl Appservice {
    /// Whether a user is one that it may speak for: its own, and those of ours in its namespace.
    pub fn has_user(&self, user: &UserId) -> bool {
        user.server_name() == self.sender.server_name()
            && (*user == self.sender || has(&self.users, user.as_str()))
    }

    /// Whether nobody else may make that user of ours.
    pub fn claims_user(&self, user: &UserId) -> bool {
        user.server_name() == self.sender.server_name()
            && (*user == self.sender || claims(&self.users, user.as_str()))
    }

    /// Whether an alias is in its namespace.
    pub fn has_alias(&self, alias: &RoomAliasId) -> bool {
        has(&self.aliases, alias.as_str())
    }

    /// Whether nobody else may make that alias of ours.
    pub fn claims_alias(&self, alias: &RoomAliasId) -> bool {
        alias.server_name() == self.sender.server_name() && claims(&self.aliases, alias.as_str())
    }

    /// Whether a room is in its namespace.
    pub fn has_room(&self, room: &RoomId) -> bool {
        has(&self.rooms, room.as_str())
    }

    /// Whether a user of its is held to the rate limits.
    pub fn limits(&self, user: &UserId) -> bool {
        self.is_rate_limited && *user != self.sender
    }

    /// Its server name, which is ours.
    pub fn server_name(&self) -> &ServerName {
        self.sender.server_name()
    }
}

fn has(namespaces: &[Namespace], id: &str) -> bool {
    namespaces.iter().any(|it| it.pattern.is_match(id))
}

fn claims(namespaces: &[Namespace], id: &str) -> bool {
    let mut exclusive = namespaces.iter().filter(|it| it.is_exclusive);
    exclusive.any(|it| it.pattern.is_match(id))
}
