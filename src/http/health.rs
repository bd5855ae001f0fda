//! Whether the server can serve, and its figures.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;

use super::{App, error::ApiError};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
}

pub(super) fn metrics_routes() -> Router<App> {
    Router::new().route("/metrics", get(metrics))
}

/// `GET /health`: 200 while the database answers.
async fn health(State(app): State<App>) -> Response {
    match app.ctx.db.ping().await {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => {
            tracing::warn!(%error, "health check: no database");
            (StatusCode::SERVICE_UNAVAILABLE, "no database\n").into_response()
        }
    }
}

/// `GET /ready`: 200 while new requests are welcome.
async fn ready(State(app): State<App>) -> Response {
    if app.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    health(State(app)).await
}

/// `GET /metrics`, for Prometheus.
async fn metrics(State(app): State<App>) -> Response {
    match &app.metrics {
        Some(handle) => handle.render().into_response(),
        None => ApiError::unrecognized(StatusCode::NOT_FOUND).into_response(),
    }
}
