//! Addresses of accounts outside of Matrix (specification, "Adding Account Administrative Contact
//! Information"): e-mail, where it is configured; no telephones, no identity servers.

use std::net::SocketAddr;

use axum::{Router, extract::State, routing::post};
use ruma::{
    ClientSecret, UInt,
    api::client::account::{
        add_3pid, bind_3pid, delete_3pid, get_3pids, request_3pid_management_token_via_email,
        request_3pid_management_token_via_msisdn, request_password_change_token_via_email,
        request_password_change_token_via_msisdn, request_registration_token_via_email,
        request_registration_token_via_msisdn, unbind_3pid,
    },
    thirdparty::Medium,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::reauthenticate;
use crate::{
    http::{
        App,
        error::ApiError,
        limits::Kind,
        mount,
        reply::Object,
        request::{Asking, Authenticated, Body, Public},
    },
    users::{
        self, threepids,
        tokens::Session,
        validation::{self, Purpose},
    },
};

pub(super) fn mount_all(router: Router<App>) -> Router<App> {
    let router = mount::<request_3pid_management_token_via_email::v3::Request, _, _>(
        router,
        request_3pid_management_token_via_email,
    );
    let router = mount::<request_registration_token_via_email::v3::Request, _, _>(
        router,
        request_registration_token_via_email,
    );
    let router = mount::<request_password_change_token_via_email::v3::Request, _, _>(
        router,
        request_password_change_token_via_email,
    );
    let router = mount::<request_3pid_management_token_via_msisdn::v3::Request, _, _>(
        router,
        request_3pid_management_token_via_msisdn,
    );
    let router = mount::<request_registration_token_via_msisdn::v3::Request, _, _>(
        router,
        request_registration_token_via_msisdn,
    );
    let router = mount::<request_password_change_token_via_msisdn::v3::Request, _, _>(
        router,
        request_password_change_token_via_msisdn,
    );
    let router = mount::<get_3pids::v3::Request, _, _>(router, get_3pids);
    let router = mount::<add_3pid::v3::Request, _, _>(router, add_3pid);
    let router = mount::<bind_3pid::v3::Request, _, _>(router, bind_3pid);
    let router = mount::<delete_3pid::v3::Request, _, _>(router, delete_3pid);
    let router = mount::<unbind_3pid::v3::Request, _, _>(router, unbind_3pid);
    [
        "/_matrix/client/v3/account/3pid",
        "/_matrix/client/r0/account/3pid",
    ]
    .into_iter()
    .fold(router, |router, path| router.route(path, post(post_3pid)))
}

/// What a client asks for: three requests have the same fields.
fn asked<'a>(
    client_secret: &'a ClientSecret,
    email: &'a str,
    send_attempt: UInt,
    next_link: Option<&'a str>,
) -> validation::Request<'a> {
    validation::Request {
        client_secret: client_secret.as_str(),
        email,
        send_attempt: send_attempt.into(),
        next_link,
    }
}

/// Has a mail sent; answers with the session.
async fn ask(
    app: &App,
    address: Option<SocketAddr>,
    request: validation::Request<'_>,
    purpose: Purpose,
) -> Result<Object, ApiError> {
    app.limits.check_address(Kind::Mail, address)?;
    let mailbox = threepids::canonical(request.email)?;
    app.limits.check(Kind::Mail, &mailbox)?;
    let sid = validation::request(&app.ctx, purpose, request).await?;
    Ok(Object(json!({ "sid": sid })))
}

/// `POST /_matrix/client/v3/account/3pid/email/requestToken`
async fn request_3pid_management_token_via_email(
    State(app): State<App>,
    Public {
        request, address, ..
    }: Public<request_3pid_management_token_via_email::v3::Request>,
) -> Result<Object, ApiError> {
    let link = request.next_link.as_deref();
    let attempt = request.send_attempt;
    let wanted = asked(&request.client_secret, &request.email, attempt, link);
    ask(&app, address, wanted, Purpose::Add).await
}

/// `POST /_matrix/client/v3/register/email/requestToken`
async fn request_registration_token_via_email(
    State(app): State<App>,
    Public {
        request, address, ..
    }: Public<request_registration_token_via_email::v3::Request>,
) -> Result<Object, ApiError> {
    let link = request.next_link.as_deref();
    let attempt = request.send_attempt;
    let wanted = asked(&request.client_secret, &request.email, attempt, link);
    ask(&app, address, wanted, Purpose::Register).await
}

