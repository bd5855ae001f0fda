//! Deleting a room because an administrator says so: our users leave it, perhaps for another room,
//! and its rows go.
//!
//! What is ordered is written down first, so that it is done to the end also when the server
//! stops in between.

use std::time::Duration;

use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::TimelineEventType,
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::{
    ATTEMPTS_MAX, Error, Rooms, blocks, create, membership,
    persist::is_local,
    purge::{Purged, purge},
    raw,
    send::{Txn, send},
};
use crate::{
    clock::now_ms,
    event::build::Draft,
    storage::{self, RoomNid, room_deletions},
};

/// Users after whom it is written down how far a deletion is.
const SAVE_EVERY: usize = 20;
/// How often somebody who waits for a deletion looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often is looked for deletions that nobody announced.
const IDLE: Duration = Duration::from_mins(1);
/// Deletions of one room in an answer.
const LIST_MAX: i64 = 100;
/// Power of those who are moved to the new room: they may not speak there.
const MOVED_POWER: i64 = -10;

const ROOM_NAME: &str = "Content Violation Notification";
const MESSAGE: &str = "Sharing illegal content on this server is not permitted and rooms in \
    violation will be blocked.";

/// What an administrator orders.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    /// Nobody of ours may enter the room any more.
    #[serde(default)]
    pub block: bool,
    /// The rows of the room go.
    #[serde(default = "yes")]
    pub purge: bool,
    /// They go although somebody could not be removed.
    #[serde(default)]
    pub force_purge: bool,
    /// First message in the new room.
    pub message: Option<String>,
    /// Who makes a new room, to which those who were in the old one are moved.
    pub new_room_user_id: Option<OwnedUserId>,
    /// Name of the new room.
    pub room_name: Option<String>,
}

fn yes() -> bool {
    true
}

/// What was done.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    /// Users who were removed.
    pub kicked_users: Vec<OwnedUserId>,
    /// Users who could not be removed.
    pub failed_to_kick_users: Vec<OwnedUserId>,
    /// Aliases that name the new room now.
    pub local_aliases: Vec<OwnedRoomAliasId>,
    /// The new room.
    pub new_room_id: Option<OwnedRoomId>,
}

/// Orders the deletion of a room; returns its id.
pub async fn order(
    rooms: &Rooms,
    room_id: &RoomId,
    admin: &UserId,
    order: &Order,
) -> Result<String, Error> {
    let id = try_order(rooms, room_id, admin, order).await?;
    id.ok_or_else(|| Error::InvalidParam(format!("Purge already in progress for {room_id}")))
}

/// Deletes a room and waits for the end of it; of two at the same time the second waits.
pub async fn delete(
    rooms: &Rooms,
    room_id: &RoomId,
    admin: &UserId,
    order: &Order,
) -> Result<Outcome, Error> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(id) = try_order(rooms, room_id, admin, order).await? {
            return done(rooms, &id).await;
        }
        let others = list(rooms, room_id).await?;
        for other in others.iter().filter(|other| !has_ended(other)) {
            // How it ends is the other's business.
            let _ = done(rooms, &other.delete_id).await;
        }
    }
    Err(Error::Busy)
}

fn has_ended(deletion: &room_deletions::Deletion) -> bool {
    matches!(&*deletion.status, "complete" | "failed")
}

/// `None`: another deletion of the room has not ended.
async fn try_order(
    rooms: &Rooms,
    room_id: &RoomId,
    admin: &UserId,
    order: &Order,
) -> Result<Option<String>, Error> {
    if let Some(user) = &order.new_room_user_id
        && !is_local(rooms, user)
    {
        return Err(Error::InvalidParam(format!("User must be our own: {user}")));
    }
    let delete_id = format!("{:032x}", rand::random::<u128>());
    let texts = (text(order)?, text(&Outcome::default())?);
    let admin = rooms.ctx().db.ids.user(admin).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let texts = (&*texts.0, &*texts.1);
    if !room_deletions::insert(&mut conn, &delete_id, room_id, admin, texts, now_ms()).await? {
        return Ok(None);
    }
    rooms.0.deleting.notify_one();
    Ok(Some(delete_id))
}

