//! Relations of events.

use axum::{Router, extract::State};
use ruma::{
    EventId, RoomId, UInt,
    api::{
        Direction,
        client::relations::{
            get_relating_events, get_relating_events_with_rel_type,
            get_relating_events_with_rel_type_and_event_type as with_both,
        },
    },
};
use serde_json::json;

use super::message::render;
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
    rooms::{
        Rooms,
        relations::{self, DEPTH_MAX, Filter},
        timeline::Paging,
    },
    users::tokens::Session,
};

pub(super) fn routes() -> Router<App> {
    let router = Router::new();
    let router = mount::<get_relating_events::v1::Request, _, _>(router, get_relating_events);
    let router = mount::<get_relating_events_with_rel_type::v1::Request, _, _>(
        router,
        get_relating_events_with_rel_type,
    );
    mount::<with_both::v1::Request, _, _>(router, get_relating_events_with_rel_type_and_event_type)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}`
async fn get_relating_events(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_relating_events::v1::Request>,
) -> Result<Object, ApiError> {
    let filter = Filter {
        rel_type: None,
        event_type: None,
        recurse: request.recurse,
    };
    let paging = paging(
        request.from.as_deref(),
        request.to.as_deref(),
        request.dir,
        request.limit,
    );
    let of = (&*request.room_id, &*request.event_id);
    answer(&rooms, &session, of, filter, paging).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}`
async fn get_relating_events_with_rel_type(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_relating_events_with_rel_type::v1::Request>,
) -> Result<Object, ApiError> {
    let rel_type = request.rel_type.to_string();
    let filter = Filter {
        rel_type: Some(&rel_type),
        event_type: None,
        recurse: request.recurse,
    };
    let paging = paging(
        request.from.as_deref(),
        request.to.as_deref(),
        request.dir,
        request.limit,
    );
    let of = (&*request.room_id, &*request.event_id);
    answer(&rooms, &session, of, filter, paging).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`
async fn get_relating_events_with_rel_type_and_event_type(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<with_both::v1::Request>,
) -> Result<Object, ApiError> {
    let rel_type = request.rel_type.to_string();
    let event_type = request.event_type.to_string();
    let filter = Filter {
        rel_type: Some(&rel_type),
        event_type: Some(&event_type),
        recurse: request.recurse,
    };
    let paging = paging(
        request.from.as_deref(),
        request.to.as_deref(),
        request.dir,
        request.limit,
    );
    let of = (&*request.room_id, &*request.event_id);
    answer(&rooms, &session, of, filter, paging).await
}

fn paging<'a>(
    from: Option<&'a str>,
    to: Option<&'a str>,
    dir: Direction,
    limit: Option<UInt>,
) -> Paging<'a> {
    Paging {
        from,
        to,
        backwards: dir == Direction::Backward,
        limit: relations::limit(limit.map(u64::from)),
    }
}

async fn answer(
    rooms: &Rooms,
    session: &Session,
    of: (&RoomId, &EventId),
    filter: Filter<'_>,
    paging: Paging<'_>,
) -> Result<Object, ApiError> {
    let page = relations::page(rooms, session, of, filter, paging).await?;
    let mut answer = json!({ "chunk": render(rooms, &page.room, session, &page.events).await? });
    if let Some(end) = page.end {
        answer["next_batch"] = json!(end);
    }
    if let Some(from) = paging.from {
        answer["prev_batch"] = json!(from);
    }
    if filter.recurse {
        answer["recursion_depth"] = json!(DEPTH_MAX);
    }
    Ok(Object(answer))
}
