//! Joining, leaving and all in between.

use axum::{Router, extract::State};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, RoomOrAliasId,
    api::client::{
        knock::knock_room,
        membership::{
            ban_user, forget_room, get_mutual_rooms, invite_user, join_room_by_id,
            join_room_by_id_or_alias, joined_rooms, kick_user, leave_room, unban_user,
        },
    },
};
use serde_json::{Map, Value, json};

use crate::{
    http::{App, error::ApiError, limits::Kind, mount, reply::Object, request::Authenticated},
    rooms::{Rooms, aliases, membership, mutual, server_notices},
    users::tokens::Session,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<join_room_by_id::v3::Request, _, _>(Router::new(), join_room_by_id);
    let router =
        mount::<join_room_by_id_or_alias::v3::Request, _, _>(router, join_room_by_id_or_alias);
    let router = mount::<knock_room::v3::Request, _, _>(router, knock_room);
    let router = mount::<invite_user::v3::Request, _, _>(router, invite_user);
    let router = mount::<leave_room::v3::Request, _, _>(router, leave_room);
    let router = mount::<forget_room::v3::Request, _, _>(router, forget_room);
    let router = mount::<kick_user::v3::Request, _, _>(router, kick_user);
    let router = mount::<ban_user::v3::Request, _, _>(router, ban_user);
    let router = mount::<unban_user::v3::Request, _, _>(router, unban_user);
    let router = mount::<get_mutual_rooms::v1::Request, _, _>(router, get_mutual_rooms);
    let router = mount::<get_mutual_rooms::unstable::Request, _, _>(router, get_mutual_rooms_old);
    mount::<joined_rooms::v3::Request, _, _>(router, joined_rooms)
}

/// `GET /_matrix/client/v1/mutual_rooms`
async fn get_mutual_rooms(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_mutual_rooms::v1::Request>,
) -> Result<Object, ApiError> {
    let from = request.from.as_deref();
    let page = mutual::list(&rooms, &session, &request.user_id, from).await?;
    let mut body = json!({ "joined": page.rooms, "count": page.count });
    if let Some(next) = page.next {
        body["next_batch"] = json!(next);
    }
    Ok(Object(body))
}

