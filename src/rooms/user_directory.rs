//! The user directory: who is found under which name.
//!
//! It follows the log in the background, so that nobody who writes pays for it, and remembers how
//! far it is. Rooms whose members come in bulk are noted, and entered piece by piece. A search
//! waits a moment until what was written before it is entered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::{OwnedUserId, UserId, events::StateEventType};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::{Error, Rooms};
use crate::{
    context::Context,
    storage::{
        self, Pos, RoomNid, Tx, UserNid,
        user_directory::{Entry, Hit, Membership, News},
    },
};

/// Results of one search.
pub const RESULTS_MAX: u32 = 50;
/// Positions of the log that are looked at in one go.
const SPAN: Pos = 50_000;
/// Changes that are entered in one go.
const NEWS_MAX: usize = 500;
/// Users who are entered in one go.
const USERS_MAX: usize = 200;
/// Rooms of a user of a peer that its name is taken from.
const MEMBERSHIPS_MAX: i64 = 20;
/// The longest that a search waits for entries.
const PATIENCE: Duration = Duration::from_secs(1);
/// Words of a search.
const TERMS_MAX: usize = 10;
/// Words that a name is found under.
const WORDS_MAX: usize = 40;
/// Characters of a word that count.
const WORD_CHARS_MAX: usize = 64;
/// Bytes of a name that is shown.
const NAME_BYTES_MAX: usize = 1_024;

/// How far the directory is, for those who wait.
#[derive(Debug, Default)]
pub(super) struct Progress(watch::Sender<Pos>);

/// Users whom `user` may find under the words of `term`, best match first; and whether there are
/// more than `limit`.
pub async fn search(
    rooms: &Rooms,
    user: UserNid,
    term: &str,
    limit: u32,
) -> Result<(Vec<Hit>, bool), Error> {
    let Some(query) = query(term) else {
        return Ok((Vec::new(), false));
    };
    let horizon = rooms.ctx().db.stream.horizon();
    let mut progress = rooms.0.directory.0.subscribe();
    let entered = progress.wait_for(|pos| *pos >= horizon);
    // Better a search in what there is than none.
    let _ = tokio::time::timeout(PATIENCE, entered).await;
    let limit = limit.clamp(1, RESULTS_MAX);
    let mut conn = rooms.ctx().db.planning().await?;
    let more = i64::from(limit) + 1;
    let whom = (user, rooms.ctx().config.user_directory.search_all_users);
    let mut hits = storage::user_directory::search(&mut conn, whom, &query, more).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let limited = hits.len() > limit;
    hits.truncate(limit);
    Ok((hits, limited))
}

/// Enters the members of a room anew, in the background: for whoever changed them in bulk.
pub async fn rebuild_room(rooms: &Rooms, room: RoomNid) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::user_directory::upsert_todo(&mut conn, room).await?)
}

/// Enters some of what changed; `false`: nothing is left to do.
pub async fn advance(rooms: &Rooms) -> Result<bool, Error> {
    let progress = &rooms.0.directory.0;
    let mut conn = rooms.ctx().db.conn().await?;
    let mut after = *progress.borrow();
    if after == 0 {
        after = storage::user_directory::find_cursor(&mut conn).await?;
    }
    let horizon = rooms.ctx().db.stream.horizon();
    if after < horizon {
        let mut upto = horizon.min(after + SPAN);
        let limit = i64::try_from(NEWS_MAX).unwrap_or(i64::MAX);
        let news = storage::user_directory::list_news(&mut conn, (after, upto), limit).await?;
        if news.len() == NEWS_MAX
            && let Some(last) = news.last()
        {
            upto = last.pos;
        }
        if !news.is_empty() {
            drop(conn);
            enter(rooms, &news, upto).await?;
        } else if upto / SPAN != after / SPAN {
            // Noted now and then, so that a restart begins near here.
            storage::user_directory::update_cursor(&mut conn, upto).await?;
        }
        progress.send_replace(upto);
        return Ok(true);
    }
    let todo = storage::user_directory::find_todo(&mut conn).await?;
    drop(conn);
    match todo {
        Some((room, after)) => enter_members(rooms, room, after).await.map(|()| true),
        None => Ok(false),
    }
}

