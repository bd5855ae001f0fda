//! Registration and what an account can do with itself.

mod contacts;

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::State};
use ruma::{
    OwnedUserId, UserId,
    api::client::account::{
        change_password, check_registration_token_validity, deactivate, get_username_availability,
        register, request_openid_token, whoami,
    },
};
use serde_json::{Value, json};

use super::session::granted_body;
use crate::{
    config::Appservice,
    http::{
        App,
        error::ApiError,
        limits::Kind,
        mount,
        reply::Object,
        request::{Asking, Authenticated, Public},
    },
    rooms::membership,
    storage::{self, UserNid},
    users::{
        self, login, openid, passwords, registration,
        tokens::{Found, Session},
        uia::{self, Operation},
    },
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<register::v3::Request, _, _>(Router::new(), register);
    let router =
        mount::<get_username_availability::v3::Request, _, _>(router, get_username_availability);
    let router = mount::<check_registration_token_validity::v1::Request, _, _>(
        router,
        check_registration_token_validity,
    );
    let router = mount::<whoami::v3::Request, _, _>(router, whoami);
    let router = mount::<request_openid_token::v3::Request, _, _>(router, request_openid_token);
    let router = mount::<change_password::v3::Request, _, _>(router, change_password);
    let router = mount::<deactivate::v3::Request, _, _>(router, deactivate);
    contacts::mount_all(router)
}

/// `POST /_matrix/client/v3/register`
async fn register(
    State(app): State<App>,
    Public {
        request,
        address,
        auth,
        shown,
    }: Public<register::v3::Request>,
) -> Result<Object, ApiError> {
    if request.kind == register::RegistrationKind::Guest {
        return register_guest(&app, &request, address).await;
    }
    let user = match request.login_type {
        Some(register::LoginType::ApplicationService) => {
            register_of_appservice(&app, &request, &*shown.appservice()?).await?
        }
        _ => register_by_oneself(&app, &request, address, auth.as_ref()).await?,
    };
    if request.inhibit_login {
        return Ok(Object(
            json!({ "user_id": user, "home_server": user.server_name() }),
        ));
    }
    let name = request.initial_device_display_name.as_deref();
    let granted = app
        .tokens
        .grant(
            &user,
            request.device_id.as_deref(),
            name,
            request.refresh_token,
        )
        .await?;
    Ok(Object(granted_body(&user, &granted)))
}

/// Anybody becomes a guest, where there are any. Of the request nothing counts but the name of the
/// device (specification).
async fn register_guest(
    app: &App,
    request: &register::v3::Request,
    address: Option<SocketAddr>,
) -> Result<Object, ApiError> {
    if !app.ctx.config.registration.guests {
        return Err(users::Error::NotForGuests.into());
    }
    app.limits.check_address(Kind::Registration, address)?;
    let user = registration::create_guest(&app.ctx).await?;
    let name = request.initial_device_display_name.as_deref();
    let granted = app.tokens.grant(&user, None, name, false).await?;
    Ok(Object(granted_body(&user, &granted)))
}

/// The session of a guest who becomes a usual user.
async fn guest(
    app: &App,
    request: &register::v3::Request,
) -> Result<Option<Arc<Session>>, ApiError> {
    let Some(token) = &request.guest_access_token else {
        return Ok(None);
    };
    let found = app.tokens.find(token).await?;
    let Found::Valid(session) = found else {
        return Err(ApiError::unknown_token(false));
    };
    let name = request.username.as_deref();
    let is_own = session.guest && name.is_none_or(|name| name == session.user_id.localpart());
    if !is_own {
        return Err(ApiError::forbidden("a guest keeps the name"));
    }
    Ok(Some(session))
}

/// An application service makes a user of its own, without more ado.
async fn register_of_appservice(
    app: &App,
    request: &register::v3::Request,
    service: &Appservice,
) -> Result<OwnedUserId, ApiError> {
    let name = request.username.as_deref();
    let name = name.ok_or_else(|| ApiError::missing_param("username"))?;
    let user = registration::user_id(app.ctx.server_name(), name)?;
    registration::check_reserved(&app.ctx, &user, Some(service))?;
    registration::create_account(&app.ctx, &user, None, (false, None), None).await?;
    Ok(user)
}