/// `POST /_matrix/client/v3/account/password/email/requestToken`
async fn request_password_change_token_via_email(
    State(app): State<App>,
    Public {
        request, address, ..
    }: Public<request_password_change_token_via_email::v3::Request>,
) -> Result<Object, ApiError> {
    let link = request.next_link.as_deref();
    let attempt = request.send_attempt;
    let wanted = asked(&request.client_secret, &request.email, attempt, link);
    ask(&app, address, wanted, Purpose::Password).await
}

/// `POST /_matrix/client/v3/account/3pid/msisdn/requestToken`
async fn request_3pid_management_token_via_msisdn(
    _: Public<request_3pid_management_token_via_msisdn::v3::Request>,
) -> ApiError {
    users::Error::AddressNotSupported.into()
}

/// `POST /_matrix/client/v3/register/msisdn/requestToken`
async fn request_registration_token_via_msisdn(
    _: Public<request_registration_token_via_msisdn::v3::Request>,
) -> ApiError {
    users::Error::AddressNotSupported.into()
}

/// `POST /_matrix/client/v3/account/password/msisdn/requestToken`
async fn request_password_change_token_via_msisdn(
    _: Public<request_password_change_token_via_msisdn::v3::Request>,
) -> ApiError {
    users::Error::AddressNotSupported.into()
}

/// `GET /_matrix/client/v3/account/3pid`
async fn get_3pids(
    State(app): State<App>,
    Authenticated { session, .. }: Authenticated<get_3pids::v3::Request>,
) -> Result<Object, ApiError> {
    let addresses = threepids::list(&app.ctx, session.user_nid).await?;
    let shown = addresses.iter().map(|it| {
        json!({
            "medium": "email",
            "address": it.address,
            "validated_at": it.validated_ts,
            "added_at": it.added_ts,
        })
    });
    Ok(Object(
        json!({ "threepids": shown.collect::<Vec<Value>>() }),
    ))
}

/// `POST /_matrix/client/v3/account/3pid/add`
async fn add_3pid(
    State(app): State<App>,
    Authenticated {
        session,
        request,
        auth,
        ..
    }: Authenticated<add_3pid::v3::Request>,
) -> Result<Object, ApiError> {
    let proof = (request.sid.as_str(), request.client_secret.as_str());
    add(&app, &session, proof, auth.as_ref()).await
}

/// What the deprecated endpoint is sent.
#[derive(Debug, Deserialize)]
struct Posted {
    #[serde(alias = "threePidCreds")]
    three_pid_creds: Proof,
    auth: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Proof {
    sid: String,
    client_secret: String,
}

/// `POST /_matrix/client/v3/account/3pid`
///
/// NOTSPEC: deprecated, and in the specification without a password; but an address is a key to the
/// account.
async fn post_3pid(
    State(app): State<App>,
    Asking(session): Asking,
    Body(body): Body<Posted>,
) -> Result<Object, ApiError> {
    let proof = &body.three_pid_creds;
    let proof = (&*proof.sid, &*proof.client_secret);
    add(&app, &session, proof, body.auth.as_ref()).await
}

async fn add(
    app: &App,
    session: &Session,
    proof: (&str, &str),
    auth: Option<&Value>,
) -> Result<Object, ApiError> {
    reauthenticate(app, session, "POST /account/3pid/add", auth).await?;
    let (address, ts) = validation::take(&app.ctx, Purpose::Add, proof).await?;
    threepids::add(&app.ctx, session.user_nid, (&address, ts)).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/account/3pid/bind`
async fn bind_3pid(_: Authenticated<bind_3pid::v3::Request>) -> ApiError {
    users::Error::IdentityServer.into()
}

/// `POST /_matrix/client/v3/account/3pid/delete`
async fn delete_3pid(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<delete_3pid::v3::Request>,
) -> Result<Object, ApiError> {
    if request.medium == Medium::Email {
        threepids::delete(&app.ctx, session.user_nid, &request.address).await?;
    }
    Ok(Object(json!({ "id_server_unbind_result": "no-support" })))
}

/// `POST /_matrix/client/v3/account/3pid/unbind`
async fn unbind_3pid(_: Authenticated<unbind_3pid::v3::Request>) -> Object {
    Object(json!({ "id_server_unbind_result": "no-support" }))
}
