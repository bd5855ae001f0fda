//! What push rules look at: an event, the room it is in, and the user whose rules they are.

use std::{collections::BTreeMap, sync::OnceLock};

use ruma::UserId;
use serde_json::{Map, Value};

use crate::event::pdu::Pdu;

/// An event as push rules see it; its content is parsed once for any number of users.
#[derive(Debug)]
pub struct Subject<'a> {
    pub(super) pdu: &'a Pdu,
    pub(super) kind: String,
    content: OnceLock<Value>,
    lower_body: OnceLock<Option<String>>,
}

impl<'a> Subject<'a> {
    /// Nothing is parsed before a rule asks for it.
    pub fn new(pdu: &'a Pdu) -> Self {
        Self {
            pdu,
            kind: pdu.kind.to_string(),
            content: OnceLock::new(),
            lower_body: OnceLock::new(),
        }
    }

    /// Content; empty where it cannot be read.
    pub fn content(&self) -> &Value {
        let empty = || Value::Object(Map::new());
        self.content.get_or_init(|| {
            serde_json::from_str(self.pdu.content.get()).unwrap_or_else(|_| empty())
        })
    }

    /// The body of a message, as it is and in lower case.
    pub fn body(&self) -> Option<(&str, &str)> {
        let body = self.content().get("body")?.as_str()?;
        let lower = self.lower_body.get_or_init(|| Some(body.to_lowercase()));
        Some((body, lower.as_deref()?))
    }

    /// Users that the event names as meant.
    pub fn mentioned(&self) -> impl Iterator<Item = &UserId> {
        let named = self.content().get("m.mentions");
        let ids = named
            .and_then(|named| named.get("user_ids"))
            .and_then(Value::as_array);
        ids.into_iter()
            .flatten()
            .filter_map(|id| <&UserId>::try_from(id.as_str()?).ok())
    }

    /// Whether it says whom it mentions, if anybody.
    pub fn says_mentions(&self) -> bool {
        self.content().get("m.mentions").is_some()
    }

    /// Whether it asks for the attention of the whole room.
    pub fn mentions_room(&self) -> bool {
        self.content().pointer("/m.mentions/room") == Some(&Value::Bool(true))
    }
}

/// The room of an event.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Joined members.
    pub members: u64,
    /// Power of the sender.
    pub sender_power: i64,
    /// Power that it takes to notify, by kind; 50 where it is not said.
    pub notifications: BTreeMap<String, i64>,
    /// The event is in a thread, and subscriptions to threads count.
    pub in_thread: bool,
}

/// Power to notify a room where the room does not say.
const NOTIFY_POWER: i64 = 50;

impl Place {
    /// Whether the sender may notify in this way (`room` is the one that the specification knows).
    pub(super) fn lets_notify(&self, kind: &str) -> bool {
        let needed = match self.notifications.get(kind) {
            Some(needed) => *needed,
            None if kind == "room" => NOTIFY_POWER,
            None => return false,
        };
        self.sender_power >= needed
    }
}

/// The user whose rules they are.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// User id.
    pub user_id: &'a UserId,
    /// Name in the room.
    pub display_name: Option<&'a str>,
    /// Subscribed to the thread of the event.
    pub subscribed: bool,
}