/// `GET /_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms`
async fn get_mutual_rooms_old(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_mutual_rooms::unstable::Request>,
) -> Result<Object, ApiError> {
    let from = request.from.as_deref();
    let page = mutual::list(&rooms, &session, &request.user_id, from).await?;
    let mut body = json!({ "joined": page.rooms });
    if let Some(next) = page.next {
        body["next_batch"] = json!(next);
    }
    Ok(Object(body))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
async fn join_room_by_id(
    State(app): State<App>,
    Authenticated {
        session,
        request,
        body,
        ..
    }: Authenticated<join_room_by_id::v3::Request>,
) -> Result<Object, ApiError> {
    check_join(&app, &session, &request.room_id).await?;
    let (user, said) = (&session.user_id, said(&body));
    let room_id = membership::join::join(&app.rooms, &request.room_id, user, &[], said).await?;
    Ok(Object(json!({ "room_id": room_id })))
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
async fn join_room_by_id_or_alias(
    State(app): State<App>,
    Authenticated {
        session,
        request,
        body,
        ..
    }: Authenticated<join_room_by_id_or_alias::v3::Request>,
) -> Result<Object, ApiError> {
    let (room_id, via) = locate(&app.rooms, &request.room_id_or_alias, request.via).await?;
    check_join(&app, &session, &room_id).await?;
    let (user, said) = (&session.user_id, said(&body));
    let room_id = membership::join::join(&app.rooms, &room_id, user, &via, said).await?;
    Ok(Object(json!({ "room_id": room_id })))
}

/// Holds who joins a room to the limits.
async fn check_join(app: &App, session: &Session, room_id: &RoomId) -> Result<(), ApiError> {
    let kind = if membership::we_are_in(&app.rooms, room_id).await? {
        app.limits
            .check_by(session, Kind::JoinRoom, room_id.as_str())?;
        Kind::JoinLocal
    } else {
        Kind::JoinRemote
    };
    app.limits.check_user(kind, session)
}

/// All that a user says in joining a room.
fn said(body: &[u8]) -> Map<String, Value> {
    // That it is an object was seen when it was parsed; a body may also be missing.
    serde_json::from_slice(body).unwrap_or_default()
}

/// The room of an id or alias, and servers that may help.
async fn locate(
    rooms: &Rooms,
    name: &RoomOrAliasId,
    mut via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
    if let Ok(room_id) = <&RoomId>::try_from(name) {
        return Ok((room_id.to_owned(), via));
    }
    let alias = name
        .try_into()
        .map_err(|_| ApiError::invalid_param("not a room id or alias"))?;
    let (room_id, servers) = aliases::resolve(rooms, alias).await?;
    via.extend(servers);
    Ok((room_id, via))
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
async fn knock_room(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<knock_room::v3::Request>,
) -> Result<Object, ApiError> {
    let (room_id, via) = locate(&rooms, &request.room_id_or_alias, request.via).await?;
    let reason = request.reason.as_deref();
    let user = &session.user_id;
    let room_id = membership::knock::knock(&rooms, &room_id, user, &via, reason).await?;
    Ok(Object(json!({ "room_id": room_id })))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/invite`
async fn invite_user(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<invite_user::v3::Request>,
) -> Result<Object, ApiError> {
    let invite_user::v3::InvitationRecipient::UserId(target) = &request.recipient else {
        return Err(ApiError::forbidden(
            "invitations by e-mail or phone are not offered",
        ));
    };
    app.limits.check_user(Kind::InviteIssuer, &session)?;
    for (kind, whom) in [
        (Kind::InviteRoom, request.room_id.as_str()),
        (Kind::InviteUser, target.user_id.as_str()),
    ] {
        app.limits.check_by(&session, kind, whom)?;
    }
    let reason = target.reason.as_deref();
    let sender = &session.user_id;
    membership::invite::invite(
        &app.rooms,
        &request.room_id,
        sender,
        &target.user_id,
        false,
        reason,
    )
    .await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
async fn leave_room(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<leave_room::v3::Request>,
) -> Result<Object, ApiError> {
    let reason = request.reason.as_deref();
    server_notices::leave(&rooms, &request.room_id, &session.user_id, reason).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/forget`
async fn forget_room(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<forget_room::v3::Request>,
) -> Result<Object, ApiError> {
    membership::forget(&rooms, &request.room_id, &session.user_id).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/kick`
async fn kick_user(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<kick_user::v3::Request>,
) -> Result<Object, ApiError> {
    let (room, reason) = (&request.room_id, request.reason.as_deref());
    membership::kick(&rooms, room, &session.user_id, &request.user_id, reason).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/ban`
async fn ban_user(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<ban_user::v3::Request>,
) -> Result<Object, ApiError> {
    let (room, reason) = (&request.room_id, request.reason.as_deref());
    membership::ban(&rooms, room, &session.user_id, &request.user_id, reason).await?;
    Ok(Object(json!({})))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/unban`
async fn unban_user(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<unban_user::v3::Request>,
) -> Result<Object, ApiError> {
    let (room, reason) = (&request.room_id, request.reason.as_deref());
    membership::unban(&rooms, room, &session.user_id, &request.user_id, reason).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/client/v3/joined_rooms`
async fn joined_rooms(
    State(rooms): State<Rooms>,
    Authenticated { session, .. }: Authenticated<joined_rooms::v3::Request>,
) -> Result<Object, ApiError> {
    let joined = membership::joined_rooms(&rooms, &session.user_id).await?;
    Ok(Object(json!({ "joined_rooms": joined })))
}
