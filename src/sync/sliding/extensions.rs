//! What a client may want beside rooms.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{json, value::RawValue};

use super::{
    super::{
        Error, encryption,
        fields::{self, Fields, raw},
        other, profiles, sticky,
    },
    View,
    list::Seen,
    request::{Extensions, OfRooms, ToDevice},
    room::Part,
    threads,
};
use crate::{
    rooms::receipts::contents,
    storage::{self, Pos, RoomNid, Topic},
};

/// Sticky events in one answer, at most and where the client says nothing.
const STICKY_MAX: u32 = 100;

/// Rooms that the client looks at, and up to where each was told (0: it was not).
type Looked<'a> = (&'a HashMap<RoomNid, Seen>, &'a HashMap<RoomNid, Pos>);

/// A part of the `extensions`, and whether it has news.
type Named = (&'static str, (Box<RawValue>, bool));

/// What extensions tell.
#[derive(Default)]
pub(super) struct Told {
    /// The `extensions` of the answer.
    pub(super) parts: Fields,
    pub(super) has_news: bool,
    /// Up to where changes of devices are told, if that is less than the rest.
    pub(super) devices: Option<Pos>,
}

impl Told {
    fn add(&mut self, (name, (part, is_news)): Named) {
        self.has_news |= is_news;
        self.parts.insert(name.to_owned(), part);
    }
}

/// Extensions that do not depend on what is told of rooms: these are read while that is.
pub(super) async fn apart(
    view: &View<'_>,
    wanted: &Extensions,
    looked: Looked<'_>,
) -> Result<Told, Error> {
    let (of_devices, account_data, others) = tokio::try_join!(
        of_devices(view, wanted),
        async {
            if !wanted.account_data.is_on() {
                return Ok(None);
            }
            let spans = covered(view, &wanted.account_data, looked).await?;
            account_data(view, &spans).await.map(Some)
        },
        others(view, wanted, looked),
    )?;
    let mut told = of_devices;
    if let Some(part) = account_data {
        told.add(("account_data", part));
    }
    for part in others {
        told.add(part);
    }
    Ok(told)
}

async fn of_devices(view: &View<'_>, wanted: &Extensions) -> Result<Told, Error> {
    let mut told = Told {
        devices: view.devices,
        ..Told::default()
    };
    if wanted.to_device.enabled == Some(true) {
        let part = to_device(view, &wanted.to_device).await?;
        told.add(("to_device", part));
    }
    if wanted.e2ee.is_on() {
        let (part, is_news, more) = e2ee(view).await?;
        told.devices = more;
        told.add(("e2ee", (part, is_news)));
    }
    Ok(told)
}

async fn others(
    view: &View<'_>,
    wanted: &Extensions,
    looked: Looked<'_>,
) -> Result<Vec<Named>, Error> {
    let mut parts = Vec::new();
    if wanted.typing.is_on() {
        let spans = covered(view, &wanted.typing, looked).await?;
        parts.push(("typing", typing(view, &spans).await?));
    }
    if wanted.threads.enabled == Some(true)
        && let Some((part, is_news)) = threads::look(view, &wanted.threads).await?
    {
        let part = (raw(&part), is_news);
        parts.push(("io.element.msc4308.thread_subscriptions", part));
    }
    if wanted.profiles.of.is_on() {
        let spans = covered(view, &wanted.profiles.of, looked).await?;
        let fresh = spans.iter().filter(|(_, since)| *since == 0);
        let fresh: Vec<i64> = fresh.map(|(room, _)| room.0).collect();
        let fields = wanted.profiles.fields.as_deref();
        let span = (view.since, view.upto);
        let found = profiles::read(view.rooms, view.session, fields, span, &fresh).await?;
        let is_news = !found.is_empty();
        let part = (raw(&profiles::sliding(found)), is_news);
        parts.push(("org.matrix.msc4262.profiles", part));
    }
    Ok(parts)
}

/// Extensions that follow what is told of rooms.
pub(super) async fn following(
    view: &View<'_>,
    wanted: &Extensions,
    looked: Looked<'_>,
    rooms: &[Part],
    told: &mut Told,
) -> Result<(), Error> {
    if wanted.receipts.is_on() {
        let spans = covered(view, &wanted.receipts, looked).await?;
        told.add(("receipts", receipts(view, &spans, rooms).await?));
    }
    if wanted.sticky.enabled == Some(true) {
        let part = sticky(view, &wanted.sticky, rooms).await?;
        told.add(("org.matrix.msc4354.sticky_events", part));
    }
    Ok(())
}

/// The rooms that an extension is for.
async fn covered(
    view: &View<'_>,
    extension: &OfRooms,
    (seen, spans): Looked<'_>,
) -> Result<Vec<(RoomNid, Pos)>, Error> {
    let nids: Vec<RoomNid> = spans.keys().copied().collect();
    let ids = view.rooms.ctx().db.ids.room_ids_of(&nids).await?;
    let covered = nids.into_iter().zip(ids).filter_map(|(nid, id)| {
        let seen = seen.get(&nid)?;
        let lists: Vec<&str> = seen.lists.iter().map(String::as_str).collect();
        let is_covered = extension.covers(&id, &lists, seen.subscribed);
        is_covered.then(|| Some((nid, *spans.get(&nid)?)))?
    });
    Ok(covered.collect())
}

/// Room ids for room numbers, as keys.
async fn keyed(
    view: &View<'_>,
    by_room: impl IntoIterator<Item = (RoomNid, Box<RawValue>)>,
) -> Result<Box<RawValue>, Error> {
    let (nids, values): (Vec<RoomNid>, Vec<Box<RawValue>>) = by_room.into_iter().unzip();
    let ids = view.rooms.ctx().db.ids.room_ids_of(&nids).await?;
    let ids = ids.into_iter().map(|id| id.to_string());
    Ok(raw(&ids.zip(values).collect::<Fields>()))
}

/// Up to where a client was told, as it says itself.
fn since(name: &str, wanted: &ToDevice) -> Result<Pos, Error> {
    let Some(since) = wanted.since.as_deref() else {
        return Ok(0);
    };
    let since = since.parse().ok().filter(|since: &Pos| *since >= 0);
    since.ok_or_else(|| Error::BadRequest(format!("{name}: since is none of ours")))
}

async fn to_device(view: &View<'_>, wanted: &ToDevice) -> Result<(Box<RawValue>, bool), Error> {
    let since = since("to_device", wanted)?;
    let limit = wanted.limit.map_or(i64::MAX, i64::from);
    let span = (since.min(view.upto), view.upto);
    let (events, told) = encryption::messages(view.who(), span, limit).await?;
    let is_news = !events.is_empty();
    let part = BTreeMap::from([
        ("next_batch", raw(&told.to_string())),
        ("events", raw(&events)),
    ]);
    Ok((raw(&part), is_news))
}

/// Sticky events of all rooms that the user is in, whatever lists show of them (MSC4480). Of a room
/// that the user has come into since all are told; where the user only changed their name there,
/// they are told twice.
async fn sticky(
    view: &View<'_>,
    wanted: &ToDevice,
    told: &[Part],
) -> Result<(Box<RawValue>, bool), Error> {
    let since = since("sticky_events", wanted)?.min(view.upto);
    let mut rooms = sticky::Wanted::default();
    let spans: Vec<(RoomNid, Pos)> = view.joined.iter().map(|row| (row.room, since)).collect();
    let stream = &view.rooms.ctx().db.stream;
    let news = stream.recent().with_news(Topic::Events, &spans);
    let news: HashSet<RoomNid> = news.into_iter().map(|(room, _)| room).collect();
    let joined = view.joined.iter();
    for room in joined.filter(|row| news.contains(&row.room)) {
        if since > 0 && room.pos > since {
            rooms.fresh.push(room.room.0);
        } else {
            rooms.known.push(room.room.0);
        }
    }
    let shown = told.iter().flat_map(|part| part.shown.iter().cloned());
    let shown = shown.collect();
    let limit = i64::from(wanted.limit.unwrap_or(STICKY_MAX).clamp(1, STICKY_MAX));
    let reader = (view.session, view.ignored);
    let span = (since, view.upto);
    let found = sticky::read(view.rooms, reader, &rooms, span, (&shown, limit)).await?;
    let mut part = Fields::new();
    if found.any {
        let next = found.more.unwrap_or(view.upto).to_string();
        part.insert("next_batch".to_owned(), raw(&next));
    }
    let is_news = !found.by_room.is_empty();
    if is_news {
        let by_room = found.by_room.into_iter();
        let by_room = by_room.map(|(room, events)| (room, fields::events(&events)));
        part.insert("rooms".to_owned(), keyed(view, by_room).await?);
    }
    Ok((raw(&part), is_news))
}

async fn e2ee(view: &View<'_>) -> Result<(Box<RawValue>, bool, Option<Pos>), Error> {
    let keys = encryption::keys(view.who()).await?;
    let since = view
        .devices
        .map_or(view.since, |devices| devices.min(view.since));
    let changes = encryption::changes(view.who(), (since, view.upto)).await?;
    let is_news = !(changes.changed.is_empty() && changes.left.is_empty());
    let mut part = json!({
        "device_one_time_keys_count": keys.counts,
        "device_unused_fallback_key_types": keys.unused_fallback,
    });
    if view.since > 0 {
        part["device_lists"] = json!({ "changed": changes.changed, "left": changes.left });
    }
    Ok((raw(&part), is_news, changes.more))
}

async fn account_data(
    view: &View<'_>,
    spans: &[(RoomNid, Pos)],
) -> Result<(Box<RawValue>, bool), Error> {
    let span = (view.since, view.upto);
    let mut data = other::account_data(view.rooms, view.session, span).await?;
    let global: Vec<Box<RawValue>> = data.global.into_iter().map(|(_, event)| event).collect();
    // Where a room was told up to elsewhere, it is asked for apart.
    let all = spans.iter().copied();
    let (same, apart): (Vec<_>, Vec<_>) = all.partition(|(_, since)| *since == view.since);
    let mut by_room: HashMap<RoomNid, Vec<Box<RawValue>>> = HashMap::new();
    for (room, _) in same {
        if let Some(events) = data.by_room.remove(&room) {
            by_room.insert(room, events.into_iter().map(|(_, event)| event).collect());
        }
    }
    let db = &view.rooms.ctx().db;
    let user = view.session.user_nid;
    let apart: Vec<(RoomNid, Pos)> = {
        let recent = db.stream.recent();
        let is_new = |since| since == 0 || recent.has_since(Topic::Account, user.0, since);
        let apart = apart.into_iter();
        apart.filter(|(_, since)| is_new(*since)).collect()
    };
    if !apart.is_empty() {
        let mut conn = db.conn().await?;
        let rows = storage::sliding::account_data(&mut conn, user, &apart, view.upto).await?;
        for (room, kind, content) in rows {
            let events = by_room.entry(room).or_default();
            events.push(other::account_event(&kind, &content));
        }
    }
    let is_news = !(global.is_empty() && by_room.is_empty());
    let by_room = by_room
        .into_iter()
        .map(|(room, events)| (room, raw(&events)));
    let rooms = keyed(view, by_room).await?;
    let part = BTreeMap::from([("global", raw(&global)), ("rooms", rooms)]);
    Ok((raw(&part), is_news))
}

async fn receipts(
    view: &View<'_>,
    spans: &[(RoomNid, Pos)],
    told: &[Part],
) -> Result<(Box<RawValue>, bool), Error> {
    let db = &view.rooms.ctx().db;
    let spans = db.stream.recent().with_news(Topic::Receipts, spans);
    if spans.is_empty() {
        return Ok((raw(&json!({ "rooms": {} })), false));
    }
    let first = told.iter().filter(|part| part.is_first);
    let events = first.flat_map(|part| &part.shown);
    let events: Vec<String> = events.map(ToString::to_string).collect();
    let user = view.session.user_nid;
    let mut conn = db.conn().await?;
    let rows = storage::receipts::list(&mut conn, user, (&spans, view.upto), Some(&events)).await?;
    drop(conn);
    let contents = contents(view.rooms.ctx(), &rows).await?;
    let is_news = !contents.is_empty();
    let by_room = contents
        .into_iter()
        .map(|(room, content)| (room, fields::event("m.receipt", &content)));
    let part = BTreeMap::from([("rooms", keyed(view, by_room).await?)]);
    Ok((raw(&part), is_news))
}

async fn typing(view: &View<'_>, spans: &[(RoomNid, Pos)]) -> Result<(Box<RawValue>, bool), Error> {
    let (new, known): (Vec<_>, Vec<_>) = spans.iter().partition(|(_, since)| *since == 0);
    let nids = |spans: Vec<&(RoomNid, Pos)>| -> Vec<RoomNid> {
        spans.into_iter().map(|(room, _)| *room).collect()
    };
    let mut typing = view.rooms.typing().since(&nids(known), view.typing);
    let (_, upto) = view.typing;
    let now = view.rooms.typing().since(&nids(new), (0, upto));
    // Nobody typing in a room that is new is no news.
    typing.extend(now.into_iter().filter(|(_, users)| !users.is_empty()));
    let is_news = !typing.is_empty();
    let by_room = typing.into_iter().map(|(room, users)| {
        let content = json!({ "user_ids": users });
        (room, fields::event("m.typing", &content))
    });
    let part = BTreeMap::from([("rooms", keyed(view, by_room).await?)]);
    Ok((raw(&part), is_news))
}
