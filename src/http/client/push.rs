//! Push rules: the defaults of the specification, to read. Rules of one's own come with pushers.

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use ruma::push::Ruleset;
use serde_json::{Value, json};

use crate::{
    http::{App, error::ApiError, reply::Object, request},
    users::tokens::Session,
};

pub(super) fn routes() -> Router<App> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/client/{version}/pushrules");
        router = router
            .route(&format!("{base}/"), get(get_pushrules_all))
            .route(&base, get(get_pushrules_all))
            .route(&format!("{base}/global/"), get(get_pushrules_global))
            .route(
                &format!("{base}/global/{{kind}}/{{rule_id}}"),
                get(get_pushrule),
            );
    }
    router
}

/// The content of `m.push_rules`.
pub(super) fn rules_content(session: &Session) -> Value {
    json!({ "global": Ruleset::server_default(&session.user_id) })
}

/// `GET /_matrix/client/v3/pushrules/`
async fn get_pushrules_all(
    State(app): State<App>,
    parts: http::request::Parts,
) -> Result<Object, ApiError> {
    let session = request::session(&parts, &app).await?;
    Ok(Object(rules_content(&session)))
}

/// `GET /_matrix/client/v3/pushrules/global/`
async fn get_pushrules_global(
    State(app): State<App>,
    parts: http::request::Parts,
) -> Result<Object, ApiError> {
    let session = request::session(&parts, &app).await?;
    Ok(Object(rules_content(&session)["global"].take()))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn get_pushrule(
    State(app): State<App>,
    Path((kind, rule_id)): Path<(String, String)>,
    parts: http::request::Parts,
) -> Result<Object, ApiError> {
    let session = request::session(&parts, &app).await?;
    let rules = rules_content(&session);
    let rule = rules["global"][&kind].as_array().and_then(|rules| {
        rules
            .iter()
            .find(|rule| rule["rule_id"] == rule_id.as_str())
    });
    rule.cloned()
        .map(Object)
        .ok_or_else(|| ApiError::not_found("no such rule"))
}
