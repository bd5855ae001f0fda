//! What a user was notified of, page by page (`GET /notifications`).
//!
//! Nothing is stored for it: that would be a row for each member and message. Candidates are found by
//! what the counters know of events, and the rules of the user, as they are now, decide. One page
//! costs a statement that looks at 300 events of 200 rooms at most, and the rules for 500 of them.

use std::collections::{BTreeMap, HashMap};

use ruma::push::Action;
use serde_json::{Value, json};

use super::{
    Error, Event, Rooms, notify, relations::subscriptions::Subscribed, render::Extras,
    resident::Room, visibility,
};
use crate::{
    clock::now_ms,
    event::client::Shape,
    storage::{
        RoomNid,
        notifications::{Candidate, list},
    },
    users::tokens::Session,
};

/// How far back pages go.
const KEEP_MS: i64 = 30 * 86_400_000;
/// Candidates that are looked at for one page, which is shorter then, and not the last.
const CANDIDATES_MAX: usize = 500;
/// Entries of a page: where the client says nothing, and at most.
const LIMIT: usize = 20;
const LIMIT_MAX: usize = 100;

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Token of the page before.
    pub from: Option<&'a str>,
    /// Entries at most.
    pub limit: Option<u64>,
    /// Only what was highlighted.
    pub highlights: bool,
}

/// A page: entries, newest first, and the token of the next one.
pub async fn page(
    rooms: &Rooms,
    session: &Session,
    wanted: Wanted<'_>,
) -> Result<(Vec<Value>, Option<String>), Error> {
    let before = match wanted.from {
        None => i64::MAX,
        Some(from) => from
            .parse()
            .map_err(|_| Error::InvalidParam("from is not a token of this server".to_owned()))?,
    };
    let limit = wanted.limit.map(usize::try_from);
    let limit = limit.map_or(LIMIT, |limit| limit.unwrap_or(LIMIT_MAX));
    let limit = limit.clamp(1, LIMIT_MAX);
    let since = now_ms() - KEEP_MS;
    let count = i64::try_from(CANDIDATES_MAX).unwrap_or(i64::MAX);
    let mut conn = rooms.ctx().db.conn().await?;
    let candidates = list(&mut conn, session.user_nid, (before, since), count).await?;
    drop(conn);
    let mut shown = notified(rooms, session, &candidates).await?;
    let mut entries = Vec::new();
    for candidate in &candidates {
        let Some((actions, entry)) = shown.remove(&candidate.event) else {
            continue;
        };
        if wanted.highlights && !actions.iter().any(Action::is_highlight) {
            continue;
        }
        entries.push(entry);
        if entries.len() == limit {
            return Ok((entries, Some(candidate.pos.to_string())));
        }
    }
    let last = candidates.last();
    let next = last.filter(|_| candidates.len() == CANDIDATES_MAX);
    Ok((entries, next.map(|candidate| candidate.pos.to_string())))
}

/// By event: actions, and the event as clients are shown it.
type Shown = HashMap<i64, (Vec<Action>, Value)>;

/// Those that notify the user and that the user may see.
async fn notified(
    rooms: &Rooms,
    session: &Session,
    candidates: &[Candidate],
) -> Result<Shown, Error> {
    let mut by_room: BTreeMap<RoomNid, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        by_room.entry(candidate.room).or_default().push(candidate);
    }
    let pairs: Vec<(i64, i64)> = candidates.iter().map(|it| (it.room.0, it.event)).collect();
    let subscribed = Subscribed::read(rooms, &pairs, &[session.user_nid]).await?;
    let mut shown = Shown::new();
    for (room, events) in rooms.events_of(&pairs).await? {
        let candidates = by_room.remove(&room.nid).unwrap_or_default();
        shown.extend(in_room(rooms, session, &room, (events, &candidates), &subscribed).await?);
    }
    Ok(shown)
}

async fn in_room(
    rooms: &Rooms,
    session: &Session,
    room: &Room,
    (events, candidates): (Vec<Event>, &[&Candidate]),
    subscribed: &Subscribed,
) -> Result<Shown, Error> {
    // One look for all of them: the rules ask for these states one by one.
    rooms.states_before(room, &events).await?;
    let mut actions = HashMap::new();
    for event in &events {
        let told = notify::actions(rooms, room, event, &[session.user_nid], subscribed).await?;
        actions.extend(told.into_iter().map(|(_, told)| (event.stored.nid.0, told)));
    }
    let mut events = events;
    events.retain(|event| actions.contains_key(&event.stored.nid.0));
    // Who is invited sees the invitation, and nothing else of the room.
    let is_invited = candidates.iter().any(|candidate| candidate.is_invite);
    if !is_invited {
        events = visibility::filter(rooms, room, &session.user_id, events).await?;
    }
    let extras = Extras::load(rooms, room, &events, Some(session)).await?;
    let mut shown = Shown::new();
    for event in &events {
        let nid = event.stored.nid.0;
        let candidate = candidates.iter().find(|candidate| candidate.event == nid);
        let (Some(candidate), Some(actions)) = (candidate, actions.remove(&nid)) else {
            continue;
        };
        let entry = json!({
            "actions": actions,
            "event": extras.render(rooms, session, event, Shape::Sync),
            "read": candidate.read,
            "room_id": room.id,
            "ts": event.stored.received_ts,
        });
        shown.insert(nid, (actions, entry));
    }
    Ok(shown)
}
