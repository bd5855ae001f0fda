//! Key backup.

use axum::{
    Router,
    extract::{Query, State},
    routing::{get, put},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    context::Context,
    devices::key_backup,
    http::{
        App,
        error::ApiError,
        path::Path,
        reply::Object,
        request::{Asking, Body},
    },
    storage::key_backup::{Backup, Which},
};

pub(super) fn routes() -> Router<App> {
    ["r0", "unstable", "v3"]
        .into_iter()
        .fold(Router::new(), |router, version| {
            let base = format!("/_matrix/client/{version}/room_keys");
            let keys = put(put_keys).get(get_keys).delete(delete_keys);
            router
                .route(
                    &format!("{base}/version"),
                    get(get_latest_backup_info).post(create_backup_version),
                )
                .route(
                    &format!("{base}/version/{{version}}"),
                    get(get_backup_info)
                        .put(update_backup_version)
                        .delete(delete_backup_version),
                )
                .route(&format!("{base}/keys"), keys.clone())
                .route(&format!("{base}/keys/{{room_id}}"), keys.clone())
                .route(&format!("{base}/keys/{{room_id}}/{{session_id}}"), keys)
        })
}

fn info(backup: &Backup) -> Object {
    Object(json!({
        "algorithm": backup.algorithm,
        "auth_data": serde_json::from_str::<Value>(&backup.auth_data).unwrap_or_default(),
        "count": backup.count,
        "etag": backup.etag.to_string(),
        "version": backup.version.to_string(),
    }))
}

fn changed(backup: &Backup) -> Object {
    Object(json!({ "count": backup.count, "etag": backup.etag.to_string() }))
}

/// `POST /_matrix/client/v3/room_keys/version`
async fn create_backup_version(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Body(body): Body<Value>,
) -> Result<Object, ApiError> {
    let version = key_backup::create(&ctx, session.user_nid, &body).await?;
    Ok(Object(json!({ "version": version.to_string() })))
}

/// `GET /_matrix/client/v3/room_keys/version`
async fn get_latest_backup_info(
    Asking(session): Asking,
    State(ctx): State<Context>,
) -> Result<Object, ApiError> {
    Ok(info(&key_backup::get(&ctx, session.user_nid, None).await?))
}

/// `GET /_matrix/client/v3/room_keys/version/{version}`
async fn get_backup_info(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path(version): Path<String>,
) -> Result<Object, ApiError> {
    let version = key_backup::parse_version(&version)?;
    Ok(info(
        &key_backup::get(&ctx, session.user_nid, Some(version)).await?,
    ))
}

/// `PUT /_matrix/client/v3/room_keys/version/{version}`
async fn update_backup_version(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path(version): Path<String>,
    Body(body): Body<Value>,
) -> Result<Object, ApiError> {
    let version = key_backup::parse_version(&version)?;
    key_backup::update(&ctx, session.user_nid, version, &body).await?;
    Ok(Object(json!({})))
}

/// `DELETE /_matrix/client/v3/room_keys/version/{version}`
async fn delete_backup_version(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path(version): Path<String>,
) -> Result<Object, ApiError> {
    let version = key_backup::parse_version(&version)?;
    key_backup::delete(&ctx, session.user_nid, version).await?;
    Ok(Object(json!({})))
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

/// Room and session of the path, as far as it names them.
#[derive(Default, Deserialize)]
struct Place {
    room_id: Option<String>,
    session_id: Option<String>,
}

impl Place {
    fn which(&self) -> Which<'_> {
        Which {
            room: self.room_id.as_deref(),
            session: self.session_id.as_deref(),
        }
    }
}

type Asked = Result<Query<Version>, axum::extract::rejection::QueryRejection>;

fn version_of(asked: Asked) -> Result<i64, ApiError> {
    let Query(asked) = asked.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    Ok(key_backup::parse_version(&asked.version)?)
}

/// `PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`, and less of it
async fn put_keys(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path(place): Path<Place>,
    asked: Asked,
    Body(body): Body<Value>,
) -> Result<Object, ApiError> {
    let backup = (session.user_nid, version_of(asked)?);
    let done = key_backup::put_keys(&ctx, backup, place.which(), &body).await?;
    Ok(changed(&done))
}

/// `GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`, and less of it
async fn get_keys(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path(place): Path<Place>,
    asked: Asked,
) -> Result<Object, ApiError> {
    let backup = (session.user_nid, version_of(asked)?);
    Ok(Object(
        key_backup::get_keys(&ctx, backup, place.which()).await?,
    ))
}

/// `DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`, and less of it
async fn delete_keys(
    Asking(session): Asking,
    State(ctx): State<Context>,
    Path(place): Path<Place>,
    asked: Asked,
) -> Result<Object, ApiError> {
    let backup = (session.user_nid, version_of(asked)?);
    let done = key_backup::delete_keys(&ctx, backup, place.which()).await?;
    Ok(changed(&done))
}