fn text<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Invalid(error.to_string()))
}

/// Waits until a deletion has ended.
async fn done(rooms: &Rooms, delete_id: &str) -> Result<Outcome, Error> {
    loop {
        let mut conn = rooms.ctx().db.conn().await?;
        let row = room_deletions::find(&mut conn, delete_id).await?;
        drop(conn);
        let Some(row) = row else {
            return Err(Error::Busy);
        };
        match (&*row.status, row.error) {
            ("complete", _) => {
                return Ok(serde_json::from_str(&row.result_json).unwrap_or_default());
            }
            ("failed", error) => return Err(Error::InvalidParam(error.unwrap_or_default())),
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Deletions of a room that have not ended, or not long ago.
pub async fn list(rooms: &Rooms, room_id: &RoomId) -> Result<Vec<room_deletions::Deletion>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(room_deletions::list_of_room(&mut conn, room_id, LIST_MAX).await?)
}

/// One deletion.
pub async fn find(
    rooms: &Rooms,
    delete_id: &str,
) -> Result<Option<room_deletions::Deletion>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(room_deletions::find(&mut conn, delete_id).await?)
}

/// The job: does what was ordered, one deletion after the other.
pub async fn run(rooms: &Rooms) {
    loop {
        match next(rooms).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "deletions of rooms could not be read or noted"),
        }
        let _ = tokio::time::timeout(IDLE, rooms.0.deleting.notified()).await;
    }
}

async fn next(rooms: &Rooms) -> Result<bool, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let found = room_deletions::find_next(&mut conn).await?;
    drop(conn);
    let Some(row) = found else {
        return Ok(false);
    };
    let done = execute(rooms, &row).await;
    if let Err(error) = &done {
        tracing::warn!(%error, room_id = row.room_id, "an ordered deletion of a room failed");
    }
    let error = done.err().map(|error| error.to_string());
    let mut conn = rooms.ctx().db.conn().await?;
    room_deletions::update_done(&mut conn, &row.delete_id, error.as_deref(), now_ms()).await?;
    Ok(true)
}

/// A deletion that is under way.
struct Work<'a> {
    rooms: &'a Rooms,
    delete_id: &'a str,
    room_id: OwnedRoomId,
    order: Order,
    outcome: Outcome,
}

async fn execute(rooms: &Rooms, row: &room_deletions::Deletion) -> Result<(), Error> {
    let broken = |what: &str| storage::Error::Inconsistent {
        table: "room_deletion",
        what: what.to_owned(),
    };
    let mut work = Work {
        rooms,
        delete_id: &row.delete_id,
        room_id: RoomId::parse(&row.room_id).map_err(|_| broken(&row.room_id))?,
        order: serde_json::from_str(&row.order_json).map_err(|_| broken(&row.order_json))?,
        outcome: serde_json::from_str(&row.result_json).unwrap_or_default(),
    };
    work.save().await?;
    let ids = &rooms.ctx().db.ids;
    if work.order.block {
        let admin = ids.user_id(storage::UserNid(row.user_nid)).await?;
        blocks::set(rooms, &work.room_id, &admin, true).await?;
    }
    // A room that we have never heard of is blocked, and nothing else.
    let Some(room) = ids.find_room(&work.room_id).await? else {
        return Ok(());
    };
    work.shut_down(room).await?;
    if work.order.purge && purge(rooms, room, work.order.force_purge).await? == Purged::Refused {
        return Err(Error::InvalidParam(
            "Users are still joined to this room".to_owned(),
        ));
    }
    Ok(())
}

