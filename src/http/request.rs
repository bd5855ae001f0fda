//! Who asks, and for what: a request is parsed and its sender known before a handler runs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{
        ConnectInfo, FromRequest, FromRequestParts, OptionalFromRequestParts, RawPathParams,
        Request,
    },
};
use http::request::Parts;
use ruma::{
    OwnedServerName, UserId,
    api::{
        IncomingRequest, IncomingRequestExt, Metadata,
        auth_scheme::{
            AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional,
            NoAccessToken, NoAuthentication,
        },
        error::{DeserializationError, FromHttpRequestError},
        federation::authentication::{ServerSignatures, XMatrix},
    },
};

use super::{App, error::ApiError, fair::Turn, standing::admit};
use crate::{
    clock::now_ms,
    config::Appservice,
    federation::{gate::Way, signed},
    users::tokens::{Found, Session},
};

/// Bytes of a body of the client API.
pub(super) const CLIENT_BODY_MAX: usize = 2 << 20;
/// Bytes of a body of the server API: 50 PDUs of 64 KiB, and room to spare.
const FEDERATION_BODY_MAX: usize = 12 << 20;

/// How long a peer may take to send a body.
const BODY_PATIENCE: Duration = Duration::from_mins(1);

/// A request of anybody.
#[derive(Debug)]
pub struct Public<R> {
    /// The request.
    pub request: R,
    /// Where it came from.
    pub address: Option<SocketAddr>,
    /// The `auth` object of the body, for user-interactive authentication.
    pub auth: Option<serde_json::Value>,
    /// Whose access token it shows, where it shows one.
    pub shown: Shown,
}

/// An access token that a request of anybody shows.
#[derive(Clone, Debug)]
pub enum Shown {
    /// None.
    Nothing,
    /// That of an application service.
    Appservice(Arc<Appservice>),
    /// Some other.
    Other,
}

impl Shown {
    /// The application service that asks, where nobody else may.
    pub fn appservice(self) -> Result<Arc<Appservice>, ApiError> {
        match self {
            Self::Nothing => Err(ApiError::missing_token()),
            Self::Appservice(service) => Ok(service),
            Self::Other => Err(ApiError::unknown_token(false)),
        }
    }
}

/// A request of an application service.
#[derive(Debug)]
pub struct Served<R> {
    /// Which.
    pub appservice: Arc<Appservice>,
    /// The request.
    pub request: R,
}

impl<R> FromRequest<App> for Served<R>
where
    R: IncomingRequest + Metadata<Authentication = AppserviceToken>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let appservice = match shown(&parts, app) {
            // A token of a user is known, and not enough.
            Shown::Other => {
                session(&parts, app).await?;
                return Err(ApiError::forbidden("this is for application services"));
            }
            shown => shown.appservice()?,
        };
        let body = read(body, CLIENT_BODY_MAX).await?;
        let request = parse::<R>(&mut parts, &body, app).await?;
        Ok(Self {
            appservice,
            request,
        })
    }
}

/// A request of one of our users.
#[derive(Debug)]
pub struct Authenticated<R> {
    /// Who asks.
    pub session: Arc<Session>,
    /// The request.
    pub request: R,
    /// Path as it was asked for: the scope of transaction ids.
    pub path: String,
    /// The `auth` object of the body, for user-interactive authentication.
    pub auth: Option<serde_json::Value>,
    /// The body as it came, for what the type of the request drops.
    pub body: Bytes,
}

/// A request of a peer, its signature checked.
#[derive(Debug)]
pub struct Signed<R> {
    /// Who asks.
    pub origin: OwnedServerName,
    /// The request.
    pub request: R,
    /// Its place among the requests of that peer, until it is answered.
    pub turn: Turn,
}

/// One of our users asks.
#[derive(Clone, Debug)]
pub struct Asking(pub Arc<Session>);

impl FromRequestParts<App> for Asking {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        session(parts, app).await.map(Self)
    }
}

/// One of our users asks, or somebody without a session; a session that is over is no session, and an
/// error.
impl OptionalFromRequestParts<App> for Asking {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, ApiError> {
        let is_named = token(parts).is_some();
        if !is_named && !parts.headers.contains_key(http::header::AUTHORIZATION) {
            return Ok(None);
        }
        session(parts, app).await.map(|session| Some(Self(session)))
    }
}

/// A request of one of our users with bytes that are read as they come.
#[derive(Debug)]
pub struct Upload<R> {
    /// Who asks.
    pub session: Arc<Session>,
    /// The request without its bytes.
    pub request: R,
    /// The bytes.
    pub body: axum::body::Body,
    /// How many there are, as far as the client says.
    pub length: Option<u64>,
}

