//! What this server is and can do.

use std::collections::BTreeMap;

use axum::{Router, extract::State};
use ruma::api::client::discovery::{get_capabilities, get_supported_versions};
use serde_json::json;

use crate::{
    context::Context,
    event::version::{STABLE, unstable},
    http::{
        App,
        error::ApiError,
        mount,
        reply::Object,
        request::{Authenticated, Public},
    },
};

/// Versions of the specification whose clients we serve.
const VERSIONS: [&str; 22] = [
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8",
    "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18",
    "v1.19",
];

pub(super) fn routes() -> Router<App> {
    let router =
        mount::<get_supported_versions::Request, _, _>(Router::new(), get_supported_versions);
    mount::<get_capabilities::v3::Request, _, _>(router, get_capabilities)
}

/// `GET /_matrix/client/versions`
async fn get_supported_versions(
    State(ctx): State<Context>,
    _: Public<get_supported_versions::Request>,
) -> Object {
    let mut body = json!({
        "versions": VERSIONS,
        "unstable_features": {
            "fi.mau.msc2815": ctx.config.rooms.keep_redacted_days > 0,
            "org.matrix.msc3391": ctx.config.unstable.account_data_deletion,
            "org.matrix.msc3757": true,
            "org.matrix.msc3814": true,
            "org.matrix.msc3874": true,
            "org.matrix.msc3881": true,
            "org.matrix.msc3890": true,
            "org.matrix.msc3912": true,
            "org.matrix.msc4140": ctx.config.delayed_events.max_delay_s > 0,
            "org.matrix.msc4143": !ctx.config.rtc.livekit_service_urls.is_empty(),
            "org.matrix.msc4155": true,
            "org.matrix.msc4222": true,
            "org.matrix.msc4262": true,
            "org.matrix.msc4306": ctx.config.unstable.thread_subscriptions,
            "org.matrix.msc4354": true,
            "org.matrix.msc4380": true,
            "org.matrix.msc4380.stable": true,
            "org.matrix.msc4429": true,
            "org.matrix.simplified_msc3575": true,
            "uk.half-shot.msc2666.query_mutual_rooms": true,
            "uk.half-shot.msc2666.query_mutual_rooms.stable": true,
            "uk.timedout.msc4323": true,
        },
    });
    if ctx.config.rendezvous.enabled {
        body["unstable_features"]["org.matrix.msc4108"] = json!(true);
    }
    Object(body)
}

/// `GET /_matrix/client/v3/capabilities`
async fn get_capabilities(
    State(ctx): State<Context>,
    Authenticated { session, .. }: Authenticated<get_capabilities::v3::Request>,
) -> Result<Object, ApiError> {
    let stable = STABLE.iter().map(|version| (version.to_string(), "stable"));
    let unstable = unstable().map(|version| (version.to_string(), "unstable"));
    let available: BTreeMap<_, _> = stable.chain(unstable).collect();
    let mut capabilities = json!({

            "m.change_password": { "enabled": !session.oauth },
            "m.room_versions": {
                "default": ctx.config.rooms.default_version,
                "available": available,
            },
            "m.set_displayname": { "enabled": true },
            "m.set_avatar_url": { "enabled": true },
            "m.3pid_changes": { "enabled": ctx.mail.is_some() && !session.oauth },
            "m.get_login_token": { "enabled": !session.oauth },
            "m.profile_fields": { "enabled": true },
            "m.forget_forced_upon_leave": { "enabled": false },
    });
    let delayed = ctx.config.delayed_events;
    if delayed.max_delay_s > 0 {
        capabilities["org.matrix.msc4140.delayed_events"] = json!({
            "max_delay_ms": u64::from(delayed.max_delay_s) * 1_000,
            "max_scheduled": delayed.max_scheduled,
        });
    }
    if session.admin {
        capabilities["m.account_moderation"] = json!({ "lock": true, "suspend": true });
    }
    Ok(Object(json!({ "capabilities": capabilities })))
}
