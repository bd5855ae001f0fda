//! Classic `/sync`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value, json, value::RawValue};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Hub, TIMEOUT_MAX,
    encryption::{self, News},
    fields::{self, Fields, raw},
    filter::{self, Loaded, load, passes_room_type, passes_type},
    hub::Waiter,
    joined::{Candidate, Part, Scope, assemble_all, candidates},
    memory::Memory,
    other, presence, profiles, sticky,
    timeline::{self, Mine},
    token::Token,
};
use crate::{
    event,
    rooms::{self, Rooms, membership},
    storage::{self, Pos, RoomNid, memberships::UserRoom, presence::State, unread},
    users::tokens::Session,
};

/// Sticky events in one answer, but for rooms that are new to the client; more follow in the next.
const STICKY_MAX: i64 = 500;

/// A request for what changed.
#[derive(Debug, Default)]
pub struct Request {
    /// Where the client is; `None`: at the beginning.
    pub since: Option<String>,
    /// Filter, as JSON or id.
    pub filter: Option<String>,
    /// Whether all state is wanted anew.
    pub full_state: bool,
    /// How long to wait for news.
    pub timeout: Duration,
    /// How the client says that its user is.
    pub set_presence: State,
    /// Field for state as of the end of the timeline.
    pub state_after: Option<&'static str>,
}

/// What changed, as JSON. Waits for news up to the time-out, or until `stopping` fires.
pub async fn sync(
    rooms: &Rooms,
    hub: &Hub,
    session: &Arc<Session>,
    request: &Request,
    stopping: &CancellationToken,
) -> Result<String, Error> {
    let memory = &hub.memory;
    let loaded = load(rooms.ctx(), memory, session, request.filter.as_deref()).await?;
    let since: Option<Token> = request.since.as_deref().map(str::parse).transpose()?;
    let stream = &rooms.ctx().db.stream;
    if let Some(since) = since {
        // A token of another node, which was a little ahead of us.
        let caught_up = stream.reached(since.pos);
        let _ = tokio::time::timeout(Duration::from_secs(1), caught_up).await;
    }
    let _syncing = rooms::presence::synced(rooms, session, request.set_presence).await;
    let deadline = tokio::time::Instant::now() + request.timeout.min(TIMEOUT_MAX);
    let asked = Asked {
        rooms,
        memory,
        session,
        request,
        loaded: &loaded,
        since,
    };
    loop {
        // Register, then look, then wait: what comes in between is not missed.
        let mut waiter = hub.register(session.user_nid);
        // In one box, which goes: who waits holds nothing of it, and thousands do.
        let found = Box::pin(asked.look(&mut waiter)).await?;
        let is_over =
            tokio::time::Instant::now() >= deadline || stopping.is_cancelled() || !found.wait;
        if is_over {
            return Ok(found.answer());
        }
        drop(found);
        tokio::select! {
            () = waiter.woken() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Who asks for what.
struct Asked<'a> {
    rooms: &'a Rooms,
    memory: &'a Memory,
    session: &'a Arc<Session>,
    request: &'a Request,
    loaded: &'a Loaded,
    since: Option<Token>,
}

/// What there is to tell at a moment.
struct Found {
    answer: Answer,
    news: News,
    presence: Vec<Value>,
    token: Token,
    /// Whether it is too little to be an answer.
    wait: bool,
}

impl Found {
    fn answer(&self) -> String {
        finish(&self.answer, &self.news, &self.presence, self.token)
    }
}

impl Asked<'_> {
    /// Looks what there is, after the waiter was told what to watch.
    async fn look(&self, waiter: &mut Waiter) -> Result<Found, Error> {
        let Self {
            rooms,
            memory,
            session,
            request,
            loaded,
            since,
        } = *self;
        let fields = &loaded.fields;
        if !fields.is_empty() {
            waiter.watch_profiles();
        }
        let mine = Mine::read(rooms, memory, session).await?;
        waiter.watch(mine.joined());
        let upto = mine.upto;
        let scope = Scope {
            rooms,
            session,
            memory,
            mine: &mine.known.rooms,
            filter: &loaded.filter,
            related: &loaded.related,
            ignored: &mine.known.wishes.ignored,
            since: since.map_or(0, |since| since.pos.min(upto)),
            upto,
            full_state: request.full_state,
            state_after: request.state_after,
            sticky: since.and_then(|since| since.sticky),
        };
        let typing = rooms.typing().serial();
        let told_typing = since.map_or(0, |since| since.typing);
        let mut answer = look(scope, (told_typing, typing)).await?;
        if !fields.is_empty() {
            let span = (scope.since, upto);
            let found = profiles::read(rooms, session, Some(fields), span, &answer.fresh).await?;
            answer.users = profiles::classic(found);
        }
        let news = encryption::look(scope, since).await?;
        let presence = presence::look(scope, &news.met).await?;
        let is_quiet = news.is_empty() && answer.is_empty() && presence.is_empty();
        let token = Token {
            pos: upto,
            typing,
            to_device: news.told,
            sticky: answer.sticky,
            devices: news.more,
        };
        Ok(Found {
            wait: since.is_some() && is_quiet && !request.full_state,
            answer,
            news,
            presence,
            token,
        })
    }
}

/// Parts of an answer; all empty where there is no news.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) join: Fields,
    pub(super) invite: Fields,
    knock: Fields,
    pub(super) leave: Fields,
    pub(super) account_data: Vec<Box<RawValue>>,
    /// Up to where sticky events were told, where there are more.
    pub(super) sticky: Option<Pos>,
    /// Rooms of which nothing was told before.
    fresh: Vec<i64>,
    /// Profiles that changed, by user.
    users: Map<String, Value>,
}

