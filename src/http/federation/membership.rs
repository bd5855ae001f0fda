//! Joining, leaving, knocking, inviting.

use axum::{Router, body::Body, extract::State, routing::put};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ruma::{
    api::federation::membership::{
        create_invite, create_join_event, create_knock_event, create_leave_event,
        prepare_join_event, prepare_knock_event, prepare_leave_event,
    },
    events::room::member::MembershipState,
};
use serde_json::{Map, json};

use super::raw;
use crate::{
    http::{
        App,
        error::ApiError,
        mount,
        reply::{Object, Streamed},
        request::Signed,
    },
    rooms::{
        Rooms,
        serve::{
            accept::{self, Offer},
            stream::Answer,
            template,
        },
    },
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<prepare_join_event::v1::Request, _, _>(Router::new(), prepare_join_event);
    let router = mount::<create_join_event::v2::Request, _, _>(router, create_join_event);
    let router = mount::<prepare_leave_event::v1::Request, _, _>(router, prepare_leave_event);
    let router = mount::<create_leave_event::v2::Request, _, _>(router, create_leave_event);
    let router = mount::<prepare_knock_event::v1::Request, _, _>(router, prepare_knock_event);
    let router = mount::<create_knock_event::v1::Request, _, _>(router, create_knock_event);
    // What servers before version 1.1 of the specification ask for: the same, in a list.
    let router = router
        .route(
            "/_matrix/federation/v1/send_join/{room_id}/{event_id}",
            put(create_join_event_v1),
        )
        .route(
            "/_matrix/federation/v1/send_leave/{room_id}/{event_id}",
            put(create_leave_event_v1),
        )
        .route(
            "/_matrix/federation/v1/invite/{room_id}/{event_id}",
            put(create_invite_v1),
        );
    mount::<create_invite::v2::Request, _, _>(router, create_invite)
}

fn require_of(user: &ruma::UserId, origin: &ruma::ServerName) -> Result<(), ApiError> {
    if user.server_name() == origin {
        Ok(())
    } else {
        Err(ApiError::forbidden("the user is not of the asking server"))
    }
}

/// `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`
async fn prepare_join_event(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<prepare_join_event::v1::Request>,
) -> Result<Object, ApiError> {
    require_of(&request.user_id, &origin)?;
    let (room, user) = (&request.room_id, &request.user_id);
    let versions = Some(&*request.ver);
    let (event, version) =
        template::make(&rooms, room, user, &MembershipState::Join, versions).await?;
    Ok(Object(json!({ "room_version": version, "event": event })))
}

/// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`
async fn create_join_event(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<create_join_event::v2::Request>,
) -> Result<Streamed, ApiError> {
    let offer = Offer {
        origin: &origin,
        room_id: &request.room_id,
        event_id: &request.event_id,
        pdu: &request.pdu,
    };
    let joined = accept::join(&rooms, offer, request.omit_members).await?;
    let mut fields = Map::new();
    fields.insert("origin".to_owned(), json!(rooms.ctx().server_name()));
    fields.insert("event".to_owned(), json!(joined.event.raw()));
    fields.insert(
        "members_omitted".to_owned(),
        json!(joined.servers.is_some()),
    );
    if let Some(servers) = joined.servers {
        fields.insert("servers_in_room".to_owned(), json!(servers));
    }
    let lists = vec![
        ("state", joined.before.state),
        ("auth_chain", joined.before.chain),
    ];
    let answer = Answer { fields, lists };
    Ok(Streamed(Body::from_stream(answer.stream(&rooms))))
}

/// `PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`
async fn create_join_event_v1(
    rooms: State<Rooms>,
    request: Signed<create_join_event::v2::Request>,
) -> Result<Streamed, ApiError> {
    let Streamed(body) = create_join_event(rooms, request).await?;
    let edge = |text| stream::iter([Ok::<_, axum::Error>(Bytes::from_static(text))]);
    let parts = edge(b"[200,")
        .chain(body.into_data_stream())
        .chain(edge(b"]"));
    Ok(Streamed(Body::from_stream(parts)))
}

/// `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`
async fn prepare_leave_event(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<prepare_leave_event::v1::Request>,
) -> Result<Object, ApiError> {
    require_of(&request.user_id, &origin)?;
    let (room, user) = (&request.room_id, &request.user_id);
    let (event, version) =
        template::make(&rooms, room, user, &MembershipState::Leave, None).await?;
    Ok(Object(json!({ "room_version": version, "event": event })))
}

/// What a request offers that holds an event and nothing else.
fn bare<'a>(
    origin: &'a ruma::ServerName,
    request: &'a create_leave_event::v2::Request,
) -> Offer<'a> {
    Offer {
        origin,
        room_id: &request.room_id,
        event_id: &request.event_id,
        pdu: &request.pdu,
    }
}

/// `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
async fn create_leave_event(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<create_leave_event::v2::Request>,
) -> Result<Object, ApiError> {
    accept::leave(&rooms, bare(&origin, &request)).await?;
    Ok(Object(json!({})))
}

/// `PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}`
async fn create_leave_event_v1(
    rooms: State<Rooms>,
    request: Signed<create_leave_event::v2::Request>,
) -> Result<Object, ApiError> {
    let Object(body) = create_leave_event(rooms, request).await?;
    Ok(Object(json!([200, body])))
}

/// `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`
async fn prepare_knock_event(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<prepare_knock_event::v1::Request>,
) -> Result<Object, ApiError> {
    require_of(&request.user_id, &origin)?;
    let (room, user) = (&request.room_id, &request.user_id);
    let versions = Some(&*request.ver);
    let (event, version) =
        template::make(&rooms, room, user, &MembershipState::Knock, versions).await?;
    Ok(Object(json!({ "room_version": version, "event": event })))
}

/// `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`
async fn create_knock_event(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<create_knock_event::v1::Request>,
) -> Result<Object, ApiError> {
    let offer = Offer {
        origin: &origin,
        room_id: &request.room_id,
        event_id: &request.event_id,
        pdu: &request.pdu,
    };
    let preview = accept::knock(&rooms, offer).await?;
    Ok(Object(json!({ "knock_room_state": raw(&preview) })))
}

/// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`
async fn create_invite(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<create_invite::v2::Request>,
) -> Result<Object, ApiError> {
    let offer = Offer {
        origin: &origin,
        room_id: &request.room_id,
        event_id: &request.event_id,
        pdu: &request.event,
    };
    let preview = &request.invite_room_state;
    let event = accept::invite(&rooms, offer, &request.room_version, preview).await?;
    Ok(Object(json!({ "event": event })))
}

/// `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`
async fn create_invite_v1(
    State(rooms): State<Rooms>,
    // Of the same form: an event, and nothing else.
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<create_leave_event::v2::Request>,
) -> Result<Object, ApiError> {
    let event = accept::invite_v1(&rooms, bare(&origin, &request)).await?;
    Ok(Object(json!([200, { "event": event }])))
}