/// Somebody makes an account.
async fn register_by_oneself(
    app: &App,
    request: &register::v3::Request,
    address: Option<SocketAddr>,
    auth: Option<&Value>,
) -> Result<OwnedUserId, ApiError> {
    let config = &app.ctx.config.registration;
    if !config.open && !config.require_token {
        return Err(users::Error::RegistrationClosed.into());
    }
    if let Some(address) = address {
        // Clients ask every few seconds whether the link was opened.
        let stage = auth.and_then(|auth| auth.get("type"));
        let is_asking = stage.is_some_and(|stage| stage == uia::EMAIL_STAGE);
        let kind = if config.require_email && is_asking {
            Kind::MailLink
        } else {
            Kind::Registration
        };
        app.limits.check(kind, &address.ip().to_string())?;
    }
    let name = request
        .username
        .clone()
        .unwrap_or_else(registration::fresh_name);
    let guest = guest(app, request).await?;
    let user = match &guest {
        Some(guest) => guest.user_id.clone(),
        None => registration::user_id(app.ctx.server_name(), &name)?,
    };
    registration::check_reserved(&app.ctx, &user, None)?;
    if guest.is_none() {
        registration::check_available(&app.ctx, &user).await?;
    }
    // Before an address is proved, which is good once.
    if let Some(password) = request.password.as_deref().filter(|_| config.require_email) {
        passwords::check_strength(password, config.password_length_min)?;
    }
    let operation = Operation {
        path: uia::REGISTER,
        user: None,
        oauth: false,
    };
    let facts = uia::authenticate(&app.ctx, operation, auth).await?;
    let password = request.password.as_deref();
    let password = password.ok_or_else(|| ApiError::missing_param("password"))?;
    passwords::check_strength(password, config.password_length_min)?;
    if let Some(token) = facts.get("registration_token").and_then(Value::as_str) {
        registration::use_token(&app.ctx, token)
            .await
            .map_err(|_| ApiError::forbidden("the registration token is used up"))?;
    }
    let address = facts.get("email").and_then(Value::as_str);
    let address = address.map(|it| (it, facts["email_ts"].as_i64().unwrap_or_default()));
    if let Some(guest) = &guest {
        registration::upgrade_guest(&app.ctx, guest, password, address).await?;
    } else {
        let kind = (false, None);
        registration::create_account(&app.ctx, &user, Some(password), kind, address).await?;
    }
    accept_terms(app, &user, &facts).await?;
    Ok(user)
}

/// Notes that somebody accepted the terms on the way, unless they changed meanwhile: then it is asked
/// for again.
async fn accept_terms(app: &App, user: &UserId, facts: &Value) -> Result<(), ApiError> {
    let Some(terms) = &app.ctx.config.terms else {
        return Ok(());
    };
    if facts.get("terms").and_then(Value::as_str) == Some(&*users::terms::version(terms)) {
        let nid = app.ctx.db.ids.user(user).await?;
        users::terms::accept(&app.ctx, nid).await?;
    }
    Ok(())
}

/// `GET /_matrix/client/v3/register/available`
async fn get_username_availability(
    State(app): State<App>,
    Public { request, .. }: Public<get_username_availability::v3::Request>,
) -> Result<Object, ApiError> {
    let config = &app.ctx.config.registration;
    if !config.open && !config.require_token {
        return Err(users::Error::RegistrationClosed.into());
    }
    let user = registration::user_id(app.ctx.server_name(), &request.username)?;
    registration::check_reserved(&app.ctx, &user, None)?;
    registration::check_available(&app.ctx, &user).await?;
    Ok(Object(json!({ "available": true })))
}

/// `GET /_matrix/client/v1/register/m.login.registration_token/validity`
async fn check_registration_token_validity(
    State(app): State<App>,
    Public {
        request, address, ..
    }: Public<check_registration_token_validity::v1::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_address(Kind::RegistrationToken, address)?;
    if !app.ctx.config.registration.require_token {
        return Err(users::Error::RegistrationClosed.into());
    }
    let valid = registration::is_token_valid(&app.ctx, &request.token).await?;
    Ok(Object(json!({ "valid": valid })))
}

/// `GET /_matrix/client/v3/account/whoami`
async fn whoami(Authenticated { session, .. }: Authenticated<whoami::v3::Request>) -> Object {
    let mut body = json!({ "user_id": session.user_id, "is_guest": session.guest });
    if !session.device_id.as_str().is_empty() {
        body["device_id"] = json!(session.device_id);
    }
    Object(body)
}

/// Asks for the password again, or for a login at an identity provider, but for application services, which have none (specification,
/// v1.17).
pub(super) async fn reauthenticate(
    app: &App,
    session: &Session,
    path: &str,
    auth: Option<&Value>,
) -> Result<(), ApiError> {
    if session.appservice.is_some() {
        return Ok(());
    }
    ask_password(app, session, path, auth).await
}

