//! What stands around every request: id, log span, metrics, panic net, time-out, compression, CORS.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tower_http::{
    CompressionLevel,
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{Predicate, SizeAbove},
    },
};
use tracing::Instrument;

use super::error::ApiError;

/// The longest a request may take; long polls end before.
const TIMEOUT: Duration = Duration::from_mins(3);
/// Smaller answers are not worth compressing.
const COMPRESS_FROM: u64 = 1_024;
/// The longest an upload may take: 100 MB over a line of half a megabit.
const TIMEOUT_UPLOAD: Duration = Duration::from_mins(30);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// At the lowest level: a first sync is 3 % larger than at the usual one, in half the time.
fn compression() -> CompressionLayer<impl Predicate> {
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(COMPRESS_FROM).and(is_text))
}

/// Puts the layers around a router.
pub(super) fn around(router: Router) -> Router {
    router
        .layer(compression())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(observe))
        .layer(from_fn(cors))
}

/// Media is mostly compressed already, and its ranges are those of the file.
fn is_text(
    _: StatusCode,
    _: http::Version,
    headers: &http::HeaderMap,
    _: &http::Extensions,
) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_file = headers.contains_key(header::CONTENT_DISPOSITION);
    !is_file && (kind.starts_with("application/json") || kind.starts_with("text/"))
}

// The signature is tower-http's.
#[expect(
    clippy::needless_pass_by_value,
    reason = "tower-http asks for this signature"
)]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    ApiError::internal(&format!("panic: {text}")).into_response()
}

/// Gives the request an id, a log span without secrets, figures, and an end.
async fn observe(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    // The route and not the path: paths hold user input, and queries tokens.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "-".to_owned(), |path| path.as_str().to_owned());
    let id = uuid::Uuid::new_v4().simple().to_string();
    let span = tracing::info_span!("request", %id, %method, route);
    let started = Instant::now();
    let timeout = if route.starts_with("/_matrix/media/") && method != Method::GET {
        TIMEOUT_UPLOAD
    } else {
        TIMEOUT
    };
    let mut response = tokio::time::timeout(timeout, next.run(request).instrument(span.clone()))
        .await
        .unwrap_or_else(|_| {
            ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "M_UNKNOWN",
                "this took too long",
            )
            .into_response()
        });
    let took = started.elapsed();
    let status = response.status().as_u16();
    let labels = [
        ("method", method.to_string()),
        ("route", route),
        ("status", status.to_string()),
    ];
    metrics::counter!("http_requests_total", &labels).increment(1);
    metrics::histogram!("http_request_duration_seconds", &labels[..2]).record(took.as_secs_f64());
    span.in_scope(|| tracing::debug!(status, took_ms = took.as_millis(), "answered"));
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// CORS as the specification asks, on every path.
async fn cors(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, POST, PUT, DELETE, OPTIONS",
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "X-Requested-With, Content-Type, Authorization, Date, If-Match, If-None-Match",
        ),
        // By which devices that meet see what has changed (MSC4108).
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "ETag"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
