//! Search in what was said (specification "Server-side search").
//!
//! Words are entered into an index in the background; a search enters first what was written before
//! it. Encrypted messages cannot be found: nobody here can read them.

mod entering;
mod token;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{
    OwnedRoomId, OwnedUserId,
    api::client::{
        filter::RoomEventFilter,
        search::search_events::v3::{Criteria, OrderBy, SearchKeys},
    },
};

pub use self::entering::advance;
pub(super) use self::entering::flags;
use self::token::Token;
use super::{Error, Event, Rooms, resident::Room, visibility};
use crate::{
    storage::{
        self, RoomNid,
        memberships::code,
        search::{Hit, Kind, Query},
    },
    users::tokens::Session,
};

/// Results when the filter does not say how many.
const LIMIT_DEFAULT: usize = 10;
/// The most, whatever it says.
const LIMIT_MAX: usize = 50;
/// Events on each side of a result.
const AROUND_MAX: i64 = 20;
/// Characters of what is typed.
const TERM_MAX: usize = 1_000;
/// Words of it that are also taken as beginnings.
const BEGINNINGS_MAX: usize = 10;
/// Characters from which on a word is taken as a beginning.
const BEGINNING_MIN: usize = 3;
/// Names in a filter.
const NAMES_MAX: usize = 1_000;
/// Readings for one page, where what is found may not be seen.
const ROUNDS_MAX: usize = 5;
/// Results are not counted beyond this.
const COUNT_MAX: i64 = 10_000;
/// Words that are marked in results.
const HIGHLIGHTS_MAX: usize = 100;
/// What stands around what was found in a text while it is looked for: of no use otherwise.
const MARKS: (char, char) = ('\u{2}', '\u{3}');

/// A page of results.
#[derive(Debug, Default)]
pub struct Found {
    /// How many there are, about.
    pub count: i64,
    /// Words to mark.
    pub highlights: BTreeSet<String>,
    /// Results in their order.
    pub results: Vec<Match>,
    /// Token of the next page.
    pub next: Option<String>,
}

/// A result.
#[derive(Debug)]
pub struct Match {
    /// How well it matches.
    pub rank: f32,
    /// Its room.
    pub room: Arc<Room>,
    /// The event.
    pub event: Event,
    /// Before it, newest first.
    pub before: Vec<Event>,
    /// After it, oldest first.
    pub after: Vec<Event>,
    hit: Hit,
}

impl Match {
    /// Token of the next page of what is in the same room.
    pub fn next_in_room(&self) -> String {
        Token::new(self.hit).of_room(self.hit.room).to_string()
    }

    /// Token of the next page of what is by the same sender.
    pub fn next_by_sender(&self) -> String {
        Token::new(self.hit).of_sender(self.hit.sender).to_string()
    }
}

/// Looks for events in the rooms that a user is or was in.
pub async fn search(
    rooms: &Rooms,
    session: &Session,
    criteria: &Criteria,
    from: Option<&str>,
) -> Result<Found, Error> {
    let from = from.map(str::parse::<Token>).transpose();
    let from = from.map_err(|()| Error::InvalidParam("not a token of a search".to_owned()))?;
    let Some(query) = query(rooms, session, criteria, from.as_ref()).await? else {
        return Ok(Found::default());
    };
    entering::catch_up(rooms).await?;
    let mut conn = rooms.ctx().db.planning().await?;
    let count = storage::search::count(&mut conn, &query, COUNT_MAX).await?;
    drop(conn);
    let limit = limit(&criteria.filter);
    let (mut results, next) = page(rooms, session, &query, (from, limit)).await?;
    around(rooms, session, criteria, &mut results).await?;
    let highlights = highlights(rooms, &query, &results).await?;
    Ok(Found {
        count,
        highlights,
        results,
        next: next.map(|token| token.to_string()),
    })
}

fn limit(filter: &RoomEventFilter) -> usize {
    let limit = filter.limit.map(|limit| usize::try_from(u64::from(limit)));
    limit.map_or(LIMIT_DEFAULT, |limit| {
        limit.unwrap_or(LIMIT_MAX).clamp(1, LIMIT_MAX)
    })
}

