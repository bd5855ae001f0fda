//! Stored filters.

use axum::{Router, extract::State};
use ruma::{
    OwnedUserId,
    api::client::filter::{FilterDefinition, create_filter, get_filter},
};
use serde_json::{Value, json};

use super::config::require_own;
use crate::{
    http::{
        App,
        error::ApiError,
        mount,
        path::Path,
        reply::{Object, RawJson},
        request::{self, Authenticated},
    },
    users::account_data,
};

/// Bytes of a filter.
const FILTER_BYTES_MAX: usize = 64 << 10;

pub(super) fn routes() -> Router<App> {
    let router = mount::<create_filter::v3::Request, _, _>(Router::new(), create_filter);
    mount::<get_filter::v3::Request, _, _>(router, get_filter)
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
///
/// Kept as it is given: there is more in filters than the type of requests knows.
async fn create_filter(
    State(app): State<App>,
    Path(user): Path<OwnedUserId>,
    parts: http::request::Parts,
    body: axum::body::Bytes,
) -> Result<Object, ApiError> {
    let session = request::session(&parts, &app).await?;
    require_own(&session, &user)?;
    if body.len() > FILTER_BYTES_MAX {
        return Err(ApiError::too_large());
    }
    let filter: Value =
        serde_json::from_slice(&body).map_err(|error| ApiError::not_json(&error.to_string()))?;
    serde_json::from_slice::<FilterDefinition>(&body)
        .map_err(|error| ApiError::bad_json(&error.to_string()))?;
    let id = account_data::store_filter(&app.ctx, &session, &filter.to_string()).await?;
    Ok(Object(json!({ "filter_id": id })))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
async fn get_filter(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_filter::v3::Request>,
) -> Result<RawJson, ApiError> {
    require_own(&session, &request.user_id)?;
    Ok(RawJson(
        account_data::filter(&app.ctx, &session, &request.filter_id).await?,
    ))
}
