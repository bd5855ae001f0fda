//! What clients asked for before there was `/sync`: a stream of events (`/events`), and all there is to
//! begin with (`/initialSync`). Deprecated but for looking into rooms that one is not in. Messages
//! to devices are not part of it, and stay for syncs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ruma::{
    EventId, OwnedRoomId, RoomId, UInt, api::client::filter::FilterDefinition,
    events::room::member::MembershipState,
};
use serde_json::{Map, Value, json, value::RawValue};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Hub, TIMEOUT_MAX,
    fields::Fields,
    joined::Scope,
    other, presence,
    timeline::{self, Mine},
    token::Token,
    v3,
};
use crate::{
    event::client::{Shape, to_client},
    rooms::{
        self, Event, Rooms, membership,
        relations::{bundle, filter::Related},
        render::Extras,
        resident::Room,
        timeline::{Paging, page},
        visibility::{self, Access},
    },
    storage::{self, Pos, sync::Span},
    users::tokens::Session,
};

/// Events of a room in one answer.
const LIMIT_MAX: u32 = 100;
/// The same where nothing is said.
const LIMIT_DEFAULT: u32 = 10;
/// Events of the room that somebody looks into.
const PEEKED_MAX: i64 = 500;
/// Field of syncs with state as of the end of the timeline.
const STATE_AFTER: &str = "state_after";

fn filter(limit: u32, include_leave: bool) -> FilterDefinition {
    let mut filter = FilterDefinition::default();
    filter.room.timeline.limit = Some(UInt::from(limit.clamp(1, LIMIT_MAX)));
    filter.room.include_leave = include_leave;
    filter
}

/// All that a sync would tell from the beginning.
fn whole<'a>(
    (rooms, hub, session): (&'a Rooms, &'a Hub, &'a Session),
    mine: &'a Mine,
    (filter, related): (&'a FilterDefinition, &'a Related),
) -> Scope<'a> {
    Scope {
        rooms,
        session,
        memory: &hub.memory,
        mine: &mine.known.rooms,
        filter,
        related,
        ignored: &mine.known.wishes.ignored,
        since: 0,
        upto: mine.upto,
        full_state: false,
        state_after: None,
        sticky: None,
    }
}

/// Where a client is that says where it is; who does not is where everything is.
async fn begin(rooms: &Rooms, from: Option<&str>) -> Result<Token, Error> {
    let stream = &rooms.ctx().db.stream;
    let Some(from) = from else {
        return Ok(Token {
            pos: stream.horizon().max(1),
            typing: rooms.typing().serial(),
            to_device: 0,
            sticky: None,
            devices: None,
        });
    };
    let from: Token = from.parse()?;
    // A token of another node, which was a little ahead of us.
    let caught_up = stream.reached(from.pos);
    let _ = tokio::time::timeout(Duration::from_secs(1), caught_up).await;
    Ok(from)
}

/// Where the client is after an answer. What is for syncs alone was not told.
fn end(begin: Token, upto: Pos, typing: i64, sticky: Option<Pos>) -> Token {
    Token {
        pos: upto,
        typing,
        to_device: begin.to_device,
        sticky,
        devices: Some(begin.devices.unwrap_or(begin.pos)),
    }
}

