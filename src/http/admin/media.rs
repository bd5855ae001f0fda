//! Media: what is shown where, withdrawn, protected, deleted.

use axum::{
    Router,
    extract::{Query, State},
    routing::{delete, get, post},
};
use ruma::{OwnedMxcUri, OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, rooms::room_id, user_id};
use crate::{
    http::{App, error::ApiError, path::Path, reply::Object},
    media::{quarantine, retention},
    rooms::shown_media,
    storage::{self, UserNid, media::Media as Row},
};

/// Media on a page.
const PAGE: i64 = 100;
const PAGE_MAX: i64 = 1_000;
/// Days that nobody looked at an upload, at most.
const DAYS_MAX: u32 = 36_500;
/// Addresses that are listed of a room.
const SHOWN_MAX: usize = 10_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(
            "/_synapse/admin/v1/media/quarantine/{server_name}/{media_id}",
            post(set),
        )
        .route(
            "/_synapse/admin/v1/media/unquarantine/{server_name}/{media_id}",
            post(unset),
        )
        .route(
            "/_synapse/admin/v1/room/{room_id}/media/quarantine",
            post(set_room),
        )
        .route(
            "/_synapse/admin/v1/user/{user_id}/media/quarantine",
            post(set_user),
        )
        .route("/_synapse/admin/v1/media/protect/{media_id}", post(protect))
        .route(
            "/_synapse/admin/v1/media/unprotect/{media_id}",
            post(unprotect),
        )
        .route("/_synapse/admin/v1/room/{room_id}/media", get(list_room))
        .route(
            "/_synapse/admin/v1/users/{user_id}/media",
            get(list_user).delete(delete_user),
        )
        .route(
            "/_synapse/admin/v1/media/{server_name}/{media_id}",
            delete(delete_one).get(show),
        )
        .route("/_synapse/admin/v1/purge_media_cache", post(purge_copies))
        .route("/_amtsbote/admin/v1/media/quarantined", get(list))
        .route(
            "/_amtsbote/admin/v1/media/unreferenced",
            get(list_unreferenced),
        )
}

type Address = Path<(OwnedServerName, String)>;
type Given<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

fn given<T>(query: Given<T>) -> Result<T, ApiError> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(error) => Err(ApiError::invalid_param(&error.body_text())),
    }
}

async fn user_of(app: &App, text: &str) -> Result<UserNid, ApiError> {
    let user = user_id(text)?;
    let found = app.ctx.db.ids.find_user(&user).await?;
    found.ok_or_else(|| ApiError::not_found("no such user"))
}

fn address(server: &ServerName, id: &str) -> OwnedMxcUri {
    OwnedMxcUri::from(format!("mxc://{server}/{id}"))
}

/// `POST /_synapse/admin/v1/media/quarantine/{server_name}/{media_id}`
async fn set(
    Admin(session): Admin,
    State(app): State<App>,
    Path((server, id)): Address,
) -> Result<Object, ApiError> {
    if server == app.ctx.server_name() {
        quarantine::find(&app.media, &server, &id).await?;
    }
    quarantine::set(&app.media, session.user_nid, &[address(&server, &id)]).await?;
    Ok(Object(json!({})))
}

/// `POST /_synapse/admin/v1/media/unquarantine/{server_name}/{media_id}`
async fn unset(
    Admin(_): Admin,
    State(app): State<App>,
    Path((server, id)): Address,
) -> Result<Object, ApiError> {
    let row = quarantine::find(&app.media, &server, &id).await?;
    let mut conn = app.ctx.db.conn().await?;
    storage::quarantine::delete(&mut conn, row.nid).await?;
    Ok(Object(json!({})))
}

/// `POST /_synapse/admin/v1/room/{room_id}/media/quarantine`
async fn set_room(
    Admin(session): Admin,
    State(app): State<App>,
    Path(room): Path<String>,
) -> Result<Object, ApiError> {
    let room = room_id(&room)?;
    let (mut after, mut count) = (None, 0);
    loop {
        let (shown, next) = shown_media::page(&app.rooms, &room, after).await?;
        let shown: Vec<OwnedMxcUri> = shown.into_iter().collect();
        count += quarantine::set(&app.media, session.user_nid, &shown).await?;
        if next.is_none() {
            return Ok(Object(json!({ "num_quarantined": count })));
        }
        after = next;
    }
}

