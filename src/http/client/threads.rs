//! Threads.

use axum::{Router, extract::State};
use ruma::api::client::threads::get_threads::v1::{IncludeThreads, Request};
use serde_json::json;

use super::message::render;
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    rooms::{
        Rooms,
        relations::{
            self,
            threads::{self, Wanted},
        },
    },
};

pub(super) fn routes() -> Router<App> {
    mount::<Request, _, _>(Router::new(), get_threads)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/threads`
async fn get_threads(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<Request>,
) -> Result<Object, ApiError> {
    let wanted = Wanted {
        participated: request.include == IncludeThreads::Participated,
        from: request.from.as_deref(),
        limit: relations::limit(request.limit.map(u64::from)),
    };
    let page = threads::page(&rooms, &session, &request.room_id, wanted).await?;
    let mut answer = json!({ "chunk": render(&rooms, &page.room, &session, &page.events).await? });
    if let Some(end) = page.end {
        answer["next_batch"] = json!(end);
    }
    Ok(Object(answer))
}
