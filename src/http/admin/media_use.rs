//! Which media are old, and how much of them users have.

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, is_backwards};
use crate::{
    context::Context,
    http::{App, error::ApiError, path::Path, reply::Object},
    media::freeing,
    rooms::listing,
    storage::{
        self,
        media_use::{self, Old},
    },
};

/// Users on a page.
const PAGE: i64 = 100;
const PAGE_MAX: i64 = 1_000;
/// Times before 1970-12-14 in milliseconds are seconds by mistake (Synapse).
const BEFORE_TS_MIN: i64 = 30_000_000_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/media/delete", post(delete_old))
        .route(
            "/_synapse/admin/v1/media/{server_name}/delete",
            post(delete_old_of),
        )
        .route("/_synapse/admin/v1/statistics/users/media", get(list_users))
}

#[derive(Deserialize)]
struct Wanted {
    before_ts: i64,
    #[serde(default)]
    size_gt: i64,
    keep_profiles: Option<bool>,
}

/// `POST /_synapse/admin/v1/media/delete`
///
/// Uploads that nobody has looked at since then; 10 000 at most, so that a tool asks again until none is
/// told.
async fn delete_old(
    Admin(_): Admin,
    State(app): State<App>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(wanted) = wanted.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    if wanted.before_ts < BEFORE_TS_MIN || wanted.size_gt < 0 {
        return Err(ApiError::invalid_param(
            "before_ts is a time in milliseconds, and size_gt a number of bytes",
        ));
    }
    let old = Old {
        before: wanted.before_ts,
        larger_than: wanted.size_gt,
        keeps_pictures: wanted.keep_profiles.unwrap_or(true),
    };
    if old.keeps_pictures {
        listing::refresh_all(&app.rooms).await?;
    }
    let deleted = freeing::delete_old(&app.media, old).await?;
    tracing::info!(count = deleted.len(), "old uploads were deleted");
    Ok(Object(
        json!({ "deleted_media": deleted, "total": deleted.len() }),
    ))
}

/// `POST /_synapse/admin/v1/media/{server_name}/delete`
///
/// The same, as older tools ask for it.
async fn delete_old_of(
    admin: Admin,
    State(app): State<App>,
    Path(server): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Object, ApiError> {
    if server != app.ctx.server_name().as_str() {
        return Err(ApiError::invalid_param("can only delete local media"));
    }
    delete_old(admin, State(app), wanted).await
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    from: i64,
    limit: Option<i64>,
    order_by: Option<String>,
    dir: Option<String>,
    from_ts: Option<i64>,
    until_ts: Option<i64>,
    search_term: Option<String>,
}

impl Which {
    fn query(&self) -> Result<media_use::Query<'_>, ApiError> {
        let limit = self.limit.unwrap_or(PAGE);
        let (from_ts, until_ts) = (self.from_ts.unwrap_or(0), self.until_ts);
        if self.from < 0 || limit < 0 || from_ts < 0 {
            return Err(ApiError::invalid_param("from, limit or from_ts"));
        }
        if until_ts.is_some_and(|until| until <= from_ts) {
            return Err(ApiError::invalid_param("until_ts is after from_ts"));
        }
        if self.search_term.as_deref() == Some("") {
            return Err(ApiError::invalid_param("search_term is empty"));
        }
        let order_by = self.order_by.as_deref().unwrap_or("user_id");
        if !["user_id", "displayname", "media_length", "media_count"].contains(&order_by) {
            return Err(ApiError::invalid_param("users have no such order"));
        }
        let ascending = !is_backwards(self.dir.as_deref())?.unwrap_or(false);
        Ok(media_use::Query {
            order_by,
            ascending,
            from_ts,
            until_ts: until_ts.unwrap_or(i64::MAX),
            search: self.search_term.as_deref(),
            offset: self.from,
            limit: limit.min(PAGE_MAX),
        })
    }
}

/// `GET /_synapse/admin/v1/statistics/users/media`
async fn list_users(
    Admin(_): Admin,
    State(ctx): State<Context>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(which) = which.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let query = which.query()?;
    let mut conn = ctx.db.planning().await?;
    let (users, total) = storage::media_use::list_users(&mut conn, query).await?;
    drop(conn);
    let users: Vec<Value> = users
        .into_iter()
        .map(|it| {
            json!({
                "user_id": it.user_id,
                "displayname": it.display_name,
                "media_count": it.count,
                "media_length": it.bytes,
            })
        })
        .collect();
    let mut answer = json!({ "users": users, "total": total });
    let next = query.offset.saturating_add(query.limit);
    if next < total {
        answer["next_token"] = json!(next);
    }
    Ok(Object(answer))
}
