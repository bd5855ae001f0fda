//! Invitations of third-party identifiers.

use axum::{Router, extract::State, routing::put};
use ruma::{OwnedUserId, api::federation::thirdparty::exchange_invite, events::StateEventType};
use serde_json::{Value, json};

use crate::{
    http::{
        App,
        error::ApiError,
        limits::{Kind, Whence},
        mount,
        reply::Object,
        request::{Body, Signed},
    },
    rooms::{
        Rooms,
        membership::third_party::{self, Pending},
    },
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<exchange_invite::v1::Request, _, _>(Router::new(), exchange_invite);
    // Identity servers came to know this as POST, which is not in the specification.
    let both = put(bind_callback).post(bind_callback);
    router.route("/_matrix/federation/v1/3pid/onbind", both)
}

/// `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`
async fn exchange_invite(
    State(rooms): State<Rooms>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<exchange_invite::v1::Request>,
) -> Result<Object, ApiError> {
    if request.kind != StateEventType::RoomMember {
        return Err(ApiError::invalid_param("not a membership event"));
    }
    let who = (&*request.room_id, &*request.sender, &*request.state_key);
    let content: Value = request
        .content
        .deserialize_as_unchecked()
        .map_err(|error| ApiError::bad_json(&error.to_string()))?;
    third_party::exchange(&rooms, &origin, who, &content).await?;
    Ok(Object(json!({})))
}

/// What an identity server says.
#[derive(serde::Deserialize)]
struct Bound {
    mxid: OwnedUserId,
    invites: Vec<Pending>,
}

/// `PUT /_matrix/federation/v1/3pid/onbind`
async fn bind_callback(
    State(app): State<App>,
    Whence(address): Whence,
    Body(bound): Body<Bound>,
) -> Result<Object, ApiError> {
    app.limits.check_address(Kind::Binding, address)?;
    third_party::bound(&app.rooms, &bound.mxid, &bound.invites).await?;
    Ok(Object(json!({})))
}
