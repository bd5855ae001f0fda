//! Devices of the user.

use axum::{Router, extract::State};
use http::StatusCode;
use ruma::api::client::device::{
    delete_device, delete_devices, get_device, get_devices, update_device,
};
use serde_json::{Value, json};

use super::account::reauthenticate;
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    storage::devices::{self, Device},
    users,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_devices::v3::Request, _, _>(Router::new(), get_devices);
    let router = mount::<get_device::v3::Request, _, _>(router, get_device);
    let router = mount::<update_device::v3::Request, _, _>(router, update_device);
    let router = mount::<delete_device::v3::Request, _, _>(router, delete_device);
    mount::<delete_devices::v3::Request, _, _>(router, delete_devices)
}

fn body(device: &Device) -> Value {
    let mut body = json!({ "device_id": device.device_id });
    let optional = [
        (
            "display_name",
            device.display_name.as_ref().map(|name| json!(name)),
        ),
        (
            "last_seen_ip",
            device.last_seen_ip.as_ref().map(|ip| json!(ip)),
        ),
        ("last_seen_ts", device.last_seen_ts.map(|ts| json!(ts))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            body[key] = value;
        }
    }
    body
}

fn unknown() -> ApiError {
    ApiError::not_found("device not found")
}

/// `GET /_matrix/client/v3/devices`
async fn get_devices(
    State(app): State<App>,
    Authenticated { session, .. }: Authenticated<get_devices::v3::Request>,
) -> Result<Object, ApiError> {
    let mut conn = app.ctx.db.conn().await?;
    let devices = devices::list(&mut conn, session.user_nid).await?;
    Ok(Object(
        json!({ "devices": devices.iter().map(body).collect::<Vec<_>>() }),
    ))
}

/// `GET /_matrix/client/v3/devices/{deviceId}`
async fn get_device(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_device::v3::Request>,
) -> Result<Object, ApiError> {
    let mut conn = app.ctx.db.conn().await?;
    let device = devices::find(&mut conn, session.user_nid, request.device_id.as_str()).await?;
    device
        .map(|device| Object(body(&device)))
        .ok_or_else(unknown)
}

/// `PUT /_matrix/client/v3/devices/{deviceId}`
async fn update_device(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<update_device::v3::Request>,
) -> Result<(StatusCode, Object), ApiError> {
    let id = request.device_id.as_str();
    let name = request.display_name.as_deref();
    let is_new = users::devices::rename(&app.ctx, &session, id, name).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Object(json!({}))))
}

/// `DELETE /_matrix/client/v3/devices/{deviceId}`
async fn delete_device(
    State(app): State<App>,
    Authenticated {
        session,
        request,
        auth,
        ..
    }: Authenticated<delete_device::v3::Request>,
) -> Result<Object, ApiError> {
    let operation = format!("DELETE /devices/{}", request.device_id);
    reauthenticate(&app, &session, &operation, auth.as_ref()).await?;
    let mut conn = app.ctx.db.conn().await?;
    let id = request.device_id.as_str();
    let device = devices::find(&mut conn, session.user_nid, id).await?;
    drop(conn);
    if let Some(device) = device {
        app.tokens
            .end(session.user_nid, &[device.device_no])
            .await?;
    }
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/delete_devices`
async fn delete_devices(
    State(app): State<App>,
    Authenticated {
        session,
        request,
        auth,
        ..
    }: Authenticated<delete_devices::v3::Request>,
) -> Result<Object, ApiError> {
    reauthenticate(&app, &session, "POST /delete_devices", auth.as_ref()).await?;
    let mut conn = app.ctx.db.conn().await?;
    let all = devices::list(&mut conn, session.user_nid).await?;
    drop(conn);
    let named = |device: &&Device| {
        request
            .devices
            .iter()
            .any(|id| id.as_str() == device.device_id)
    };
    let numbers: Vec<i32> = all
        .iter()
        .filter(named)
        .map(|device| device.device_no)
        .collect();
    app.tokens.end(session.user_nid, &numbers).await?;
    Ok(Object(json!({})))
}
