//! A transaction for an application service: made of what waits for it, written down, and from
//! then on the same until it is taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json, value::RawValue};

use super::{Error, Rooms};
use crate::{
    clock::now_ms,
    config::Appservice,
    event::client::Shape,
    rooms::{presence, receipts, render::Extras},
    storage::{self, LogKind, Pos, RoomNid, UserNid, appservices::Queued, to_device::Message},
};

/// Rows of the log in one transaction.
const ROWS_MAX: i64 = 100;

/// The transaction that is under way, or else the next one: its id and body. `None`: nothing waits.
pub(super) async fn next(
    rooms: &Rooms,
    place: usize,
    nid: i32,
) -> Result<Option<(String, String)>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    if let Some(txn) = storage::appservices::find_txn(&mut conn, nid).await? {
        return Ok(Some(txn));
    }
    let queue = storage::appservices::list_queue(&mut conn, nid, ROWS_MAX).await?;
    drop(conn);
    let typing = rooms.feed().take_typing(place);
    if queue.is_empty() && typing.is_empty() {
        return Ok(None);
    }
    let service = &rooms.ctx().appservices.all()[place];
    let parts = Parts {
        rooms,
        place,
        service,
        queue: &queue,
    };
    let to_device = parts.messages().await?;
    let body = parts.body(&typing, &to_device).await?;
    let id = format!("{}_{:x}", now_ms(), rand::random::<u64>());
    let mut tx = rooms.ctx().db.begin().await?;
    if let Some(last) = queue.last() {
        storage::appservices::delete_queue(&mut tx, nid, last.row.pos).await?;
    }
    if let Some(body) = &body
        && !storage::appservices::insert_txn(&mut tx, nid, (&id, body)).await?
    {
        return Ok(None);
    }
    let taken = parts.exclusively_its(&to_device).await?;
    storage::to_device::delete_at(&mut tx, &taken).await?;
    tx.commit().await?;
    match body {
        Some(body) => Ok(Some((id, body))),
        // Nothing of it was left to tell: on to the rest.
        None => Box::pin(next(rooms, place, nid)).await,
    }
}

/// What a transaction is made of.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) rooms: &'a Rooms,
    /// Place of the service in the configuration.
    pub(super) place: usize,
    pub(super) service: &'a Appservice,
    queue: &'a [Queued],
}