/// A JSON body, whatever its content type says: clients of Matrix often say nothing.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: serde::de::DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        let body = read(request.into_body(), CLIENT_BODY_MAX).await?;
        let parsed = serde_json::from_slice(&body);
        parsed.map(Self).map_err(|error| {
            if error.is_data() {
                ApiError::bad_json(&error.to_string())
            } else {
                ApiError::not_json("not JSON")
            }
        })
    }
}

/// Requests that anybody may make.
pub trait ForAnybody {}
impl ForAnybody for NoAuthentication {}
impl ForAnybody for NoAccessToken {}
impl ForAnybody for AccessTokenOptional {}
impl ForAnybody for AppserviceTokenOptional {}

/// Requests that our users make.
pub trait ForUsers {}
impl ForUsers for AccessToken {}
// Password change and deactivation: without a session there is nothing here to prove who asks.
impl ForUsers for AccessTokenOptional {}

impl<R> FromRequest<App> for Public<R>
where
    R: IncomingRequest,
    <R as Metadata>::Authentication: ForAnybody,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let address = address(&parts);
        let shown = shown(&parts, app);
        let body = read(body, CLIENT_BODY_MAX).await?;
        let request = parse::<R>(&mut parts, &body, app).await?;
        Ok(Self {
            request,
            address,
            auth: auth_of(&body),
            shown,
        })
    }
}

impl<R> FromRequest<App> for Authenticated<R>
where
    R: IncomingRequest,
    <R as Metadata>::Authentication: ForUsers,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let session = session(&parts, app).await?;
        let body = read(body, CLIENT_BODY_MAX).await?;
        let path = parts.uri.path().to_owned();
        let request = parse::<R>(&mut parts, &body, app).await?;
        Ok(Self {
            session,
            request,
            path,
            auth: auth_of(&body),
            body,
        })
    }
}

impl<R> FromRequest<App> for Upload<R>
where
    R: IncomingRequest + Metadata<Authentication = AccessToken>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let session = session(&parts, app).await?;
        let length = length(&parts);
        let request = parse::<R>(&mut parts, &Bytes::new(), app).await?;
        Ok(Self {
            session,
            request,
            body,
            length,
        })
    }
}

impl<R> FromRequest<App> for Signed<R>
where
    R: IncomingRequest + Metadata<Authentication = ServerSignatures>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let claimed = XMatrix::extract_from_http_headers(&parts.headers)
            .map_err(|error| ApiError::unauthorized(&format!("X-Matrix: {error}")))?;
        let gate = app.ctx.federation.gate();
        gate.check(&claimed.origin, Way::Inbound)?;
        let reading = app
            .fair
            .read(
                address(&parts).map(|address| address.ip()),
                &claimed.origin,
                length_max(&parts),
            )
            .await?;
        let body = tokio::time::timeout(BODY_PATIENCE, read(body, FEDERATION_BODY_MAX))
            .await
            .map_err(|_| {
                ApiError::new(
                    http::StatusCode::REQUEST_TIMEOUT,
                    "M_UNKNOWN",
                    "the body took too long",
                )
            })??;
        verify(&parts, &body, &claimed, app).await?;
        drop(reading);
        let turn = app.fair.turn(&claimed.origin).await?;
        app.sender.peer_alive(&claimed.origin).await;
        let request = parse::<R>(&mut parts, &body, app).await?;
        Ok(Self {
            origin: claimed.origin,
            request,
            turn,
        })
    }
}

/// Where a request came from.
pub(super) fn address(parts: &Parts) -> Option<SocketAddr> {
    let info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    info.map(|info| info.0)
}

/// Bytes of the body, as far as the request says.
fn length(parts: &Parts) -> Option<u64> {
    let said = parts.headers.get(http::header::CONTENT_LENGTH)?;
    said.to_str().ok()?.parse().ok()
}

/// Bytes that the body of a peer's request may have, by what it says.
fn length_max(parts: &Parts) -> usize {
    match length(parts) {
        None if parts.method == http::Method::GET => 0,
        None => FEDERATION_BODY_MAX,
        Some(said) => {
            usize::try_from(said).map_or(FEDERATION_BODY_MAX, |said| said.min(FEDERATION_BODY_MAX))
        }
    }
}

/// Checks the signature of a peer's request over method, URI as sent, origin, destination, body.
async fn verify(parts: &Parts, body: &Bytes, claimed: &XMatrix, app: &App) -> Result<(), ApiError> {
    let own = app.ctx.server_name();
    if claimed.origin == *own {
        return Err(ApiError::unauthorized(
            "requests of ourselves are not expected",
        ));
    }
    let needed = [(
        claimed.origin.clone(),
        [claimed.key.to_string()].into_iter().collect(),
    )]
    .into();
    let keys = app.ctx.federation.keys().known(&needed).await;
    // A key that went out of use may be in anybody's hands.
    let keys = keys.select(&needed, Some(now_ms()));
    let mut view = http::Request::new(body.as_ref());
    *view.method_mut() = parts.method.clone();
    *view.uri_mut() = parts.uri.clone();
    signed::verify(claimed, &view, own, &keys)
        .map_err(|error| ApiError::unauthorized(&error.to_string()))
}

