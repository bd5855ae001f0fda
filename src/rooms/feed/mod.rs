//! What application services hear: it follows the log in the background, queues for each service
//! what is its business (`interest`), and sends it in transactions (`delivery`), in order and each
//! once.
//!
//! How far a service is queued for stands with it, in the transaction that queues. What it is to
//! hear is decided when it happens, and not when a service that was away comes back: who is in a
//! room then is not who was.

mod delivery;
mod devices;
mod interest;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use ruma::{UserId, events::room::member::MembershipState};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, broadcast::error::RecvError};

use self::interest::{Interest, Which};
use super::{Error, Rooms};
use crate::{
    appservices::Services,
    config::Appservice,
    event::{
        client::{Shape, to_client},
        pdu::Pdu,
    },
    storage::{
        self, LogKind, Pos, RoomNid, UserNid,
        appservices::{Queued, Standing},
        memberships,
        news::{News, SPAN},
    },
};

/// Rooms of a user that are looked at to find who hears of it.
const ROOMS_MAX: i64 = 200;
/// Rooms where somebody types, of which a service is still to be told.
const TYPING_MAX: usize = 1_000;
/// How often the log is looked at when nobody gave a hint.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a node knows of its services.
#[derive(Debug)]
pub(super) struct Feed {
    interest: Interest,
    /// The log was looked at up to here.
    seen: AtomicI64,
    /// By service.
    lines: Vec<Line>,
}

/// What waits for a service.
#[derive(Debug, Default)]
struct Line {
    /// Wakes its task.
    wake: Notify,
    /// Rooms where it changed who is typing.
    typing: Mutex<BTreeSet<RoomNid>>,
}

impl Rooms {
    /// What application services are to hear.
    pub(super) fn feed(&self) -> &Feed {
        &self.0.feed
    }
}

impl Feed {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            interest: Interest::new(),
            seen: AtomicI64::new(0),
            lines: services.all().iter().map(|_| Line::default()).collect(),
        }
    }

    /// Who hears of a room is to be found anew: its aliases changed.
    pub(super) fn forget(&self, room: RoomNid) {
        self.interest.forget(room);
    }

    fn take_typing(&self, service: usize) -> BTreeSet<RoomNid> {
        let mut typing = self.typing_of(service);
        std::mem::take(&mut *typing)
    }

    fn typing_of(&self, service: usize) -> std::sync::MutexGuard<'_, BTreeSet<RoomNid>> {
        let typing = self.lines[service].typing.lock();
        typing.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Services that are sent something, as the configuration has them and as they stand: by their
/// place in the configuration.
type Standings = BTreeMap<usize, Standing>;

