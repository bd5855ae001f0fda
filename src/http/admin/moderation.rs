//! Suspended users, and what users reported.

use axum::{
    Router,
    extract::{Query, State},
    routing::{get, put},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, is_backwards, user_id};
use crate::{
    context::Context,
    http::{App, error::ApiError, path::Path, reply::Object, request::Body},
    storage::{
        self,
        moderation::{Kind, Report, Wanted},
    },
    users::moderation::{self, Measure},
};

/// Reports on a page.
const PAGE: i64 = 100;
const PAGE_MAX: i64 = 1_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/suspend/{user_id}", put(suspend))
        .route("/_synapse/admin/v1/event_reports", get(list_events))
        .route(
            "/_synapse/admin/v1/event_reports/{report_id}",
            get(show_event).delete(delete_event),
        )
        .route("/_amtsbote/admin/v1/room_reports", get(list_rooms))
        .route(
            "/_amtsbote/admin/v1/room_reports/{report_id}",
            axum::routing::delete(delete_room),
        )
        .route("/_amtsbote/admin/v1/user_reports", get(list_users))
        .route(
            "/_amtsbote/admin/v1/user_reports/{report_id}",
            axum::routing::delete(delete_user),
        )
}

#[derive(Deserialize)]
struct Suspend {
    suspend: bool,
}

/// `PUT /_synapse/admin/v1/suspend/{user_id}`
async fn suspend(
    Admin(session): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
    Body(wanted): Body<Suspend>,
) -> Result<Object, ApiError> {
    let user = user_id(&user)?;
    let measure = (Measure::Suspend, wanted.suspend);
    let nid = moderation::set(&app.ctx, &session, &user, measure).await?;
    app.tokens.forget(nid);
    Ok(Object(
        json!({ format!("user_{user}_suspended"): wanted.suspend }),
    ))
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(default)]
    from: i64,
    limit: Option<i64>,
    dir: Option<String>,
    user_id: Option<String>,
    room_id: Option<String>,
    event_sender_user_id: Option<String>,
}

type Asked = Result<Query<Parameters>, axum::extract::rejection::QueryRejection>;

async fn list(ctx: &Context, kind: Kind, asked: Asked, name: &str) -> Result<Object, ApiError> {
    let Query(asked) = asked.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let limit = asked.limit.unwrap_or(PAGE);
    if asked.from < 0 || !(0..=PAGE_MAX).contains(&limit) {
        return Err(ApiError::invalid_param("from or limit"));
    }
    let wanted = Wanted {
        from: asked.from,
        limit,
        oldest_first: !is_backwards(asked.dir.as_deref())?.unwrap_or(true),
        reporter: asked.user_id,
        room_id: asked.room_id,
        user_id: asked.event_sender_user_id,
    };
    let mut conn = ctx.db.planning().await?;
    let (reports, total) = storage::moderation::list_reports(&mut conn, kind, &wanted).await?;
    drop(conn);
    let mut shown = Vec::with_capacity(reports.len());
    for report in &reports {
        shown.push(body(ctx, report).await?);
    }
    let next = asked.from + limit;
    let mut answer = json!({ name: shown, "total": total });
    if next < total {
        answer["next_token"] = json!(next);
    }
    Ok(Object(answer))
}

async fn body(ctx: &Context, report: &Report) -> Result<Value, ApiError> {
    let reporter = ctx.db.ids.user_id(report.reporter).await?;
    let mut body = json!({
        "id": report.id,
        "received_ts": report.received_ts,
        "user_id": reporter,
        "reason": report.reason,
    });
    let optional = [
        ("room_id", &report.room_id),
        ("event_id", &report.event_id),
        ("sender", &report.user_id),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    Ok(body)
}

async fn delete(ctx: &Context, kind: Kind, id: i64) -> Result<Object, ApiError> {
    let mut conn = ctx.db.conn().await?;
    if storage::moderation::delete_report(&mut conn, kind, id).await? {
        Ok(Object(json!({})))
    } else {
        Err(ApiError::not_found("no such report"))
    }
}

/// `GET /_synapse/admin/v1/event_reports`
async fn list_events(
    Admin(_): Admin,
    State(ctx): State<Context>,
    asked: Asked,
) -> Result<Object, ApiError> {
    list(&ctx, Kind::Event, asked, "event_reports").await
}

/// `GET /_synapse/admin/v1/event_reports/{report_id}`
async fn show_event(
    Admin(_): Admin,
    State(ctx): State<Context>,
    State(rooms): State<crate::rooms::Rooms>,
    Path(id): Path<i64>,
) -> Result<Object, ApiError> {
    let mut conn = ctx.db.conn().await?;
    let report = storage::moderation::find_report(&mut conn, Kind::Event, id).await?;
    drop(conn);
    let report = report.ok_or_else(|| ApiError::not_found("no such report"))?;
    let mut body = body(&ctx, &report).await?;
    body["event_json"] = crate::rooms::reports::reported(&rooms, &report).await?;
    Ok(Object(body))
}

/// `DELETE /_synapse/admin/v1/event_reports/{report_id}`
async fn delete_event(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(id): Path<i64>,
) -> Result<Object, ApiError> {
    delete(&ctx, Kind::Event, id).await
}

/// `GET /_amtsbote/admin/v1/room_reports`
async fn list_rooms(
    Admin(_): Admin,
    State(ctx): State<Context>,
    asked: Asked,
) -> Result<Object, ApiError> {
    list(&ctx, Kind::Room, asked, "room_reports").await
}

/// `DELETE /_amtsbote/admin/v1/room_reports/{report_id}`
async fn delete_room(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(id): Path<i64>,
) -> Result<Object, ApiError> {
    delete(&ctx, Kind::Room, id).await
}

/// `GET /_amtsbote/admin/v1/user_reports`
async fn list_users(
    Admin(_): Admin,
    State(ctx): State<Context>,
    asked: Asked,
) -> Result<Object, ApiError> {
    list(&ctx, Kind::User, asked, "user_reports").await
}

/// `DELETE /_amtsbote/admin/v1/user_reports/{report_id}`
async fn delete_user(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(id): Path<i64>,
) -> Result<Object, ApiError> {
    delete(&ctx, Kind::User, id).await
}