/// Enters what a part of the log tells of, up to `upto`.
async fn enter(rooms: &Rooms, news: &[News], upto: Pos) -> Result<(), Error> {
    let changed: BTreeSet<i64> = news
        .iter()
        .filter(|news| news.user == 0)
        .map(|news| news.room)
        .collect();
    let mut public = Vec::new();
    for room in changed {
        public.push((RoomNid(room), is_public(rooms, RoomNid(room)).await?));
    }
    let users: BTreeSet<i64> = news
        .iter()
        .map(|news| news.user)
        .filter(|u| *u > 0)
        .collect();
    let users: Vec<i64> = users.into_iter().collect();
    let members = news.iter().filter(|news| news.room > 0 && news.user > 0);
    let (in_rooms, who): (Vec<i64>, Vec<i64>) = members.map(|news| (news.room, news.user)).unzip();
    let mut tx = rooms.ctx().db.begin().await?;
    if storage::user_directory::lock_cursor(&mut tx).await? >= upto {
        // Another node was faster.
        return Ok(());
    }
    for (room, public) in public {
        storage::user_directory::update_public(&mut tx, room, public).await?;
    }
    for some in users.chunks(USERS_MAX) {
        refresh(rooms.ctx(), &mut tx, some).await?;
    }
    for news in news.iter().filter(|news| news.whole) {
        storage::user_directory::upsert_todo(&mut tx, RoomNid(news.room)).await?;
    }
    storage::user_directory::upsert_todo_of_ours(&mut tx, &in_rooms, &who).await?;
    storage::user_directory::update_cursor(&mut tx, upto).await?;
    Ok(tx.commit().await?)
}

/// Enters some members of a room after one.
async fn enter_members(rooms: &Rooms, room: RoomNid, after: i64) -> Result<(), Error> {
    let public = match after {
        0 => Some(is_public(rooms, room).await?),
        _ => None,
    };
    let mut tx = rooms.ctx().db.begin().await?;
    storage::user_directory::lock_cursor(&mut tx).await?;
    if let Some(public) = public {
        storage::user_directory::update_public(&mut tx, room, public).await?;
    }
    let limit = i64::try_from(USERS_MAX).unwrap_or(i64::MAX);
    let users = storage::user_directory::list_members(&mut tx, room, after, limit).await?;
    refresh(rooms.ctx(), &mut tx, &users).await?;
    let upto = users.last().copied();
    storage::user_directory::update_todo(&mut tx, room, after, upto).await?;
    Ok(tx.commit().await?)
}

