//! Sending events and paging back.

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
};
use ruma::{
    api::{
        Direction,
        client::{
            filter::{LazyLoadOptions, RoomEventFilter},
            message::{get_message_events, send_message_event},
        },
    },
    events::TimelineEventType,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    event::{
        build::Draft,
        client::{Shape, to_client},
    },
    http::{
        App,
        error::ApiError,
        limits::Kind,
        mount,
        path::Path,
        reply::Object,
        request::{Asking, Authenticated},
    },
    rooms::{
        Event, Rooms, StateSlice, delayed,
        relations::{bundle, filter::Related},
        render::Extras,
        resident::Room,
        send::{self, Txn},
        timeline::{self, Paging},
    },
    users::tokens::Session,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<send_message_event::v3::Request, _, _>(Router::new(), send_message_event);
    mount::<get_message_events::v3::Request, _, _>(router, get_message_events)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
async fn send_message_event(
    State(app): State<App>,
    claimed: Result<Query<super::state::Claimed>, QueryRejection>,
    Authenticated {
        session,
        request,
        path,
        ..
    }: Authenticated<send_message_event::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Message, &session)?;
    let kind = TimelineEventType::from(request.event_type.to_string());
    let content: Box<RawValue> = request.body.into_json();
    let mut draft = Draft::message(kind.clone(), content);
    if kind == TimelineEventType::RoomRedaction {
        draft.redacts = redacts(&draft.content)?;
    }
    draft.ts = session.ts(request.timestamp.map(|ts| ts.get().into()));
    let Query(claimed) = claimed.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    draft.sticky_ms = claimed.sticky_ms()?;
    let txn_id = request.txn_id.as_str();
    let txn = Txn::new(&session.user_id, session.device_id.as_str(), &path, txn_id);
    if let Some(delay_ms) = claimed.delay_ms()? {
        let what = (&draft, delay_ms);
        let room_id = &request.room_id;
        let id = delayed::schedule(&app.rooms, &session, room_id, what, Some(txn)).await?;
        return Ok(Object(json!({ "delay_id": id })));
    }
    let sent = send::send(
        &app.rooms,
        &request.room_id,
        &session.user_id,
        &draft,
        Some(txn),
    )
    .await?;
    let device = (session.user_nid, session.device_no);
    app.rooms.remember_echo(&sent.event_id, device, txn_id);
    Ok(Object(json!({ "event_id": sent.event_id })))
}

/// A redaction that is sent like any event names its target in its content.
fn redacts(content: &RawValue) -> Result<Option<ruma::OwnedEventId>, ApiError> {
    #[derive(serde::Deserialize)]
    struct Content {
        redacts: ruma::OwnedEventId,
    }
    serde_json::from_str::<Content>(content.get())
        .map(|content| Some(content.redacts))
        .map_err(|error| ApiError::bad_json(&error.to_string()))
}

/// The part of the query that the request type drops.
#[derive(serde::Deserialize)]
pub(super) struct Filtered {
    filter: Option<String>,
}

/// What the filter of a request says of relations.
pub(super) fn related(
    filtered: Result<Query<Filtered>, QueryRejection>,
) -> Result<Related, ApiError> {
    let Query(filtered) = filtered.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    parse_filter(filtered.filter.as_deref())
}

/// The filter of a query, JSON, as one of the types that read a part of it.
fn parse_filter<T: DeserializeOwned + Default>(json: Option<&str>) -> Result<T, ApiError> {
    let parsed = json.map(serde_json::from_str).transpose();
    let parsed = parsed.map_err(|error| ApiError::invalid_param(&error.to_string()))?;
    Ok(parsed.unwrap_or_default())
}

/// Which events are asked for.
#[derive(serde::Deserialize)]
struct Wanted {
    from: Option<String>,
    to: Option<String>,
    /// NOTSPEC: clients may leave it out, as Synapse lets them.
    #[serde(default = "forward")]
    dir: Direction,
    limit: Option<u64>,
    /// JSON.
    filter: Option<String>,
}

fn forward() -> Direction {
    Direction::Forward
}

/// Events of a page, where the client does not say how many.
const PAGE: i64 = 10;

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
async fn get_message_events(
    State(rooms): State<Rooms>,
    Asking(session): Asking,
    Path(room_id): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Object, ApiError> {
    let room_id = super::state::parse(&room_id)?;
    let Query(request) = wanted.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let filter: RoomEventFilter = parse_filter(request.filter.as_deref())?;
    let related: Related = parse_filter(request.filter.as_deref())?;
    let limit = request
        .limit
        .map(|limit| limit.try_into().unwrap_or(timeline::PAGE_MAX));
    let paging = Paging {
        from: request.from.as_deref(),
        to: request.to.as_deref(),
        backwards: request.dir == Direction::Backward,
        limit: limit.unwrap_or(PAGE),
    };
    let page = timeline::page(&rooms, &room_id, &session.user_id, paging).await?;
    let mut events: Vec<Event> = page
        .events
        .into_iter()
        .filter(|event| crate::sync::filter::passes(&filter, &event.pdu))
        .collect();
    related.retain(&rooms, &page.room, &mut events).await?;
    let chunk = render(&rooms, &page.room, &session, &events).await?;
    let mut answer = json!({ "start": page.start, "chunk": chunk });
    if let Some(end) = page.end {
        answer["end"] = json!(end);
    }
    let members = lazy_members(&rooms, &page.room, &filter, &events).await?;
    if !members.is_empty() {
        answer["state"] = json!(members);
    }
    Ok(Object(answer))
}

/// Events in the form that all endpoints but sync use.
pub(super) async fn render(
    rooms: &Rooms,
    room: &Room,
    session: &Session,
    events: &[Event],
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let mut extras = Extras::load(rooms, room, events, Some(session)).await?;
    let added = (&mut extras, events);
    bundle::add(rooms, room, session, added, Shape::Timeline).await?;
    Ok(events
        .iter()
        .map(|event| extras.render(rooms, session, event, Shape::Timeline))
        .collect())
}

/// Membership events of the senders, where the client loads members lazily.
pub(super) async fn lazy_members(
    rooms: &Rooms,
    room: &Room,
    filter: &RoomEventFilter,
    events: &[Event],
) -> Result<Vec<Box<RawValue>>, ApiError> {
    if !matches!(filter.lazy_load_options, LazyLoadOptions::Enabled { .. }) {
        return Ok(Vec::new());
    }
    let empty: Map<String, Value> = Map::new();
    let members = senders(rooms, room, events).await?;
    Ok(members
        .iter()
        .map(|(_, pdu)| to_client(pdu, Shape::Timeline, empty.clone()))
        .collect())
}

/// Membership events of who sent the events, as they are now.
pub(super) async fn senders(
    rooms: &Rooms,
    room: &Room,
    events: &[Event],
) -> Result<StateSlice, ApiError> {
    let mut keys: Vec<_> = events
        .iter()
        .map(|event| {
            (
                ruma::events::StateEventType::RoomMember,
                event.pdu.sender.to_string(),
            )
        })
        .collect();
    keys.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    keys.dedup();
    let head = room.head();
    Ok(rooms.state_events(room, &head.state.entries, &keys).await?)
}
