//! What an application service hears of devices (MSC3202): whose lists changed, who shares no room any
//! more with its users, and which keys wait.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Error, RoomNid, UserNid, transaction::Parts};
use crate::{
    rooms::feed::ROOMS_MAX,
    storage::{self, LogKind, memberships, to_device::Message},
};

/// Members of a room that a user of the service has left who are looked at: of more the service keeps
/// devices in mind that it does not need.
const MEMBERS_MAX: i64 = 1_000;
/// Users who are looked at for one transaction.
const USERS_MAX: usize = 5_000;

impl Parts<'_> {
    /// Whose devices changed, and which keys wait in those of its users (MSC3202).
    pub(super) async fn devices(&self, to_device: &[Message]) -> Result<Map<String, Value>, Error> {
        let ctx = self.rooms.ctx();
        let mut parts: Map<String, Value> = Map::new();
        if let Some(lists) = self.device_lists().await? {
            parts.insert("org.matrix.msc3202.device_lists".to_owned(), lists);
        }
        let counted = self.rows(LogKind::KeyCounts).map(|it| it.row.user);
        let counted: BTreeSet<i64> = counted
            .chain(to_device.iter().map(|it| it.user_nid))
            .collect();
        if counted.is_empty() {
            return Ok(parts);
        }
        let counted: Vec<i64> = counted.into_iter().collect();
        let mut conn = ctx.db.conn().await?;
        let keys = storage::device_keys::list_waiting(&mut conn, &counted).await?;
        drop(conn);
        let owners: Vec<UserNid> = keys.iter().map(|it| UserNid(it.user_nid)).collect();
        let owners = ctx.db.ids.user_ids_of(&owners).await?;
        let (mut one_time, mut fallback) = (json!({}), json!({}));
        for (keys, owner) in keys.iter().zip(owners) {
            if keys.is_one_time {
                let of_device = &mut one_time[owner.as_str()][&keys.device_id];
                if of_device.is_null() {
                    *of_device = json!({});
                }
                if let Some(algorithm) = &keys.algorithm {
                    of_device[algorithm] = json!(keys.count);
                }
            } else {
                let of_device = &mut fallback[owner.as_str()][&keys.device_id];
                if of_device.is_null() {
                    *of_device = json!([]);
                }
                if let (Some(list), Some(algorithm)) = (of_device.as_array_mut(), &keys.algorithm) {
                    list.push(json!(algorithm));
                }
            }
        }
        let name = "org.matrix.msc3202.device_one_time_keys_count";
        parts.insert(name.to_owned(), one_time);
        let name = "org.matrix.msc3202.device_unused_fallback_key_types";
        parts.insert(name.to_owned(), fallback);
        Ok(parts)
    }

    /// Whose devices changed, and who shares no room with the service any more; `None`: nobody.
    async fn device_lists(&self) -> Result<Option<Value>, Error> {
        let left = self.left().await?;
        let changed = self.rows(LogKind::DeviceList).map(|it| it.row.user);
        let changed: BTreeSet<i64> = changed.filter(|user| !left.contains(user)).collect();
        if changed.is_empty() && left.is_empty() {
            return Ok(None);
        }
        let ids = &self.rooms.ctx().db.ids;
        let nids = |users: BTreeSet<i64>| users.into_iter().map(UserNid).collect::<Vec<_>>();
        let changed = ids.user_ids_of(&nids(changed)).await?;
        let left = ids.user_ids_of(&nids(left)).await?;
        Ok(Some(json!({ "changed": changed, "left": left })))
    }

    /// Users who were in a room with users of the service, and are in none any more.
    async fn left(&self) -> Result<BTreeSet<i64>, Error> {
        let mut apart = self.parted().await?;
        if apart.is_empty() {
            return Ok(apart);
        }
        let nids: Vec<i64> = apart.iter().copied().collect();
        let mut conn = self.rooms.ctx().db.conn().await?;
        let pairs = memberships::list_rooms_of(&mut conn, &nids, ROOMS_MAX).await?;
        drop(conn);
        let rooms: BTreeSet<i64> = pairs.iter().map(|(_, room)| *room).collect();
        let rooms = rooms.into_iter().map(RoomNid).collect();
        let interest = &self.rooms.feed().interest;
        let shared = interest.rooms_of(self.rooms, self.place, rooms).await?;
        for (user, room) in pairs {
            if shared.contains(&RoomNid(room)) {
                apart.remove(&user);
            }
        }
        Ok(apart)
    }

    /// Users who left a room, and those in rooms that users of the service left.
    async fn parted(&self) -> Result<BTreeSet<i64>, Error> {
        let rows = self.rows(LogKind::Event).map(|it| it.row);
        let (places, events): (Vec<i64>, Vec<i64>) =
            rows.map(|row| (row.room, row.reference)).unzip();
        let mut apart = BTreeSet::new();
        if events.is_empty() {
            return Ok(apart);
        }
        let mut conn = self.rooms.ctx().db.conn().await?;
        let gone = memberships::list_gone(&mut conn, (&places, &events)).await?;
        drop(conn);
        let users: Vec<UserNid> = gone.iter().map(|(_, user)| UserNid(*user)).collect();
        let ids = self.rooms.ctx().db.ids.user_ids_of(&users).await?;
        let mut left_by_its = Vec::new();
        for ((room, user), id) in gone.into_iter().zip(ids) {
            if self.service.has_user(&id) {
                left_by_its.push(room);
            } else {
                apart.insert(user);
            }
        }
        if !left_by_its.is_empty() {
            let mut conn = self.rooms.ctx().db.conn().await?;
            let inside =
                memberships::list_some_joined(&mut conn, &left_by_its, MEMBERS_MAX).await?;
            drop(conn);
            let inside = inside.into_iter().take(USERS_MAX);
            let inside: Vec<UserNid> = inside.map(UserNid).collect();
            let ids = self.rooms.ctx().db.ids.user_ids_of(&inside).await?;
            let others = inside.iter().zip(ids);
            let others = others.filter(|(_, id)| !self.service.has_user(id));
            apart.extend(others.map(|(user, _)| user.0));
        }
        Ok(apart)
    }
}