/// The session of the request's access token.
pub(crate) async fn session(parts: &Parts, app: &App) -> Result<Arc<Session>, ApiError> {
    let token = token(parts).ok_or_else(ApiError::missing_token)?;
    if let Some(service) = app.ctx.appservices.by_token(&token) {
        return asserted(parts, app, service).await;
    }
    match app.tokens.find(&token).await? {
        Found::Valid(session) => {
            admit(parts, &session, app).await?;
            let agent = parts.headers.get(http::header::USER_AGENT);
            let agent = agent.and_then(|agent| agent.to_str().ok());
            let address = address(parts).map(|address| address.ip());
            app.seen.note(&session, address, agent);
            Ok(session)
        }
        Found::Expired => Err(ApiError::unknown_token(true)),
        Found::Unknown => Err(ApiError::unknown_token(false)),
    }
}

/// Whose token a request shows.
fn shown(parts: &Parts, app: &App) -> Shown {
    let Some(token) = token(parts) else {
        return Shown::Nothing;
    };
    let service = app.ctx.appservices.by_token(&token);
    service.map_or(Shown::Other, |it| Shown::Appservice(it.clone()))
}

/// The user and device that an application service speaks for, in the query.
async fn asserted(
    parts: &Parts,
    app: &App,
    service: &Arc<Appservice>,
) -> Result<Arc<Session>, ApiError> {
    let query = parts.uri.query().unwrap_or_default();
    let named = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let found = pairs.find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    };
    let user = named("user_id").map(UserId::parse).transpose();
    let user = user.map_err(|_| ApiError::invalid_param("user_id"))?;
    let device = named("device_id").or_else(|| named("org.matrix.msc3202.device_id"));
    let found = app
        .tokens
        .of_appservice(service, user.as_deref(), device.as_deref());
    let session = found.await?;
    admit(parts, &session, app).await?;
    Ok(session)
}

/// The access token, in the header or (deprecated) in the query.
fn token(parts: &Parts) -> Option<String> {
    if let Some(header) = parts.headers.get(http::header::AUTHORIZATION) {
        let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim().to_owned());
    }
    let query = parts.uri.query()?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "access_token")
        .map(|(_, token)| token.into_owned())
}

pub(super) async fn read(body: axum::body::Body, max: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, max).await.map_err(|error| {
        use std::error::Error;
        let too_large = error
            .source()
            .is_some_and(<dyn std::error::Error + 'static>::is::<http_body_util::LengthLimitError>);
        if too_large {
            ApiError::too_large()
        } else {
            ApiError::not_json("the body broke off")
        }
    })
}

fn auth_of(body: &Bytes) -> Option<serde_json::Value> {
    #[derive(serde::Deserialize)]
    struct Auth {
        auth: Option<serde_json::Value>,
    }
    serde_json::from_slice::<Auth>(body).ok()?.auth
}

async fn parse<R: IncomingRequest>(
    parts: &mut Parts,
    body: &Bytes,
    app: &App,
) -> Result<R, ApiError> {
    let params = RawPathParams::from_request_parts(parts, app)
        .await
        .map_err(|_| ApiError::invalid_param("the path is not UTF-8"))?;
    let args: Vec<&str> = params.iter().map(|(_, value)| value).collect();
    // Readers of JSON may skip over texts that they have no use for.
    if std::str::from_utf8(body).is_err() {
        return Err(ApiError::not_json("the body is not UTF-8"));
    }
    // Some endpoints take JSON on requests that clients make without a body.
    let view: &[u8] = if body.is_empty() { b"{}" } else { body };
    let raw_body = parts.method == http::Method::GET || parts.method == http::Method::DELETE;
    let mut request = http::Request::new(if raw_body { body.as_ref() } else { view });
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    R::try_from_http_request(request, &args).map_err(|error| refusal(&error, body))
}

fn refusal(error: &FromHttpRequestError, body: &Bytes) -> ApiError {
    let FromHttpRequestError::Deserialization(cause) = error else {
        return ApiError::unrecognized(http::StatusCode::METHOD_NOT_ALLOWED);
    };
    match cause {
        DeserializationError::Json(json) => {
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
            if is_json {
                ApiError::bad_json(&json.to_string())
            } else {
                ApiError::not_json("not JSON")
            }
        }
        DeserializationError::Query(query) => ApiError::invalid_param(&query.to_string()),
        other => ApiError::invalid_param(&other.to_string()),
    }
}
