//! Login by OAuth 2.0 (specification, "OAuth 2.0 API"): what clients ask, and the pages where users log in,
//! say what clients may, and look after their account.

mod account;
mod authorize;
mod client_login;
mod endpoints;
mod enter;
mod link;
mod register;
mod visitor;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use ruma::api::client::discovery::get_authorization_server_metadata;
use serde_json::{Value, json};
use url::Url;

pub(super) use self::{client_login::is_path, visitor::logged_in};
use super::{App, error::ApiError, mount, page::redirection, reply::Object};
use crate::{
    config::OAuth,
    context::Context,
    users::oauth::{ACCOUNT_PATH, Error, GRANT_TYPES, REPLACE_ACTION, id_token, issuer},
};

const AUTHORIZE_PATH: &str = "/_matrix/oauth2/authorize";
const TOKEN_PATH: &str = "/_matrix/oauth2/token";
const REVOKE_PATH: &str = "/_matrix/oauth2/revoke";
const REGISTER_PATH: &str = "/_matrix/oauth2/register";
const DEVICE_PATH: &str = "/_matrix/oauth2/device";
const KEYS_PATH: &str = "/_matrix/oauth2/keys";
const LINK_PATH: &str = "/_matrix/oauth2/link";

/// What users can do on the page of their account; the page also knows the names of before (MSC4191).
const ACTIONS: [&str; 6] = [
    "org.matrix.profile",
    "org.matrix.devices_list",
    "org.matrix.device_view",
    "org.matrix.device_delete",
    "org.matrix.account_deactivate",
    REPLACE_ACTION,
];

pub(super) fn routes() -> Router<App> {
    let router =
        mount::<get_authorization_server_metadata::v1::Request, _, _>(Router::new(), metadata);
    router
        .route("/.well-known/openid-configuration", get(metadata))
        .route(
            "/_matrix/client/unstable/org.matrix.msc2965/auth_issuer",
            get(auth_issuer),
        )
        .route(KEYS_PATH, get(keys))
        .merge(endpoints::routes())
        .merge(authorize::routes())
        .merge(link::routes())
        .merge(client_login::routes())
        .merge(account::routes())
}

/// How it is done here; where it is not, nobody knows of it.
fn config(ctx: &Context) -> Result<&OAuth, ApiError> {
    let config = ctx.config.oauth.as_ref();
    config.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "M_UNRECOGNIZED",
            "clients log in by the older endpoints here",
        )
    })
}

/// Whether people can make an account on our pages.
fn makes_accounts(ctx: &Context) -> bool {
    ctx.config.registration.open
}

/// `GET /_matrix/client/v1/auth_metadata`
async fn metadata(State(ctx): State<Context>) -> Result<Response, ApiError> {
    let config = config(&ctx)?;
    let at = |path: &str| format!("{}{path}", config.base_url);
    let mut body = json!({
        "issuer": issuer(config),
        "authorization_endpoint": at(AUTHORIZE_PATH),
        "token_endpoint": at(TOKEN_PATH),
        "revocation_endpoint": at(REVOKE_PATH),
        "registration_endpoint": at(REGISTER_PATH),
        "device_authorization_endpoint": at(DEVICE_PATH),
        "jwks_uri": at(KEYS_PATH),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [id_token::ALGORITHM],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment"],
        "grant_types_supported": GRANT_TYPES,
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "account_management_uri": at(ACCOUNT_PATH),
        "account_management_actions_supported": ACTIONS,
    });
    if makes_accounts(&ctx) {
        body["prompt_values_supported"] = json!(["create"]);
    }
    let cached = [(header::CACHE_CONTROL, "public, max-age=300")];
    Ok((cached, Object(body)).into_response())
}

/// `GET /_matrix/client/unstable/org.matrix.msc2965/auth_issuer`
async fn auth_issuer(State(ctx): State<Context>) -> Result<Object, ApiError> {
    Ok(Object(json!({ "issuer": issuer(config(&ctx)?) })))
}

/// `GET /_matrix/oauth2/keys`
async fn keys(State(ctx): State<Context>) -> Result<Object, ApiError> {
    config(&ctx)?;
    Ok(Object(id_token::keys(&ctx)))
}

/// What clients read of it before they ask us (`/.well-known/matrix/client`, MSC2965).
pub(super) fn well_known(config: &OAuth) -> Value {
    json!({
        "issuer": issuer(config),
        "account": format!("{}{ACCOUNT_PATH}", config.base_url),
    })
}

/// The error code of an error (RFC 6749, sections 4.1.2.1 and 5.2; RFC 7591, section 3.2.2; RFC 8628, section
/// 3.5), with the status of an answer; `None`: it is about the account, or about us.
fn code(error: &Error) -> Option<(StatusCode, &'static str)> {
    let code = match error {
        Error::Client => return Some((StatusCode::UNAUTHORIZED, "invalid_client")),
        Error::TooMany => {
            return Some((StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"));
        }
        Error::Request(_) => "invalid_request",
        Error::Grant(_) => "invalid_grant",
        Error::Unauthorized => "unauthorized_client",
        Error::GrantType => "unsupported_grant_type",
        Error::Scope(_) => "invalid_scope",
        Error::Metadata(_) => "invalid_client_metadata",
        Error::RedirectUri(_) => "invalid_redirect_uri",
        Error::Denied => "access_denied",
        Error::Pending => "authorization_pending",
        Error::TooSoon => "slow_down",
        Error::Late => "expired_token",
        Error::Account(_) => return None,
    };
    Some((StatusCode::BAD_REQUEST, code))
}

/// Sends a browser on after a form.
fn send_on(location: &str) -> Response {
    redirection(StatusCode::SEE_OTHER, location, [])
}

/// An address as a source of a content security policy: its origin, or its scheme where that is not to be said.
fn source(url: &Url) -> String {
    match url.host() {
        Some(url::Host::Domain(_) | url::Host::Ipv4(_)) => url.origin().ascii_serialization(),
        _ => format!("{}:", url.scheme()),
    }
}
