//! Login and logout.

use axum::{
    Router,
    extract::{FromRequest, Request, State},
};
use ruma::{
    OwnedUserId, UserId,
    api::client::{
        session::{
            get_login_token, get_login_types, login, login::v3::LoginInfo, logout, logout_all,
            refresh_token,
        },
        uiaa::UserIdentifier,
    },
};
use serde_json::{Value, json};

use super::account::ask_password;
use crate::{
    config::oidc::IdentityProvider,
    context::Context,
    http::{
        App,
        error::ApiError,
        limits::Kind,
        mount,
        reply::Object,
        request::{Authenticated, CLIENT_BODY_MAX, Public, read},
    },
    storage,
    users::{
        self,
        login::parse_user,
        login_token,
        tokens::{Cause, Granted},
    },
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_login_types::v3::Request, _, _>(Router::new(), get_login_types);
    let router = mount::<login::v3::Request, _, _>(router, login);
    let router = mount::<refresh_token::v3::Request, _, _>(router, refresh_token);
    let router = mount::<logout::v3::Request, _, _>(router, logout);
    let router = mount::<get_login_token::v1::Request, _, _>(router, get_login_token);
    mount::<logout_all::v3::Request, _, _>(router, logout_all)
}

/// `GET /_matrix/client/v3/login`
async fn get_login_types(
    State(ctx): State<Context>,
    _: Public<get_login_types::v3::Request>,
) -> Object {
    let mut flows = vec![
        json!({ "type": "m.login.password" }),
        json!({ "type": "m.login.token", "get_login_token": true }),
        json!({ "type": "m.login.application_service" }),
    ];
    let providers: Vec<Value> = ctx.config.oidc.iter().map(|it| shown(it)).collect();
    if ctx.config.oauth.is_some() {
        // On our pages one chooses how to log in, so that clients need not ask.
        flows.push(json!({
            "type": "m.login.sso",
            "oauth_aware_preferred": true,
            "org.matrix.msc3824.delegated_oidc_compatibility": true,
        }));
    } else if !providers.is_empty() {
        flows.push(json!({ "type": "m.login.sso", "identity_providers": providers }));
    }
    Object(json!({ "flows": flows }))
}

/// A provider as clients show it.
fn shown(provider: &IdentityProvider) -> Value {
    let mut shown = json!({ "id": provider.id, "name": provider.name });
    for (key, value) in [("icon", &provider.icon), ("brand", &provider.brand)] {
        if let Some(value) = value {
            shown[key] = json!(value);
        }
    }
    shown
}

/// A login that says of which kind it is: ruma's type takes that for granted, and panics.
struct Login(Public<login::v3::Request>);

impl FromRequest<App> for Login {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read(body, CLIENT_BODY_MAX).await?;
        let parsed = serde_json::from_slice::<Value>(&body);
        let parsed = parsed.map_err(|_| ApiError::not_json("not JSON"))?;
        if !parsed.get("type").is_some_and(Value::is_string) {
            return Err(ApiError::bad_json("missing field `type`"));
        }
        let request = Request::from_parts(parts, body.into());
        Ok(Self(Public::from_request(request, app).await?))
    }
}

/// `POST /_matrix/client/v3/login`
async fn login(
    State(app): State<App>,
    Login(Public {
        request,
        address,
        shown,
        ..
    }): Login,
) -> Result<Object, ApiError> {
    let mut origin = None;
    let user = match &request.login_info {
        LoginInfo::Password(password) => {
            app.limits.check_address(Kind::LoginAddress, address)?;
            let user = if let Some(UserIdentifier::Email(email)) = &password.identifier {
                // What is no address is nobody's.
                let mailbox = users::threepids::canonical(&email.address).unwrap_or_default();
                app.limits.check(Kind::LoginAccount, &mailbox)?;
                users::login::find_by_address(&app.ctx, &mailbox).await?
            } else {
                #[expect(deprecated, reason = "old clients name the user here")]
                let name = named(password.identifier.as_ref(), password.user.as_ref())?;
                app.limits.check(Kind::LoginAccount, name)?;
                parse_user(&app.ctx, name)
            };
            check_password(&app, user.as_deref(), &password.password).await??
        }
        LoginInfo::ApplicationService(login) => {
            let service = shown.appservice()?;
            #[expect(deprecated, reason = "old services name the user here")]
            let name = named(login.identifier.as_ref(), login.user.as_ref())?;
            users::login::check_appservice(&app.ctx, &service, name).await?
        }
        LoginInfo::Token(login) => {
            app.limits.check_address(Kind::LoginAddress, address)?;
            let (user, from) = login_token::redeem(&app.ctx, &login.token).await?;
            origin = from;
            user
        }
        _ => return Err(users::Error::UnknownLogin.into()),
    };
    let cause = Cause {
        origin: origin.as_ref(),
        client: None,
    };
    let granted = app
        .tokens
        .grant_of(
            &user,
            request.device_id.as_deref(),
            request.initial_device_display_name.as_deref(),
            request.refresh_token,
            cause,
        )
        .await?;
    Ok(Object(granted_body(&user, &granted)))
}

