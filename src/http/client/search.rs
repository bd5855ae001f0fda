//! Search in what was said.

use std::collections::BTreeMap;

use axum::{Router, extract::State};
use ruma::{
    OwnedRoomId,
    api::client::search::search_events::{
        self,
        v3::{Criteria, GroupingKey},
    },
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{message, state};
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    rooms::{
        Rooms,
        resident::Room,
        search::{self, Found, Match},
        timeline, visibility,
    },
    users::tokens::Session,
};

/// Rooms whose state comes with the results.
const STATES_MAX: usize = 10;

pub(super) fn routes() -> Router<App> {
    mount::<search_events::v3::Request, _, _>(Router::new(), search_events)
}

/// `POST /_matrix/client/v3/search`
async fn search_events(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<search_events::v3::Request>,
) -> Result<Object, ApiError> {
    let Some(criteria) = &request.search_categories.room_events else {
        return Ok(Object(json!({ "search_categories": {} })));
    };
    let from = request.next_batch.as_deref();
    let mut found = search::search(&rooms, &session, criteria, from).await?;
    let passes = |found: &Match| crate::sync::filter::passes(&criteria.filter, &found.event.pdu);
    found.results.retain(passes);
    let mut events = json!({
        "count": found.count,
        "highlights": found.highlights,
        "results": render(&rooms, &session, criteria, &found).await?,
        "groups": groups(criteria, &found),
    });
    if let Some(next) = &found.next {
        events["next_batch"] = json!(next);
    }
    if criteria.include_state == Some(true) {
        events["state"] = json!(states(&rooms, &session, &found).await?);
    }
    Ok(Object(
        json!({ "search_categories": { "room_events": events } }),
    ))
}

/// The results, rendered room by room.
async fn render(
    rooms: &Rooms,
    session: &Session,
    criteria: &Criteria,
    found: &Found,
) -> Result<Vec<Value>, ApiError> {
    let mut by_room: BTreeMap<OwnedRoomId, Vec<usize>> = BTreeMap::new();
    for (at, found) in found.results.iter().enumerate() {
        by_room.entry(found.room.id.clone()).or_default().push(at);
    }
    let mut rendered = vec![Value::Null; found.results.len()];
    for places in by_room.into_values() {
        let of_room: Vec<&Match> = places
            .iter()
            .filter_map(|at| found.results.get(*at))
            .collect();
        for (at, result) in places
            .iter()
            .zip(render_room(rooms, session, criteria, &of_room).await?)
        {
            if let Some(place) = rendered.get_mut(*at) {
                *place = result;
            }
        }
    }
    Ok(rendered)
}

async fn render_room(
    rooms: &Rooms,
    session: &Session,
    criteria: &Criteria,
    results: &[&Match],
) -> Result<Vec<Value>, ApiError> {
    let Some(room) = results.first().map(|found| &found.room) else {
        return Ok(Vec::new());
    };
    let events = results.iter().flat_map(|found| {
        std::iter::once(&found.event)
            .chain(&found.before)
            .chain(&found.after)
            .cloned()
    });
    let events: Vec<_> = events.collect();
    let mut rendered = message::render(rooms, room, session, &events)
        .await?
        .into_iter();
    let profiles = if criteria.event_context.include_profile {
        profiles(rooms, room, &events).await?
    } else {
        Map::new()
    };
    let answers = results.iter().map(|found| {
        let event = rendered.next();
        let before: Vec<Box<RawValue>> = rendered.by_ref().take(found.before.len()).collect();
        let after: Vec<Box<RawValue>> = rendered.by_ref().take(found.after.len()).collect();
        let seq = |event: Option<&crate::rooms::Event>| {
            event.unwrap_or(&found.event).stored.seq.unwrap_or_default()
        };
        let mut context = json!({
            "events_before": before,
            "events_after": after,
            "start": timeline::token(seq(found.before.last())),
            "end": timeline::token(seq(found.after.last()) + 1),
        });
        if criteria.event_context.include_profile {
            let around = found.before.iter().chain(&found.after);
            let senders = std::iter::once(&found.event).chain(around);
            let senders = senders.map(|event| event.pdu.sender.as_str());
            let named = senders
                .filter_map(|sender| Some((sender.to_owned(), profiles.get(sender)?.clone())));
            context["profile_info"] = Value::Object(named.collect());
        }
        json!({ "rank": found.rank, "result": event, "context": context })
    });
    Ok(answers.collect())
}

/// Names and pictures of the senders, as they are in the room.
async fn profiles(
    rooms: &Rooms,
    room: &Room,
    events: &[crate::rooms::Event],
) -> Result<Map<String, Value>, ApiError> {
    let members = message::senders(rooms, room, events).await?;
    let profiles = members.iter().filter_map(|(_, pdu)| {
        let content: Map<String, Value> = pdu.content_as()?;
        let field = |name: &str| content.get(name).filter(|value| value.is_string()).cloned();
        let mut profile = Map::new();
        for (name, value) in [
            ("displayname", field("displayname")),
            ("avatar_url", field("avatar_url")),
        ] {
            profile.extend(value.map(|value| (name.to_owned(), value)));
        }
        Some((pdu.state_key.clone()?, Value::Object(profile)))
    });
    Ok(profiles.collect())
}

/// The results by room or sender, where the client asks for that.
fn groups(criteria: &Criteria, found: &Found) -> Value {
    let mut groups = Map::new();
    for grouping in &criteria.groupings.group_by {
        let Some(key @ (GroupingKey::RoomId | GroupingKey::Sender)) = &grouping.key else {
            continue;
        };
        let mut of_key: Vec<(String, Vec<&Match>)> = Vec::new();
        for result in &found.results {
            let name = match key {
                GroupingKey::RoomId => result.room.id.to_string(),
                _ => result.event.pdu.sender.to_string(),
            };
            match of_key.iter_mut().find(|(of, _)| *of == name) {
                Some((_, results)) => results.push(result),
                None => of_key.push((name, vec![result])),
            }
        }
        let of_key = of_key
            .into_iter()
            .enumerate()
            .map(|(order, (name, results))| {
                let ids: Vec<_> = results
                    .iter()
                    .map(|found| &found.event.pdu.event_id)
                    .collect();
                let mut group = json!({ "results": ids, "order": order });
                // There may be more of a group only where there is more at all.
                if found.next.is_some()
                    && let Some(last) = results.last()
                {
                    group["next_batch"] = json!(match key {
                        GroupingKey::RoomId => last.next_in_room(),
                        _ => last.next_by_sender(),
                    });
                }
                (name, group)
            });
        groups.insert(key.to_string(), Value::Object(of_key.collect()));
    }
    Value::Object(groups)
}

/// The state of the rooms of the results, as the user may see it.
async fn states(
    rooms: &Rooms,
    session: &Session,
    found: &Found,
) -> Result<BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>, ApiError> {
    let mut states = BTreeMap::new();
    for result in &found.results {
        let room = &result.room;
        if states.len() == STATES_MAX || states.contains_key(&room.id) {
            continue;
        }
        let viewer = visibility::viewer(rooms, room, &session.user_id).await?;
        states.insert(room.id.clone(), state::render(rooms, room, &viewer).await?);
    }
    Ok(states)
}
