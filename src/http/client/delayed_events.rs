//! Delayed events (MSC4140). Those that go to the usual paths with a delay are with the others.

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::{get, post, put},
};
use http::StatusCode;
use ruma::{OwnedRoomId, events::TimelineEventType};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    event::{build::Draft, sticky::DURATION_MS_MAX},
    http::{
        App,
        error::ApiError,
        limits::{Kind, Whence},
        path::Path,
        reply::Object,
        request::{Asking, Body},
    },
    rooms::{
        Rooms,
        delayed::{self, Action},
        send::Txn,
    },
};

pub(super) fn routes() -> Router<App> {
    let base = "/_matrix/client/unstable/org.matrix.msc4140";
    Router::new()
        .route(
            &format!("{base}/rooms/{{room_id}}/delayed_event/{{event_type}}/{{txn_id}}"),
            put(send_delayed_event),
        )
        .route(
            &format!("{base}/delayed_events"),
            get(get_all_delayed_events),
        )
        .route(
            &format!("{base}/delayed_events/{{delay_id}}"),
            get(get_delayed_event).post(update_delayed_event_by_body),
        )
        .route(
            &format!("{base}/delayed_events/{{delay_id}}/{{action}}"),
            post(update_delayed_event),
        )
}

/// An event that is to be sent later.
#[derive(Deserialize)]
struct Later {
    delay: i64,
    state_key: Option<String>,
    content: Box<RawValue>,
}

#[derive(Deserialize)]
struct Sticky {
    #[serde(rename = "org.matrix.msc4354.sticky_duration_ms")]
    sticky_ms: Option<i64>,
}

/// `PUT /_matrix/client/unstable/org.matrix.msc4140/rooms/{roomId}/delayed_event/{eventType}/{txnId}`
async fn send_delayed_event(
    Asking(session): Asking,
    State(app): State<App>,
    Path((room_id, kind, txn_id)): Path<(OwnedRoomId, String, String)>,
    sticky: Result<Query<Sticky>, QueryRejection>,
    Body(later): Body<Later>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Message, &session)?;
    let Query(sticky) = sticky.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    if later.delay < 0 || sticky.sticky_ms.is_some_and(|duration| duration < 0) {
        return Err(ApiError::invalid_param("delay"));
    }
    let path = format!("delayed_event/{room_id}/{kind}/{txn_id}");
    let kind = TimelineEventType::from(kind);
    let mut draft = match later.state_key {
        Some(key) => Draft::state(kind, key, later.content),
        None => Draft::message(kind, later.content),
    };
    let duration = sticky.sticky_ms;
    draft.sticky_ms = duration.map(|duration| duration.min(DURATION_MS_MAX));
    let txn = Txn::new(&session.user_id, session.device_id.as_str(), &path, &txn_id);
    let what = (&draft, later.delay);
    let id = delayed::schedule(&app.rooms, &session, &room_id, what, Some(txn)).await?;
    Ok(Object(json!({ "delay_id": id })))
}

/// Which ones are wanted.
#[derive(Deserialize)]
struct Wanted {
    status: Option<String>,
    from: Option<i64>,
}

/// `GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events`: those that wait in `delayed_events`,
/// those that were sent or cancelled in `finalised`; with `status`, which is `scheduled` or
/// `finalised`, only these, and the next page with `from`.
async fn get_all_delayed_events(
    Asking(session): Asking,
    State(rooms): State<Rooms>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(wanted) = wanted.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let user = session.user_nid;
    let (page, mut answer) = match wanted.status.as_deref() {
        Some("finalised") => {
            let mut page = delayed::finalised(&rooms, user, wanted.from).await?;
            let events = std::mem::take(&mut page.events);
            (page, json!({ "finalised": events }))
        }
        Some("scheduled") => {
            let mut page = delayed::scheduled(&rooms, user, wanted.from).await?;
            let events = std::mem::take(&mut page.events);
            (page, json!({ "delayed_events": events }))
        }
        None => {
            let mut page = delayed::scheduled(&rooms, user, wanted.from).await?;
            let events = std::mem::take(&mut page.events);
            let over = delayed::finalised(&rooms, user, None).await?.events;
            (page, json!({ "delayed_events": events, "finalised": over }))
        }
        Some(_) => return Err(ApiError::invalid_param("status")),
    };
    if let Some(next) = page.next {
        answer["next_batch"] = json!(next.to_string());
    }
    Ok(Object(answer))
}

/// `GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}`
async fn get_delayed_event(
    Asking(session): Asking,
    State(rooms): State<Rooms>,
    Path(delay_id): Path<String>,
) -> Result<Object, ApiError> {
    let found = delayed::one(&rooms, session.user_nid, &delay_id).await?;
    Ok(Object(found))
}

/// What is to be done to a delayed event.
#[derive(Deserialize)]
struct Update {
    action: String,
}

/// `POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}`: an older form.
async fn update_delayed_event_by_body(
    State(app): State<App>,
    Whence(address): Whence,
    Path(delay_id): Path<String>,
    Body(update): Body<Update>,
) -> Result<Object, ApiError> {
    app.limits.check_address(Kind::Delayed, address)?;
    let action = Action::of(&update.action);
    let action = action.ok_or_else(|| ApiError::invalid_param("action"))?;
    delayed::manage(&app.rooms, &delay_id, action).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}/{action}`: without a
/// session, for who knows the id.
async fn update_delayed_event(
    State(app): State<App>,
    Whence(address): Whence,
    Path((delay_id, action)): Path<(String, String)>,
) -> Result<Object, ApiError> {
    app.limits.check_address(Kind::Delayed, address)?;
    let action =
        Action::of(&action).ok_or_else(|| ApiError::unrecognized(StatusCode::NOT_FOUND))?;
    delayed::manage(&app.rooms, &delay_id, action).await?;
    Ok(Object(json!({})))
}
