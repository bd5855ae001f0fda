//! Spaces: the tree of rooms below one, for our users and for peers, and summaries of single rooms
//! (specification, "Spaces" and "Room summaries").

pub mod preview;
pub mod serve;
pub mod summary;
pub mod walk;

mod children;
mod peers;

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedRoomId, RoomId};

pub(super) use self::peers::Peers;
use self::summary::Summary;
use super::{Error, Rooms, resident::Room};
use crate::storage::{self, ServerNid, UserNid, spaces::Known};

/// Who looks at rooms: what a user is in them. Nobody in particular has no memberships.
#[derive(Debug, Default)]
struct Looking(HashMap<OwnedRoomId, i16>);

impl Looking {
    async fn of(rooms: &Rooms, user: UserNid) -> Result<Self, Error> {
        let mut conn = rooms.ctx().db.conn().await?;
        let memberships = storage::spaces::list_memberships(&mut conn, user).await?;
        Ok(Self(memberships))
    }

    fn is_invited(&self, room_id: &RoomId) -> bool {
        self.0.get(room_id) == Some(&2)
    }

    /// Whether the room is shown: the list of the specification (`GET /hierarchy`, `rooms`). Who is
    /// banned cannot join, whatever the join rules are.
    fn may_see(&self, room: &Summary) -> bool {
        match self.0.get(&room.room_id) {
            Some(1 | 2) => true,
            Some(_) => room.world_readable,
            None => {
                let is_in = |allowed: &OwnedRoomId| self.0.get(allowed) == Some(&1);
                room.world_readable || room.is_open || room.allowed.iter().any(is_in)
            }
        }
    }
}

/// Ids of the children that a space of ours names.
pub async fn children(rooms: &Rooms, space: &Room) -> Result<Vec<OwnedRoomId>, Error> {
    let children = children::of_room(rooms, space).await?;
    Ok(children.into_iter().map(|child| child.room_id).collect())
}

/// Those of some rooms that we know, by id; `theirs` of what is found is about a peer that asks, or
/// about ourselves.
async fn known<'a>(
    rooms: &Rooms,
    peer: Option<ServerNid>,
    ids: impl Iterator<Item = &'a RoomId>,
) -> Result<HashMap<OwnedRoomId, Known>, Error> {
    let ids: Vec<String> = ids.map(ToString::to_string).collect();
    let own = rooms.ctx().db.ids.server(rooms.ctx().server_name()).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::spaces::list_known(&mut conn, &ids, own, peer.unwrap_or(own)).await?)
}

/// A room that we are in, with its summary; what we knew of others before we left is worth nothing.
async fn ours(rooms: &Rooms, known: Option<&Known>) -> Result<Option<(Arc<Room>, Summary)>, Error> {
    let Some(known) = known.filter(|room| room.ours) else {
        return Ok(None);
    };
    let Some(room) = rooms.find(known.nid).await? else {
        return Ok(None);
    };
    let summary = Summary::of_room(rooms, &room, known.joined).await?;
    Ok(Some((room, summary)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ruma::room_id;
    use serde_json::json;

    use super::{Looking, summary::Summary};

    fn room(join_rule: &str) -> Summary {
        let told = json!({
            "room_id": "!r:x", "join_rule": join_rule, "num_joined_members": 1,
            "world_readable": false, "guest_can_join": false, "allowed_room_ids": ["!space:x"],
        });
        Summary::from_peer(told.as_object().unwrap(), room_id!("!r:x")).unwrap()
    }

    fn looking(memberships: &[(&str, i16)]) -> Looking {
        let entries = memberships
            .iter()
            .map(|(room, code)| (ruma::RoomId::parse(*room).unwrap(), *code));
        Looking(entries.collect::<HashMap<_, _>>())
    }

    #[test]
    fn who_may_come_may_see() {
        let nobody = Looking::default();
        for (rule, sees) in [
            ("public", true),
            ("knock", true),
            ("knock_restricted", true),
        ]
        .into_iter()
        .chain([("restricted", false), ("invite", false), ("x", false)])
        {
            assert_eq!(nobody.may_see(&room(rule)), sees, "{rule}");
        }
        assert!(looking(&[("!space:x", 1)]).may_see(&room("restricted")));
        assert!(!looking(&[("!space:x", 2)]).may_see(&room("restricted")));
        assert!(!looking(&[("!space:x", 1)]).may_see(&room("invite")));
        assert!(looking(&[("!r:x", 2)]).may_see(&room("invite")));
        assert!(!looking(&[("!r:x", 4)]).may_see(&room("public")), "banned");
    }
}
