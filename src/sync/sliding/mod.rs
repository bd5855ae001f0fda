//! Simplified sliding sync (MSC4186): the rooms that a client looks at, and what is new in them.

mod connection;
mod extensions;
mod list;
mod request;
mod required;
mod room;
pub mod threads;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

pub use self::{
    connection::Connections,
    request::{Body, Extensions, Filters, List, OfRooms, Profiles, Threads, ToDevice, Wanted},
};
use self::{
    connection::{Token, Told, ToldRoom},
    list::{Seen, Shown},
    room::Wish,
};
use super::{
    Error, Hub, TIMEOUT_MAX,
    encryption::Who,
    fields::{Fields, raw},
    memory::{DIRECT_MAX, Known, Memory},
    timeline::Mine,
};
use crate::{
    rooms::{self, Rooms},
    storage::{self, Db, Pos, RoomNid, Topic, memberships::UserRoom, presence::State},
    users::tokens::Session,
};

/// A request.
#[derive(Debug)]
pub struct Request {
    /// Where the client is; `None`: at the beginning.
    pub pos: Option<String>,
    /// How long to wait for news.
    pub timeout: Duration,
    /// How the client says that its user is.
    pub set_presence: State,
    /// What is wanted.
    pub body: Body,
}

/// Who looks, and at what time.
struct View<'a> {
    rooms: &'a Rooms,
    session: &'a Session,
    memory: &'a Memory,
    known: &'a Known,
    /// Where the client is; 0: at the beginning.
    since: Pos,
    /// Serials of typing: the one that it knows, and the one up to which it is told.
    typing: (i64, i64),
    /// Up to where changes of devices were told, where that is less than the rest.
    devices: Option<Pos>,
    upto: Pos,
    /// Whose messages and invitations the user does not want.
    ignored: &'a HashSet<OwnedUserId>,
    /// Rooms that the user is in.
    joined: &'a [&'a UserRoom],
    direct: OnceCell<HashSet<OwnedRoomId>>,
    /// Numbers of state keys that were looked up: clients ask for many that are nowhere.
    skeys: Mutex<HashMap<(String, String), Option<i64>>>,
}

impl View<'_> {
    fn who(&self) -> Who<'_> {
        Who {
            rooms: self.rooms,
            memory: self.memory,
            session: self.session,
            mine: &self.known.rooms,
        }
    }

    /// The number of a pair of event type and state key, if there ever was one.
    async fn skey(&self, kind: &str, key: &str) -> Result<Option<i64>, Error> {
        let pair = (kind.to_owned(), key.to_owned());
        let known = || self.skeys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known().get(&pair) {
            return Ok(*known);
        }
        let found = self.rooms.ctx().db.ids.find_skey(kind, key).await?;
        let found = found.map(|skey| skey.0);
        known().insert(pair, found);
        Ok(found)
    }

    /// Rooms that are direct chats, by the user's account data.
    async fn direct(&self) -> Result<&HashSet<OwnedRoomId>, Error> {
        if let Some(direct) = self.known.direct.get() {
            return Ok(direct);
        }
        let load = async || {
            let db = &self.rooms.ctx().db;
            let mut conn = db.conn().await?;
            let user = self.session.user_nid;
            let found = storage::account_data::find(&mut conn, user, 0, "m.direct").await?;
            drop(conn);
            let by_user: HashMap<String, Vec<OwnedRoomId>> = found
                .and_then(|content| serde_json::from_str(&content).ok())
                .unwrap_or_default();
            let direct: HashSet<OwnedRoomId> = by_user.into_values().flatten().collect();
            if direct.len() <= DIRECT_MAX {
                let _ = self.known.direct.set(direct.clone());
            }
            Ok(direct)
        };
        self.direct.get_or_try_init(load).await
    }
}

