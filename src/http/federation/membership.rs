//! Joining, leaving, knocking, inviting.

use axum::{Router, extract::State};
use ruma::{
    api::federation::membership::{
        create_invite, create_join_event, create_knock_event, create_leave_event,
        prepare_join_event, prepare_knock_event, prepare_leave_event,
    },
    events::room::member::MembershipState,
};
use serde_json::json;

use super::raw;
use crate::{
    http::{App, error::ApiError, mount, reply::Object, request::Signed},
    rooms::{
        Rooms,
        serve::{
            accept::{self, Offer},
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
    Signed { origin, request }: Signed<prepare_join_event::v1::Request>,
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
    Signed { origin, request }: Signed<create_join_event::v2::Request>,
) -> Result<Object, ApiError> {
    let offer = Offer {
        origin: &origin,
        room_id: &request.room_id,
        event_id: &request.event_id,
        pdu: &request.pdu,
    };
    let joined = accept::join(&rooms, offer).await?;
    Ok(Object(json!({
        "origin": rooms.ctx().server_name(),
        "event": joined.event.raw(),
        "state": raw(&joined.state),
        "auth_chain": raw(&joined.auth_chain),
        "members_omitted": false,
    })))
}

/// `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`
async fn prepare_leave_event(
    State(rooms): State<Rooms>,
    Signed { origin, request }: Signed<prepare_leave_event::v1::Request>,
) -> Result<Object, ApiError> {
    require_of(&request.user_id, &origin)?;
    let (room, user) = (&request.room_id, &request.user_id);
    let (event, version) =
        template::make(&rooms, room, user, &MembershipState::Leave, None).await?;
    Ok(Object(json!({ "room_version": version, "event": event })))
}

/// `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
async fn create_leave_event(
    State(rooms): State<Rooms>,
    Signed { origin, request }: Signed<create_leave_event::v2::Request>,
) -> Result<Object, ApiError> {
    let offer = Offer {
        origin: &origin,
        room_id: &request.room_id,
        event_id: &request.event_id,
        pdu: &request.pdu,
    };
    accept::leave(&rooms, offer).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`
async fn prepare_knock_event(
    State(rooms): State<Rooms>,
    Signed { origin, request }: Signed<prepare_knock_event::v1::Request>,
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
    Signed { origin, request }: Signed<create_knock_event::v1::Request>,
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
    Signed { origin, request }: Signed<create_invite::v2::Request>,
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
