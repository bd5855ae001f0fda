//! What end-to-end encryption needs of a sync: messages to the device, changed devices, key counts.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{
    Error,
    joined::Scope,
    memory::{Keys, Memory, has_events},
    token::Token,
};
use crate::{
    devices::upload::counted,
    rooms::Rooms,
    storage::{self, Pos, Topic, UserNid, device_keys, memberships::UserRoom, to_device::Changed},
    users::tokens::Session,
};

/// Messages in one answer.
const MESSAGES_MAX: i64 = 100;
/// Users in one answer, but for those who change together: no more than fit into memory. The next
/// answer has more.
const USERS_MAX: i64 = 100_000;

/// News for one device.
#[derive(Debug)]
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
    /// Keys of the device that wait.
    pub(super) keys: Arc<Keys>,
}

impl News {
    /// Nothing that a client should be woken for.
    pub(super) fn is_empty(&self) -> bool {
        self.to_device.is_empty() && self.changed.is_empty() && self.left.is_empty()
    }
}

/// Looks; deletes the messages that `since` acknowledges.
pub(super) async fn look(scope: Scope<'_>, since: Option<Token>) -> Result<News, Error> {
    let Scope { upto, .. } = scope;
    let who = Who {
        rooms: scope.rooms,
        memory: scope.memory,
        session: scope.session,
        mine: scope.mine,
    };
    let after = since.map_or(0, |since| since.to_device.min(upto));
    let (to_device, told) = messages(who, (after, upto), MESSAGES_MAX).await?;
    let keys = keys(who).await?;
    let changes = changes(who, (since_changes(scope.since, since), upto)).await?;
    Ok(News {
        to_device,
        told,
        changed: changes.changed,
        met: changes.met,
        left: changes.left,
        more: changes.more,
        keys,
    })
}

/// Whose sync it is.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) memory: &'a Memory,
    pub(super) session: &'a Session,
    pub(super) mine: &'a [UserRoom],
}

/// Messages to the device in `(after, upto]`, and up to where these go. Those up to `after` are
/// deleted: the client has them.
pub(super) async fn messages(
    who: Who<'_>,
    (after, upto): (Pos, Pos),
    limit: i64,
) -> Result<(Vec<Box<RawValue>>, Pos), Error> {
    let Who {
        rooms,
        memory,
        session,
        ..
    } = who;
    let db = &rooms.ctx().db;
    let (has_new, has_old) = {
        let recent = db.stream.recent();
        let came_since = |pos| recent.has_since(Topic::Messages, session.user_nid.0, pos);
        let emptied = memory.emptied_upto(session);
        let has_old = emptied < after && came_since(emptied);
        (came_since(after.max(emptied)), has_old)
    };
    if !has_new && !has_old {
        return Ok((Vec::new(), upto));
    }
    let device = (session.user_nid, session.device_no);
    let limit = limit.clamp(1, MESSAGES_MAX);
    let mut conn = db.conn().await?;
    let rows = storage::to_device::list(&mut conn, device, (after, upto), limit).await?;
    if has_old {
        storage::to_device::delete_upto(&mut conn, device, after).await?;
        memory.emptied(session, after);
    }
    if rows.is_empty() {
        memory.emptied(session, upto);
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

/// Keys of the device that wait.
pub(super) async fn keys(who: Who<'_>) -> Result<Arc<Keys>, Error> {
    let Who {
        rooms,
        memory,
        session,
        ..
    } = who;
    let db = &rooms.ctx().db;
    let read_at = db.stream.horizon();
    if let Some(keys) = memory.keys(session, &db.stream.recent()) {
        return Ok(keys);
    }
    let (user, device) = (session.user_nid, session.device_no);
    let mut conn = db.conn().await?;
    let counts = device_keys::count_one_time(&mut conn, user, device).await?;
    let keys = Arc::new(Keys {
        counts: counted(counts),
        unused_fallback: device_keys::list_unused_fallback(&mut conn, user, device).await?,
        read_at,
    });
    drop(conn);
    memory.keep_keys(session, keys.clone());
    Ok(keys)
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
pub(super) async fn changes(who: Who<'_>, (since, upto): (Pos, Pos)) -> Result<Changes, Error> {
    if since == 0 || !may_have_changed(who, since) {
        return Ok(Changes::default());
    }
    found(who.rooms, who.session, (since, upto)).await
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

/// Somebody's devices have changed, or somebody came or went in a room of the user, or the user did.
fn may_have_changed(who: Who<'_>, since: Pos) -> bool {
    let user = who.session.user_nid.0;
    let recent = who.rooms.ctx().db.stream.recent();
    recent.has_since(Topic::Devices, 0, since)
        || recent.has_since(Topic::Signatures, user, since)
        || recent.has_since(Topic::Rooms, user, since)
        || has_events(who.mine, &recent, since)
}