impl Parts<'_> {
    pub(super) fn rows(&self, kind: LogKind) -> impl Iterator<Item = &Queued> {
        self.queue.iter().filter(move |it| it.row.kind == kind)
    }

    /// The body; `None`: there is nothing in it.
    async fn body(
        &self,
        typing: &BTreeSet<RoomNid>,
        to_device: &[Message],
    ) -> Result<Option<String>, Error> {
        let mut body: Map<String, Value> = Map::new();
        body.insert("events".to_owned(), json!(self.events().await?));
        if self.service.receives_ephemeral {
            let mut ephemeral = self.typing(typing).await?;
            ephemeral.extend(self.receipts().await?);
            ephemeral.extend(self.presence().await?);
            if self.service.uses_old_names && !ephemeral.is_empty() {
                let old = "de.sorunome.msc2409.ephemeral".to_owned();
                body.insert(old, json!(ephemeral));
            }
            body.insert("ephemeral".to_owned(), json!(ephemeral));
            // These have no other name yet.
            let messages = self.shown(to_device).await?;
            body.insert("de.sorunome.msc2409.to_device".to_owned(), json!(messages));
        }
        if self.service.receives_devices {
            body.extend(self.devices(to_device).await?);
        }
        let is_empty = |value: &Value| match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if body.values().all(is_empty) {
            return Ok(None);
        }
        body.retain(|key, value| key == "events" || !is_empty(value));
        Ok(Some(Value::Object(body).to_string()))
    }

    /// Events in the order in which they came.
    async fn events(&self) -> Result<Vec<Box<RawValue>>, Error> {
        let mut by_room: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for queued in self.rows(LogKind::Event) {
            let of_room = by_room.entry(queued.row.room).or_default();
            of_room.push(queued.row.reference);
        }
        let mut rendered: HashMap<i64, Box<RawValue>> = HashMap::new();
        for (room, nids) in by_room {
            let room = match self.rooms.find(RoomNid(room)).await {
                Ok(Some(room)) => room,
                Ok(None) | Err(Error::UnsupportedVersion(_)) => continue,
                Err(error) => return Err(error),
            };
            let events = self.rooms.events_by_nid(&room, &nids).await?;
            let extras = Extras::load(self.rooms, &room, &events, None).await?;
            for event in &events {
                let shown = extras.render_for_all(event, Shape::Timeline, None);
                rendered.insert(event.stored.nid.0, shown);
            }
        }
        let mut events = Vec::new();
        for queued in self.queue {
            match queued.row.kind {
                LogKind::Event => events.extend(rendered.remove(&queued.row.reference)),
                LogKind::OutOfBand => {
                    let body = queued.body.clone();
                    events.extend(body.and_then(|body| RawValue::from_string(body).ok()));
                }
                _ => {}
            }
        }
        Ok(events)
    }

    async fn typing(&self, typing: &BTreeSet<RoomNid>) -> Result<Vec<Value>, Error> {
        let nids: Vec<RoomNid> = typing.iter().copied().collect();
        let mut who: BTreeMap<RoomNid, _> = self
            .rooms
            .typing()
            .since(&nids, (0, i64::MAX))
            .into_iter()
            .collect();
        let ids = self.rooms.ctx().db.ids.room_ids_of(&nids).await?;
        let events = nids.iter().zip(ids).map(|(room, id)| {
            let users = who.remove(room).unwrap_or_default();
            json!({ "type": "m.typing", "room_id": id, "content": { "user_ids": users } })
        });
        Ok(events.collect())
    }

    /// Receipts; private ones of its own users only (specification, "Pushing ephemeral data").
    async fn receipts(&self) -> Result<Vec<Value>, Error> {
        let rows: Vec<&Queued> = self.rows(LogKind::Receipt).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let rooms: Vec<i64> = rows.iter().map(|it| it.row.room).collect();
        let users: Vec<i64> = rows.iter().map(|it| it.row.user).collect();
        let positions: Vec<Pos> = rows.iter().map(|it| it.row.pos).collect();
        let ctx = self.rooms.ctx();
        let mut conn = ctx.db.conn().await?;
        let mut found = storage::receipts::list_at(&mut conn, &rooms, &users, &positions).await?;
        drop(conn);
        let readers: Vec<UserNid> = found.iter().map(|it| UserNid(it.user_nid)).collect();
        let readers = ctx.db.ids.user_ids_of(&readers).await?;
        let mut is_its = readers.iter().map(|reader| self.service.has_user(reader));
        found.retain(|it| is_its.next() == Some(true) || it.kind == receipts::Kind::Read as i16);
        let contents = receipts::contents(ctx, &found).await?;
        let nids: Vec<RoomNid> = contents.keys().copied().collect();
        let ids = ctx.db.ids.room_ids_of(&nids).await?;
        let events = nids.iter().zip(ids).map(
            |(room, id)| json!({ "type": "m.receipt", "room_id": id, "content": contents[room] }),
        );
        Ok(events.collect())
    }

    async fn presence(&self) -> Result<Vec<Value>, Error> {
        let users: BTreeSet<i64> = self.rows(LogKind::Presence).map(|it| it.row.user).collect();
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let users: Vec<i64> = users.into_iter().collect();
        let ctx = self.rooms.ctx();
        let mut conn = ctx.db.conn().await?;
        let found = storage::presence::list(&mut conn, &users).await?;
        drop(conn);
        let users: Vec<UserNid> = found.iter().map(|(user, _)| *user).collect();
        let ids = ctx.db.ids.user_ids_of(&users).await?;
        let events = ids.into_iter().zip(found).map(|(id, (_, presence))| {
            let content = presence::content(&presence);
            json!({ "type": "m.presence", "sender": id, "content": content })
        });
        Ok(events.collect())
    }

    /// Messages to devices of its users.
    async fn messages(&self) -> Result<Vec<Message>, Error> {
        let rows: Vec<&Queued> = self.rows(LogKind::ToDevice).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let users: Vec<i64> = rows.iter().map(|it| it.row.user).collect();
        let device = |it: &&Queued| i32::try_from(it.row.reference).unwrap_or_default();
        let devices: Vec<i32> = rows.iter().map(device).collect();
        let positions: Vec<Pos> = rows.iter().map(|it| it.row.pos).collect();
        let mut conn = self.rooms.ctx().db.conn().await?;
        let found = storage::to_device::list_at(&mut conn, &users, &devices, &positions).await?;
        Ok(found)
    }

    async fn shown(&self, messages: &[Message]) -> Result<Vec<Value>, Error> {
        let users: Vec<UserNid> = messages.iter().map(|it| UserNid(it.user_nid)).collect();
        let ids = self.rooms.ctx().db.ids.user_ids_of(&users).await?;
        let events = messages.iter().zip(ids).filter_map(|(message, id)| {
            let mut event: Value = serde_json::from_str(&message.body).ok()?;
            event["to_user_id"] = json!(id);
            event["to_device_id"] = json!(message.device_id);
            Some(event)
        });
        Ok(events.collect())
    }

    /// Of messages those that no sync will fetch: of users whom only the service can be.
    async fn exclusively_its(&self, messages: &[Message]) -> Result<Vec<(i64, i32, Pos)>, Error> {
        let users: Vec<UserNid> = messages.iter().map(|it| UserNid(it.user_nid)).collect();
        let ids = self.rooms.ctx().db.ids.user_ids_of(&users).await?;
        let its = messages.iter().zip(ids);
        let its = its.filter(|(_, id)| self.service.claims_user(id));
        Ok(its
            .map(|(message, _)| (message.user_nid, message.device_no, message.pos))
            .collect())
    }
}