impl Answer {
    fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
            && self.account_data.is_empty()
            && self.users.is_empty()
    }
}

fn finish(answer: &Answer, news: &News, presence: &[Value], token: Token) -> String {
    let rooms = [
        ("join", &answer.join),
        ("invite", &answer.invite),
        ("knock", &answer.knock),
        ("leave", &answer.leave),
    ];
    let rooms = rooms.into_iter().filter(|(_, rooms)| !rooms.is_empty());
    let rooms: BTreeMap<&str, &Fields> = rooms.collect();
    let lists = json!({ "changed": news.changed, "left": news.left });
    let mut body = BTreeMap::from([
        ("next_batch", raw(&token.to_string())),
        ("rooms", raw(&rooms)),
        ("account_data", fields::events(&answer.account_data)),
        ("presence", fields::events(presence)),
        ("to_device", fields::events(&news.to_device)),
        ("device_lists", raw(&lists)),
        ("device_one_time_keys_count", raw(&news.keys.counts)),
        (
            "device_unused_fallback_key_types",
            raw(&news.keys.unused_fallback),
        ),
    ]);
    if !answer.users.is_empty() {
        body.insert("org.matrix.msc4429.users", raw(&answer.users));
    }
    raw(&body).get().to_owned()
}

/// What changed, but for what end-to-end encryption needs, and presence.
pub(super) async fn look(scope: Scope<'_>, typing: (i64, i64)) -> Result<Answer, Error> {
    let ids = &scope.rooms.ctx().db.ids;
    let mut answer = Answer::default();
    let mine = scope.mine.iter();
    let wanted: Vec<&UserRoom> = mine.filter(|row| row.pos <= scope.upto).collect();
    let joined: Vec<&UserRoom> = wanted
        .iter()
        .copied()
        .filter(|row| row.membership == 1)
        // Who wants all members is told of a room once they are known.
        .filter(|row| scope.is_lazy() || !row.partial)
        .collect();
    let data = account_data(scope, &mut answer).await?;
    join(scope, &joined, (data, typing), &mut answer).await?;
    let outside = wanted
        .into_iter()
        .filter(|row| row.pos > scope.since && row.membership != 1);
    let (asked, left): (Vec<&UserRoom>, Vec<&UserRoom>) =
        outside.partition(|row| matches!(row.membership, 2 | 5));
    membership::invite::prepare(scope.rooms, &asked).await?;
    for row in asked {
        let room_id = ids.room_id(row.room).await?.to_string();
        let shown = membership::invite::shown(scope.rooms, row).await?;
        if row.membership == 2 {
            let state = BTreeMap::from([("invite_state", BTreeMap::from([("events", shown)]))]);
            answer.invite.insert(room_id, raw(&state));
        } else {
            let state = BTreeMap::from([("knock_state", BTreeMap::from([("events", shown)]))]);
            answer.knock.insert(room_id, raw(&state));
        }
    }
    // Who forgot a room is told that it is left, so that other clients forget it as well.
    let include = scope.filter.room.include_leave;
    let is_told = |row: &&UserRoom| scope.since > 0 || (include && !row.forgotten);
    let left: Vec<&UserRoom> = left.into_iter().filter(is_told).collect();
    for (room, part) in other::left(scope, &left).await? {
        let room_id = ids.room_id(room).await?.to_string();
        answer.leave.insert(room_id, raw(&part));
    }
    Ok(answer)
}