/// Checks a password, unless too many wrong ones were given for the account; whose it is, or why it is
/// not good.
pub(in crate::http) async fn check_password(
    app: &App,
    user: Option<&UserId>,
    password: &str,
) -> Result<Result<OwnedUserId, users::Error>, ApiError> {
    let who = user.map_or("", UserId::as_str);
    if user.is_some() {
        app.limits.look(Kind::LoginFailed, who)?;
    }
    let checked = users::login::check_password(&app.ctx, user, password).await;
    if user.is_some() && matches!(checked, Err(users::Error::WrongCredentials)) {
        app.limits.note(Kind::LoginFailed, who);
    }
    Ok(checked)
}

/// `POST /_matrix/client/v1/login/get_token`
async fn get_login_token(
    State(app): State<App>,
    Authenticated { session, auth, .. }: Authenticated<get_login_token::v1::Request>,
) -> Result<Object, ApiError> {
    ask_password(&app, &session, "POST /login/get_token", auth.as_ref()).await?;
    let token = login_token::issue_for(&app.ctx, &session).await?;
    Ok(Object(
        json!({ "login_token": token, "expires_in_ms": login_token::LIFE_MS }),
    ))
}

/// The user that a login names.
fn named<'a>(
    identifier: Option<&'a UserIdentifier>,
    old: Option<&'a String>,
) -> Result<&'a str, ApiError> {
    let name = match identifier {
        Some(UserIdentifier::Matrix(matrix)) => Some(&matrix.user),
        Some(_) => return Err(users::Error::UnknownLogin.into()),
        None => old,
    };
    name.map(String::as_str)
        .ok_or_else(|| ApiError::missing_param("identifier"))
}

/// What a login or a registration answers.
pub(in crate::http) fn granted_body(user: &UserId, granted: &Granted) -> Value {
    let mut body = json!({
        "user_id": user,
        "access_token": granted.access_token,
        "device_id": granted.device_id,
        "home_server": user.server_name(),
    });
    if let Some(token) = &granted.refresh_token {
        body["refresh_token"] = json!(token);
        body["expires_in_ms"] = json!(granted.expires_in_ms);
    }
    body
}

/// `POST /_matrix/client/v3/refresh`
async fn refresh_token(
    State(app): State<App>,
    Public { request, .. }: Public<refresh_token::v3::Request>,
) -> Result<Object, ApiError> {
    let granted = app.tokens.refresh(&request.refresh_token, None).await?;
    Ok(Object(json!({
        "access_token": granted.access_token,
        "refresh_token": granted.refresh_token,
        "expires_in_ms": granted.expires_in_ms,
    })))
}

/// `POST /_matrix/client/v3/logout`
async fn logout(
    State(app): State<App>,
    Authenticated { session, .. }: Authenticated<logout::v3::Request>,
) -> Result<Object, ApiError> {
    app.tokens
        .end(session.user_nid, &[session.device_no])
        .await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/logout/all`
async fn logout_all(
    State(app): State<App>,
    Authenticated { session, .. }: Authenticated<logout_all::v3::Request>,
) -> Result<Object, ApiError> {
    let mut conn = app.ctx.db.conn().await?;
    let devices = storage::devices::list_awake(&mut conn, session.user_nid).await?;
    drop(conn);
    app.tokens.end(session.user_nid, &devices).await?;
    Ok(Object(json!({})))
}
