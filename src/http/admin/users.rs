//! Accounts, and who they are at identity providers.

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::{get, post},
};
use http::StatusCode;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;

use super::{Admin, is_backwards, user_id};
use crate::{
    context::Context,
    http::{App, client::close, error::ApiError, path::Path, reply::Object, request::Body},
    rooms::membership,
    storage::{self, user_list},
    users::{
        administration::{self, Wanted},
        listing, moderation,
    },
};

/// Accounts on a page.
const PAGE: i64 = 100;
const PAGE_MAX: i64 = 1_000;
/// What accounts can be ordered by.
const ORDERS: [&str; 8] = [
    "name",
    "is_guest",
    "admin",
    "user_type",
    "deactivated",
    "displayname",
    "creation_ts",
    "locked",
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v2/users", get(list))
        .route("/_synapse/admin/v2/users/{user_id}", get(show).put(put))
        .route(
            "/_synapse/admin/v1/users/{user_id}/admin",
            get(is_admin).put(set_admin),
        )
        .route("/_synapse/admin/v1/deactivate/{user_id}", post(deactivate))
        .route(
            "/_synapse/admin/v1/auth_providers/{provider}/users/{external_id}",
            get(find_external),
        )
}

/// Which accounts are listed. A filter that is not known here is refused: without it, others would be
/// listed than are meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    from: i64,
    limit: Option<i64>,
    user_id: Option<String>,
    name: Option<String>,
    guests: Option<bool>,
    #[serde(default)]
    deactivated: bool,
    #[serde(default)]
    locked: bool,
    admins: Option<bool>,
    order_by: Option<String>,
    dir: Option<String>,
    /// Who asks, known by now.
    #[serde(rename = "access_token")]
    _access_token: Option<IgnoredAny>,
}

impl Which {
    fn query<'a>(&'a self, server_name: &'a str) -> Result<user_list::Query<'a>, ApiError> {
        let limit = self.limit.unwrap_or(PAGE);
        if self.from < 0 || limit < 0 {
            return Err(ApiError::invalid_param("from and limit are not negative"));
        }
        let order_by = self.order_by.as_deref().unwrap_or("name");
        if !ORDERS.contains(&order_by) {
            let why = format!("order_by is one of {}", ORDERS.join(", "));
            return Err(ApiError::invalid_param(&why));
        }
        let ascending = !is_backwards(self.dir.as_deref())?.unwrap_or(false);
        let name = self.name.as_deref();
        Ok(user_list::Query {
            server_name,
            // As in Synapse, a name alone counts where there are both.
            user_id: self.user_id.as_deref().filter(|_| name.is_none()),
            name,
            guests: self.guests.unwrap_or(true),
            deactivated: self.deactivated,
            locked: self.locked,
            admins: self.admins,
            order_by,
            ascending,
            offset: self.from,
            limit: limit.min(PAGE_MAX),
        })
    }
}

/// `GET /_synapse/admin/v2/users`
async fn list(
    Admin(_): Admin,
    State(ctx): State<Context>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Object, ApiError> {
    let Query(which) = which.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let query = which.query(ctx.server_name().as_str())?;
    let (users, total) = listing::page(&ctx, &query).await?;
    let mut answer = json!({ "users": users, "total": total });
    let next = query.offset.saturating_add(query.limit);
    if query.limit > 0 && next < total {
        answer["next_token"] = json!(next.to_string());
    }
    Ok(Object(answer))
}

/// `GET /_synapse/admin/v2/users/{user_id}`
async fn show(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(user): Path<String>,
) -> Result<Object, ApiError> {
    Ok(Object(administration::show(&ctx, &user_id(&user)?).await?))
}

/// `PUT /_synapse/admin/v2/users/{user_id}`
async fn put(
    Admin(session): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
    Body(wanted): Body<Wanted>,
) -> Result<(StatusCode, Object), ApiError> {
    let user = user_id(&user)?;
    let (nid, is_new) = administration::put(&app.ctx, &session, &user, &wanted).await?;
    if wanted.deactivated == Some(true) {
        // Also of a closed account: what was interrupted goes on.
        close(&app, (&user, nid), false).await?;
    }
    app.tokens.forget(nid);
    if wanted.displayname.is_some() || wanted.avatar_url.is_some() {
        membership::spread_profile(&app.rooms, &user).await?;
    }
    if wanted.password.is_some() && wanted.logout_devices.unwrap_or(true) {
        let mut conn = app.ctx.db.conn().await?;
        let devices = storage::devices::list_awake(&mut conn, nid).await?;
        drop(conn);
        app.tokens.end(nid, &devices).await?;
    }
    let shown = administration::show(&app.ctx, &user).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Object(shown)))
}

#[derive(Deserialize)]
struct Deactivate {
    #[serde(default)]
    erase: bool,
}

/// `POST /_synapse/admin/v1/deactivate/{user_id}`
async fn deactivate(
    Admin(session): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
    Body(wanted): Body<Deactivate>,
) -> Result<Object, ApiError> {
    let user = user_id(&user)?;
    let nid = administration::to_close(&app.ctx, &session, &user).await?;
    close(&app, (&user, nid), wanted.erase).await?;
    // Identity servers are asked for nothing here.
    Ok(Object(json!({ "id_server_unbind_result": "no-support" })))
}

/// `GET /_synapse/admin/v1/users/{user_id}/admin`
async fn is_admin(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path(user): Path<String>,
) -> Result<Object, ApiError> {
    let admin = moderation::is_admin(&ctx, &user_id(&user)?).await?;
    Ok(Object(json!({ "admin": admin })))
}

#[derive(Deserialize)]
struct SetAdmin {
    admin: bool,
}

/// `PUT /_synapse/admin/v1/users/{user_id}/admin`
async fn set_admin(
    Admin(session): Admin,
    State(app): State<App>,
    Path(user): Path<String>,
    Body(wanted): Body<SetAdmin>,
) -> Result<Object, ApiError> {
    let user = user_id(&user)?;
    let nid = moderation::set_admin(&app.ctx, &session, &user, wanted.admin).await?;
    app.tokens.forget(nid);
    Ok(Object(json!({})))
}

/// `GET /_synapse/admin/v1/auth_providers/{provider}/users/{external_id}`
async fn find_external(
    Admin(_): Admin,
    State(ctx): State<Context>,
    Path((provider, id)): Path<(String, String)>,
) -> Result<Object, ApiError> {
    let found = administration::find_external(&ctx, &provider, &id).await?;
    Ok(Object(found))
}