/// Account data as events, by room.
type DataByRoom = HashMap<RoomNid, Vec<Box<RawValue>>>;

/// Account data by room; global data goes into the answer.
async fn account_data(scope: Scope<'_>, answer: &mut Answer) -> Result<DataByRoom, Error> {
    let span = (scope.since, scope.upto);
    let data = other::account_data(scope.rooms, scope.session, span).await?;
    let filter = &scope.filter.account_data;
    let global = data.global.into_iter();
    let global = global.filter(|(kind, _)| passes_type(filter, kind));
    answer.account_data.extend(global.map(|(_, event)| event));
    let filter = &scope.filter.room.account_data;
    let by_room = data.by_room.into_iter().map(|(room, events)| {
        let events = events.into_iter();
        let events = events.filter(|(kind, _)| passes_room_type(filter, kind));
        (room, events.map(|(_, event)| event).collect())
    });
    Ok(by_room.collect())
}

async fn join(
    scope: Scope<'_>,
    joined: &[&UserRoom],
    (mut data, typing): (DataByRoom, (i64, i64)),
    answer: &mut Answer,
) -> Result<(), Error> {
    let Scope { rooms, filter, .. } = scope;
    let ids = &rooms.ctx().db.ids;
    let nids: Vec<RoomNid> = joined.iter().map(|row| row.room).collect();
    let mut receipts = if passes_room_type(&filter.room.ephemeral, "m.receipt") {
        other::receipts(scope, &nids).await?
    } else {
        HashMap::new()
    };
    let typing: HashMap<RoomNid, Vec<ruma::OwnedUserId>> =
        if passes_room_type(&filter.room.ephemeral, "m.typing") {
            rooms.typing().since(&nids, typing).into_iter().collect()
        } else {
            HashMap::new()
        };
    let chosen = choose(scope, joined).await?;
    let sticky = with_sticky(scope, &nids, &chosen);
    let mut parts: HashMap<RoomNid, Part> =
        assemble_all(scope, chosen).await?.into_iter().collect();
    answer.sticky = add_sticky(scope, &sticky, &mut parts).await?;
    answer.fresh = sticky.fresh;
    for nid in &nids {
        let receipts = receipts.remove(nid);
        let receipts = receipts.map(|content| fields::event("m.receipt", &content));
        let typing = typing.get(nid);
        let typing = typing.map(|users| fields::event("m.typing", &json!({ "user_ids": users })));
        let ephemeral: Vec<Box<RawValue>> = receipts.into_iter().chain(typing).collect();
        let data = data.remove(nid).unwrap_or_default();
        if ephemeral.is_empty() && data.is_empty() && !parts.contains_key(nid) {
            continue;
        }
        let fields = &mut parts.entry(*nid).or_default().fields;
        fields.insert("ephemeral".to_owned(), fields::events(&ephemeral));
        fields.insert("account_data".to_owned(), fields::events(&data));
    }
    if parts.is_empty() {
        return Ok(());
    }
    let told: Vec<i64> = parts.keys().map(|nid| nid.0).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let unread = storage::unread::list(&mut conn, scope.session.user_nid, &told).await?;
    drop(conn);
    let by_thread = filter.room.timeline.unread_thread_notifications;
    for (nid, part) in &mut parts {
        let unread = unread.iter().filter(|part| part.room == *nid);
        part.fields.extend(counts(unread, by_thread));
    }
    for (nid, part) in parts {
        let room_id = ids.room_id(nid).await?;
        let by_id = filter
            .room
            .rooms
            .as_ref()
            .is_none_or(|rooms| rooms.contains(&room_id))
            && !filter.room.not_rooms.contains(&room_id);
        if by_id {
            answer.join.insert(room_id.to_string(), raw(&part.fields));
        }
    }
    Ok(())
}

