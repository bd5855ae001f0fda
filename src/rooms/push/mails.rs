//! Mails about what is unread (specification, pushers of kind `email`). A mail goes out when
//! something was unread for some time, and then for each room after ever longer pauses. What it
//! tells is counted when it goes out: what was read meanwhile is not told, and a room with much news
//! costs no more than one with little.

use std::collections::{BTreeSet, HashMap};

use ruma::events::StateEventType;
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::{Error, Heard, LOOK_EVERY, Rooms, delivery::pause_ms};
use crate::{
    clock::now_ms,
    config::Email,
    mail::{
        self, Mailer,
        text::{self, Language, Unread},
    },
    rooms::resident::Room,
    storage::{
        RoomNid, Tx,
        mail_rooms::{self, Due, Pauses},
        unread,
    },
    users::pushers::UNSUBSCRIBE_PATH,
};

/// Mails under way at once.
const SLOTS: usize = 8;
/// Rooms that are counted for one mail.
const ROOMS_MAX: usize = 10_000;
/// Rooms that are named in one.
const NAMES_MAX: usize = 20;
/// A relay that says for so long, and so often, that it does not take mails for an address, is
/// believed: nothing is sent there until the client sets the pusher again.
const REFUSED_MS_MAX: i64 = 3 * 24 * 3_600_000;
const REFUSED_TRIES_MIN: i32 = 5;

fn pauses(email: &Email) -> Pauses {
    Pauses {
        first_ms: i64::from(email.notice_delay_s) * 1_000,
        longest_ms: i64::from(email.notice_pause_max_s.max(email.notice_delay_s)) * 1_000,
    }
}

/// Notes what is to be mailed, and who reads or writes.
pub(super) async fn note(rooms: &Rooms, tx: &mut Tx, heard: &Heard, now: i64) -> Result<(), Error> {
    let Some(email) = &rooms.ctx().config.email else {
        return Ok(());
    };
    let pauses = pauses(email);
    let mailed = heard.mailed.iter().map(|it| (it.pusher, it.room.0));
    let mailed: BTreeSet<(i64, i64)> = mailed.collect();
    if !mailed.is_empty() {
        let (pushers, nids): (Vec<i64>, Vec<i64>) = mailed.into_iter().unzip();
        mail_rooms::wake(tx, (&pushers, &nids), now, pauses).await?;
    }
    if !heard.put_off.is_empty() {
        let (pushers, nids): (Vec<i64>, Vec<i64>) = heard.put_off.iter().copied().unzip();
        mail_rooms::put_off(tx, (&pushers, &nids), now + pauses.first_ms).await?;
    }
    Ok(())
}

