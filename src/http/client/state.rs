//! Room state.

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::get,
};
use ruma::{
    OwnedRoomId, RoomId,
    api::client::state::get_state_events,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    event::{
        build::Draft,
        client::{Shape, to_client},
        sticky::DURATION_MS_MAX,
    },
    http::{
        App,
        error::ApiError,
        limits::Kind,
        mount,
        path::Path,
        reply::{Object, RawJson},
        request::{self, Authenticated},
    },
    rooms::{
        Rooms, aliases, delayed,
        resident::Room,
        send,
        visibility::{self, Viewer},
    },
};

/// The state key may be left out, with or without a slash: four paths for one endpoint.
pub(super) fn routes() -> Router<App> {
    let mut router = mount::<get_state_events::v3::Request, _, _>(Router::new(), get_state_events);
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/client/{version}/rooms/{{room_id}}/state/{{event_type}}");
        let without = || get(get_state_event_without_key).put(send_state_event_without_key);
        router = router
            .route(&base, without())
            .route(&format!("{base}/"), without())
            .route(
                &format!("{base}/{{state_key}}"),
                get(get_state_event_for_key).put(send_state_event),
            );
    }
    router
}

pub(super) fn parse(room_id: &str) -> Result<OwnedRoomId, ApiError> {
    RoomId::parse(room_id).map_err(|_| ApiError::invalid_param("not a room id"))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
async fn get_state_events(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_state_events::v3::Request>,
) -> Result<Object, ApiError> {
    visibility::enter(&rooms, &request.room_id, &session.user_id).await?;
    rooms.whole(&request.room_id).await?;
    let (room, viewer) = visibility::enter(&rooms, &request.room_id, &session.user_id).await?;
    let events = render(&rooms, &room, &viewer).await?;
    Ok(Object(json!(events)))
}

/// The state of a room that a user may see as current.
pub(super) async fn render(
    rooms: &Rooms,
    room: &Room,
    viewer: &Viewer,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let entries = viewer.entries(room);
    let nids: Vec<i64> = entries.values().copied().collect();
    let pdus = rooms.pdus(room, &nids).await?;
    let events = pdus.iter();
    Ok(events
        .map(|pdu| to_client(pdu, Shape::Timeline, Map::new()))
        .collect())
}

/// When an event claims to be of, for how long it is to be sticky, and when it is to be sent.
#[derive(Deserialize)]
pub(super) struct Claimed {
    ts: Option<u64>,
    #[serde(rename = "org.matrix.msc4354.sticky_duration_ms")]
    sticky_ms: Option<i64>,
    #[serde(rename = "org.matrix.msc4140.delay")]
    delay_ms: Option<i64>,
}

impl Claimed {
    /// After which time it is to be sent (MSC4140); `None`: now.
    pub(super) fn delay_ms(&self) -> Result<Option<i64>, ApiError> {
        if self.delay_ms.is_some_and(|delay| delay < 0) {
            return Err(ApiError::invalid_param("delay"));
        }
        Ok(self.delay_ms)
    }

    pub(super) fn ts(&self) -> Result<Option<i64>, ApiError> {
        let ts = self.ts.map(ruma::UInt::try_from).transpose();
        let ts = ts.map_err(|_| ApiError::invalid_param("ts"))?;
        Ok(ts.map(Into::into))
    }

    /// For how long an event is to be sticky (MSC4354): an hour at most, whatever is said.
    pub(super) fn sticky_ms(&self) -> Result<Option<i64>, ApiError> {
        if self.sticky_ms.is_some_and(|duration| duration < 0) {
            return Err(ApiError::invalid_param("sticky_duration_ms"));
        }
        Ok(self.sticky_ms.map(|duration| duration.min(DURATION_MS_MAX)))
    }
}

#[derive(Deserialize)]
struct Format {
    format: Option<String>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}`
async fn get_state_event_without_key(
    State(app): State<App>,
    Path((room, kind)): Path<(String, String)>,
    query: Result<Query<Format>, QueryRejection>,
    parts: http::request::Parts,
) -> Result<RawJson, ApiError> {
    let path = Path((room, kind, String::new()));
    get_state_event_for_key(State(app), path, query, parts).await
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn get_state_event_for_key(
    State(app): State<App>,
    Path((room, kind, key)): Path<(String, String, String)>,
    query: Result<Query<Format>, QueryRejection>,
    parts: http::request::Parts,
) -> Result<RawJson, ApiError> {
    let Query(Format { format }) =
        query.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let session = request::session(&parts, &app).await?;
    let room_id = parse(&room)?;
    let (room, viewer) = visibility::enter(&app.rooms, &room_id, &session.user_id).await?;
    let entries = viewer.entries(&room);
    let kind = StateEventType::from(kind);
    let mut event = app.rooms.state_event(&room, &entries, &kind, &key).await?;
    if event.is_none() && room.partial && kind == StateEventType::RoomMember {
        let room = app.rooms.whole(&room_id).await?;
        let viewer = visibility::viewer(&app.rooms, &room, &session.user_id).await?;
        let entries = viewer.entries(&room);
        event = app.rooms.state_event(&room, &entries, &kind, &key).await?;
    }
    let event = event.ok_or_else(|| ApiError::not_found("no such state"))?;
    Ok(RawJson(match format.as_deref() {
        Some("event") => to_client(&event, Shape::Timeline, Map::new())
            .get()
            .to_owned(),
        _ => event.content.get().to_owned(),
    }))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}`
async fn send_state_event_without_key(
    State(app): State<App>,
    Path((room, kind)): Path<(String, String)>,
    claimed: Result<Query<Claimed>, QueryRejection>,
    parts: http::request::Parts,
    body: axum::body::Bytes,
) -> Result<Object, ApiError> {
    let path = Path((room, kind, String::new()));
    send_state_event(State(app), path, claimed, parts, body).await
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn send_state_event(
    State(app): State<App>,
    Path((room, kind, key)): Path<(String, String, String)>,
    claimed: Result<Query<Claimed>, QueryRejection>,
    parts: http::request::Parts,
    body: axum::body::Bytes,
) -> Result<Object, ApiError> {
    let session = request::session(&parts, &app).await?;
    app.limits.check_user(Kind::Message, &session)?;
    let Query(claimed) = claimed.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let room_id = parse(&room)?;
    let mut content: Box<RawValue> =
        serde_json::from_slice(&body).map_err(|_| ApiError::not_json("not JSON"))?;
    let mut fields: Map<String, Value> = serde_json::from_str(content.get())
        .map_err(|_| ApiError::bad_json("content must be an object"))?;
    let kind = TimelineEventType::from(kind);
    // Who vouches for a join is found by servers, not said by clients.
    let voucher = "join_authorised_via_users_server";
    if kind == TimelineEventType::RoomMember && fields.remove(voucher).is_some() {
        content = serde_json::value::to_raw_value(&fields)
            .map_err(|_| ApiError::bad_json("content must be an object"))?;
    }
    if kind == TimelineEventType::RoomCanonicalAlias {
        check_aliases(&app.rooms, &room_id, &fields).await?;
    }
    let mut draft = Draft::state(kind, key, content);
    draft.ts = session.ts(claimed.ts()?);
    draft.sticky_ms = claimed.sticky_ms()?;
    if let Some(delay_ms) = claimed.delay_ms()? {
        let what = (&draft, delay_ms);
        let id = delayed::schedule(&app.rooms, &session, &room_id, what, None).await?;
        return Ok(Object(json!({ "delay_id": id })));
    }
    let sent = send::send(&app.rooms, &room_id, &session.user_id, &draft, None).await?;
    Ok(Object(json!({ "event_id": sent.event_id })))
}

/// Aliases that a room is given must lead to it.
async fn check_aliases(
    rooms: &Rooms,
    room_id: &RoomId,
    content: &Map<String, Value>,
) -> Result<(), ApiError> {
    let main = content.get("alias").into_iter();
    let others = content
        .get("alt_aliases")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for alias in main.chain(others).filter(|alias| !alias.is_null()) {
        let bad = |code| ApiError::new(http::StatusCode::BAD_REQUEST, code, "alias");
        let alias = alias.as_str().filter(|alias| !alias.is_empty());
        let Some(alias) = alias else { continue };
        let alias = <&ruma::RoomAliasId>::try_from(alias).map_err(|_| bad("M_INVALID_PARAM"))?;
        let leads_here = aliases::resolve(rooms, alias)
            .await
            .is_ok_and(|(found, _)| found == room_id);
        if !leads_here {
            return Err(bad("M_BAD_ALIAS"));
        }
    }
    Ok(())
}
