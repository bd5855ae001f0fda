//! Aliases and the public room directory.

use axum::{Router, extract::State};
use ruma::{
    api::client::{
        alias::{create_alias, delete_alias, get_alias},
        directory::{
            get_public_rooms, get_public_rooms_filtered, get_room_visibility, set_room_visibility,
        },
        room::Visibility,
    },
    directory::RoomNetwork,
};
use serde_json::json;

use crate::{
    http::{
        App,
        error::ApiError,
        mount,
        reply::Object,
        request::{Authenticated, Public},
    },
    rooms::{self, Rooms, aliases, directory},
    storage,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<create_alias::v3::Request, _, _>(Router::new(), create_alias);
    let router = mount::<get_alias::v3::Request, _, _>(router, get_alias);
    let router = mount::<delete_alias::v3::Request, _, _>(router, delete_alias);
    let router = mount::<get_room_visibility::v3::Request, _, _>(router, get_room_visibility);
    let router = mount::<set_room_visibility::v3::Request, _, _>(router, set_room_visibility);
    let router = mount::<get_public_rooms::v3::Request, _, _>(router, get_public_rooms);
    mount::<get_public_rooms_filtered::v3::Request, _, _>(router, get_public_rooms_filtered)
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
async fn create_alias(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<create_alias::v3::Request>,
) -> Result<Object, ApiError> {
    let (alias, room) = (&request.room_alias, &request.room_id);
    match directory::create_alias(&rooms, alias, room, session.asking()).await {
        // This endpoint alone answers with another status than createRoom.
        Err(error @ rooms::Error::AliasTaken(_)) => Err(ApiError::new(
            http::StatusCode::CONFLICT,
            "M_UNKNOWN",
            &error.to_string(),
        )),
        done => {
            done?;
            Ok(Object(json!({})))
        }
    }
}

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`
async fn get_alias(
    State(rooms): State<Rooms>,
    Public { request, .. }: Public<get_alias::v3::Request>,
) -> Result<Object, ApiError> {
    let (room_id, servers) = aliases::resolve(&rooms, &request.room_alias).await?;
    Ok(Object(json!({ "room_id": room_id, "servers": servers })))
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
async fn delete_alias(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<delete_alias::v3::Request>,
) -> Result<Object, ApiError> {
    let alias = &request.room_alias;
    directory::delete_alias(&rooms, alias, session.asking(), session.admin).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/client/v3/directory/list/room/{roomId}`
async fn get_room_visibility(
    State(rooms): State<Rooms>,
    Public { request, .. }: Public<get_room_visibility::v3::Request>,
) -> Result<Object, ApiError> {
    let room = rooms.by_id(&request.room_id).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let listed = storage::rooms::is_listed(&mut conn, room.nid).await?;
    Ok(Object(
        json!({ "visibility": if listed { "public" } else { "private" } }),
    ))
}

/// `PUT /_matrix/client/v3/directory/list/room/{roomId}`
async fn set_room_visibility(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<set_room_visibility::v3::Request>,
) -> Result<Object, ApiError> {
    let listed = request.visibility == Visibility::Public;
    let user = (&*session.user_id, session.admin);
    directory::set_visibility(&rooms, &request.room_id, user, listed).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/client/v3/publicRooms`
async fn get_public_rooms(
    State(rooms): State<Rooms>,
    Public { request, .. }: Public<get_public_rooms::v3::Request>,
) -> Result<Object, ApiError> {
    let limit = request.limit.map(i64::from);
    let (server, since) = (request.server.as_deref(), request.since.as_deref());
    Ok(Object(
        directory::list_of(&rooms, server, limit, since, None, &RoomNetwork::Matrix).await?,
    ))
}

/// `POST /_matrix/client/v3/publicRooms`
async fn get_public_rooms_filtered(
    State(rooms): State<Rooms>,
    Authenticated { request, .. }: Authenticated<get_public_rooms_filtered::v3::Request>,
) -> Result<Object, ApiError> {
    let limit = request.limit.map(i64::from);
    let search = request.filter.generic_search_term.as_deref();
    let (server, since) = (request.server.as_deref(), request.since.as_deref());
    Ok(Object(
        directory::list_of(&rooms, server, limit, since, search, &request.room_network).await?,
    ))
}
