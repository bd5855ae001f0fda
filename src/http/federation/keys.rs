//! Signing keys: ours, and those of others with our signature.

use axum::{
    Router,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    routing::get,
};
use ruma::{
    OwnedServerName, ServerName,
    api::federation::discovery::{get_remote_server_keys, get_remote_server_keys_batch},
};
use serde_json::json;

use crate::{
    context::Context,
    federation::{keys::document, notary},
    http::{
        App,
        error::ApiError,
        mount,
        reply::{Object, RawJson},
        request::Public,
    },
};

pub(super) fn routes() -> Router<App> {
    let router = Router::new()
        .route("/_matrix/key/v2/server", get(get_server_keys))
        // Old servers name the key they want; they get them all.
        .route("/_matrix/key/v2/server/{key_id}", get(get_server_keys));
    let router = mount::<get_remote_server_keys::v2::Request, _, _>(router, get_remote_server_keys);
    // The same of keys of others.
    let router = router.route(
        "/_matrix/key/v2/query/{server_name}/{key_id}",
        get(get_remote_server_key),
    );
    mount::<get_remote_server_keys_batch::v2::Request, _, _>(router, get_remote_server_keys_batch)
}

/// `GET /_matrix/key/v2/server`
async fn get_server_keys(State(ctx): State<Context>) -> Result<RawJson, ApiError> {
    let document = document(&ctx.keys).map_err(|error| ApiError::internal(&error))?;
    let json = serde_json::to_string(&document).map_err(|error| ApiError::internal(&error))?;
    Ok(RawJson(json))
}

/// `GET /_matrix/key/v2/query/{serverName}`
async fn get_remote_server_keys(
    State(ctx): State<Context>,
    Public { request, .. }: Public<get_remote_server_keys::v2::Request>,
) -> Result<Object, ApiError> {
    let until = i64::try_from(u64::from(request.minimum_valid_until_ts.get())).unwrap_or(i64::MAX);
    answer(&ctx, &[(request.server_name, until)]).await
}

/// `GET /_matrix/key/v2/query/{serverName}/{keyId}`
async fn get_remote_server_key(
    State(ctx): State<Context>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Object, ApiError> {
    let Path((server, _key_id)) = path.map_err(|_| ApiError::invalid_param("path"))?;
    let server = ServerName::parse(server).map_err(|_| ApiError::invalid_param("server name"))?;
    let Query(wanted) = query.map_err(|_| ApiError::invalid_param("minimum_valid_until_ts"))?;
    answer(&ctx, &[(server, wanted.minimum_valid_until_ts)]).await
}

/// How long keys have to be good.
#[derive(serde::Deserialize)]
struct Wanted {
    #[serde(default)]
    minimum_valid_until_ts: i64,
}

/// `POST /_matrix/key/v2/query`
async fn get_remote_server_keys_batch(
    State(ctx): State<Context>,
    Public { request, .. }: Public<get_remote_server_keys_batch::v2::Request>,
) -> Result<Object, ApiError> {
    let wanted: Vec<(OwnedServerName, i64)> = request
        .server_keys
        .into_iter()
        .map(|(server, keys)| {
            let until = keys
                .values()
                .filter_map(|wanted| wanted.minimum_valid_until_ts)
                .filter_map(|ts| i64::try_from(u64::from(ts.get())).ok())
                .max();
            (server, until.unwrap_or(0))
        })
        .collect();
    if wanted.len() > notary::SERVERS_MAX {
        return Err(ApiError::invalid_param("too many servers in one question"));
    }
    answer(&ctx, &wanted).await
}

async fn answer(ctx: &Context, wanted: &[(OwnedServerName, i64)]) -> Result<Object, ApiError> {
    let found = notary::vouch(&ctx.federation, &ctx.keys, wanted).await?;
    Ok(Object(json!({ "server_keys": found })))
}
