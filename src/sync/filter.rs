//! Filters, as far as sync reads them.

use std::sync::Arc;

use ruma::api::client::filter::{
    Filter as EventFilter, FilterDefinition, RoomEventFilter, UrlFilter,
};

use serde::Deserialize;

use super::{Error, memory::Memory};
use crate::{
    context::Context,
    event::pdu::Pdu,
    rooms::relations::filter::Related,
    users::{account_data, tokens::Session},
};

/// Events of a room in one answer when the filter does not say.
const LIMIT_DEFAULT: u64 = 10;
/// The most, whatever it says.
const LIMIT_MAX: u64 = 100;

/// Fields of profiles that a filter may name.
const PROFILE_FIELDS_MAX: usize = 100;

/// A filter as sync reads it.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) filter: FilterDefinition,
    /// What it says of relations.
    pub(super) related: Related,
    /// Fields of profiles that it asks for.
    pub(super) fields: Vec<String>,
}

/// The filter of a sync request: JSON, or the id of a stored one.
pub(super) async fn load(
    ctx: &Context,
    memory: &Memory,
    session: &Session,
    given: Option<&str>,
) -> Result<Arc<Loaded>, Error> {
    let Some(given) = given else {
        return Ok(Arc::default());
    };
    if given.starts_with('{') {
        return parse(given).map(Arc::new);
    }
    if let Some(known) = memory.filter(session.user_nid, given) {
        return Ok(known);
    }
    let json = account_data::filter(ctx, session, given).await;
    let json = json.map_err(|error| Error::BadFilter(error.to_string()))?;
    let filter = Arc::new(parse(&json)?);
    memory.keep_filter(session.user_nid, given, filter.clone());
    Ok(filter)
}

fn parse(json: &str) -> Result<Loaded, Error> {
    let bad = |error: &dyn std::fmt::Display| Error::BadFilter(error.to_string());
    let filter = serde_json::from_str(json).map_err(|error| bad(&error))?;
    let more: More = serde_json::from_str(json).map_err(|error| bad(&error))?;
    let fields = [more.unstable_profile_fields.ids, more.profile_fields.ids].concat();
    if fields.len() > PROFILE_FIELDS_MAX {
        return Err(bad(&"too many fields of profiles"));
    }
    Ok(Loaded {
        filter,
        related: more.room.timeline,
        fields,
    })
}

/// What the type of filters lacks.
#[derive(Default, Deserialize)]
#[serde(default)]
struct More {
    room: MoreOfRoom,
    #[serde(rename = "org.matrix.msc4429.profile_fields")]
    unstable_profile_fields: ProfileFields,
    profile_fields: ProfileFields,
}

/// Fields of profiles that are told (MSC4429).
#[derive(Default, Deserialize)]
#[serde(default)]
struct ProfileFields {
    ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MoreOfRoom {
    timeline: Related,
}

/// Events of a room in one answer.
pub(super) fn limit(filter: &RoomEventFilter) -> i64 {
    let limit = filter.limit.map_or(LIMIT_DEFAULT, u64::from).min(LIMIT_MAX);
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Whether a filter lets an event of a room through.
pub fn passes(filter: &RoomEventFilter, pdu: &Pdu) -> bool {
    let kind = pdu.kind.to_string();
    if filter
        .types
        .as_ref()
        .is_some_and(|types| !types.iter().any(|t| glob(t, &kind)))
        || filter.not_types.iter().any(|t| glob(t, &kind))
        || filter
            .senders
            .as_ref()
            .is_some_and(|senders| !senders.contains(&pdu.sender))
        || filter.not_senders.contains(&pdu.sender)
        || filter
            .rooms
            .as_ref()
            .is_some_and(|rooms| !rooms.contains(&pdu.room_id))
        || filter.not_rooms.contains(&pdu.room_id)
    {
        return false;
    }
    match filter.url_filter {
        None => true,
        Some(wanted) => {
            let has_url = pdu
                .content_as::<serde_json::Map<String, serde_json::Value>>()
                .is_some_and(|content| {
                    content.get("url").is_some_and(serde_json::Value::is_string)
                });
            has_url == (wanted == UrlFilter::EventsWithUrl)
        }
    }
}

/// Whether a filter of types lets a type through (account data, ephemeral events).
pub(super) fn passes_type(filter: &EventFilter, kind: &str) -> bool {
    filter
        .types
        .as_ref()
        .is_none_or(|types| types.iter().any(|t| glob(t, kind)))
        && !filter.not_types.iter().any(|t| glob(t, kind))
}

/// The same for a filter of a room's events.
pub(super) fn passes_room_type(filter: &RoomEventFilter, kind: &str) -> bool {
    filter
        .types
        .as_ref()
        .is_none_or(|types| types.iter().any(|t| glob(t, kind)))
        && !filter.not_types.iter().any(|t| glob(t, kind))
}

/// `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn stars_stand_for_anything() {
        assert!(glob("m.room.*", "m.room.name"));
        assert!(glob("*", "anything"));
        assert!(glob("m.*.name", "m.room.name"));
        assert!(!glob("m.room.name", "m.room.names"));
        assert!(!glob("m.*.name", "m.room.topic"));
        assert!(!glob("ab*b", "ab"));
    }
}
