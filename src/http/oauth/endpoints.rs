//! What clients ask: they register, get tokens, give them back, and wait on devices without a browser.

use axum::{
    Form, Router,
    body::Bytes,
    extract::{FromRequest, Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    ApiError, App, DEVICE_PATH, Error, LINK_PATH, Object, REGISTER_PATH, REVOKE_PATH, TOKEN_PATH,
    code, config,
};
use crate::{
    http::{
        limits::{Kind, Whence},
        request::read,
    },
    storage::UserNid,
    users::{
        oauth::{
            self, LINK_GRANT, REFRESH_GRANT, clients,
            code::{self as codes, Shown},
            id_token, link, scope,
        },
        tokens::Granted,
    },
};

/// Bytes of what a client says of itself, and of a form.
const BODY_BYTES_MAX: usize = 64 << 10;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(REGISTER_PATH, post(register))
        .route(TOKEN_PATH, post(token))
        .route(REVOKE_PATH, post(revoke))
        .route(DEVICE_PATH, post(device))
}

/// An error as a client of OAuth 2.0 gets it, or as any other.
enum Refusal {
    OAuth(Error),
    Other(ApiError),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Account(error) => Self::Other(error.into()),
            error => Self::OAuth(error),
        }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Other(error) => return error.into_response(),
            Self::OAuth(error) => error,
        };
        let internal = (StatusCode::INTERNAL_SERVER_ERROR, "server_error");
        let (status, code) = code(&error).unwrap_or(internal);
        let body = json!({ "error": code, "error_description": error.to_string() });
        (status, NO_STORE, Object(body)).into_response()
    }
}

const NO_STORE: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

/// A form; each field at most once.
struct Fields<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for Fields<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        config(&app.ctx)?;
        let (parts, body) = request.into_parts();
        let body = read(body, BODY_BYTES_MAX).await?;
        let request = Request::from_parts(parts, body.into());
        let form = Form::<T>::from_request(request, &()).await;
        let wrong =
            |_| Error::Request("the body is no form, or a parameter is missing or twice there");
        Ok(Self(form.map_err(wrong)?.0))
    }
}

/// `POST /_matrix/oauth2/register` (RFC 7591)
async fn register(
    State(app): State<App>,
    Whence(address): Whence,
    body: Bytes,
) -> Result<Response, Refusal> {
    config(&app.ctx)?;
    app.limits.check_address(Kind::Sso, address)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(Error::Metadata("this is too long").into());
    }
    let answer = clients::register(&app.ctx, &body).await?;
    Ok((StatusCode::CREATED, NO_STORE, Object(answer)).into_response())
}

/// What a client shows for tokens; which of it, the grant says.
#[derive(Deserialize)]
struct Show {
    grant_type: String,
    client_id: Option<String>,
    #[serde(default)]
    code: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    code_verifier: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    device_code: String,
}

/// `POST /_matrix/oauth2/token` (RFC 6749, section 3.2)
async fn token(
    State(app): State<App>,
    Whence(address): Whence,
    Fields(show): Fields<Show>,
) -> Result<Response, Refusal> {
    app.limits.check_address(Kind::Sso, address)?;
    if !oauth::GRANT_TYPES.contains(&&*show.grant_type) {
        return Err(Error::GrantType.into());
    }
    let id = show.client_id.ok_or(Error::Client)?;
    let client = clients::find(&app.ctx, &id).await?;
    if !client.may(&show.grant_type) {
        return Err(Error::Unauthorized.into());
    }
    match &*show.grant_type {
        REFRESH_GRANT => {
            let granted = oauth::refresh(&app.tokens, &client.id, &show.refresh_token).await?;
            Ok(tokens(&granted, None, None))
        }
        LINK_GRANT => {
            let of = (&client, &*show.device_code);
            let (granted, scope) = link::poll(&app.ctx, &app.tokens, of).await?;
            Ok(tokens(&granted, Some(&scope), None))
        }
        _ => {
            let shown = Shown {
                code: &show.code,
                client: &client,
                redirect_uri: &show.redirect_uri,
                verifier: &show.code_verifier,
            };
            let (granted, code) = codes::redeem(&app.ctx, &app.tokens, shown).await?;
            let id_token = if scope::wants_id_token(&code.scope) {
                let user = app.ctx.db.ids.user_id(UserNid(code.user_nid)).await;
                let user = user.map_err(Error::from)?;
                let of = (&*user, &*client.id);
                let config = config(&app.ctx)?;
                Some(id_token::issue(&app.ctx, config, of, code.nonce.as_deref()))
            } else {
                None
            };
            Ok(tokens(&granted, Some(&code.scope), id_token.as_deref()))
        }
    }
}

/// Tokens; where they are refreshed the scope stays.
fn tokens(granted: &Granted, scope: Option<&str>, id_token: Option<&str>) -> Response {
    let mut body = json!({
        "access_token": granted.access_token,
        "token_type": "Bearer",
        "expires_in": granted.expires_in_ms.unwrap_or_default() / 1_000,
        "refresh_token": granted.refresh_token,
    });
    for (key, value) in [("scope", scope), ("id_token", id_token)] {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    (NO_STORE, Object(body)).into_response()
}

/// What a client gives back.
#[derive(Deserialize)]
struct GivenBack {
    token: String,
}

/// `POST /_matrix/oauth2/revoke` (RFC 7009)
///
/// Whoever has a token may end it: nothing good comes of leaving it alive.
async fn revoke(
    State(app): State<App>,
    Whence(address): Whence,
    Fields(given): Fields<GivenBack>,
) -> Result<Response, Refusal> {
    app.limits.check_address(Kind::Sso, address)?;
    oauth::revoke(&app.ctx, &app.tokens, &given.token).await?;
    Ok((NO_STORE, Object(json!({}))).into_response())
}

/// What a device without a browser asks for.
#[derive(Deserialize)]
struct Waits {
    client_id: String,
    #[serde(default)]
    scope: String,
}

/// `POST /_matrix/oauth2/device` (RFC 8628, section 3.1)
async fn device(
    State(app): State<App>,
    Whence(address): Whence,
    Fields(waits): Fields<Waits>,
) -> Result<Response, Refusal> {
    app.limits.check_address(Kind::Sso, address)?;
    let client = clients::find(&app.ctx, &waits.client_id).await?;
    if !client.may(LINK_GRANT) {
        return Err(Error::Unauthorized.into());
    }
    let scope = scope::parse(&waits.scope)?;
    let begun = link::begin(&app.ctx, &client, &scope).await?;
    let page = format!("{}{LINK_PATH}", config(&app.ctx)?.base_url);
    let body = json!({
        "device_code": begun.device_code,
        "user_code": begun.user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={}", begun.user_code),
        "expires_in": link::LIFE_S,
        "interval": link::INTERVAL_S,
    });
    Ok((NO_STORE, Object(body)).into_response())
}