/// `POST /_synapse/admin/v1/user/{user_id}/media/quarantine`
async fn set_user(
    Admin(session): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
) -> Result<Object, ApiError> {
    let user = user_of(&app, &user).await?;
    let mut conn = app.ctx.db.conn().await?;
    let by = session.user_nid;
    let count = storage::quarantine::insert_of_user(&mut conn, user, by).await?;
    Ok(Object(json!({ "num_quarantined": count })))
}

async fn set_protected(app: &App, id: &str, protected: bool) -> Result<Object, ApiError> {
    let row = quarantine::find(&app.media, app.ctx.server_name(), id).await?;
    let mut conn = app.ctx.db.conn().await?;
    storage::quarantine::update_protected(&mut conn, row.nid, protected).await?;
    Ok(Object(json!({})))
}

/// `POST /_synapse/admin/v1/media/protect/{media_id}`
async fn protect(
    Admin(_): Admin,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Object, ApiError> {
    set_protected(&app, &id, true).await
}

/// `POST /_synapse/admin/v1/media/unprotect/{media_id}`
async fn unprotect(
    Admin(_): Admin,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Object, ApiError> {
    set_protected(&app, &id, false).await
}

/// `GET /_synapse/admin/v1/room/{room_id}/media`
async fn list_room(
    Admin(_): Admin,
    State(app): State<App>,
    Path(room): Path<String>,
) -> Result<Object, ApiError> {
    let room = room_id(&room)?;
    let mut found = std::collections::BTreeSet::new();
    let mut after = None;
    loop {
        let (shown, next) = shown_media::page(&app.rooms, &room, after).await?;
        found.extend(shown);
        if next.is_none() || found.len() >= SHOWN_MAX {
            break;
        }
        after = next;
    }
    let own = app.ctx.server_name();
    let (local, remote): (Vec<_>, Vec<_>) = found
        .into_iter()
        .take(SHOWN_MAX)
        .partition(|address| address.server_name().is_ok_and(|server| server == own));
    Ok(Object(json!({ "local": local, "remote": remote })))
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    from: i64,
    limit: Option<i64>,
}

impl Wanted {
    fn checked(query: Given<Self>) -> Result<(i64, i64), ApiError> {
        let wanted = given(query)?;
        let limit = wanted.limit.unwrap_or(PAGE);
        if wanted.from < 0 || !(0..=PAGE_MAX).contains(&limit) {
            return Err(ApiError::invalid_param("from or limit"));
        }
        Ok((wanted.from, limit))
    }
}

/// A page as tools expect it.
async fn page(
    app: &App,
    (from, limit): (i64, i64),
    (rows, total): (Vec<Row>, i64),
) -> Result<Object, ApiError> {
    let mut shown = Vec::with_capacity(rows.len());
    for row in &rows {
        shown.push(body(app, row).await?);
    }
    let mut answer = json!({ "media": shown, "total": total });
    if from + limit < total {
        answer["next_token"] = json!(from + limit);
    }
    Ok(Object(answer))
}

/// What tools are told of a medium.
async fn body(app: &App, row: &Row) -> Result<Value, ApiError> {
    let ids = &app.ctx.db.ids;
    let user = match row.user {
        Some(user) => Some(ids.user_id(user).await?),
        None => None,
    };
    let quarantined_by = match row.quarantined_by {
        Some(user) => Some(ids.user_id(user).await?),
        None => None,
    };
    let sha256 = row.sha256.as_ref().map(|hash| {
        let hex = hash.iter().map(|byte| format!("{byte:02x}"));
        hex.collect::<String>()
    });
    Ok(json!({
        "media_origin": ids.server_name(row.server).await?,
        "media_id": row.media_id,
        "user_id": user,
        "media_type": row.content_type,
        "media_length": row.size,
        "upload_name": row.file_name,
        "created_ts": row.created_ts,
        "last_access_ts": row.last_access_ts,
        "quarantined_by": quarantined_by,
        "safe_from_quarantine": row.protected,
        "sha256": sha256,
    }))
}

/// `GET /_synapse/admin/v1/users/{user_id}/media`
async fn list_user(
    Admin(_): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
    query: Given<Wanted>,
) -> Result<Object, ApiError> {
    let range = Wanted::checked(query)?;
    let user = user_of(&app, &user).await?;
    let mut conn = app.ctx.db.conn().await?;
    let found = storage::quarantine::list_of_user(&mut conn, user, range).await?;
    drop(conn);
    page(&app, range, found).await
}

/// `GET /_amtsbote/admin/v1/media/quarantined`
async fn list(
    Admin(_): Admin,
    State(app): State<App>,
    query: Given<Wanted>,
) -> Result<Object, ApiError> {
    let range = Wanted::checked(query)?;
    let mut conn = app.ctx.db.conn().await?;
    let found = storage::quarantine::list(&mut conn, range).await?;
    drop(conn);
    page(&app, range, found).await
}

#[derive(Deserialize)]
struct Unreferenced {
    #[serde(default)]
    from: i64,
    limit: Option<i64>,
    older_than_days: Option<u32>,
}

/// `GET /_amtsbote/admin/v1/media/unreferenced`
///
/// What `media.local_lifetime_days` has go, or would. A page may be short, or empty, where there are more.
async fn list_unreferenced(
    Admin(_): Admin,
    State(app): State<App>,
    query: Given<Unreferenced>,
) -> Result<Object, ApiError> {
    let wanted = given(query)?;
    let limit = wanted.limit.unwrap_or(PAGE);
    let days = wanted.older_than_days;
    let days = days.or(app.ctx.config.media.local_lifetime_days);
    let (1..=PAGE_MAX, Some(days @ 1..=DAYS_MAX), 0..) = (limit, days, wanted.from) else {
        return Err(ApiError::invalid_param(
            "from, limit, or older_than_days, which is needed where uploads do not go by themselves",
        ));
    };
    let limit = usize::try_from(limit).unwrap_or_default();
    let page = retention::list(&app.media, days, wanted.from, limit).await?;
    let mut shown = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        shown.push(body(&app, row).await?);
    }
    let mut answer = json!({ "media": shown, "unread_rooms": page.unread_rooms });
    if let Some(next) = page.next {
        answer["next_token"] = json!(next);
    }
    Ok(Object(answer))
}

/// `DELETE /_synapse/admin/v1/users/{user_id}/media`
async fn delete_user(
    Admin(_): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
    query: Given<Wanted>,
) -> Result<Object, ApiError> {
    let (_, limit) = Wanted::checked(query)?;
    let user = user_of(&app, &user).await?;
    let deleted = quarantine::delete_of_user(&app.media, user, limit).await?;
    Ok(Object(
        json!({ "deleted_media": deleted, "total": deleted.len() }),
    ))
}

/// `GET /_synapse/admin/v1/media/{server_name}/{media_id}`
async fn show(
    Admin(_): Admin,
    State(app): State<App>,
    Path((server, id)): Address,
) -> Result<Object, ApiError> {
    let row = quarantine::find(&app.media, &server, &id).await?;
    Ok(Object(json!({ "media_info": body(&app, &row).await? })))
}

/// `DELETE /_synapse/admin/v1/media/{server_name}/{media_id}`
async fn delete_one(
    Admin(_): Admin,
    State(app): State<App>,
    Path((server, id)): Address,
) -> Result<Object, ApiError> {
    if server != app.ctx.server_name() {
        return Err(ApiError::invalid_param("can only delete local media"));
    }
    quarantine::delete(&app.media, &id).await?;
    Ok(Object(json!({ "deleted_media": [id], "total": 1 })))
}

#[derive(Deserialize)]
struct Before {
    before_ts: i64,
}

/// `POST /_synapse/admin/v1/purge_media_cache`
async fn purge_copies(
    Admin(_): Admin,
    State(app): State<App>,
    query: Given<Before>,
) -> Result<Object, ApiError> {
    let before = given(query)?.before_ts;
    let deleted = quarantine::delete_copies(&app.media, before).await?;
    Ok(Object(json!({ "deleted": deleted })))
}