impl Work<'_> {
    async fn save(&self) -> Result<(), Error> {
        let result = text(&self.outcome)?;
        let mut conn = self.rooms.ctx().db.conn().await?;
        Ok(room_deletions::update_active(&mut conn, self.delete_id, &result).await?)
    }

    async fn shut_down(&mut self, room: RoomNid) -> Result<(), Error> {
        if let Some(user) = self.order.new_room_user_id.clone()
            && self.outcome.new_room_id.is_none()
        {
            let id = self.create_room(&user).await?;
            self.outcome.new_room_id = Some(id);
            self.save().await?;
        }
        self.remove_users(room).await?;
        if let (Some(user), Some(new)) = (
            self.order.new_room_user_id.clone(),
            self.outcome.new_room_id.clone(),
        ) {
            self.explain(&user, &new).await?;
            self.move_aliases(room, &new).await?;
        }
        self.save().await
    }

    async fn create_room(&self, user: &UserId) -> Result<OwnedRoomId, Error> {
        let mut request = Request::new();
        request.preset = Some(RoomPreset::PublicChat);
        let name = self.order.room_name.clone();
        request.name = Some(name.unwrap_or_else(|| ROOM_NAME.to_owned()));
        let levels = json!({ "users_default": MOVED_POWER });
        request.power_level_content_override = Some(Raw::from_json(raw(&levels)?));
        create::create(self.rooms, (user, None), &request).await
    }

    async fn remove_users(&mut self, room: RoomNid) -> Result<(), Error> {
        let mut conn = self.rooms.ctx().db.conn().await?;
        let users = storage::room_list::list_local(&mut conn, room).await?;
        drop(conn);
        self.outcome.failed_to_kick_users.clear();
        let inside = users
            .into_iter()
            .filter(|(_, membership)| matches!(membership, 1 | 2 | 5));
        for (count, (nid, membership)) in inside.enumerate() {
            let user = self.rooms.ctx().db.ids.user_id(nid).await?;
            match self.remove(room, &user, membership == 1).await {
                Ok(()) => self.outcome.kicked_users.push(user),
                Err(error) => {
                    tracing::warn!(%error, %user, "a user could not be removed from a room");
                    self.outcome.failed_to_kick_users.push(user);
                }
            }
            if count % SAVE_EVERY == SAVE_EVERY - 1 {
                self.save().await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, room: RoomNid, user: &UserId, joined: bool) -> Result<(), Error> {
        membership::leave::leave(self.rooms, &self.room_id, user, None).await?;
        if !self.order.purge {
            // What stays on disk is not for those who were put out. (Where it goes, their clients
            // are rather told that they have left.)
            let nid = self.rooms.ctx().db.ids.user(user).await?;
            let mut tx = self.rooms.ctx().db.begin().await?;
            storage::memberships::forget(&mut tx, nid, room).await?;
            tx.log(storage::memberships::standing(nid, room)).await?;
            tx.commit().await?;
        }
        if let (Some(new), true) = (&self.outcome.new_room_id, joined) {
            membership::join::join(self.rooms, new, user, &[], Map::new()).await?;
        }
        Ok(())
    }

    /// Says in the new room why the old one is gone; once, however often it is called.
    async fn explain(&self, user: &UserId, new: &RoomId) -> Result<(), Error> {
        let message = self.order.message.as_deref().unwrap_or(MESSAGE);
        let content = json!({ "msgtype": "m.text", "body": message });
        let draft = Draft::message(TimelineEventType::RoomMessage, raw(&content)?);
        let txn = Txn::new(user, "", "deletion of a room", self.delete_id);
        send(self.rooms, new, user, &draft, Some(txn)).await?;
        Ok(())
    }

    async fn move_aliases(&mut self, room: RoomNid, new: &RoomId) -> Result<(), Error> {
        let new = self.rooms.by_id(new).await?;
        let mut conn = self.rooms.ctx().db.conn().await?;
        let aliases = storage::aliases::list(&mut conn, room).await?;
        if !aliases.is_empty() {
            self.outcome.local_aliases = aliases;
        }
        storage::aliases::move_all(&mut conn, room, new.nid).await?;
        Ok(())
    }
}
