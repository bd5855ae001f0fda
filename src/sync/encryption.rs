//! What end-to-end encryption needs of a sync: messages to the device, changed devices, key counts.

use serde_json::{Value, value::RawValue};

use super::{Error, joined::Scope, token::Token};
use crate::{
    devices::upload::counted,
    rooms::Rooms,
    storage::{self, Pos, UserNid, device_keys, to_device::Changed},
    users::tokens::Session,
};

/// Messages in one answer.
const MESSAGES_MAX: i64 = 100;
/// Users in one answer, but for those who change together: no more than fit into memory. The next
/// answer has more.
const USERS_MAX: i64 = 100_000;

/// News for one device.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Events, oldest first.
    pub(super) to_device: Vec<Box<RawValue>>,
    /// Where the next sync goes on with them.
    pub(super) told: Pos,
    /// Users whose devices have to be looked at.
    pub(super) changed: Vec<ruma::OwnedUserId>,
    /// The same, interned: among them those who are new to the user.
    pub(super) met: Vec<i64>,
    /// Users who share no room any more.
    pub(super) left: Vec<ruma::OwnedUserId>,
    /// Up to where these lists go, if that is not all.
    pub(super) more: Option<Pos>,
    /// One-time keys that wait, by algorithm.
    pub(super) key_counts: Value,
    /// Algorithms with a fallback key that was not used.
    pub(super) unused_fallback: Vec<String>,
}

impl News {
    /// Nothing that a client should be woken for.
    pub(super) fn is_empty(&self) -> bool {
        self.to_device.is_empty() && self.changed.is_empty() && self.left.is_empty()
    }
}

/// Looks; deletes the messages that `since` acknowledges.
pub(super) async fn look(scope: Scope<'_>, since: Option<Token>) -> Result<News, Error> {
    let Scope {
        rooms,
        session,
        upto,
        ..
    } = scope;
    let after = since.map_or(0, |since| since.to_device.min(upto));
    let (to_device, told) = messages(rooms, session, (after, upto), MESSAGES_MAX).await?;
    let (key_counts, unused_fallback) = counts(rooms, session).await?;
    let changes = changes(rooms, session, (since_changes(scope.since, since), upto)).await?;
    Ok(News {
        to_device,
        told,
        changed: changes.changed,
        met: changes.met,
        left: changes.left,
        more: changes.more,
        key_counts,
        unused_fallback,
    })
}

/// Messages to the device in `(after, upto]`, and up to where these go. Those up to `after` are
/// deleted: the client has them.
pub(super) async fn messages(
    rooms: &Rooms,
    session: &Session,
    (after, upto): (Pos, Pos),
    limit: i64,
) -> Result<(Vec<Box<RawValue>>, Pos), Error> {
    let device = (session.user_nid, session.device_no);
    let limit = limit.clamp(1, MESSAGES_MAX);
    let mut conn = rooms.ctx().db.conn().await?;
    let rows = storage::to_device::list(&mut conn, device, (after, upto), limit).await?;
    if after > 0 {
        // Deletes nothing most of the time, which costs no write.
        storage::to_device::delete_upto(&mut conn, device, after).await?;
    }
    let is_all = i64::try_from(rows.len()).is_ok_and(|n| n < limit);
    let told = match rows.last() {
        Some((last, _)) if !is_all => *last,
        _ => upto,
    };
    let events = rows
        .into_iter()
        .filter_map(|(_, body)| RawValue::from_string(body).ok());
    Ok((events.collect(), told))
}

/// One-time keys that wait, by algorithm, and algorithms with a fallback key that was not used.
pub(super) async fn counts(
    rooms: &Rooms,
    session: &Session,
) -> Result<(Value, Vec<String>), Error> {
    let (user, device) = (session.user_nid, session.device_no);
    let mut conn = rooms.ctx().db.conn().await?;
    let counts = device_keys::count_one_time(&mut conn, user, device).await?;
    let unused = device_keys::list_unused_fallback(&mut conn, user, device).await?;
    Ok((counted(counts), unused))
}

/// Up to where changes of devices were told.
fn since_changes(since: Pos, token: Option<Token>) -> Pos {
    let devices = token.and_then(|token| token.devices);
    devices.map_or(since, |devices| devices.min(since))
}

/// Whose devices have to be looked at.
#[derive(Debug, Default)]
pub struct Changes {
    /// Users who share a room.
    pub changed: Vec<ruma::OwnedUserId>,
    /// The same, interned.
    pub(super) met: Vec<i64>,
    /// Users who share no room any more.
    pub left: Vec<ruma::OwnedUserId>,
    /// Up to where that goes, if it is not all.
    pub(super) more: Option<Pos>,
}

/// Changes between two tokens (`/keys/changes`).
pub async fn between(
    rooms: &Rooms,
    session: &Session,
    from: &str,
    to: &str,
) -> Result<Changes, Error> {
    let from: Token = from.parse()?;
    let to: Token = to.parse()?;
    // Of each user only the last change is known: one that changed again after `to` changed before
    // as far as anybody can tell, and is named.
    let upto = to.pos.max(rooms.ctx().db.stream.horizon());
    let mut all = Changes::default();
    let mut since = Some(since_changes(from.pos, Some(from)));
    // That ends with the users there are.
    while let Some(after) = since {
        let page = found(rooms, session, (after, upto)).await?;
        all.changed.extend(page.changed);
        all.left.extend(page.left);
        since = page.more;
    }
    Ok(all)
}

/// Changes in `(since, upto]`; none from the beginning.
pub(super) async fn changes(
    rooms: &Rooms,
    session: &Session,
    (since, upto): (Pos, Pos),
) -> Result<Changes, Error> {
    if since == 0 {
        return Ok(Changes::default());
    }
    found(rooms, session, (since, upto)).await
}

async fn found(
    rooms: &Rooms,
    session: &Session,
    (since, upto): (Pos, Pos),
) -> Result<Changes, Error> {
    let db = &rooms.ctx().db;
    let mut conn = db.conn().await?;
    let user = session.user_nid;
    let rows = storage::to_device::list_changed(&mut conn, user, (since, upto), USERS_MAX).await?;
    drop(conn);
    let is_cut = i64::try_from(rows.len()).is_ok_and(|count| count >= USERS_MAX);
    let last = rows.last().map(|row| row.pos);
    let more = last.filter(|last| is_cut && *last < upto);
    let (sharing, apart): (Vec<Changed>, Vec<Changed>) =
        rows.into_iter().partition(|row| row.shares);
    let nids = |rows: Vec<Changed>| -> Vec<UserNid> { rows.iter().map(|row| row.user).collect() };
    let sharing = nids(sharing);
    Ok(Changes {
        changed: db.ids.user_ids_of(&sharing).await?,
        met: sharing.into_iter().map(|user| user.0).collect(),
        left: db.ids.user_ids_of(&nids(apart)).await?,
        more,
    })
}