/// Rooms in which there may be sticky events that no timeline shows: where a timeline shows all that
/// came, and none of it is sticky, there is none.
fn with_sticky(scope: Scope<'_>, joined: &[RoomNid], chosen: &[Candidate]) -> sticky::Wanted {
    let mut wanted = sticky::Wanted::default();
    let limit = usize::try_from(filter::limit(&scope.filter.room.timeline)).unwrap_or(usize::MAX);
    for Candidate {
        timeline, fresh, ..
    } in chosen
    {
        let mut events = timeline.events.iter();
        if *fresh {
            wanted.fresh.push(timeline.room.nid.0);
        } else if timeline.is_limited(limit)
            || events.any(|event| event::sticky::duration_ms(&event.pdu).is_some())
        {
            wanted.known.push(timeline.room.nid.0);
        }
    }
    if scope.sticky.is_some() {
        // More was there than the last answer had.
        let others = joined.iter().map(|nid| nid.0);
        wanted.known = others.filter(|nid| !wanted.fresh.contains(nid)).collect();
    }
    wanted
}

/// Adds sticky events to the parts of rooms; up to where, if that is not all.
async fn add_sticky(
    scope: Scope<'_>,
    wanted: &sticky::Wanted,
    parts: &mut HashMap<RoomNid, Part>,
) -> Result<Option<Pos>, Error> {
    let shown = parts.values().flat_map(|part| part.shown.iter().cloned());
    let shown = shown.collect();
    let since = scope.sticky.unwrap_or(scope.since);
    let span = (since, scope.upto);
    let reader = (scope.session, scope.ignored);
    let told = sticky::read(scope.rooms, reader, wanted, span, (&shown, STICKY_MAX)).await?;
    for (room, events) in &told.by_room {
        let part = parts.entry(*room).or_default();
        let name = event::sticky::FIELD.to_owned();
        part.fields.insert(name, fields::events(events));
    }
    Ok(told.more)
}

/// Unread counts of a room: all of it in one, or threads on their own.
fn counts<'a>(unread: impl Iterator<Item = &'a unread::Part>, by_thread: bool) -> Fields {
    let (mut all, mut threads) = ((0, 0), Map::new());
    let show = |notify: i64, high: i64| {
        let (notify, high) = other::unread(notify, high);
        json!({ "notification_count": notify, "highlight_count": high })
    };
    for part in unread {
        match &part.thread {
            Some(root) if by_thread => {
                if part.notify > 0 || part.high > 0 {
                    threads.insert(root.clone(), show(part.notify, part.high));
                }
            }
            _ => all = (all.0 + part.notify, all.1 + part.high),
        }
    }
    let all = raw(&show(all.0, all.1));
    let mut counts = Fields::from([("unread_notifications".to_owned(), all)]);
    if !threads.is_empty() {
        counts.insert("unread_thread_notifications".to_owned(), raw(&threads));
    }
    counts
}

/// Rooms with news, and those of which nothing was told before: at the beginning, where members come
/// late, and where the user was not at `since`.
async fn choose(scope: Scope<'_>, joined: &[&UserRoom]) -> Result<Vec<Candidate>, Error> {
    let Scope { rooms, since, .. } = scope;
    let mut wanted: Vec<(RoomNid, bool)> = joined
        .iter()
        .map(|row| {
            let now_whole = !scope.is_lazy() && row.whole_pos > since;
            (row, since == 0 || now_whole)
        })
        .filter(|(row, fresh)| *fresh || scope.full_state || row.last > since)
        .map(|(row, fresh)| (row.room, fresh))
        .collect();
    let known: Vec<(RoomNid, Pos)> = wanted
        .iter()
        .filter(|(_, fresh)| !fresh)
        .map(|(room, _)| (*room, since))
        .collect();
    let mut told = timeline::told(rooms, &known).await?;
    let was_joined = timeline::was_joined(rooms, scope.session, &told).await?;
    for (room, fresh) in &mut wanted {
        *fresh = *fresh || !was_joined.contains(room);
    }
    told.retain(|room, _| was_joined.contains(room));
    let wanted = wanted.into_iter();
    let wanted: Vec<(RoomNid, bool, Pos)> = wanted
        .map(|(room, fresh)| (room, fresh, scope.upto))
        .collect();
    candidates(scope, &wanted, told).await
}
