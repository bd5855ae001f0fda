//! Sync.

use std::time::Duration;

use axum::{
    Router,
    extract::{FromRequest, Query, State},
    routing::{get, post},
};
use serde::Deserialize;

use super::presence::parse_state;
use crate::{
    http::{App, error::ApiError, reply::RawJson, request},
    rooms::server_notices,
    sync::{self, sliding, v3},
    users::tokens::Session,
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_matrix/client/r0/sync", get(sync_events))
        .route("/_matrix/client/v3/sync", get(sync_events))
        .route(
            "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
            post(sync_sliding),
        )
}

/// Query of a sync request. Read here and not by ruma's type, which does not know the name that
/// `use_state_after` had before v1.16, and that clients still send.
#[derive(Deserialize)]
struct Parameters {
    since: Option<String>,
    filter: Option<String>,
    #[serde(default)]
    full_state: bool,
    #[serde(default)]
    timeout: u64,
    set_presence: Option<String>,
    #[serde(default)]
    use_state_after: bool,
    #[serde(default, rename = "org.matrix.msc4222.use_state_after")]
    use_state_after_unstable: bool,
}

/// `GET /_matrix/client/v3/sync`
async fn sync_events(
    State(app): State<App>,
    parts: http::request::Parts,
) -> Result<RawJson, ApiError> {
    let turn = app.tokens.turn();
    let session = request::session(&parts, &app).await?;
    if session.owes_terms {
        Box::pin(tell_terms(&app, &session)).await;
    }
    let Query(query) = Query::<Parameters>::try_from_uri(&parts.uri)
        .map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let state_after = if query.use_state_after_unstable {
        Some("org.matrix.msc4222.state_after")
    } else {
        query.use_state_after.then_some("state_after")
    };
    let set_presence = query.set_presence.as_deref().unwrap_or("online");
    let request = v3::Request {
        set_presence: parse_state(set_presence)?,
        since: query.since,
        filter: query.filter,
        full_state: query.full_state,
        timeout: Duration::from_millis(query.timeout),
        state_after,
    };
    let answer = Box::pin(v3::sync(
        &app.rooms,
        &app.hub,
        &session,
        &request,
        &app.stopping,
    ));
    let answer = while_open(&app, (&session, turn), &parts, answer).await?;
    Ok(RawJson(answer))
}

/// Whoever comes to read is told of terms to accept; without that they read all the same.
async fn tell_terms(app: &App, session: &Session) {
    if let Err(error) = server_notices::tell_terms(&app.rooms, session).await {
        tracing::warn!(%error, "a user was not told of the terms");
    }
}

/// Waits for an answer as long as the session is good.
pub(super) async fn while_open(
    app: &App,
    (session, turn): (&Session, u64),
    parts: &http::request::Parts,
    answer: impl Future<Output = Result<String, sync::Error>>,
) -> Result<String, ApiError> {
    tokio::select! {
        answer = answer => Ok(answer?),
        ended = app.tokens.until_ended(session, turn) => {
            ended?;
            Box::pin(request::session(parts, app)).await?;
            Err(ApiError::unknown_token(false))
        }
    }
}

/// Query of a sliding sync.
#[derive(Deserialize)]
struct SlidingParameters {
    pos: Option<String>,
    #[serde(default)]
    timeout: u64,
    set_presence: Option<String>,
}

/// `POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync`
async fn sync_sliding(
    State(app): State<App>,
    request: axum::extract::Request,
) -> Result<RawJson, ApiError> {
    let (parts, body) = request.into_parts();
    let turn = app.tokens.turn();
    let session = request::session(&parts, &app).await?;
    if session.owes_terms {
        Box::pin(tell_terms(&app, &session)).await;
    }
    let Query(query) = Query::<SlidingParameters>::try_from_uri(&parts.uri)
        .map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let request = axum::extract::Request::new(body);
    let read = request::Body::<sliding::Body>::from_request(request, &app);
    let request::Body(mut body) = Box::pin(read).await?;
    body.check()?;
    let set_presence = query.set_presence.as_deref().unwrap_or("online");
    let request = sliding::Request {
        pos: query.pos,
        timeout: Duration::from_millis(query.timeout),
        set_presence: parse_state(set_presence)?,
        body,
    };
    let watching = (&app.hub, &app.connections);
    let answer = Box::pin(sliding::sync(
        &app.rooms,
        watching,
        &session,
        &request,
        &app.stopping,
    ));
    let answer = while_open(&app, (&session, turn), &parts, answer).await?;
    Ok(RawJson(answer))
}
