//! Events as they come, for who looks into a room, and what clients asked for before there was `/sync`.

use std::time::Duration;

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::get,
};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use super::sync::while_open;
use crate::{
    http::{
        App,
        error::ApiError,
        path::Path,
        reply::{Object, RawJson},
        request::{self, Asking},
    },
    rooms::Rooms,
    sync::events,
};

pub(super) fn routes() -> Router<App> {
    ["r0", "v3"]
        .into_iter()
        .fold(Router::new(), |router, version| {
            let path = |rest: &str| format!("/_matrix/client/{version}/{rest}");
            router
                .route(&path("events"), get(listen_to_new_events))
                .route(&path("events/{event_id}"), get(get_event))
                .route(&path("initialSync"), get(get_initial_sync))
                .route(&path("rooms/{room_id}/initialSync"), get(get_current_state))
        })
}

#[derive(Deserialize)]
struct Listening {
    from: Option<String>,
    #[serde(default)]
    timeout: u64,
    room_id: Option<OwnedRoomId>,
}

/// `GET /_matrix/client/v3/events`: of all rooms, or with `room_id` of one that the user may look into.
async fn listen_to_new_events(
    State(app): State<App>,
    parts: http::request::Parts,
) -> Result<RawJson, ApiError> {
    let turn = app.tokens.turn();
    let session = request::session(&parts, &app).await?;
    let Query(query) = Query::<Listening>::try_from_uri(&parts.uri)
        .map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let wait = (query.from.as_deref(), Duration::from_millis(query.timeout));
    let (rooms, hub, stopping) = (&app.rooms, &app.hub, &app.stopping);
    let answer = async {
        match &query.room_id {
            None => events::stream(rooms, hub, &session, wait, stopping).await,
            Some(room) => events::peek(rooms, hub, (&session, room), wait, stopping).await,
        }
    };
    let answer = Box::pin(answer);
    let answer = while_open(&app, (&session, turn), &parts, answer).await?;
    Ok(RawJson(answer))
}

/// `GET /_matrix/client/v3/events/{eventId}`
async fn get_event(
    Asking(session): Asking,
    State(app): State<App>,
    Path(event_id): Path<OwnedEventId>,
) -> Result<RawJson, ApiError> {
    let event = events::one(&app.rooms, &app.hub, &session, &event_id).await?;
    Ok(RawJson(event.get().to_owned()))
}

#[derive(Deserialize)]
struct Initial {
    limit: Option<u32>,
    #[serde(default)]
    archived: bool,
}

/// `GET /_matrix/client/v3/initialSync`
async fn get_initial_sync(
    Asking(session): Asking,
    State(app): State<App>,
    query: Result<Query<Initial>, QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let wanted = (query.limit, query.archived);
    let all = Box::pin(events::initial(&app.rooms, &app.hub, &session, wanted)).await?;
    Ok(Object(all))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/initialSync`
async fn get_current_state(
    Asking(session): Asking,
    State(rooms): State<Rooms>,
    Path(room_id): Path<OwnedRoomId>,
    query: Result<Query<Initial>, QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let found = Box::pin(events::room(&rooms, &session, &room_id, query.limit)).await?;
    Ok(Object(found))
}