/// Events of all rooms of the user since a token (`GET /events`). Waits like a sync.
pub async fn stream(
    rooms: &Rooms,
    hub: &Hub,
    session: &Session,
    (from, timeout): (Option<&str>, Duration),
    stopping: &CancellationToken,
) -> Result<String, Error> {
    let begin = begin(rooms, from).await?;
    let (filter, related) = (filter(LIMIT_MAX, false), Related::default());
    let deadline = tokio::time::Instant::now() + timeout.min(TIMEOUT_MAX);
    loop {
        let mut waiter = hub.register(session.user_nid);
        let mine = Mine::read(rooms, &hub.memory, session).await?;
        waiter.watch(mine.joined());
        let upto = mine.upto;
        let scope = Scope {
            since: begin.pos.min(upto).max(1),
            sticky: begin.sticky,
            ..whole((rooms, hub, session), &mine, (&filter, &related))
        };
        let typing = rooms.typing().serial();
        let answer = v3::look(scope, (begin.typing, typing)).await?;
        let mut chunk = presence::look(scope, &[]).await?;
        chunk.extend(answer.account_data.iter().map(|event| read(event)));
        for (room_id, part) in answer.join.iter().chain(&answer.leave) {
            let part = read(part);
            for name in ["state", "timeline", "ephemeral", "account_data"] {
                chunk.extend(in_room(room_id, &part[name]["events"]));
            }
        }
        for (room_id, part) in &answer.invite {
            let part = read(part);
            let own = own_member(session, &part["invite_state"]["events"]);
            chunk.extend(in_room(room_id, &json!([own])));
        }
        let now = tokio::time::Instant::now();
        if !chunk.is_empty() || now >= deadline || stopping.is_cancelled() {
            let end = end(begin, upto, typing, answer.sticky);
            return Ok(answered(begin, end, &json!(chunk)));
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// A part of a sync, to be told in another way.
fn read(part: &RawValue) -> Value {
    serde_json::from_str(part.get()).unwrap_or_default()
}

fn answered(start: Token, end: Token, chunk: &Value) -> String {
    json!({ "start": start.to_string(), "end": end.to_string(), "chunk": chunk }).to_string()
}

/// Events as they are outside of a sync, with their room.
fn in_room(room_id: &str, events: &Value) -> Vec<Value> {
    let events = events.as_array().into_iter().flatten();
    let shown = events.filter(|event| event.is_object()).map(|event| {
        let mut event = event.clone();
        event["room_id"] = json!(room_id);
        event
    });
    shown.collect()
}

/// The membership of the user among stripped state.
fn own_member(session: &Session, events: &Value) -> Option<Value> {
    let events = events.as_array().into_iter().flatten();
    let mut own = events.filter(|event| {
        event["type"] == "m.room.member" && event["state_key"] == session.user_id.as_str()
    });
    own.next_back().cloned()
}

/// Events of one room since a token, for whoever may look into it (`GET /events` with `room_id`).
pub async fn peek(
    rooms: &Rooms,
    hub: &Hub,
    (session, room_id): (&Session, &RoomId),
    (from, timeout): (Option<&str>, Duration),
    stopping: &CancellationToken,
) -> Result<String, Error> {
    let begin = begin(rooms, from).await?;
    let deadline = tokio::time::Instant::now() + timeout.min(TIMEOUT_MAX);
    loop {
        let mut waiter = hub.register(session.user_nid);
        // Who may look in now may not any more after a while.
        let (room, viewer) = visibility::enter(rooms, room_id, &session.user_id).await?;
        waiter.watch([room.nid].into_iter());
        let upto = rooms.ctx().db.stream.horizon();
        let span = Span {
            room: room.nid,
            since: begin.pos.min(upto).max(1),
            upto,
            limit: PEEKED_MAX,
        };
        let found = timeline::read(rooms, &[span], HashMap::new()).await?;
        let events = found.into_iter().flat_map(|timeline| timeline.events);
        let mut events: Vec<Event> = events.collect();
        events.reverse();
        let events = visibility::filter_for(rooms, &room, &viewer, events).await?;
        let now = tokio::time::Instant::now();
        if !events.is_empty() || now >= deadline || stopping.is_cancelled() {
            let chunk = render(rooms, &room, session, &events).await?;
            let end = end(begin, upto, begin.typing, begin.sticky);
            return Ok(answered(begin, end, &json!(chunk)));
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = stopping.cancelled() => {}
        }
    }
}

async fn render(
    rooms: &Rooms,
    room: &Room,
    session: &Session,
    events: &[Event],
) -> Result<Vec<Box<RawValue>>, Error> {
    let mut extras = Extras::load(rooms, room, events, Some(session)).await?;
    let added = (&mut extras, events);
    bundle::add(rooms, room, session, added, Shape::Timeline).await?;
    let shown = events.iter();
    Ok(shown
        .map(|event| extras.render(rooms, session, event, Shape::Timeline))
        .collect())
}

/// An event of any room of the user (`GET /events/{eventId}`).
pub async fn one(
    rooms: &Rooms,
    hub: &Hub,
    session: &Session,
    event_id: &EventId,
) -> Result<Box<RawValue>, Error> {
    let mine = Mine::read(rooms, &hub.memory, session).await?;
    let own = mine.known.rooms.iter().filter(|row| !row.forgotten);
    let own: Vec<i64> = own.map(|row| row.room.0).collect();
    let room_id = rooms::timeline::room_of(rooms, &own, event_id).await?;
    let found = rooms::timeline::event(rooms, &room_id, &session.user_id, event_id).await;
    let (room, _, event) = match found {
        // Who may not read it is not told whether it exists.
        Err(rooms::Error::NotJoined { .. }) => return Err(rooms::Error::EventNotFound.into()),
        found => found?,
    };
    let mut shown = render(rooms, &room, session, &[event]).await?;
    Ok(shown.pop().ok_or(rooms::Error::EventNotFound)?)
}

/// All there is (`GET /initialSync`). `archived`: rooms that the user left as well.
pub async fn initial(
    rooms: &Rooms,
    hub: &Hub,
    session: &Session,
    (limit, archived): (Option<u32>, bool),
) -> Result<Value, Error> {
    let mine = Mine::read(rooms, &hub.memory, session).await?;
    let filter = filter(limit.unwrap_or(LIMIT_DEFAULT), archived);
    let related = Related::default();
    let scope = Scope {
        state_after: Some(STATE_AFTER),
        ..whole((rooms, hub, session), &mine, (&filter, &related))
    };
    let typing = rooms.typing().serial();
    let answer = v3::look(scope, (typing, typing)).await?;
    let presence = presence::look(scope, &[]).await?;
    let nids: Vec<storage::RoomNid> = mine.known.rooms.iter().map(|row| row.room).collect();
    let ids = rooms.ctx().db.ids.room_ids_of(&nids).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let listed = storage::rooms::list_listed_of(&mut conn, &nids).await?;
    drop(conn);
    let end = Token {
        pos: mine.upto,
        typing,
        to_device: 0,
        sticky: answer.sticky,
        devices: None,
    };
    let parts = Parts {
        listed: nids
            .iter()
            .zip(&ids)
            .filter(|(nid, _)| listed.contains(nid))
            .map(|(_, id)| id.clone())
            .collect(),
        end: end.to_string(),
    };
    let mut all = Vec::new();
    for (row, id) in mine.known.rooms.iter().zip(&ids) {
        let of = |parts: &Fields| parts.get(id.as_str()).map(|part| read(part));
        match row.membership {
            1 => all.extend(of(&answer.join).map(|part| parts.room(id, "join", &part))),
            2 => all.extend(of(&answer.invite).map(|part| {
                let own = own_member(session, &part["invite_state"]["events"]);
                let inviter = own.as_ref().map(|own| own["sender"].clone());
                json!({
                    "room_id": id, "membership": "invite", "invite": own, "inviter": inviter,
                })
            })),
            3 => all.extend(of(&answer.leave).map(|part| parts.room(id, "leave", &part))),
            4 => all.extend(of(&answer.leave).map(|part| parts.room(id, "ban", &part))),
            _ => {}
        }
    }
    Ok(json!({
        "end": parts.end,
        "rooms": all,
        "presence": presence,
        "account_data": answer.account_data,
    }))
}

/// What parts of a sync are told again with.
struct Parts {
    /// Rooms of the directory.
    listed: Vec<OwnedRoomId>,
    end: String,
}

impl Parts {
    fn room(&self, id: &OwnedRoomId, membership: &str, part: &Value) -> Value {
        let state = match &part[STATE_AFTER] {
            Value::Null => &part["state"],
            state => state,
        };
        let visibility = shown(self.listed.contains(id));
        let mut messages = json!({
            "chunk": in_room(id.as_str(), &part["timeline"]["events"]),
            "end": self.end,
        });
        if let Some(start) = part["timeline"].get("prev_batch") {
            messages["start"] = start.clone();
        }
        let account_data = part["account_data"]["events"].as_array();
        json!({
            "room_id": id,
            "membership": membership,
            "messages": messages,
            "state": in_room(id.as_str(), &state["events"]),
            "visibility": visibility,
            "account_data": account_data.cloned().unwrap_or_default(),
        })
    }
}

fn shown(is_listed: bool) -> &'static str {
    if is_listed { "public" } else { "private" }
}

/// A room as its members see it, those who left saw it, and whoever may look into it does
/// (`GET /rooms/{roomId}/initialSync`).
pub async fn room(
    rooms: &Rooms,
    session: &Session,
    room_id: &RoomId,
    limit: Option<u32>,
) -> Result<Value, Error> {
    let user = &session.user_id;
    visibility::enter(rooms, room_id, user).await?;
    rooms.whole(room_id).await?;
    let (room, viewer) = visibility::enter(rooms, room_id, user).await?;
    let limit = limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let paging = Paging {
        from: None,
        to: None,
        backwards: true,
        limit: i64::from(limit),
    };
    let mut page = page(rooms, room_id, user, paging).await?;
    page.events.reverse();
    let chunk = render(rooms, &room, session, &page.events).await?;
    let nids: Vec<i64> = viewer.entries(&room).values().copied().collect();
    let pdus = rooms.pdus(&room, &nids).await?;
    let state = pdus.iter();
    let state: Vec<Box<RawValue>> = state
        .map(|pdu| to_client(pdu, Shape::Timeline, Map::new()))
        .collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let is_listed = storage::rooms::is_listed(&mut conn, room.nid).await?;
    drop(conn);
    let mut messages = json!({ "chunk": chunk, "end": page.start });
    if let Some(start) = page.end {
        messages["start"] = json!(start);
    }
    let mut answer = json!({
        "room_id": room_id,
        "messages": messages,
        "state": state,
        "visibility": shown(is_listed),
    });
    if let Some(membership) = standing(rooms, (&room, user), &viewer.access).await? {
        answer["membership"] = json!(membership);
        let upto = rooms.ctx().db.stream.horizon();
        let mut data = other::account_data(rooms, session, (0, upto)).await?;
        let own = data.by_room.remove(&room.nid).unwrap_or_default();
        let own: Vec<Box<RawValue>> = own.into_iter().map(|(_, event)| event).collect();
        answer["account_data"] = json!(own);
    }
    Ok(answer)
}

/// The membership of who reads a room; `None`: they look into it from outside.
async fn standing(
    rooms: &Rooms,
    (room, user): (&Arc<Room>, &ruma::UserId),
    access: &Access,
) -> Result<Option<MembershipState>, Error> {
    Ok(match access {
        Access::Joined => Some(MembershipState::Join),
        Access::Left(_) | Access::Peek => membership::current(rooms, &room.id, user).await?,
    })
}