/// Queues and sends, for ever.
pub async fn run(rooms: Rooms) {
    let hearing = |service: &Appservice| service.url.is_some();
    let services = rooms.ctx().appservices.all();
    if !services.iter().any(|service| hearing(service)) {
        return;
    }
    let standings = loop {
        match register(&rooms).await {
            Ok(standings) => break standings,
            Err(error) => {
                tracing::warn!(%error, "application services could not be looked up");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    };
    let tasks: Vec<_> = standings
        .iter()
        .map(|(place, standing)| delivery::run(&rooms, *place, standing.nid))
        .collect();
    tokio::join!(
        follow(&rooms, &standings),
        follow_typing(&rooms),
        futures_util::future::join_all(tasks)
    );
}

/// Notes services that are new, and finds those that are sent something.
async fn register(rooms: &Rooms) -> Result<Standings, Error> {
    let services = rooms.ctx().appservices.all();
    let ids: Vec<String> = services.iter().map(|service| service.id.clone()).collect();
    let horizon = rooms.ctx().db.stream.horizon();
    let mut conn = rooms.ctx().db.conn().await?;
    let found = storage::appservices::register(&mut conn, &ids, horizon).await?;
    let mut standings = Standings::new();
    for standing in found {
        let place = services.iter().position(|it| it.id == standing.id);
        if let Some(place) = place.filter(|place| services[*place].url.is_some()) {
            standings.insert(place, standing);
        }
    }
    Ok(standings)
}

async fn follow(rooms: &Rooms, standings: &Standings) {
    let mut rows = rooms.ctx().db.stream.subscribe();
    loop {
        match advance(rooms, standings).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "application services do not hear");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        let wait = tokio::time::timeout(LOOK_EVERY, rows.recv()).await;
        if matches!(wait, Ok(Err(RecvError::Closed))) {
            return;
        }
    }
}

async fn follow_typing(rooms: &Rooms) {
    let mut changes = rooms.typing().subscribe();
    loop {
        let room = match changes.recv().await {
            Ok(room) => room,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let which = match rooms.feed().interest.of_room(rooms, room).await {
            Ok(which) => which,
            Err(error) => {
                tracing::warn!(%error, "application services do not hear who is typing");
                continue;
            }
        };
        for place in which.iter() {
            let service = &rooms.ctx().appservices.all()[*place];
            let mut typing = rooms.feed().typing_of(*place);
            if service.receives_ephemeral && service.url.is_some() && typing.len() < TYPING_MAX {
                typing.insert(room);
                rooms.feed().lines[*place].wake.notify_one();
            }
        }
    }
}

/// Queues some of what changed; `false`: there is nothing more.
async fn advance(rooms: &Rooms, known: &Standings) -> Result<bool, Error> {
    let horizon = rooms.ctx().db.stream.horizon();
    let seen = rooms.feed().seen.load(Ordering::Acquire);
    if seen >= horizon {
        return Ok(false);
    }
    let nids: Vec<i32> = known.values().map(|standing| standing.nid).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let standings = storage::appservices::list(&mut conn, &nids).await?;
    let least = standings.iter().map(|standing| standing.pos).min();
    let after = seen.max(least.unwrap_or(horizon));
    let kinds = kinds(rooms, known);
    let (news, upto) = storage::news::list(&mut conn, (after, horizon), &kinds).await?;
    drop(conn);
    let failing: BTreeSet<i32> = standings
        .iter()
        .filter(|standing| standing.failures > 0)
        .map(|standing| standing.nid)
        .collect();
    let rows = sort(rooms, known, &news, &failing).await?;
    // Noted now and then also where nothing is queued, so that a restart begins near here.
    if !rows.is_empty() || upto / SPAN != after / SPAN {
        queue(rooms, &nids, rows, upto).await?;
        for place in known.keys() {
            rooms.feed().lines[*place].wake.notify_one();
        }
    }
    rooms.feed().seen.store(upto, Ordering::Release);
    Ok(true)
}

/// Kinds of rows that any service hears of.
fn kinds(rooms: &Rooms, known: &Standings) -> Vec<LogKind> {
    let services = rooms.ctx().appservices.all();
    let any = |hears: fn(&Appservice) -> bool| known.keys().any(|place| hears(&services[*place]));
    let mut kinds = vec![LogKind::Event, LogKind::OutOfBand];
    if any(|service| service.receives_ephemeral) {
        kinds.extend([LogKind::Receipt, LogKind::Presence, LogKind::ToDevice]);
    }
    if any(|service| service.receives_devices) {
        kinds.extend([LogKind::DeviceList, LogKind::KeyCounts]);
    }
    kinds
}

/// Queues rows that are news for their services, up to a position. Another node may have been
/// faster with some of them.
async fn queue(
    rooms: &Rooms,
    nids: &[i32],
    mut rows: Vec<(i32, Queued)>,
    upto: Pos,
) -> Result<(), Error> {
    let mut tx = rooms.ctx().db.begin().await?;
    let locked: BTreeMap<i32, Pos> = storage::appservices::lock(&mut tx, nids)
        .await?
        .into_iter()
        .collect();
    rows.retain(|(nid, queued)| locked.get(nid).is_some_and(|pos| queued.row.pos > *pos));
    let told = rows.iter().map(|(_, queued)| queued.row);
    let told = told.filter(|row| row.kind == LogKind::OutOfBand);
    let told: Vec<(i64, i64)> = told.map(|row| (row.room, row.user)).collect();
    if !told.is_empty() {
        storage::appservices::delete_invites(&mut tx, &told).await?;
    }
    if !rows.is_empty() {
        storage::appservices::insert(&mut tx, &rows).await?;
    }
    storage::appservices::update_pos(&mut tx, nids, upto).await?;
    Ok(tx.commit().await?)
}

/// Who hears of what.
async fn sort(
    rooms: &Rooms,
    known: &Standings,
    news: &[News],
    failing: &BTreeSet<i32>,
) -> Result<Vec<(i32, Queued)>, Error> {
    let interest = &rooms.feed().interest;
    let seen_in = seen_in(rooms, news).await?;
    interest.prepare(rooms, news, &seen_in).await?;
    let services = rooms.ctx().appservices.all();
    let mut rows = Vec::new();
    let mut changed = BTreeSet::new();
    for news in news {
        let row = news.row;
        let which = match row.kind {
            LogKind::Event => of_event(rooms, news, &mut changed).await?,
            LogKind::OutOfBand | LogKind::ToDevice | LogKind::KeyCounts => {
                interest.of_user(rooms, UserNid(row.user)).await?.to_vec()
            }
            LogKind::Receipt => interest.of_room(rooms, RoomNid(row.room)).await?.to_vec(),
            LogKind::Presence | LogKind::DeviceList => {
                let own = interest.of_user(rooms, UserNid(row.user)).await?;
                let mut which = own.to_vec();
                for room in seen_in.get(&row.user).into_iter().flatten() {
                    which.extend(interest.of_room(rooms, *room).await?.iter());
                }
                which
            }
            _ => Vec::new(),
        };
        let which: BTreeSet<usize> = which.into_iter().collect();
        let mut body = None;
        for place in which {
            let Some(standing) = known.get(&place) else {
                continue;
            };
            if !hears(&services[place], row.kind, failing.contains(&standing.nid)) {
                continue;
            }
            if row.kind == LogKind::OutOfBand && body.is_none() {
                body = out_of_band(rooms, RoomNid(row.room), UserNid(row.user)).await?;
                if body.is_none() {
                    break;
                }
            }
            let body = body.clone();
            rows.push((standing.nid, Queued { row, body }));
        }
    }
    for room in changed {
        interest.forget(room);
    }
    Ok(rows)
}

/// Whether a service hears of that kind at all, and now.
fn hears(service: &Appservice, kind: LogKind, is_failing: bool) -> bool {
    match kind {
        LogKind::Event | LogKind::OutOfBand => true,
        LogKind::ToDevice => service.receives_ephemeral,
        // Nobody wants to know later who was typing or reading now.
        LogKind::Receipt | LogKind::Presence => service.receives_ephemeral && !is_failing,
        LogKind::DeviceList | LogKind::KeyCounts => service.receives_devices,
        _ => false,
    }
}

/// Rooms in which users whose presence or devices changed are seen.
async fn seen_in(rooms: &Rooms, news: &[News]) -> Result<BTreeMap<i64, Vec<RoomNid>>, Error> {
    let seen = news
        .iter()
        .filter(|it| matches!(it.row.kind, LogKind::Presence | LogKind::DeviceList));
    let users: BTreeSet<i64> = seen.map(|it| it.row.user).collect();
    let mut seen_in: BTreeMap<i64, Vec<RoomNid>> = BTreeMap::new();
    if users.is_empty() {
        return Ok(seen_in);
    }
    let users: Vec<i64> = users.into_iter().collect();
    let mut conn = rooms.ctx().db.conn().await?;
    for (user, room) in memberships::list_rooms_of(&mut conn, &users, ROOMS_MAX).await? {
        seen_in.entry(user).or_default().push(RoomNid(room));
    }
    Ok(seen_in)
}

/// Who hears of an event: whose user sent it or is meant by it, and who has the room, by its id, an
/// alias, or a user in it. `changed`: rooms that a user of a service may have left.
async fn of_event(
    rooms: &Rooms,
    news: &News,
    changed: &mut BTreeSet<RoomNid>,
) -> Result<Vec<usize>, Error> {
    let interest = &rooms.feed().interest;
    let room = RoomNid(news.row.room);
    let mut which: Vec<usize> = Vec::new();
    if let Some(sender) = news.sender {
        which.extend(interest.of_user(rooms, sender).await?.iter());
    }
    if let Some(target) = news.target {
        let its = interest.of_user(rooms, target).await?;
        if !its.is_empty() {
            let has = interest.of_room(rooms, room).await?;
            if its.iter().all(|place| has.contains(place)) {
                changed.insert(room);
            } else {
                // Perhaps it came into the room, and what follows is its business.
                interest.forget(room);
            }
        }
        which.extend(its.iter());
    }
    which.extend(interest.of_room(rooms, room).await?.iter());
    Ok(which)
}

/// The membership of a user of ours in a room that we do not hold, as clients are told.
async fn out_of_band(rooms: &Rooms, room: RoomNid, user: UserNid) -> Result<Option<String>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    if let Some(event) = storage::appservices::find_invite(&mut conn, (room, user)).await? {
        return Ok(Some(event));
    }
    let row = memberships::find_of_user(&mut conn, user, room).await?;
    drop(conn);
    let leave = memberships::code(&MembershipState::Leave);
    let shown = row.filter(|row| row.membership == leave);
    let shown = shown.and_then(|row| row.stripped);
    let events: Vec<Map<String, Value>> = shown
        .and_then(|shown| serde_json::from_str(&shown).ok())
        .unwrap_or_default();
    let Some(mut event) = events.into_iter().next_back() else {
        return Ok(None);
    };
    let room_id = rooms.ctx().db.ids.room_id(room).await?;
    event.insert("room_id".to_owned(), json!(room_id));
    Ok(Some(Value::Object(event).to_string()))
}

/// Keeps an invitation of a user of an application service into a room that we do not hold, until
/// it is told of it. `preview`: the stripped state that came with it.
pub(super) async fn keep_invite(
    rooms: &Rooms,
    (room, user): (RoomNid, UserNid),
    (target, event): (&UserId, &Pdu),
    preview: &str,
) -> Result<(), Error> {
    if !rooms.ctx().appservices.has_user(target) {
        return Ok(());
    }
    let preview: Value = serde_json::from_str(preview).unwrap_or_default();
    let mut unsigned = Map::new();
    unsigned.insert("invite_room_state".to_owned(), preview);
    let event = to_client(event, Shape::Timeline, unsigned);
    let mut conn = rooms.ctx().db.conn().await?;
    storage::appservices::upsert_invite(&mut conn, (room, user), event.get()).await?;
    Ok(())
}

/// Nobody.
fn nobody() -> Which {
    [].into()
}
