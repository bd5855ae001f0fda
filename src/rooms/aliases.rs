//! Room aliases.

use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, api::federation::query::get_room_information,
};

use super::{Error, Rooms, remote};
use crate::{config::Appservice, storage};

/// The room that an alias names, and servers that are in it. Asks the alias's server when it is
/// not ours.
pub async fn resolve(
    rooms: &Rooms,
    alias: &RoomAliasId,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), Error> {
    if alias.server_name() == rooms.ctx().server_name() {
        return resolve_local(rooms, alias).await;
    }
    let request = get_room_information::v1::Request::new(alias.to_owned());
    match rooms
        .ctx()
        .federation
        .request(alias.server_name(), request)
        .await
    {
        Ok(answer) => Ok((answer.room_id, answer.servers)),
        Err(crate::federation::Error::Remote { status: 404, .. }) => Err(Error::AliasNotFound),
        Err(error) => Err(remote::refused(error)),
    }
}

/// The same for an alias of ours; an application service makes one of its own if it wants to.
pub async fn resolve_local(
    rooms: &Rooms,
    alias: &RoomAliasId,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), Error> {
    match known(rooms, alias).await {
        Err(Error::AliasNotFound) if rooms.ctx().appservices.has_made_alias(alias).await => {
            known(rooms, alias).await
        }
        found => found,
    }
}

/// Whether an alias is left to whoever asks: not one that a service has for itself alone, and of a
/// service (`asking`) one of its own.
pub fn check_reserved(
    rooms: &Rooms,
    alias: &RoomAliasId,
    asking: Option<&Appservice>,
) -> Result<(), Error> {
    let is_foreign = asking.is_some_and(|service| !service.has_alias(alias));
    if is_foreign || rooms.ctx().appservices.claims_alias(alias, asking) {
        return Err(Error::AliasClaimed);
    }
    Ok(())
}

async fn known(
    rooms: &Rooms,
    alias: &RoomAliasId,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), Error> {
    let ids = &rooms.ctx().db.ids;
    let mut conn = rooms.ctx().db.conn().await?;
    let found = storage::aliases::find(&mut conn, alias).await?;
    let (room, _) = found.ok_or(Error::AliasNotFound)?;
    let servers = storage::memberships::list_servers(&mut conn, room).await?;
    drop(conn);
    let mut names = Vec::new();
    for server in servers.into_iter().take(50) {
        names.push(ids.server_name(server).await?);
    }
    if !names.iter().any(|name| name == rooms.ctx().server_name()) {
        names.push(rooms.ctx().server_name().to_owned());
    }
    Ok((ids.room_id(room).await?, names))
}
