//! Which servers we have to do with: entries of both lists, at run time (docs/federation.md).

use axum::{
    Router,
    extract::State,
    routing::{get, put},
};
use ruma::ServerName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use crate::{
    config::ServerRule,
    context::Context,
    federation::gate::{List, Listed},
    http::{
        App,
        error::ApiError,
        path::Path,
        reply::Object,
        request::{Asking, Body},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_amtsbote/admin/v1/federation/rules", get(list))
        .route(
            "/_amtsbote/admin/v1/federation/rules/{list}/{server}",
            put(set).delete(remove),
        )
        .route(
            "/_amtsbote/admin/v1/federation/servers/{serverName}",
            get(show),
        )
}

/// For users: what clients show of it.
pub(in crate::http) fn client_routes() -> Router<App> {
    Router::new().route(
        "/_synapse/client/v1/config/federation_whitelist",
        get(whitelist),
    )
}

fn body(entry: &Listed) -> Value {
    json!({
        "list": entry.list.name(),
        "server": entry.rule.server,
        "reason": entry.rule.reason,
        "until_ts": entry.rule.until_ts,
        "source": if entry.since_ts.is_some() { "database" } else { "configuration" },
        "since_ts": entry.since_ts,
    })
}

/// `GET /_amtsbote/admin/v1/federation/rules`
async fn list(Admin(_): Admin, State(ctx): State<Context>) -> Object {
    let gate = ctx.federation.gate();
    let rules: Vec<Value> = gate.list().iter().map(body).collect();
    Object(json!({
        "rules": rules,
        "unlisted_in_room": gate.unlisted_in_room().name(),
    }))
}

#[derive(Deserialize)]
struct Wanted {
    reason: Option<String>,
    until_ts: Option<i64>,
}

fn list_of(name: &str) -> Result<List, ApiError> {
    List::of(name).ok_or_else(|| ApiError::not_found("there are the lists allow and deny"))
}

/// `PUT /_amtsbote/admin/v1/federation/rules/{list}/{server}`
async fn set(
    Admin(admin): Admin,
    State(ctx): State<Context>,
    Path((list, server)): Path<(String, String)>,
    Body(wanted): Body<Wanted>,
) -> Result<Object, ApiError> {
    let rule = ServerRule {
        server,
        reason: wanted.reason,
        until_ts: wanted.until_ts,
    };
    let gate = ctx.federation.gate();
    gate.put(list_of(&list)?, rule, admin.user_nid).await?;
    Ok(Object(json!({})))
}

/// `DELETE /_amtsbote/admin/v1/federation/rules/{list}/{server}`
async fn remove(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path((list, server)): Path<(String, String)>,
) -> Result<Object, ApiError> {
    if ctx
        .federation
        .gate()
        .delete(list_of(&list)?, &server)
        .await?
    {
        return Ok(Object(json!({})));
    }
    Err(ApiError::not_found("no such entry of an administrator"))
}

/// `GET /_amtsbote/admin/v1/federation/servers/{serverName}`
async fn show(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(server): Path<String>,
) -> Result<Object, ApiError> {
    let server =
        ServerName::parse(server).map_err(|_| ApiError::invalid_param("this is no server name"))?;
    let allowed = ctx.federation.gate().allows(&server);
    Ok(Object(json!({ "server": server, "allowed": allowed })))
}

/// `GET /_synapse/client/v1/config/federation_whitelist`
async fn whitelist(Asking(_): Asking, State(ctx): State<Context>) -> Object {
    let (enabled, servers) = ctx.federation.gate().allowed();
    Object(json!({ "whitelist_enabled": enabled, "whitelist": servers }))
}
