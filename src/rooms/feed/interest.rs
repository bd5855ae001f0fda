//! Which application services users and rooms are the business of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use ruma::RoomAliasId;

use super::{Error, Rooms, nobody};
use crate::storage::{self, LogKind, RoomNid, UserNid, news::News};

/// Services, by their place in the configuration.
pub(super) type Which = Arc<[usize]>;

/// Users whose services are remembered.
const USERS_MAX: u64 = 200_000;
/// Rooms whose services are remembered.
const ROOMS_MAX: u64 = 50_000;
/// How long a room is remembered: other nodes change its aliases.
const ROOM_LIFE: std::time::Duration = std::time::Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Interest {
    users: Cache<UserNid, Which>,
    rooms: Cache<RoomNid, Which>,
}

impl Interest {
    pub(super) fn new() -> Self {
        Self {
            users: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(USERS_MAX)
                .build(),
            rooms: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(ROOMS_MAX)
                .time_to_live(ROOM_LIFE)
                .build(),
        }
    }

    pub(super) fn forget(&self, room: RoomNid) {
        self.rooms.invalidate(&room);
    }

    /// Looks up what news is about, all of it together.
    pub(super) async fn prepare(
        &self,
        rooms: &Rooms,
        news: &[News],
        seen_in: &BTreeMap<i64, Vec<RoomNid>>,
    ) -> Result<(), Error> {
        let mut users: Vec<UserNid> = Vec::new();
        let mut nids: Vec<RoomNid> = seen_in.values().flatten().copied().collect();
        for news in news {
            users.extend(news.sender);
            users.extend(news.target);
            match news.row.kind {
                LogKind::Event | LogKind::Receipt => nids.push(RoomNid(news.row.room)),
                _ => users.push(UserNid(news.row.user)),
            }
        }
        self.load_users(rooms, users).await?;
        self.load_rooms(rooms, nids).await
    }

    /// Whose user somebody is.
    pub(super) async fn of_user(&self, rooms: &Rooms, user: UserNid) -> Result<Which, Error> {
        if user.0 == 0 {
            return Ok(nobody());
        }
        if let Some(which) = self.users.get(&user) {
            return Ok(which);
        }
        self.load_users(rooms, vec![user]).await?;
        Ok(self.users.get(&user).unwrap_or_else(nobody))
    }

    /// Who hears of what happens in a room.
    pub(super) async fn of_room(&self, rooms: &Rooms, room: RoomNid) -> Result<Which, Error> {
        if let Some(which) = self.rooms.get(&room) {
            return Ok(which);
        }
        self.load_rooms(rooms, vec![room]).await?;
        Ok(self.rooms.get(&room).unwrap_or_else(nobody))
    }

    /// Of some rooms those that a service hears of.
    pub(super) async fn rooms_of(
        &self,
        rooms: &Rooms,
        place: usize,
        nids: Vec<RoomNid>,
    ) -> Result<BTreeSet<RoomNid>, Error> {
        self.load_rooms(rooms, nids.clone()).await?;
        let heard = |room: &RoomNid| self.rooms.get(room).is_some_and(|its| its.contains(&place));
        Ok(nids.into_iter().filter(heard).collect())
    }

    async fn load_users(&self, rooms: &Rooms, mut users: Vec<UserNid>) -> Result<(), Error> {
        users.retain(|user| user.0 != 0 && !self.users.contains_key(user));
        users.sort_unstable();
        users.dedup();
        if users.is_empty() {
            return Ok(());
        }
        let ids = rooms.ctx().db.ids.user_ids_of(&users).await?;
        let services = rooms.ctx().appservices.all();
        for (user, id) in users.into_iter().zip(ids) {
            let places = services.iter().enumerate();
            let its = places.filter(|(_, service)| service.has_user(&id));
            self.users
                .insert(user, its.map(|(place, _)| place).collect());
        }
        Ok(())
    }

    async fn load_rooms(&self, rooms: &Rooms, mut nids: Vec<RoomNid>) -> Result<(), Error> {
        nids.retain(|room| !self.rooms.contains_key(room));
        nids.sort_unstable();
        nids.dedup();
        if nids.is_empty() {
            return Ok(());
        }
        let services = rooms.ctx().appservices.all();
        let ids = rooms.ctx().db.ids.room_ids_of(&nids).await?;
        let mut found: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (room, id) in nids.iter().zip(ids) {
            let places = services.iter().enumerate();
            let its = places.filter(|(_, service)| service.has_room(&id));
            found.insert(room.0, its.map(|(place, _)| place).collect());
        }
        let numbers: Vec<i64> = nids.iter().map(|room| room.0).collect();
        let mut conn = rooms.ctx().db.conn().await?;
        if services.iter().any(|service| !service.aliases.is_empty()) {
            for (room, alias) in storage::aliases::list_of_rooms(&mut conn, &numbers).await? {
                let Ok(alias) = <&RoomAliasId>::try_from(alias.as_str()) else {
                    continue;
                };
                let places = services.iter().enumerate();
                let its = places.filter(|(_, service)| service.has_alias(alias));
                let of_room = found.entry(room).or_default();
                of_room.extend(its.map(|(place, _)| place));
            }
        }
        let inside = storage::memberships::list_local_joined_in(&mut conn, &numbers).await?;
        drop(conn);
        let users = inside.iter().map(|(_, user)| UserNid(*user)).collect();
        self.load_users(rooms, users).await?;
        for (room, user) in inside {
            if let Some(its) = self.users.get(&UserNid(user)) {
                found.entry(room).or_default().extend(its.iter());
            }
        }
        for (room, mut which) in found {
            which.sort_unstable();
            which.dedup();
            self.rooms.insert(RoomNid(room), which.into());
        }
        Ok(())
    }
}
