//! Spaces.

use axum::{Router, extract::State};
use ruma::api::client::space::get_hierarchy;
use serde_json::json;

use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    rooms::{Rooms, spaces::walk},
};

pub(super) fn routes() -> Router<App> {
    mount::<get_hierarchy::v1::Request, _, _>(Router::new(), get_hierarchy)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/hierarchy`
async fn get_hierarchy(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_hierarchy::v1::Request>,
) -> Result<Object, ApiError> {
    let question = walk::Question {
        room_id: &request.room_id,
        from: request.from.as_deref(),
        limit: request.limit.map(u64::from),
        max_depth: request.max_depth.map(u64::from),
        suggested_only: request.suggested_only,
    };
    let user = (&*session.user_id, session.user_nid);
    let (page, next) = walk::page(&rooms, user, question).await?;
    let mut answer = json!({ "rooms": page });
    if let Some(token) = next {
        answer["next_batch"] = json!(token);
    }
    Ok(Object(answer))
}
