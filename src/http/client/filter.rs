//! Stored filters.

use axum::{Router, extract::State};
use ruma::api::client::filter::{create_filter, get_filter};
use serde_json::json;

use super::config::require_own;
use crate::{
    http::{
        App,
        error::ApiError,
        mount,
        reply::{Object, RawJson},
        request::Authenticated,
    },
    users::account_data,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<create_filter::v3::Request, _, _>(Router::new(), create_filter);
    mount::<get_filter::v3::Request, _, _>(router, get_filter)
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
async fn create_filter(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<create_filter::v3::Request>,
) -> Result<Object, ApiError> {
    require_own(&session, &request.user_id)?;
    let body = serde_json::to_string(&request.filter)
        .map_err(|error| ApiError::bad_json(&error.to_string()))?;
    let id = account_data::store_filter(&app.ctx, &session, &body).await?;
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
