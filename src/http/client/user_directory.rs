//! The user directory.

use axum::{Router, extract::State};
use ruma::api::client::user_directory::search_users;
use serde_json::{Value, json};

use crate::{
    http::{App, error::ApiError, limits::Kind, mount, reply::Object, request::Authenticated},
    rooms::user_directory,
};

pub(super) fn routes() -> Router<App> {
    mount::<search_users::v3::Request, _, _>(Router::new(), search_users)
}

/// `POST /_matrix/client/v3/user_directory/search`
async fn search_users(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<search_users::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::UserDirectory, &session)?;
    let limit = u32::try_from(u64::from(request.limit)).unwrap_or(u32::MAX);
    let user = session.user_nid;
    let (hits, limited) =
        user_directory::search(&app.rooms, user, &request.search_term, limit).await?;
    let results = hits.into_iter().map(|hit| {
        let mut result = json!({ "user_id": hit.user_id });
        if let Some(name) = hit.display_name {
            result["display_name"] = json!(name);
        }
        if let Some(avatar) = hit.avatar_url {
            result["avatar_url"] = json!(avatar);
        }
        result
    });
    let results: Vec<Value> = results.collect();
    Ok(Object(json!({ "results": results, "limited": limited })))
}
