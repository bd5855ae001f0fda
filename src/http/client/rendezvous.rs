//! Rendezvous of devices (MSC4108 of 2024, and MSC4388).

use std::{
    net::SocketAddr,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use ruma::http_headers::system_time_to_http_date;
use serde::Deserialize;
use serde_json::json;

use crate::{
    clock::now_ms,
    http::{
        App,
        error::ApiError,
        limits::{Kind, Whence},
        path::Path,
        reply::Object,
        request::{Body, read},
    },
    users::rendezvous::{self, BYTES_MAX, Held, Written},
};

const BY_HEADERS: &str = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous";
const BY_BODY: &str = "/_matrix/client/unstable/io.element.msc4388/rendezvous";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(BY_HEADERS, post(create_by_headers))
        .route(
            &format!("{BY_HEADERS}/{{id}}"),
            get(get_by_headers)
                .put(put_by_headers)
                .delete(delete_by_headers),
        )
        .route(BY_BODY, get(is_available).post(create_by_body))
        .route(
            &format!("{BY_BODY}/{{id}}"),
            get(get_by_body).put(put_by_body).delete(delete_by_body),
        )
}

/// Where it is not offered, there is nothing.
fn offered(app: &App) -> Result<(), ApiError> {
    if app.ctx.config.rendezvous.enabled {
        Ok(())
    } else {
        Err(ApiError::unrecognized(StatusCode::NOT_FOUND))
    }
}

async fn create(app: &App, address: Option<SocketAddr>, data: &str) -> Result<Held, ApiError> {
    app.limits.check_address(Kind::Rendezvous, address)?;
    let address = address.map(|address| address.ip());
    Ok(rendezvous::create(&app.ctx, address, data).await?)
}

/// The text of a request.
async fn text(request: Request) -> Result<String, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("text/plain") {
        return Err(ApiError::invalid_param("Content-Type must be text/plain"));
    }
    let body = read(request.into_body(), BYTES_MAX).await?;
    String::from_utf8(body.into()).map_err(|_| ApiError::invalid_param("the text is not UTF-8"))
}

fn etag(held: &Held) -> String {
    format!("\"{}\"", held.version)
}

/// Whether a header names a version.
fn names(value: &HeaderValue, held: &Held) -> bool {
    value.to_str().is_ok_and(|value| {
        let mut tags = value.split(',').map(str::trim);
        tags.any(|tag| tag == etag(held) || tag == "*")
    })
}

/// An answer with what the headers tell of a rendezvous.
fn with_headers(status: StatusCode, held: &Held, body: Response) -> Response {
    let date = |ms: i64| {
        let since = Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        system_time_to_http_date(&(UNIX_EPOCH + since)).ok()
    };
    let values: [(HeaderName, Option<HeaderValue>); 5] = [
        (header::ETAG, HeaderValue::from_str(&etag(held)).ok()),
        (header::EXPIRES, date(held.expires_ts)),
        (header::LAST_MODIFIED, date(held.modified_ts)),
        (
            header::CACHE_CONTROL,
            Some(HeaderValue::from_static("no-store")),
        ),
        (header::PRAGMA, Some(HeaderValue::from_static("no-cache"))),
    ];
    let mut response = (status, body).into_response();
    for (name, value) in values {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// `POST /_matrix/client/unstable/org.matrix.msc4108/rendezvous`
async fn create_by_headers(
    State(app): State<App>,
    Whence(address): Whence,
    request: Request,
) -> Result<Response, ApiError> {
    offered(&app)?;
    let held = create(&app, address, &text(request).await?).await?;
    let base = app.ctx.config.well_known.client.as_deref();
    let base = base.unwrap_or_default().trim_end_matches('/');
    let url = format!("{base}{BY_HEADERS}/{}", held.rendezvous_id);
    let body = Object(json!({ "url": url })).into_response();
    Ok(with_headers(StatusCode::CREATED, &held, body))
}

/// `GET /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{id}`
async fn get_by_headers(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    offered(&app)?;
    let held = rendezvous::get(&app.ctx, &id).await?;
    let known = request.headers().get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| names(known, &held)) {
        let nothing = ().into_response();
        return Ok(with_headers(StatusCode::NOT_MODIFIED, &held, nothing));
    }
    let body = ([(header::CONTENT_TYPE, "text/plain")], held.data.clone());
    Ok(with_headers(StatusCode::OK, &held, body.into_response()))
}

/// `PUT /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{id}`
async fn put_by_headers(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    offered(&app)?;
    let version = request.headers().get(header::IF_MATCH);
    let version = version.ok_or_else(|| ApiError::missing_param("If-Match"))?;
    let version = version.to_str().unwrap_or_default();
    let version = version.trim().trim_matches('"').to_owned();
    let data = text(request).await?;
    match rendezvous::put(&app.ctx, &id, &version, &data).await? {
        Written::Yes(held) => {
            let nothing = ().into_response();
            Ok(with_headers(StatusCode::ACCEPTED, &held, nothing))
        }
        Written::Changed(held) => {
            let body = json!({
                "errcode": "M_UNKNOWN",
                "org.matrix.msc4108.errcode": "M_CONCURRENT_WRITE",
                "error": "somebody else wrote meanwhile",
            });
            let status = StatusCode::PRECONDITION_FAILED;
            Ok(with_headers(status, &held, Object(body).into_response()))
        }
    }
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{id}`
async fn delete_by_headers(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    offered(&app)?;
    rendezvous::delete(&app.ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /_matrix/client/unstable/io.element.msc4388/rendezvous`
async fn is_available(State(app): State<App>) -> Result<Object, ApiError> {
    offered(&app)?;
    Ok(Object(json!({ "create_available": true })))
}

#[derive(Deserialize)]
struct Written4388 {
    /// What the writer has read; the first writes on nothing.
    sequence_token: Option<String>,
    data: String,
}

fn expires_in_ms(held: &Held) -> i64 {
    (held.expires_ts - now_ms()).max(0)
}

/// `POST /_matrix/client/unstable/io.element.msc4388/rendezvous`
async fn create_by_body(
    State(app): State<App>,
    Whence(address): Whence,
    Body(body): Body<Written4388>,
) -> Result<Object, ApiError> {
    offered(&app)?;
    let held = create(&app, address, &body.data).await?;
    Ok(Object(json!({
        "id": held.rendezvous_id.to_string(),
        "sequence_token": held.version.to_string(),
        "expires_in_ms": expires_in_ms(&held),
    })))
}

/// `GET /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}`
async fn get_by_body(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    offered(&app)?;
    let held = rendezvous::get(&app.ctx, &id).await?;
    let body = Object(json!({
        "data": held.data,
        "sequence_token": held.version.to_string(),
        "expires_in_ms": expires_in_ms(&held),
    }));
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// `PUT /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}`
async fn put_by_body(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<Written4388>,
) -> Result<Object, ApiError> {
    offered(&app)?;
    let version = body.sequence_token;
    let version = version.ok_or_else(|| ApiError::missing_param("sequence_token"))?;
    match rendezvous::put(&app.ctx, &id, &version, &body.data).await? {
        Written::Yes(held) => Ok(Object(
            json!({ "sequence_token": held.version.to_string() }),
        )),
        Written::Changed(_) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "IO_ELEMENT_MSC4388_CONCURRENT_WRITE",
            "somebody else wrote meanwhile",
        )),
    }
}

/// `DELETE /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}`
async fn delete_by_body(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Object, ApiError> {
    offered(&app)?;
    rendezvous::delete(&app.ctx, &id).await?;
    Ok(Object(json!({})))
}