/// Whether anybody may join or read a room by its state.
async fn is_public(rooms: &Rooms, room: RoomNid) -> Result<bool, Error> {
    let room = match rooms.find(room).await {
        Ok(Some(room)) => room,
        Ok(None) | Err(Error::UnsupportedVersion(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let rules = (StateEventType::RoomJoinRules, String::new());
    let history = (StateEventType::RoomHistoryVisibility, String::new());
    let head = room.head();
    let slice = rooms
        .state_events(&room, &head.state.entries, &[rules, history])
        .await?;
    let says = |kind: StateEventType, field: &str, value: &str| {
        let content: Option<Map<String, Value>> =
            slice.get(&kind, "").and_then(|event| event.content_as());
        content.is_some_and(|content| content.get(field) == Some(&json!(value)))
    };
    Ok(says(StateEventType::RoomJoinRules, "join_rule", "public")
        || says(
            StateEventType::RoomHistoryVisibility,
            "history_visibility",
            "world_readable",
        ))
}

/// Writes the entries of some users anew from what is known of them now.
async fn refresh(ctx: &Context, tx: &mut Tx, users: &[i64]) -> Result<(), Error> {
    let nids: Vec<UserNid> = users.iter().map(|user| UserNid(*user)).collect();
    let ids = ctx.db.ids.user_ids_of(&nids).await?;
    let local = storage::user_directory::list_local(tx, users).await?;
    let local: BTreeMap<i64, _> = local
        .into_iter()
        .map(|(user, closed, name, avatar)| (user, (closed, (name, avatar))))
        .collect();
    let others: Vec<i64> = users
        .iter()
        .copied()
        .filter(|user| !local.contains_key(user))
        .collect();
    let mut shown: BTreeMap<i64, Vec<Shown>> = BTreeMap::new();
    let memberships =
        storage::user_directory::list_memberships(tx, &others, MEMBERSHIPS_MAX).await?;
    for membership in memberships {
        let of_user = shown.entry(membership.user).or_default();
        of_user.push(Shown::of(&membership));
    }
    let (mut entries, mut gone) = (Vec::new(), Vec::new());
    for (user, id) in users.iter().zip(ids) {
        let profile = match local.get(user) {
            Some((closed, profile)) => (!closed).then(|| profile.clone()),
            None => shown.get(user).map(|shown| choose(shown)),
        };
        match profile {
            Some((name, avatar)) => entries.push(entry(*user, &id, name, avatar)),
            None => gone.push(*user),
        }
    }
    storage::user_directory::upsert(tx, &entries).await?;
    storage::user_directory::delete(tx, &gone).await?;
    Ok(())
}

/// What a user of a peer shows in a room.
#[derive(Clone, Debug, Default)]
struct Shown {
    public: bool,
    name: Option<String>,
    avatar: Option<String>,
}

impl Shown {
    fn of(membership: &Membership) -> Self {
        #[derive(Default, serde::Deserialize)]
        struct Event {
            #[serde(default)]
            content: Map<String, Value>,
        }
        let event: Event = serde_json::from_str(&membership.event).unwrap_or_default();
        let text = |field: &str| {
            let value = event.content.get(field).and_then(Value::as_str);
            value
                .filter(|value| !value.is_empty() && value.len() <= NAME_BYTES_MAX)
                .map(ToOwned::to_owned)
        };
        Self {
            public: membership.public,
            name: text("displayname"),
            avatar: text("avatar_url"),
        }
    }
}

/// Name and picture of a user of a peer: those in its public rooms, else those in most of its
/// rooms. A name that it has in one private room alone, and others elsewhere, may be meant for that
/// room, and is not told in another.
fn choose(shown: &[Shown]) -> (Option<String>, Option<String>) {
    let any_public = shown.iter().any(|shown| shown.public);
    let counted: Vec<&Shown> = shown
        .iter()
        .filter(|shown| shown.public || !any_public)
        .collect();
    let count = |name: &Option<String>| counted.iter().filter(|s| s.name == *name).count();
    // Newest first: of equals the first stays.
    let mut best: Option<(&Shown, usize)> = None;
    for candidate in &counted {
        let n = count(&candidate.name);
        if best.is_none_or(|(_, most)| n > most) {
            best = Some((candidate, n));
        }
    }
    match best {
        Some((shown, n)) if any_public || n > 1 || counted.len() == 1 => {
            (shown.name.clone(), shown.avatar.clone())
        }
        _ => (None, None),
    }
}

fn entry(user: i64, id: &OwnedUserId, name: Option<String>, avatar: Option<String>) -> Entry {
    let words = lexemes(id, name.as_deref());
    Entry {
        user,
        display_name: name,
        avatar_url: avatar,
        words,
    }
}

/// Words of a text in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().take(WORD_CHARS_MAX).collect::<String>())
        .map(|word| word.to_lowercase())
}

/// The same word as it is written where there are no umlauts.
fn folded(word: &str) -> Option<String> {
    let folded: String = word
        .chars()
        .map(|c| match c {
            'ä' => "ae".to_owned(),
            'ö' => "oe".to_owned(),
            'ü' => "ue".to_owned(),
            'ß' => "ss".to_owned(),
            other => other.to_string(),
        })
        .collect();
    (folded != word).then_some(folded)
}

/// What a user is found under, as a `tsvector`.
fn lexemes(id: &UserId, name: Option<&str>) -> String {
    let sources = [
        (id.localpart(), 'A'),
        (name.unwrap_or_default(), 'B'),
        (id.server_name().as_str(), 'C'),
    ];
    let mut parts = Vec::new();
    for (text, weight) in sources {
        for word in words(text).take(WORDS_MAX) {
            let place = parts.len() + 1;
            if let Some(folded) = folded(&word) {
                parts.push(format!("'{folded}':{place}{weight}"));
            }
            parts.push(format!("'{word}':{place}{weight}"));
        }
    }
    parts.join(" ")
}

/// A search as a `tsquery`: all words, each as the beginning of one; whole ones count more. `None`:
/// there are no words.
fn query(term: &str) -> Option<String> {
    let words: Vec<String> = words(term)
        .take(TERMS_MAX)
        .map(|word| match folded(&word) {
            Some(folded) => format!("('{word}':* | '{word}' | '{folded}':*)"),
            None => format!("('{word}':* | '{word}')"),
        })
        .collect();
    (!words.is_empty()).then(|| words.join(" & "))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn words_are_found_with_and_without_umlauts() {
        let id = user_id!("@j.mueller:amt.example");
        let words = lexemes(id, Some("Jörg Müßig-O'Hara"));
        assert_eq!(
            words,
            "'j':1A 'mueller':2A 'joerg':3B 'jörg':3B 'muessig':5B 'müßig':5B 'o':7B 'hara':8B \
             'amt':9C 'example':10C"
        );
        assert_eq!(query("@'\\ !"), None);
        assert_eq!(
            query("Jö M").as_deref(),
            Some("('jö':* | 'jö' | 'joe':*) & ('m':* | 'm')")
        );
    }

    #[test]
    fn a_name_for_one_private_room_is_not_told() {
        let shown = |public: bool, name: &str| Shown {
            public,
            name: Some(name.to_owned()),
            avatar: None,
        };
        let name = |list: &[Shown]| choose(list).0;
        let alice = Some("Alice".to_owned());
        assert_eq!(name(&[shown(false, "Alice")]), alice);
        assert_eq!(name(&[shown(false, "Freddy"), shown(true, "Alice")]), alice);
        assert_eq!(name(&[shown(false, "Freddy"), shown(false, "Alice")]), None);
        let many = [
            shown(false, "Freddy"),
            shown(false, "Alice"),
            shown(false, "Alice"),
        ];
        assert_eq!(name(&many), alice);
        assert_eq!(name(&[]), None);
    }
}
