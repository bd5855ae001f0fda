//! Login through identity providers, as browsers see it (specification, "SSO client login/authentication").
//! Whatever goes wrong is told to people, in pages.

mod page;
mod whence;

use axum::{
    Form, Router,
    extract::{
        Query, State,
        rejection::{FormRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ruma::{
    UserId,
    api::client::session::{sso_login, sso_login_with_provider},
};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use self::whence::{cookie, cookie_of};
pub(super) use self::whence::{cookie_named, place, redirect_url};
use super::{
    App,
    error::ApiError,
    limits::{Kind, Whence},
    mount, oauth,
    page::{redirection, set_cookies},
    path::Path,
    reply::Object,
};
use crate::{
    oidc::Provider,
    rooms::membership,
    users::{
        sso::{self, Back, Begun, CALLBACK_PATH, Done, Error, Goal, logout},
        uia,
    },
};

/// Where people choose among several providers.
const CHOICE_PATH: &str = "/_synapse/client/pick_idp";
/// Where people prove once more who they are.
const STAGE_PATH: &str = "/_matrix/client/v3/auth/m.login.sso/fallback/web";
/// Bytes of the address of a client.
const PARAMETER_BYTES_MAX: usize = 2_048;

pub(super) fn routes() -> Router<App> {
    let router = mount::<sso_login::v3::Request, _, _>(Router::new(), sso_login);
    let router =
        mount::<sso_login_with_provider::v3::Request, _, _>(router, sso_login_with_provider);
    router
        .route(CHOICE_PATH, get(choice))
        .route(CALLBACK_PATH, get(callback))
        .route(STAGE_PATH, get(stage))
        .route(&STAGE_PATH.replacen("v3", "r0", 1), get(stage))
        .route(
            "/_synapse/client/oidc/backchannel_logout",
            post(backchannel_logout),
        )
}

/// An answer that is no page: there are no providers here.
fn check_any(app: &App) -> Result<(), ApiError> {
    if app.ctx.providers.all().is_empty() {
        return Err(ApiError::unrecognized(StatusCode::NOT_FOUND));
    }
    Ok(())
}

/// What a client sends a browser here with.
#[derive(Deserialize)]
struct Wanted {
    #[serde(default, rename = "redirectUrl")]
    redirect_url: String,
    /// Whether the person wants to log in, or to make an account.
    #[serde(alias = "org.matrix.msc3824.action")]
    action: Option<String>,
}

type Asked<T> = Result<Query<T>, QueryRejection>;

/// The address at which a client waits; `None`: it names none that can be.
fn wanted(asked: Asked<Wanted>) -> Option<Wanted> {
    let wanted = asked.ok()?.0;
    let text = &wanted.redirect_url;
    let is_good = text.len() <= PARAMETER_BYTES_MAX && redirect_url(text).is_some();
    is_good.then_some(wanted)
}

/// `GET /_matrix/client/v3/login/sso/redirect`
async fn sso_login(
    State(app): State<App>,
    Whence(address): Whence,
    asked: Asked<Wanted>,
) -> Result<Response, ApiError> {
    let is_ours = app.ctx.config.oauth.is_some();
    if !is_ours {
        check_any(&app)?;
    }
    app.limits.check_address(Kind::Sso, address)?;
    let Some(Wanted {
        redirect_url,
        action,
    }) = wanted(asked)
    else {
        return Ok(page::bad_client());
    };
    if is_ours {
        let location = oauth::is_path(&redirect_url, action.as_deref());
        return Ok(redirection(StatusCode::FOUND, &location, []));
    }
    if let [only] = app.ctx.providers.all() {
        let goal = Goal::Session {
            redirect_url: &redirect_url,
        };
        return Ok(begin(&app, only, goal).await);
    }
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("redirectUrl", &redirect_url);
    let location = format!("{CHOICE_PATH}?{}", query.finish());
    Ok(redirection(StatusCode::FOUND, &location, []))
}

/// `GET /_matrix/client/v3/login/sso/redirect/{idpId}`
async fn sso_login_with_provider(
    State(app): State<App>,
    Whence(address): Whence,
    Path(id): Path<String>,
    asked: Asked<Wanted>,
) -> Result<Response, ApiError> {
    check_any(&app)?;
    app.limits.check_address(Kind::Sso, address)?;
    let Some(provider) = app.ctx.providers.find(&id) else {
        return Ok(page::unknown_provider());
    };
    let Some(Wanted { redirect_url, .. }) = wanted(asked) else {
        return Ok(page::bad_client());
    };
    let goal = Goal::Session {
        redirect_url: &redirect_url,
    };
    Ok(begin(&app, provider, goal).await)
}

/// `GET /_synapse/client/pick_idp`
async fn choice(State(app): State<App>, asked: Asked<Wanted>) -> Result<Response, ApiError> {
    check_any(&app)?;
    let Some(Wanted { redirect_url, .. }) = wanted(asked) else {
        return Ok(page::bad_client());
    };
    let links = app.ctx.providers.all().iter().map(|provider| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("redirectUrl", &redirect_url);
        // An id stands for itself in a path.
        let id = &provider.config.id;
        let path = format!(
            "/_matrix/client/v3/login/sso/redirect/{id}?{}",
            query.finish()
        );
        (path, provider.config.name.clone())
    });
    Ok(page::choice(&links.collect::<Vec<_>>()))
}

/// Sends a browser to a provider, with the cookie by which it is known when it comes back.
pub(super) async fn begin(app: &App, provider: &Provider, goal: Goal<'_>) -> Response {
    match sso::begin(&app.ctx, provider, goal).await {
        Ok(Begun {
            location,
            state,
            cookie: value,
        }) => {
            let cookie = cookie(is_secure(app), &state, Some(&value));
            redirection(StatusCode::FOUND, location.as_str(), [&*cookie])
        }
        Err(error) => page::failure(&error),
    }
}

/// Whether browsers come here with TLS.
fn is_secure(app: &App) -> bool {
    let base = app.ctx.config.well_known.client.as_deref();
    base.is_some_and(|base| base.starts_with("https://"))
}

/// What a browser comes back with.
#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// `GET /_synapse/client/oidc/callback`
async fn callback(
    State(app): State<App>,
    Whence(address): Whence,
    headers: HeaderMap,
    asked: Asked<Answer>,
) -> Result<Response, ApiError> {
    check_any(&app)?;
    app.limits.check_address(Kind::Sso, address)?;
    let answer = asked.map(|Query(answer)| answer).unwrap_or_default();
    let cookie_value = cookie_of(&headers, is_secure(&app), &answer.state);
    let back = Back {
        state: &answer.state,
        cookie: &cookie_value.unwrap_or_default(),
        code: answer.code.as_deref(),
        error: answer.error.as_deref(),
        issuer: answer.iss.as_deref(),
    };
    let done = match sso::finish(&app.ctx, back).await {
        Ok(done) => done,
        Err(error) => return Ok(page::failure(&error)),
    };
    let over = cookie(is_secure(&app), &answer.state, None);
    match done {
        Done::Stage => Ok(page::stage_done(&over)),
        Done::Page {
            path,
            token,
            user,
            is_renamed,
        } => {
            rename(&app, &user, is_renamed).await;
            let base = app
                .ctx
                .config
                .oauth
                .as_ref()
                .map(|config| &*config.base_url);
            let mut response = oauth::logged_in(base.unwrap_or_default(), Some(&token), &path);
            set_cookies(&mut response, [&*over]);
            Ok(response)
        }
        Done::Session {
            redirect_url: waiting,
            token,
            user,
            is_renamed,
        } => {
            rename(&app, &user, is_renamed).await;
            let Some(url) = redirect_url(&waiting) else {
                return Ok(page::bad_client());
            };
            let is_listed = whence::is_listed(&app.ctx.config.sso.client_whitelist, &url);
            let location = with_token(url.clone(), &token);
            Ok(if is_listed {
                redirection(StatusCode::FOUND, location.as_str(), [&*over])
            } else {
                page::confirmation(&url, &location, &user, &over)
            })
        }
    }
}

/// Tells rooms of a new name.
async fn rename(app: &App, user: &UserId, is_renamed: bool) {
    if is_renamed && let Err(error) = membership::spread_profile(&app.rooms, user).await {
        // Rooms hear of the name with the next change.
        tracing::warn!(%error, "a display name was not told to rooms");
    }
}

fn with_token(mut url: Url, token: &str) -> Url {
    url.query_pairs_mut().append_pair("loginToken", token);
    url
}

/// What a client opens a browser with.
#[derive(Default, Deserialize)]
struct Stage {
    #[serde(default)]
    session: String,
    /// Chosen on the page.
    provider: Option<String>,
}

/// `GET /_matrix/client/v3/auth/m.login.sso/fallback/web`
///
/// The page says what is to be done with it before anybody goes on: who has stolen a session may send
/// its user here.
async fn stage(
    State(app): State<App>,
    Whence(address): Whence,
    asked: Asked<Stage>,
) -> Result<Response, ApiError> {
    check_any(&app)?;
    app.limits.check_address(Kind::Sso, address)?;
    let asked = asked.map(|Query(asked)| asked).unwrap_or_default();
    let pending = uia::pending(&app.ctx, &asked.session).await?;
    let Some((operation, (user, nid))) = pending.and_then(|it| it.user.map(|user| (it.path, user)))
    else {
        return Ok(page::failure(&Error::NotUnderWay));
    };
    let providers = sso::providers_of(&app.ctx, nid).await?;
    let chosen = asked.provider.as_deref();
    let chosen = chosen.and_then(|id| providers.iter().find(|it| it.config.id == id));
    if let Some(provider) = chosen {
        let goal = Goal::Stage {
            session: &asked.session,
        };
        return Ok(begin(&app, provider, goal).await);
    }
    if providers.is_empty() {
        return Ok(page::failure(&Error::NotUnderWay));
    }
    let links = providers.iter().map(|provider| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("session", &asked.session);
        query.append_pair("provider", &provider.config.id);
        (format!("?{}", query.finish()), provider.config.name.clone())
    });
    Ok(page::stage(&operation, &user, &links.collect::<Vec<_>>()))
}

/// What a provider sends.
#[derive(Deserialize)]
struct LogoutForm {
    logout_token: String,
}

/// `POST /_synapse/client/oidc/backchannel_logout`
async fn backchannel_logout(
    State(app): State<App>,
    form: Result<Form<LogoutForm>, FormRejection>,
) -> Result<Response, ApiError> {
    if !app.ctx.providers.any_logs_out() {
        return Err(ApiError::unrecognized(StatusCode::NOT_FOUND));
    }
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    // OpenID Connect Back-Channel Logout 1.0, section 2.8.
    let refused = |why: &str| {
        let body = json!({ "error": "invalid_request", "error_description": why });
        (StatusCode::BAD_REQUEST, no_store.clone(), Object(body)).into_response()
    };
    let Ok(Form(form)) = form else {
        return Ok(refused("logout_token is missing"));
    };
    match logout::obey(&app.ctx, &app.tokens, &form.logout_token).await {
        Ok(()) => Ok((no_store, Object(json!({}))).into_response()),
        Err(Error::Account(error)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "a logout token was not obeyed");
            Ok(refused(&error.to_string()))
        }
    }
}