/// What is looked for, in the words of storage; `None`: nothing can be found.
async fn query(
    rooms: &Rooms,
    session: &Session,
    criteria: &Criteria,
    from: Option<&Token>,
) -> Result<Option<Query>, Error> {
    if criteria.search_term.chars().count() > TERM_MAX {
        return Err(Error::InvalidParam(
            "the search term is too long".to_owned(),
        ));
    }
    let filter = &criteria.filter;
    let names = filter.senders.as_ref().map_or(0, Vec::len) + filter.not_senders.len();
    if names > NAMES_MAX {
        return Err(Error::InvalidParam(
            "too many senders in the filter".to_owned(),
        ));
    }
    let mut within = rooms_of(rooms, session, filter).await?;
    let mut senders = match &filter.senders {
        Some(senders) => Some(numbers(rooms, senders).await?),
        None => None,
    };
    if let Some(from) = from {
        within.retain(|room| from.room().is_none_or(|only| only == *room));
        if let Some(only) = from.sender() {
            let wanted = senders.get_or_insert_with(|| vec![only]);
            wanted.retain(|sender| *sender == only);
        }
    }
    let kinds = kinds(criteria);
    if within.is_empty() || kinds.is_empty() || senders.as_ref().is_some_and(Vec::is_empty) {
        return Ok(None);
    }
    let term = criteria.search_term.replace('\0', " ");
    Ok(Some(Query {
        beginnings: beginnings(&term),
        term,
        rooms: within,
        kinds,
        senders,
        not_senders: numbers(rooms, &filter.not_senders).await?,
        by_rank: !matches!(criteria.order_by, Some(OrderBy::Recent)),
    }))
}

/// Rooms to search in: those that the user is or was in, as far as the filter lets them through.
async fn rooms_of(
    rooms: &Rooms,
    session: &Session,
    filter: &RoomEventFilter,
) -> Result<Vec<i64>, Error> {
    let db = &rooms.ctx().db;
    let mut conn = db.conn().await?;
    let mut of_user = storage::memberships::list_of_user(&mut conn, session.user_nid).await?;
    drop(conn);
    let had: [i16; 3] = [
        code(&ruma::events::room::member::MembershipState::Join),
        code(&ruma::events::room::member::MembershipState::Leave),
        code(&ruma::events::room::member::MembershipState::Ban),
    ];
    of_user.retain(|room| !room.forgotten && had.contains(&room.membership));
    let mut within: Vec<i64> = of_user.iter().map(|room| room.room.0).collect();
    if filter.rooms.is_none() && filter.not_rooms.is_empty() {
        return Ok(within);
    }
    let named = async |ids: &[OwnedRoomId]| {
        let mut conn = db.conn().await?;
        storage::names::find_rooms(&mut conn, ids).await
    };
    if let Some(ids) = &filter.rooms {
        let only = named(ids).await?;
        within.retain(|room| only.contains(room));
    }
    if !filter.not_rooms.is_empty() {
        let not = named(&filter.not_rooms).await?;
        within.retain(|room| !not.contains(room));
    }
    Ok(within)
}

/// Numbers of users that we know.
async fn numbers(rooms: &Rooms, users: &[OwnedUserId]) -> Result<Vec<i64>, Error> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::names::find_users(&mut conn, users).await?)
}

/// In what is searched.
fn kinds(criteria: &Criteria) -> Vec<i16> {
    let Some(keys) = &criteria.keys else {
        return vec![Kind::Body as i16, Kind::Name as i16, Kind::Topic as i16];
    };
    let kinds = keys.iter().filter_map(|key| match key {
        SearchKeys::ContentBody => Some(Kind::Body as i16),
        SearchKeys::ContentName => Some(Kind::Name as i16),
        SearchKeys::ContentTopic => Some(Kind::Topic as i16),
        _ => None,
    });
    kinds.collect()
}

/// What was typed as beginnings of words, all of which are to be there. Where it has the signs of a
/// query (quotes, minus), it means what it says.
fn beginnings(term: &str) -> String {
    if term.contains(['"', '-']) {
        return String::new();
    }
    let words: Vec<&str> = term.split_whitespace().collect();
    let is_plain = |word: &&str| {
        word.chars().count() >= BEGINNING_MIN && word.chars().all(char::is_alphanumeric)
    };
    if words.len() > BEGINNINGS_MAX || !words.iter().all(is_plain) {
        return String::new();
    }
    let words = words.iter().map(|word| format!("{word}:*"));
    words.collect::<Vec<_>>().join(" & ")
}

/// A page of results that the user may see, and where the next one begins.
async fn page(
    rooms: &Rooms,
    session: &Session,
    query: &Query,
    (from, limit): (Option<Token>, usize),
) -> Result<(Vec<Match>, Option<Token>), Error> {
    let mut results = Vec::with_capacity(limit);
    let mut last = from.as_ref().map(Token::hit);
    for _ in 0..ROUNDS_MAX {
        let wanted = limit - results.len();
        let mut conn = rooms.ctx().db.planning().await?;
        let page = i64::try_from(wanted).unwrap_or(i64::MAX);
        let hits = storage::search::list(&mut conn, query, last.as_ref(), page).await?;
        drop(conn);
        last = hits.last().copied().or(last);
        let is_last = hits.len() < wanted;
        results.extend(seen(rooms, session, &hits).await?);
        if is_last {
            return Ok((results, None));
        }
        if results.len() == limit {
            break;
        }
    }
    let next = last.map(|hit| match from {
        Some(from) => from.at(hit),
        None => Token::new(hit),
    });
    Ok((results, next))
}

