//! Registration by shared secret.

use std::time::Duration;

use axum::{Router, extract::State, routing::get};
use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use serde_json::json;
use sha1::Sha1;

use crate::http::{App, error::ApiError, reply::Object, request::Body};
use crate::users::{administration::UserType, registration};

/// Nonces that wait to be used.
const NONCES_MAX: u64 = 1_000;
/// How long a nonce is good.
const NONCE_LIFE: Duration = Duration::from_mins(1);

/// Nonces that were given out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nonces(Cache<String, ()>);

impl Default for Nonces {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(NONCES_MAX)
                .time_to_live(NONCE_LIFE)
                .build(),
        )
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/_synapse/admin/v1/register", get(nonce).post(register))
}

/// `GET /_synapse/admin/v1/register`
async fn nonce(State(app): State<App>) -> Result<Object, ApiError> {
    secret(&app)?;
    let nonce = format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    );
    app.nonces.0.insert(nonce.clone(), ());
    Ok(Object(json!({ "nonce": nonce })))
}

fn secret(app: &App) -> Result<&str, ApiError> {
    let secret = app.ctx.config.registration.shared_secret.as_ref();
    secret.map(|secret| secret.0.as_str()).ok_or_else(|| {
        ApiError::new(
            http::StatusCode::BAD_REQUEST,
            "M_UNKNOWN",
            "registration by shared secret is not configured",
        )
    })
}

#[derive(serde::Deserialize)]
struct Registration {
    nonce: String,
    username: String,
    password: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    user_type: UserType,
    displayname: Option<String>,
    mac: String,
}

/// `POST /_synapse/admin/v1/register`
async fn register(
    State(app): State<App>,
    Body(wanted): Body<Registration>,
) -> Result<Object, ApiError> {
    let secret = secret(&app)?;
    // Taken out before it is judged: a nonce is good for one try.
    if app.nonces.0.remove(&wanted.nonce).is_none() {
        return Err(ApiError::new(
            http::StatusCode::BAD_REQUEST,
            "M_UNKNOWN",
            "unrecognised nonce",
        ));
    }
    if !is_authentic(secret, &wanted) {
        return Err(ApiError::forbidden("HMAC incorrect"));
    }
    let server_name = app.ctx.server_name();
    let user = registration::user_id(server_name, &wanted.username.to_lowercase())?;
    let kind = wanted.user_type.name();
    registration::create_account(
        &app.ctx,
        &user,
        Some(&wanted.password),
        (wanted.admin, kind),
        None,
    )
    .await?;
    if let Some(name) = wanted.displayname {
        crate::users::profile::set(&app.ctx, &user, "displayname", Some(json!(name))).await?;
    }
    let granted = app.tokens.grant(&user, None, None, false).await?;
    Ok(Object(json!({
        "access_token": granted.access_token,
        "user_id": user,
        "home_server": server_name,
        "device_id": granted.device_id,
    })))
}

/// HMAC-SHA1 over nonce, user, password, and admin or notadmin, with NUL in between.
fn is_authentic(secret: &str, wanted: &Registration) -> bool {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    let admin = if wanted.admin { "admin" } else { "notadmin" };
    let mut parts = vec![&*wanted.nonce, &*wanted.username, &*wanted.password, admin];
    parts.extend(wanted.user_type.name());
    mac.update(parts.join("\0").as_bytes());
    let given: Vec<u8> = (0..wanted.mac.len() / 2)
        .map_while(|i| u8::from_str_radix(wanted.mac.get(2 * i..2 * i + 2)?, 16).ok())
        .collect();
    mac.verify_slice(&given).is_ok()
}
