//! Peers: who is reached, who is not, and another try.

use axum::{
    Router,
    extract::{Query, State},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;

use super::{Admin, is_backwards};
use crate::{
    federation::destinations,
    http::{App, error::ApiError, path::Path, reply::Object},
    storage::destinations::Query as Wanted,
};

/// Peers, or rooms of one, in one page.
const PAGE_MAX: i64 = 1_000;

pub(super) fn routes() -> Router<App> {
    const BASE: &str = "/_synapse/admin/v1/federation/destinations";
    Router::new()
        .route(BASE, get(list))
        .route(&format!("{BASE}/{{destination}}"), get(details))
        .route(&format!("{BASE}/{{destination}}/rooms"), get(rooms))
        .route(
            &format!("{BASE}/{{destination}}/reset_connection"),
            post(reset_connection),
        )
}

#[derive(Deserialize)]
struct Page {
    from: Option<i64>,
    limit: Option<i64>,
    order_by: Option<String>,
    dir: Option<String>,
    destination: Option<String>,
    #[serde(default)]
    failing: bool,
}

type Given = Result<Query<Page>, axum::extract::rejection::QueryRejection>;

impl Page {
    fn read(given: Given) -> Result<Self, ApiError> {
        let Query(page) = given.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
        if page.from.unwrap_or(0) < 0 || page.limit.unwrap_or(0) < 0 {
            return Err(ApiError::invalid_param("from and limit are not negative"));
        }
        Ok(page)
    }

    fn span(&self) -> (i64, i64) {
        let limit = self.limit.unwrap_or(100).min(PAGE_MAX);
        (self.from.unwrap_or(0), limit)
    }

    fn is_descending(&self) -> Result<bool, ApiError> {
        Ok(is_backwards(self.dir.as_deref())?.unwrap_or(false))
    }
}

/// The answer with `next_token` where there is more.
fn answer(
    name: &str,
    found: &[serde_json::Value],
    total: i64,
    (from, limit): (i64, i64),
) -> Object {
    let mut answer = json!({ name: found, "total": total });
    let next = from.saturating_add(limit);
    if next < total {
        answer["next_token"] = json!(next.to_string());
    }
    Object(answer)
}

fn unknown() -> ApiError {
    ApiError::not_found("Unknown destination")
}

/// `GET /_synapse/admin/v1/federation/destinations`
async fn list(Admin(_): Admin, State(app): State<App>, given: Given) -> Result<Object, ApiError> {
    let page = Page::read(given)?;
    let order_by = page.order_by.as_deref().unwrap_or("destination");
    let orders = [
        "destination",
        "retry_last_ts",
        "retry_interval",
        "failure_ts",
        "last_successful_stream_ordering",
    ];
    if !orders.contains(&order_by) {
        return Err(ApiError::invalid_param("destinations have no such order"));
    }
    let (offset, limit) = page.span();
    let wanted = Wanted {
        search: page.destination.as_deref(),
        failing: page.failing,
        order_by,
        descending: page.is_descending()?,
        offset,
        limit,
    };
    let (found, total) = destinations::page(&app.ctx.db, &app.sender, wanted).await?;
    Ok(answer("destinations", &found, total, (offset, limit)))
}

/// `GET /_synapse/admin/v1/federation/destinations/{destination}`
async fn details(
    Admin(_): Admin,
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Object, ApiError> {
    let found = destinations::details(&app.ctx.db, &app.sender, &name).await?;
    found.map(Object).ok_or_else(unknown)
}

/// `GET /_synapse/admin/v1/federation/destinations/{destination}/rooms`
async fn rooms(
    Admin(_): Admin,
    State(app): State<App>,
    Path(name): Path<String>,
    given: Given,
) -> Result<Object, ApiError> {
    let page = Page::read(given)?;
    let (span, descending) = (page.span(), page.is_descending()?);
    let found = destinations::rooms(&app.ctx.db, &name, descending, span).await?;
    let (found, total) = found.ok_or_else(unknown)?;
    Ok(answer("rooms", &found, total, span))
}

/// `POST /_synapse/admin/v1/federation/destinations/{destination}/reset_connection`
async fn reset_connection(
    Admin(_): Admin,
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Object, ApiError> {
    let found = destinations::reset(&app.ctx.db, &app.sender, &name).await?;
    if !found.ok_or_else(unknown)? {
        return Err(ApiError::new(
            http::StatusCode::BAD_REQUEST,
            "M_UNKNOWN",
            "The retry timing does not need to be reset for this destination.",
        ));
    }
    Ok(Object(json!({})))
}