/// Those of the hits that the user may see, in their order.
async fn seen(rooms: &Rooms, session: &Session, hits: &[Hit]) -> Result<Vec<Match>, Error> {
    let pairs: Vec<(i64, i64)> = hits.iter().map(|hit| (hit.room.0, hit.event)).collect();
    let mut visible: HashMap<i64, (Arc<Room>, Event)> = HashMap::new();
    for (room, mut events) in rooms.events_of(&pairs).await? {
        events.retain(|event| !event.stored.is_redacted());
        let Some(viewer) = visibility::find_viewer(rooms, &room, &session.user_id).await? else {
            continue;
        };
        let events = visibility::filter_whole(rooms, &room, &viewer, events).await?;
        visible.extend(
            events
                .into_iter()
                .map(|event| (event.stored.nid.0, (room.clone(), event))),
        );
    }
    let results = hits.iter().filter_map(|hit| {
        let (room, event) = visible.remove(&hit.event)?;
        Some(Match {
            rank: hit.rank,
            room,
            event,
            before: Vec::new(),
            after: Vec::new(),
            hit: *hit,
        })
    });
    Ok(results.collect())
}

/// Adds what stands around the results.
async fn around(
    rooms: &Rooms,
    session: &Session,
    criteria: &Criteria,
    results: &mut [Match],
) -> Result<(), Error> {
    let context = &criteria.event_context;
    let bound = |limit: ruma::UInt| i64::from(limit).min(AROUND_MAX);
    let (before, after) = (bound(context.before_limit), bound(context.after_limit));
    if results.is_empty() || before + after == 0 {
        return Ok(());
    }
    let places: Vec<_> = results
        .iter()
        .map(|found| (found.hit.room, found.hit.seq))
        .collect();
    let mut conn = rooms.ctx().db.planning().await?;
    let stored = storage::search::list_around(&mut conn, &places, (before, after)).await?;
    drop(conn);
    let mut by_room: BTreeMap<RoomNid, Vec<(usize, storage::events::Stored)>> = BTreeMap::new();
    for (at, event) in stored {
        by_room.entry(event.room).or_default().push((at, event));
    }
    for found in by_room.into_values() {
        let (at, stored): (Vec<usize>, Vec<_>) = found.into_iter().unzip();
        let Some(room) = at
            .first()
            .and_then(|at| results.get(*at))
            .map(|found| found.room.clone())
        else {
            continue;
        };
        let events = rooms.parse(&room, stored)?;
        let mut places: HashMap<i64, Vec<usize>> = HashMap::new();
        for (at, event) in at.iter().zip(&events) {
            places.entry(event.stored.nid.0).or_default().push(*at);
        }
        let seen = visibility::filter(rooms, &room, &session.user_id, events).await?;
        for event in seen {
            // An event may stand around several results; it comes once for each.
            let Some(found) = places
                .get_mut(&event.stored.nid.0)
                .and_then(Vec::pop)
                .and_then(|at| results.get_mut(at))
            else {
                continue;
            };
            if event.stored.seq < found.event.stored.seq {
                found.before.push(event);
            } else {
                found.after.push(event);
            }
        }
    }
    for found in results {
        found
            .before
            .sort_by_key(|event| std::cmp::Reverse(event.stored.seq));
        found.after.sort_by_key(|event| event.stored.seq);
    }
    Ok(())
}

/// The words of the results that were found.
async fn highlights(
    rooms: &Rooms,
    query: &Query,
    results: &[Match],
) -> Result<BTreeSet<String>, Error> {
    let texts = results.iter().filter_map(|found| {
        let pdu = &found.event.pdu;
        let (_, text) = entering::words(&pdu.kind.to_string(), pdu.content.get())?;
        Some(text.replace([MARKS.0, MARKS.1], " "))
    });
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut conn = rooms.ctx().db.planning().await?;
    let marked = storage::search::mark(&mut conn, query, &texts, MARKS).await?;
    let words = marked.iter().flat_map(|text| {
        let parts = text.split(MARKS.0).skip(1);
        parts.filter_map(|part| part.split(MARKS.1).next())
    });
    Ok(words.map(str::to_lowercase).take(HIGHLIGHTS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::beginnings;

    #[test]
    fn words_are_beginnings_unless_they_are_a_query() {
        assert_eq!(beginnings("haushalt plan"), "haushalt:* & plan:*");
        assert_eq!(beginnings("über uns"), "über:* & uns:*");
        assert_eq!(beginnings("in"), "");
        assert_eq!(beginnings("\"der plan\""), "");
        assert_eq!(beginnings("plan -haushalt"), "");
        assert_eq!(beginnings("a:* | !b"), "");
    }
}
