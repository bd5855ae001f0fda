//! Devices, once the members of a room are known: what servers missed that we did not know to be in
//! it, and what our users missed of members that we did not know to be there.

use std::collections::HashMap;

use super::{Error, Rooms, resident::Room};
use crate::{
    storage::{self, Pos, ServerNid},
    users::announce,
};

/// Users whose devices are looked at; more ask for themselves.
const USERS_MAX: i64 = 1_000;

/// How servers stood to a room before its members were known.
#[derive(Debug)]
pub(super) struct Before {
    /// When we joined.
    since: Pos,
    /// By server: joined users as we knew them, whether it was said to be there, since when.
    servers: HashMap<ServerNid, (i32, bool, Pos)>,
}

impl Before {
    /// To be called before the state is whole.
    pub(super) async fn load(rooms: &Rooms, room: &Room) -> Result<Self, Error> {
        let mut conn = rooms.ctx().db.conn().await?;
        let since = storage::partial::find(&mut conn, room.nid).await?;
        let servers = storage::partial::list_servers(&mut conn, room.nid).await?;
        let servers = servers.into_iter();
        Ok(Self {
            since: since.unwrap_or(Pos::MAX),
            servers: servers
                .map(|(server, joined, told, since)| (server, (joined, told, since)))
                .collect(),
        })
    }

    /// Whether a server was told of what happened at a position.
    fn was_told(&self, server: ServerNid, pos: Pos) -> bool {
        self.servers
            .get(&server)
            .is_some_and(|(joined, told, since)| *told || (*joined > 0 && *since < pos))
    }
}

/// To be called once the state is whole.
pub(super) async fn catch_up(rooms: &Rooms, room: &Room, before: &Before) -> Result<(), Error> {
    let ctx = rooms.ctx();
    let own = ctx.db.ids.server(ctx.server_name()).await?;
    let mut conn = ctx.db.conn().await?;
    let (nid, since) = (room.nid, before.since);
    let servers = storage::partial::list_servers_since(&mut conn, nid, since).await?;
    let changed = storage::partial::list_changed_own(&mut conn, nid, since, USERS_MAX).await?;
    let theirs = storage::partial::list_changed_members(&mut conn, nid, since, USERS_MAX).await?;
    drop(conn);
    for (user, pos) in changed {
        let missed = servers.iter().filter(|server| **server != own);
        let missed: Vec<i32> = missed
            .filter(|server| !before.was_told(**server, pos))
            .map(|server| server.0)
            .collect();
        let user_id = ctx.db.ids.user_id(user).await?;
        announce::tell(ctx, (&user_id, user), &missed).await?;
    }
    if !theirs.is_empty() {
        let mut tx = ctx.db.begin().await?;
        for user in theirs {
            storage::to_device::insert_change(&mut tx, user).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}
