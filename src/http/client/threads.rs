//! Threads.

use axum::{Router, extract::State};
use ruma::api::client::threads::{
    get_thread_subscription, get_thread_subscriptions_changes,
    get_threads::v1::{IncludeThreads, Request},
    subscribe_thread, unsubscribe_thread,
};
use serde_json::{Value, json};

use super::message::render;
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    rooms::{
        Rooms,
        relations::{
            self, subscriptions,
            threads::{self, Wanted},
        },
    },
    sync::sliding,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<Request, _, _>(Router::new(), get_threads);
    let router =
        mount::<get_thread_subscription::unstable::Request, _, _>(router, get_thread_subscription);
    let router = mount::<subscribe_thread::unstable::Request, _, _>(router, subscribe_thread);
    let router = mount::<unsubscribe_thread::unstable::Request, _, _>(router, unsubscribe_thread);
    mount::<get_thread_subscriptions_changes::unstable::Request, _, _>(
        router,
        get_thread_subscriptions_changes,
    )
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

/// `GET /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRootId}/subscription`
async fn get_thread_subscription(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_thread_subscription::unstable::Request>,
) -> Result<Object, ApiError> {
    let thread = (&*request.room_id, &*request.thread_root);
    let automatic = subscriptions::find(&rooms, &session, thread).await?;
    let automatic = automatic.ok_or_else(|| ApiError::not_found("not subscribed"))?;
    Ok(Object(json!({ "automatic": automatic })))
}

/// `PUT /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRootId}/subscription`
async fn subscribe_thread(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<subscribe_thread::unstable::Request>,
) -> Result<Object, ApiError> {
    let thread = (&*request.room_id, &*request.thread_root);
    subscriptions::subscribe(&rooms, &session, thread, request.automatic.as_deref()).await?;
    Ok(Object(json!({})))
}

/// `DELETE /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRootId}/subscription`
async fn unsubscribe_thread(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<unsubscribe_thread::unstable::Request>,
) -> Result<Object, ApiError> {
    let thread = (&*request.room_id, &*request.thread_root);
    subscriptions::unsubscribe(&rooms, &session, thread).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions`
async fn get_thread_subscriptions_changes(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_thread_subscriptions_changes::unstable::Request>,
) -> Result<Object, ApiError> {
    let wanted = sliding::threads::Wanted {
        from: request.from.as_deref(),
        to: request.to.as_deref(),
        limit: request.limit.map(u64::from),
    };
    let page = sliding::threads::page(&rooms, &session, wanted).await?;
    Ok(Object(Value::Object(page)))
}
