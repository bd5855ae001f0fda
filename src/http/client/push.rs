//! Push rules, pushers, and what was notified.

use axum::{Router, extract::State};
use ruma::{
    api::client::push::{
        delete_pushrule, get_notifications, get_pushers, get_pushrule, get_pushrule_actions,
        get_pushrule_enabled, get_pushrules_all, get_pushrules_global_scope, set_pusher,
        set_pushrule, set_pushrule_actions, set_pushrule_enabled,
    },
    push::RuleKind,
};
use serde_json::{Map, Value, json};

use crate::{
    http::{
        App,
        error::ApiError,
        limits::Kind,
        mount,
        reply::Object,
        request::{Asking, Authenticated, Body},
    },
    rooms::notifications::{self, Wanted},
    users::{push_rules, pushers},
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_pushrules_all::v3::Request, _, _>(Router::new(), get_pushrules_all);
    let router =
        mount::<get_pushrules_global_scope::v3::Request, _, _>(router, get_pushrules_global_scope);
    let router = mount::<get_pushrule::v3::Request, _, _>(router, get_pushrule);
    let router = mount::<set_pushrule::v3::Request, _, _>(router, set_pushrule);
    let router = mount::<delete_pushrule::v3::Request, _, _>(router, delete_pushrule);
    let router = mount::<get_pushrule_enabled::v3::Request, _, _>(router, get_pushrule_enabled);
    let router = mount::<set_pushrule_enabled::v3::Request, _, _>(router, set_pushrule_enabled);
    let router = mount::<get_pushrule_actions::v3::Request, _, _>(router, get_pushrule_actions);
    let router = mount::<set_pushrule_actions::v3::Request, _, _>(router, set_pushrule_actions);
    let router = mount::<get_pushers::v3::Request, _, _>(router, get_pushers);
    let router = mount::<set_pusher::v3::Request, _, _>(router, set_pusher);
    mount::<get_notifications::v3::Request, _, _>(router, get_notifications)
}

/// `GET /_matrix/client/v3/notifications`
async fn get_notifications(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_notifications::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Push, &session)?;
    let wanted = Wanted {
        from: request.from.as_deref(),
        limit: request.limit.map(u64::from),
        highlights: request.only.as_deref() == Some("highlight"),
    };
    let (entries, next) = notifications::page(&app.rooms, &session, wanted).await?;
    let mut body = json!({ "notifications": entries });
    if let Some(next) = next {
        body["next_token"] = json!(next);
    }
    Ok(Object(body))
}

/// `GET /_matrix/client/v3/pushers`
async fn get_pushers(
    State(app): State<App>,
    Authenticated { session, .. }: Authenticated<get_pushers::v3::Request>,
) -> Result<Object, ApiError> {
    let pushers = pushers::list(&app.ctx, session.user_nid).await?;
    Ok(Object(json!({ "pushers": pushers })))
}

/// `POST /_matrix/client/v3/pushers/set`
///
/// Read by hand: what is missing has an error of its own.
async fn set_pusher(
    State(app): State<App>,
    Asking(session): Asking,
    Body(body): Body<Map<String, Value>>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Push, &session)?;
    pushers::set(&app.ctx, &session, &body).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/client/v3/pushrules/`
async fn get_pushrules_all(
    State(app): State<App>,
    Authenticated { session, .. }: Authenticated<get_pushrules_all::v3::Request>,
) -> Result<Object, ApiError> {
    Ok(Object(push_rules::list(&app.ctx, &session).await?))
}

/// `GET /_matrix/client/v3/pushrules/global/`
async fn get_pushrules_global_scope(
    State(app): State<App>,
    Authenticated { session, .. }: Authenticated<get_pushrules_global_scope::v3::Request>,
) -> Result<Object, ApiError> {
    let mut content = push_rules::list(&app.ctx, &session).await?;
    Ok(Object(content["global"].take()))
}

/// The kind of MSC4306 goes by two names.
fn kind(kind: &RuleKind) -> &str {
    match kind {
        RuleKind::PostContent => "postcontent",
        _ => kind.as_str(),
    }
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn get_pushrule(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_pushrule::v3::Request>,
) -> Result<Object, ApiError> {
    let key = (kind(&request.kind), &*request.rule_id);
    Ok(Object(push_rules::get(&app.ctx, &session, key).await?))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn set_pushrule(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<set_pushrule::v3::Request>,
) -> Result<Object, ApiError> {
    let place = (request.before.as_deref(), request.after.as_deref());
    push_rules::put(&app.ctx, &session, &request.rule, place).await?;
    Ok(Object(json!({})))
}

/// `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn delete_pushrule(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<delete_pushrule::v3::Request>,
) -> Result<Object, ApiError> {
    let key = (kind(&request.kind), &*request.rule_id);
    push_rules::delete(&app.ctx, &session, key).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn get_pushrule_enabled(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_pushrule_enabled::v3::Request>,
) -> Result<Object, ApiError> {
    let key = (kind(&request.kind), &*request.rule_id);
    let rule = push_rules::get(&app.ctx, &session, key).await?;
    Ok(Object(json!({ "enabled": rule["enabled"] })))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn set_pushrule_enabled(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<set_pushrule_enabled::v3::Request>,
) -> Result<Object, ApiError> {
    let key = (kind(&request.kind), &*request.rule_id);
    push_rules::set_enabled(&app.ctx, &session, key, request.enabled).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn get_pushrule_actions(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_pushrule_actions::v3::Request>,
) -> Result<Object, ApiError> {
    let key = (kind(&request.kind), &*request.rule_id);
    let rule = push_rules::get(&app.ctx, &session, key).await?;
    Ok(Object(json!({ "actions": rule["actions"] })))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn set_pushrule_actions(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<set_pushrule_actions::v3::Request>,
) -> Result<Object, ApiError> {
    let key = (kind(&request.kind), &*request.rule_id);
    push_rules::set_actions(&app.ctx, &session, key, &request.actions).await?;
    Ok(Object(json!({})))
}
