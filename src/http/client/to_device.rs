//! Messages to devices.

use axum::{Router, extract::State, routing::put};
use serde::Deserialize;
use serde_json::json;

use crate::{
    context::Context,
    devices::to_device,
    http::{
        App,
        error::ApiError,
        path::Path,
        reply::Object,
        request::{Asking, Body},
    },
};

pub(super) fn routes() -> Router<App> {
    ["r0", "v3"]
        .into_iter()
        .fold(Router::new(), |router, version| {
            let path = format!("/_matrix/client/{version}/sendToDevice/{{event_type}}/{{txn_id}}");
            router.route(&path, put(send_event_to_device))
        })
}

#[derive(Deserialize)]
struct Messages {
    messages: to_device::Messages,
}

/// `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`
async fn send_event_to_device(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path((kind, txn)): Path<(String, String)>,
    Body(body): Body<Messages>,
) -> Result<Object, ApiError> {
    to_device::send(&ctx, &session, (&kind, &txn), body.messages).await?;
    Ok(Object(json!({})))
}
