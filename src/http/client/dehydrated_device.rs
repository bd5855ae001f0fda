//! Dehydrated devices (MSC3814).

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::put,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    context::Context,
    devices::dehydrated,
    http::{
        App,
        error::ApiError,
        path::Path,
        reply::Object,
        request::{Asking, Body},
    },
};

const BASE: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

pub(super) fn routes() -> Router<App> {
    let device = put(put_dehydrated_device)
        .get(get_dehydrated_device)
        .delete(delete_dehydrated_device);
    // Which of the two clients ask with has changed as the proposal did.
    let events = axum::routing::get(get_events).post(post_events);
    Router::new()
        .route(BASE, device)
        .route(&format!("{BASE}/{{device_id}}/events"), events)
}

/// `PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
async fn put_dehydrated_device(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Body(body): Body<Value>,
) -> Result<Object, ApiError> {
    let device_id = dehydrated::put(&ctx, &session, &body).await?;
    Ok(Object(json!({ "device_id": device_id })))
}

/// `GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
async fn get_dehydrated_device(
    Asking(session): Asking,
    State(ctx): State<Context>,
) -> Result<Object, ApiError> {
    Ok(Object(dehydrated::get(&ctx, session.user_nid).await?))
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`
async fn delete_dehydrated_device(
    Asking(session): Asking,
    State(ctx): State<Context>,
) -> Result<Object, ApiError> {
    let device_id = dehydrated::delete(&ctx, &session).await?;
    Ok(Object(json!({ "device_id": device_id })))
}

#[derive(Deserialize)]
struct Page {
    from: Option<String>,
    limit: Option<i64>,
}

/// `GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events`
async fn get_events(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path(device_id): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let span = (page.from.as_deref(), page.limit);
    let page = dehydrated::events(&ctx, session.user_nid, &device_id, span).await?;
    let mut body = json!({ "events": page.events });
    if page.has_more {
        body["next_batch"] = json!(page.next_batch);
    }
    Ok(Object(body))
}

#[derive(Deserialize)]
struct Next {
    next_batch: Option<String>,
}

/// `POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events`
async fn post_events(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path(device_id): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
    Body(next): Body<Next>,
) -> Result<Object, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let span = (next.next_batch.as_deref(), page.limit);
    let page = dehydrated::events(&ctx, session.user_nid, &device_id, span).await?;
    let body = json!({ "events": page.events, "next_batch": page.next_batch });
    Ok(Object(body))
}
