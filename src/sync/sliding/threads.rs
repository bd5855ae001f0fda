//! Subscriptions to threads (MSC4308): what of them changed, and older changes page by page.

use ruma::RoomId;
use serde_json::{Map, Value, json};

use super::{super::Error, Token, View, request::Threads};
use crate::{
    rooms::{Rooms, relations::subscriptions},
    storage::{
        Pos, RoomNid, Topic,
        thread_subscriptions::{self, Change},
    },
    users::tokens::Session,
};

/// Changes in one answer: where the client says nothing, and at most.
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 512;
/// In front of the position in a token.
const PREFIX: &str = "ts1_";

/// What changed since the client was told, newest first, and whether that is news; `None`:
/// subscriptions are off.
pub(super) async fn look(
    view: &View<'_>,
    wanted: &Threads,
) -> Result<Option<(Value, bool)>, Error> {
    if !subscriptions::is_on(view.rooms) {
        return Ok(None);
    }
    let stream = &view.rooms.ctx().db.stream;
    let user = view.session.user_nid.0;
    if view.since > 0 && !stream.recent().has_since(Topic::Threads, user, view.since) {
        return Ok(Some((json!({}), false)));
    }
    let span = (view.since, view.upto);
    let limit = wanted.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let (mut part, more) = read(view.rooms, view.session, span, limit).await?;
    let is_news = !part.is_empty();
    if let Some(before) = more {
        part.insert("prev_batch".to_owned(), json!(token(before)));
    }
    Ok(Some((Value::Object(part), is_news)))
}

/// What a client asks for of older changes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Where to begin, going back; `None`: at the newest.
    pub from: Option<&'a str>,
    /// Where to end: a token as well, or the position of a sliding sync.
    pub to: Option<&'a str>,
    /// How many.
    pub limit: Option<u64>,
}

/// A page of changes, newest first (`GET /thread_subscriptions`).
pub async fn page(
    rooms: &Rooms,
    session: &Session,
    wanted: Wanted<'_>,
) -> Result<Map<String, Value>, Error> {
    if !subscriptions::is_on(rooms) {
        return Err(crate::rooms::Error::SwitchedOff.into());
    }
    let unknown = |name: &str| Error::BadRequest(format!("{name} is no token of ours"));
    let horizon = rooms.ctx().db.stream.horizon();
    let upto = match wanted.from {
        Some(from) => parse(from).ok_or_else(|| unknown("from"))?.min(horizon),
        None => horizon,
    };
    let since = match wanted.to {
        Some(to) => {
            let slid = || to.parse::<Token>().ok().map(|token| token.pos);
            parse(to).or_else(slid).ok_or_else(|| unknown("to"))?
        }
        None => 0,
    };
    if wanted.limit == Some(0) {
        return Err(Error::BadRequest("limit is not above zero".to_owned()));
    }
    let limit = wanted.limit.map_or(LIMIT, |limit| {
        u32::try_from(limit).unwrap_or(LIMIT_MAX).min(LIMIT_MAX)
    });
    let (mut part, more) = read(rooms, session, (since, upto), limit).await?;
    if let Some(before) = more {
        part.insert("end".to_owned(), json!(token(before)));
    }
    Ok(part)
}

fn token(pos: Pos) -> String {
    format!("{PREFIX}{pos}")
}

fn parse(token: &str) -> Option<Pos> {
    let pos = token.strip_prefix(PREFIX)?.parse().ok();
    pos.filter(|pos| *pos >= 0)
}

/// Changes in `(since, upto]` as clients are shown them, and where those begin that are left out.
async fn read(
    rooms: &Rooms,
    session: &Session,
    span: (Pos, Pos),
    limit: u32,
) -> Result<(Map<String, Value>, Option<Pos>), Error> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut conn = rooms.ctx().db.conn().await?;
    let mut changes =
        thread_subscriptions::list(&mut conn, session.user_nid, span, i64::from(limit) + 1).await?;
    drop(conn);
    let is_more = changes.len() > most;
    changes.truncate(most);
    let last = changes.last().filter(|_| is_more);
    let more = last.map(|change| change.pos - 1);
    let nids: Vec<RoomNid> = changes.iter().map(|change| change.room).collect();
    let ids = rooms.ctx().db.ids.room_ids_of(&nids).await?;
    let mut part = Map::new();
    for (change, id) in changes.iter().zip(&ids) {
        insert(&mut part, id, change);
    }
    Ok((part, more))
}

fn insert(part: &mut Map<String, Value>, room: &RoomId, change: &Change) {
    let mut entry = json!({ "bump_stamp": change.pos });
    let kind = match change.automatic {
        Some(automatic) => {
            entry["automatic"] = json!(automatic);
            "subscribed"
        }
        None => "unsubscribed",
    };
    let by_room = part.entry(kind).or_insert_with(|| json!({}));
    by_room[room.as_str()][&change.root] = entry;
}