pub(super) async fn ask_password(
    app: &App,
    session: &Session,
    path: &str,
    auth: Option<&Value>,
) -> Result<(), ApiError> {
    if session.oauth && path != uia::CROSS_SIGNING {
        return Err(ApiError::forbidden(
            "clients that log in by OAuth 2.0 leave this to the account's web page",
        ));
    }
    let operation = Operation {
        path,
        user: Some((&session.user_id, session.user_nid)),
        oauth: session.oauth,
    };
    let who = session.user_id.as_str();
    app.limits.look(Kind::LoginFailed, who)?;
    match uia::authenticate(&app.ctx, operation, auth).await {
        Ok(_) => Ok(()),
        Err(error) => {
            if uia::is_wrong(&error) {
                app.limits.note(Kind::LoginFailed, who);
            }
            Err(error.into())
        }
    }
}

/// `POST /_matrix/client/v3/account/password`
///
/// By whoever has a session and the password, or by whoever reads an e-mail address of the account.
async fn change_password(
    State(app): State<App>,
    asking: Option<Asking>,
    Public {
        request,
        address,
        auth,
        ..
    }: Public<change_password::v3::Request>,
) -> Result<Object, ApiError> {
    let (user, kept) = match asking {
        Some(Asking(session)) => {
            ask_password(&app, &session, uia::CHANGE_PASSWORD, auth.as_ref()).await?;
            (session.user_id.clone(), Some(session.device_no))
        }
        None if app.ctx.mail.is_none() => return Err(ApiError::missing_token()),
        None => {
            // Clients ask every few seconds whether the link was opened.
            app.limits.check_address(Kind::MailLink, address)?;
            // Before an address is proved, which is good once.
            let length_min = app.ctx.config.registration.password_length_min;
            passwords::check_strength(&request.new_password, length_min)?;
            (ask_address(&app, auth.as_ref()).await?, None)
        }
    };
    login::set_password(&app.ctx, &user, &request.new_password).await?;
    if request.logout_devices {
        let nid = app.ctx.db.ids.user(&user).await?;
        let mut conn = app.ctx.db.conn().await?;
        let mut others = storage::devices::list_awake(&mut conn, nid).await?;
        drop(conn);
        others.retain(|device| Some(*device) != kept);
        app.tokens.end(nid, &others).await?;
    }
    Ok(Object(json!({})))
}

/// The user whose e-mail address somebody without a session reads.
async fn ask_address(app: &App, auth: Option<&Value>) -> Result<OwnedUserId, ApiError> {
    let operation = Operation {
        path: uia::CHANGE_PASSWORD,
        user: None,
        oauth: false,
    };
    let facts = uia::authenticate(&app.ctx, operation, auth).await?;
    let address = facts.get("email").and_then(Value::as_str);
    let user = login::find_by_address(&app.ctx, address.unwrap_or_default()).await?;
    Ok(user.ok_or(users::Error::UnknownAddress)?)
}

/// `POST /_matrix/client/v3/user/{userId}/openid/request_token`
async fn request_openid_token(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<request_openid_token::v3::Request>,
) -> Result<Object, ApiError> {
    if request.user_id != session.user_id {
        return Err(ApiError::forbidden("a token is for oneself"));
    }
    app.limits.check_user(Kind::OpenId, &session)?;
    let token = openid::issue(&app.ctx, session.user_nid).await?;
    Ok(Object(json!({
        "access_token": token,
        "token_type": "Bearer",
        "matrix_server_name": app.ctx.server_name(),
        "expires_in": openid::LIFE_SECONDS,
    })))
}

/// Closes an account: its rooms, what it has, and its sessions.
pub(in crate::http) async fn close(
    app: &App,
    (user, nid): (&UserId, UserNid),
    erase: bool,
) -> Result<(), ApiError> {
    membership::leave_all(&app.rooms, user).await?;
    login::deactivate(&app.ctx, user, erase).await?;
    let mut conn = app.ctx.db.conn().await?;
    let devices = storage::devices::list(&mut conn, nid).await?;
    drop(conn);
    let devices: Vec<i32> = devices.iter().map(|device| device.device_no).collect();
    app.tokens.end(nid, &devices).await?;
    Ok(())
}

/// `POST /_matrix/client/v3/account/deactivate`
async fn deactivate(
    State(app): State<App>,
    Authenticated {
        session,
        request,
        auth,
        ..
    }: Authenticated<deactivate::v3::Request>,
) -> Result<Object, ApiError> {
    reauthenticate(&app, &session, "POST /account/deactivate", auth.as_ref()).await?;
    close(&app, (&session.user_id, session.user_nid), request.erase).await?;
    Ok(Object(json!({ "id_server_unbind_result": "no-support" })))
}