/// Sends, for ever.
pub(super) async fn run(rooms: &Rooms) {
    let Some(mailer) = &rooms.ctx().mail else {
        return;
    };
    let mut turns: JoinSet<()> = JoinSet::new();
    loop {
        if let Err(error) = start(rooms, mailer, &mut turns).await {
            tracing::warn!(%error, "what is to be mailed could not be read");
        }
        tokio::select! {
            Some(_) = turns.join_next() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Starts turns for pushers that are due, as far as there are places.
async fn start(rooms: &Rooms, mailer: &Mailer, turns: &mut JoinSet<()>) -> Result<(), Error> {
    let push = &rooms.0.push;
    let active: Vec<i64> = push.mailing().iter().copied().collect();
    let free = i64::try_from(SLOTS.saturating_sub(active.len())).unwrap_or(0);
    let shares = push.shares();
    if free == 0 || shares.is_empty() {
        return Ok(());
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let found = mail_rooms::list_due(&mut conn, &shares, &active, now_ms(), free).await?;
    drop(conn);
    for due in found {
        push.mailing().insert(due.pusher);
        turns.spawn(run_turn(rooms.clone(), mailer.clone(), due));
    }
    Ok(())
}

async fn run_turn(rooms: Rooms, mailer: Mailer, due: Due) {
    if let Err(error) = turn(&rooms, &mailer, &due).await {
        tracing::warn!(%error, "a mail did not get its turn");
        // It is still due.
        tokio::time::sleep(LOOK_EVERY).await;
    }
    rooms.0.push.mailing().remove(&due.pusher);
}

async fn turn(rooms: &Rooms, mailer: &Mailer, due: &Due) -> Result<(), Error> {
    let Some(email) = &rooms.ctx().config.email else {
        return Ok(());
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let mut taken = mail_rooms::claim(&mut conn, due.pusher, now_ms()).await?;
    drop(conn);
    taken.truncate(ROOMS_MAX);
    let (unread, told) = count(rooms, email, due, &taken).await?;
    if !told.is_empty() {
        if !rooms.0.push.shares.has(i32::from(due.share)) {
            // Another node goes on.
            return Ok(());
        }
        let base = email.base_url.trim_end_matches('/');
        let link = format!("{base}{UNSUBSCRIBE_PATH}?token={}", due.unsubscribe);
        let named = (&*email.app_name, email.client_url.as_deref());
        let language = Language::of(&due.lang);
        let letter = text::notice(&due.address, named, language, &unread, &link);
        if let Err(error) = mailer.send(&letter).await {
            return failed(rooms, due, &error).await;
        }
    }
    let now = now_ms();
    let mut tx = rooms.ctx().db.begin().await?;
    if !taken.is_empty() {
        mail_rooms::update_done(&mut tx, due.pusher, &told, now, pauses(email)).await?;
    }
    mail_rooms::update_rest(&mut tx, due.pusher, now).await?;
    Ok(tx.commit().await?)
}

/// What is unread of some rooms, and in which of them.
async fn count(
    rooms: &Rooms,
    email: &Email,
    due: &Due,
    taken: &[RoomNid],
) -> Result<(Unread, Vec<i64>), Error> {
    if taken.is_empty() {
        return Ok((Unread::default(), Vec::new()));
    }
    let taken: Vec<i64> = taken.iter().map(|room| room.0).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let (joined, invited) = mail_rooms::list_memberships(&mut conn, due.user, &taken).await?;
    let parts = unread::list(&mut conn, due.user, &joined).await?;
    drop(conn);
    let mut by_room: HashMap<i64, i64> = HashMap::new();
    for part in parts {
        *by_room.entry(part.room.0).or_default() += part.notify.max(0);
    }
    by_room.retain(|_, count| *count > 0);
    let many = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let unread = Unread {
        messages: by_room.values().sum(),
        rooms: many(by_room.len()),
        invitations: many(invited.len()),
        names: if email.names_rooms {
            names(rooms, &by_room).await?
        } else {
            Vec::new()
        },
    };
    let told = by_room.into_keys().chain(invited);
    Ok((unread, told.collect()))
}

/// Names of the rooms with most unread.
async fn names(rooms: &Rooms, by_room: &HashMap<i64, i64>) -> Result<Vec<(String, i64)>, Error> {
    let mut most: Vec<(i64, i64)> = by_room
        .iter()
        .map(|(room, count)| (*count, *room))
        .collect();
    most.sort_unstable_by(|left, right| right.cmp(left));
    most.truncate(NAMES_MAX);
    let nids: Vec<RoomNid> = most.iter().map(|(_, room)| RoomNid(*room)).collect();
    let found = rooms.find_many(&nids).await?;
    let mut names = Vec::new();
    for (count, nid) in most {
        if let Some(room) = found.get(&RoomNid(nid))
            && let Some(name) = name(rooms, room).await?
        {
            names.push((name, count));
        }
    }
    Ok(names)
}

/// What a room is called, if it is called anything.
async fn name(rooms: &Rooms, room: &Room) -> Result<Option<String>, Error> {
    let places = [
        (StateEventType::RoomName, "name"),
        (StateEventType::RoomCanonicalAlias, "alias"),
    ];
    let keys = places.clone().map(|(kind, _)| (kind, String::new()));
    let head = room.head();
    let slice = rooms.state_events(room, &head.state.entries, &keys).await?;
    for (kind, field) in places {
        let content = slice.get(&kind, "");
        let content = content.and_then(|event| event.content_as::<Map<String, Value>>());
        if let Some(Value::String(text)) = content.and_then(|mut content| content.remove(field))
            && !text.trim().is_empty()
        {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// A mail did not go out: it is tried again after a while, with what is unread then.
async fn failed(rooms: &Rooms, due: &Due, error: &mail::Error) -> Result<(), Error> {
    let now = now_ms();
    let since = due.failing_ts.unwrap_or(now);
    let is_over = matches!(error, mail::Error::Refused(_))
        && now - since >= REFUSED_MS_MAX
        && due.failures >= REFUSED_TRIES_MIN;
    tracing::debug!(%error, failures = due.failures, is_over, "a mail was not taken");
    let again = (!is_over).then(|| now + pause_ms(due.failures));
    let mut tx = rooms.ctx().db.begin().await?;
    mail_rooms::update_failed(&mut tx, due.pusher, now, again).await?;
    Ok(tx.commit().await?)
}