/// What is new, as JSON. Waits for news up to the time-out, or until `stopping` fires.
pub async fn sync(
    rooms: &Rooms,
    (hub, connections): (&Hub, &Connections),
    session: &Arc<Session>,
    request: &Request,
    stopping: &CancellationToken,
) -> Result<String, Error> {
    let db = &rooms.ctx().db;
    let name = &request.body.conn_id;
    let token: Option<Token> = request.pos.as_deref().map(str::parse).transpose()?;
    let told = told(db, connections, session, (name, token)).await?;
    let _syncing = rooms::presence::synced(rooms, session, request.set_presence).await;
    let deadline = tokio::time::Instant::now() + request.timeout.min(TIMEOUT_MAX);
    loop {
        // Register, then look, then wait: what comes in between is not missed.
        let mut waiter = hub.register(session.user_nid);
        let mine = Mine::read(rooms, &hub.memory, session).await?;
        waiter.watch(mine.joined());
        if request.body.extensions.profiles.of.is_on() {
            waiter.watch_profiles();
        }
        let upto = mine.upto;
        let typing = rooms.typing().serial();
        let known = &mine.known;
        let listed: Vec<&UserRoom> = known.rooms.iter().filter(|room| !room.forgotten).collect();
        let joined = listed.iter().copied().filter(|room| room.membership == 1);
        let joined: Vec<&UserRoom> = joined.collect();
        let view = View {
            rooms,
            session,
            memory: &hub.memory,
            known,
            since: token.map_or(0, |token| token.pos.min(upto)),
            typing: (token.map_or(0, |token| token.typing), typing),
            devices: token.and_then(|token| token.devices),
            upto,
            ignored: &known.wishes.ignored,
            joined: &joined,
            direct: OnceCell::new(),
            skeys: Mutex::default(),
        };
        let first = token.is_none().then_some(connections);
        let answer = Box::pin(look(&view, &told, &listed, (&request.body, first))).await?;
        // Who has nothing but extensions is also answered when a device of theirs has sent
        // something: clients upload what they have to do with keys between two answers.
        let span = (view.since, upto);
        let is_told = request.body.is_bare() && hub.has_acted(session.user_nid, span);
        let wait = token.is_some() && answer.is_quiet() && !is_told;
        if !wait || tokio::time::Instant::now() >= deadline || stopping.is_cancelled() {
            let base = token.map(|token| token.version);
            let same = base.filter(|_| answer.told == *told);
            let version = if let Some(version) = answer.version.or(same) {
                version
            } else {
                let of = (&**name, base);
                connections.store(db, session, of, answer.told).await?
            };
            let pos = Token {
                version,
                pos: upto,
                typing,
                devices: answer.devices,
            };
            let body = BTreeMap::from([
                ("pos", raw(&pos.to_string())),
                ("lists", raw(&answer.lists)),
                ("rooms", raw(&answer.rooms)),
                ("extensions", raw(&answer.extensions)),
            ]);
            return Ok(raw(&body).get().to_owned());
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// What a client was told that is at a position.
async fn told(
    db: &Db,
    connections: &Connections,
    session: &Session,
    (name, token): (&str, Option<Token>),
) -> Result<Arc<Told>, Error> {
    let Some(token) = token else {
        return Ok(Arc::default());
    };
    // A token of another node, which was a little ahead of us.
    let caught_up = db.stream.reached(token.pos);
    let _ = tokio::time::timeout(Duration::from_secs(1), caught_up).await;
    connections.load(db, session, (name, token.version)).await
}

/// Parts of an answer.
struct Answer {
    lists: Map<String, Value>,
    rooms: Fields,
    extensions: Fields,
    /// Whether an extension has news.
    has_news: bool,
    /// Up to where changes of devices are told, if that is less than the rest.
    devices: Option<Pos>,
    /// What the client will have been told.
    told: Told,
    /// The version under which that is stored already.
    version: Option<i64>,
}

impl Answer {
    fn is_quiet(&self) -> bool {
        self.rooms.is_empty() && !self.has_news
    }
}

/// Looks what is new. An answer to a connection that begins is always given: what it tells is stored
/// in `first` meanwhile.
async fn look(
    view: &View<'_>,
    told: &Told,
    mine: &[&UserRoom],
    (body, first): (&Body, Option<&Connections>),
) -> Result<Answer, Error> {
    let Shown { lists, seen } = list::look(view, told, mine, body).await?;
    let by_nid: HashMap<RoomNid, &UserRoom> = mine.iter().map(|room| (room.room, *room)).collect();
    let mut next = remembered(view, told, &seen, &by_nid);
    let mut wishes = Vec::new();
    let mut spans = HashMap::with_capacity(seen.len());
    for (nid, seen) in &seen {
        let Some(listed) = by_nid.get(nid) else {
            continue;
        };
        let wish = wish(view, told, listed, seen);
        spans.insert(*nid, wish.since.unwrap_or(0));
        let is_left = !matches!(listed.membership, 1 | 2 | 5);
        if is_left && listed.sender == Some(view.session.user_nid) {
            // Told once; who comes back is told everything anew.
            next.rooms.remove(&nid.0);
        } else {
            let wanted = next.intern(wish.wanted.clone());
            let outside = listed.membership != 1;
            next.rooms.insert(
                nid.0,
                ToldRoom {
                    upto: None,
                    wanted,
                    outside,
                },
            );
        }
        wishes.push(wish);
    }
    next.tidy();
    find_read(view, &mut wishes).await?;
    wishes.retain(Wish::has_news);
    let wanted = &body.extensions;
    let looked = (&seen, &spans);
    let store = async {
        let Some(first) = first else { return Ok(None) };
        let (db, name) = (&view.rooms.ctx().db, (body.conn_id.as_str(), None));
        let stored = first.store(db, view.session, name, next.clone()).await?;
        Ok(Some(stored))
    };
    let (rooms, mut apart, version) = tokio::try_join!(
        room::answer(view, wishes),
        extensions::apart(view, wanted, looked),
        store
    )?;
    extensions::following(view, wanted, looked, &rooms, &mut apart).await?;
    Ok(Answer {
        lists,
        rooms: rooms
            .into_iter()
            .map(|room| (room.id.to_string(), raw(&room.fields)))
            .collect(),
        extensions: apart.parts,
        has_news: apart.has_news,
        devices: apart.devices,
        told: next,
        version,
    })
}

/// Finds the rooms that were told and in which the user has read on since.
async fn find_read(view: &View<'_>, wishes: &mut [Wish<'_>]) -> Result<(), Error> {
    let told = wishes.iter();
    let told = told.filter_map(|wish| Some((wish.listed.room, wish.since?)));
    let told: Vec<(RoomNid, storage::Pos)> = told.collect();
    let db = &view.rooms.ctx().db;
    let told = db.stream.recent().with_news(Topic::Receipts, &told);
    if told.is_empty() {
        return Ok(());
    }
    let mut conn = db.conn().await?;
    let user = view.session.user_nid;
    let read = storage::receipts::list_read(&mut conn, user, &told, view.upto).await?;
    drop(conn);
    for wish in wishes {
        wish.read = wish.since.is_some() && read.contains(&wish.listed.room.0);
    }
    Ok(())
}

/// What is remembered of rooms that the client does not look at now: up to where it was told of
/// them. Rooms that the user has forgotten are forgotten here.
fn remembered(
    view: &View<'_>,
    told: &Told,
    seen: &HashMap<RoomNid, Seen>,
    mine: &HashMap<RoomNid, &UserRoom>,
) -> Told {
    let mut next = told.clone();
    next.rooms
        .retain(|nid, _| mine.contains_key(&RoomNid(*nid)));
    for (nid, room) in &mut next.rooms {
        if !seen.contains_key(&RoomNid(*nid)) {
            room.upto.get_or_insert(view.since);
        }
    }
    next
}

/// What a room has to be looked at for.
fn wish<'a>(view: &View<'_>, told: &Told, listed: &'a UserRoom, seen: &Seen) -> Wish<'a> {
    let known = connection::since(told, listed.room, view.since);
    // From outside little was told.
    let known = known.filter(|(_, room)| {
        room.outside == (listed.membership != 1) || {
            let has_left = !matches!(listed.membership, 1 | 2 | 5);
            has_left && !room.outside
        }
    });
    let mut wanted = seen.wanted.clone();
    let Some((since, room)) = known else {
        return Wish {
            listed,
            wanted,
            since: None,
            more: None,
            read: false,
        };
    };
    let before = told.wanted.get(room.wanted).cloned().unwrap_or_default();
    let mut all = before.clone();
    let more = all.include(&wanted).then_some(before);
    wanted = all;
    Wish {
        listed,
        wanted,
        since: Some(since),
        more,
        read: false,
    }
}
