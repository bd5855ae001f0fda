//! Devices and keys of our users, for peers.

use axum::{Router, extract::State};
use ruma::api::federation::{
    device::get_devices,
    keys::{claim_keys, get_keys},
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    devices::keys,
    http::{App, error::ApiError, mount, reply::Object, request::Signed},
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_devices::v1::Request, _, _>(Router::new(), get_devices);
    let router = mount::<get_keys::v1::Request, _, _>(router, get_keys);
    mount::<claim_keys::v1::Request, _, _>(router, claim_keys)
}

/// `GET /_matrix/federation/v1/user/devices/{userId}`
async fn get_devices(
    State(ctx): State<Context>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<get_devices::v1::Request>,
) -> Result<Object, ApiError> {
    if request.user_id.server_name() != ctx.server_name() {
        return Err(ApiError::not_found("not a user of ours"));
    }
    let stream_id = keys::own_stream(&ctx, &request.user_id).await?;
    let asked = [(request.user_id.clone(), Vec::new())].into();
    let found = keys::local(&ctx, &asked, None).await?.body(false);
    let user = request.user_id.as_str();
    let of_user = found["device_keys"][user].as_object();
    let devices = of_user.into_iter().flatten().map(|(id, key)| {
        let mut device = json!({ "device_id": id, "keys": key });
        if let Some(name) = key["unsigned"].get("device_display_name") {
            device["device_display_name"] = name.clone();
        }
        device
    });
    let devices: Vec<Value> = devices.collect();
    let mut answer = json!({ "user_id": user, "stream_id": stream_id, "devices": devices });
    for kind in ["master", "self_signing"] {
        if let Some(key) = found[format!("{kind}_keys")].get(user) {
            answer[format!("{kind}_key")] = key.clone();
        }
    }
    Ok(Object(answer))
}

/// `POST /_matrix/federation/v1/user/keys/query`
async fn get_keys(
    State(ctx): State<Context>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<get_keys::v1::Request>,
) -> Result<Object, ApiError> {
    Ok(Object(
        keys::local(&ctx, &request.device_keys, None)
            .await?
            .body(false),
    ))
}

/// `POST /_matrix/federation/v1/user/keys/claim`
async fn claim_keys(
    State(ctx): State<Context>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<claim_keys::v1::Request>,
) -> Result<Object, ApiError> {
    let keys = keys::claim_local(&ctx, &request.one_time_keys).await?;
    Ok(Object(json!({ "one_time_keys": keys })))
}
