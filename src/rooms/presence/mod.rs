//! Presence: who is there, who is idle, who has gone.
//!
//! What others are told is a row for each user, written when it changes. What changes all the time
//! is in memory: that clients still sync, and when somebody last did something; the rows learn of
//! it once a minute. By these times rows fall back by themselves, whichever node was last spoken
//! to, and whether or not it still runs.

mod live;
mod peers;

use std::time::Duration;

use ruma::UserId;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use self::live::Said;
pub use self::{
    live::{Presences, Syncing},
    peers::{Outgoing, edus, edus_for_newcomers, receive},
};
use super::{Error, Rooms};
use crate::{
    clock::now_ms,
    storage::{
        self, UserNid,
        presence::{Limits, Presence, State},
    },
    users::tokens::Session,
};

/// Bytes of a status message.
pub const STATUS_BYTES_MAX: usize = 1_024;
/// A user of whom no client was heard for so long is gone. Rows are written once a minute: this
/// outlives one that could not be written.
const GONE_MS: i64 = 150_000;
/// A user who did nothing for so long is idle (the specification's example).
const IDLE_MS: i64 = 300_000;
/// How long the word of a peer counts; other servers repeat it within that.
const SILENT_MS: i64 = 1_800_000;
/// How often a row learns that nothing has changed.
const WRITE_EVERY_MS: i64 = 60_000;
/// Users written in one transaction.
const BATCH_MAX: usize = 500;
/// How often it is looked for whose time is over.
const TICK: Duration = Duration::from_secs(5);
/// How long a change waits until syncs can see it; they hardly ever have to.
const REACH_MAX: Duration = Duration::from_secs(1);

impl Rooms {
    /// Who is there.
    pub(super) fn presence(&self) -> &Presences {
        &self.0.presence
    }

    fn has_presence(&self) -> bool {
        self.ctx().config.presence.enabled
    }
}

/// The presence of a user, for another who shares a room, or for the user.
pub async fn get(rooms: &Rooms, viewer: UserNid, user_id: &UserId) -> Result<Presence, Error> {
    if !rooms.has_presence() {
        return Ok(Presence::default());
    }
    let db = &rooms.ctx().db;
    let hidden = || Error::Forbidden("you are not allowed to see their presence".to_owned());
    let user = db.ids.find_user(user_id).await?.ok_or_else(hidden)?;
    let mut conn = db.conn().await?;
    if user != viewer && !storage::memberships::share_room(&mut conn, viewer, user).await? {
        return Err(hidden());
    }
    if let Some(presence) = rooms.presence().find(user) {
        return Ok(presence);
    }
    let found = storage::presence::find(&mut conn, user).await?;
    Ok(found.map(|(presence, _)| presence).unwrap_or_default())
}

/// Presence as clients are told.
pub fn content(presence: &Presence) -> Value {
    let mut content = json!({
        "presence": presence.state.name(),
        "currently_active": presence.currently_active,
    });
    if presence.last_active_ts > 0 {
        content["last_active_ago"] = json!((now_ms() - presence.last_active_ts).max(0));
    }
    if let Some(text) = &presence.status_msg {
        content["status_msg"] = json!(text);
    }
    content
}

/// Whether a text is one that users may have as their status.
fn is_status(text: &str) -> bool {
    text.len() <= STATUS_BYTES_MAX && !text.contains('\0')
}

/// A user of ours says how it is.
pub async fn set(
    rooms: &Rooms,
    session: &Session,
    state: State,
    status_msg: Option<String>,
) -> Result<(), Error> {
    if !status_msg.as_deref().is_none_or(is_status) {
        let why = format!("a status message is text of at most {STATUS_BYTES_MAX} bytes");
        return Err(Error::InvalidParam(why));
    }
    // As Synapse does it: where there is no presence, nobody minds that it is set.
    if !rooms.has_presence() {
        return Ok(());
    }
    says(rooms, session, Said::Set(state, status_msg)).await
}

/// A client begins to sync, and says by that how its user is; `offline`: nothing. While the guard
/// lives the client is there.
pub async fn synced(rooms: &Rooms, session: &Session, state: State) -> Option<Syncing> {
    if !rooms.has_presence() || state == State::Offline {
        return None;
    }
    // A sync does not fail for it.
    if let Err(error) = says(rooms, session, Said::Sync(state)).await {
        tracing::warn!(%error, "presence was not written");
    }
    rooms.presence().begin(session.user_nid, session.device_no)
}

/// A user of ours did something. Only those whose clients are there count.
pub async fn active(rooms: &Rooms, user_id: &UserId) {
    if !rooms.has_presence() {
        return;
    }
    let noted = async {
        if let Some(user) = rooms.ctx().db.ids.find_user(user_id).await? {
            if rooms.presence().is_stale(user) {
                load(rooms, user).await?;
            }
            rooms.presence().active(user, now_ms());
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = noted.await {
        tracing::warn!(%error, "activity was not noted");
    }
}

/// A user of ours came into a room: servers there may not know yet that it is here.
pub(super) fn joined(rooms: &Rooms, user: UserNid) {
    rooms.presence().tell_of(user);
}

async fn load(rooms: &Rooms, user: UserNid) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let found = storage::presence::find(&mut conn, user).await?;
    rooms.presence().load(user, found);
    Ok(())
}

async fn says(rooms: &Rooms, session: &Session, said: Said) -> Result<(), Error> {
    let user = session.user_nid;
    if !rooms.presence().is_loaded(user) {
        load(rooms, user).await?;
    }
    let is_news = rooms
        .presence()
        .says((user, session.device_no), said, now_ms());
    if is_news {
        flush(rooms, Some(user)).await?;
    }
    Ok(())
}

/// Writes what changed, of all users at once: who waits for its turn finds most often that it is
/// written already. Three statements, however many users.
async fn flush(rooms: &Rooms, awaited: Option<UserNid>) -> Result<(), Error> {
    let (db, presences) = (&rooms.ctx().db, rooms.presence());
    loop {
        let turn = presences.turn().await;
        let due = presences.due(BATCH_MAX);
        let is_written = awaited.is_some_and(|user| !presences.is_due(user));
        if due.is_empty() || is_written {
            return Ok(());
        }
        let mut tx = db.begin().await?;
        let positions = storage::presence::write(&mut tx, &due).await?;
        tx.commit().await?;
        presences.written(&due, &positions, now_ms());
        drop(turn);
        if let Some(last) = positions.last() {
            let _ = tokio::time::timeout(REACH_MAX, db.stream.reached(*last)).await;
        }
    }
}

/// Follows what other nodes write, tells rows who is still there, and ends what is over.
pub async fn look_after(rooms: Rooms) {
    if !rooms.has_presence() {
        return;
    }
    let mut rows = rooms.ctx().db.stream.subscribe();
    if let Err(error) = revive(&rooms).await {
        tracing::warn!(%error, "presence: who was there could not be read");
    }
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            batch = rows.recv() => {
                match batch {
                    Ok(batch) => rooms.presence().heed(&batch),
                    Err(RecvError::Lagged(_)) => rooms.presence().all_stale(),
                    Err(RecvError::Closed) => return,
                }
                Ok(())
            }
            () = rooms.presence().woken() => flush(&rooms, None).await,
            _ = clock.tick() => tick(&rooms).await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "presence is not up to date");
        }
    }
}

/// While no node ran nobody could be seen: who was there has time to come back.
async fn revive(rooms: &Rooms) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::presence::update_all_seen(&mut conn, now_ms()).await?)
}

/// One statement where somebody is here, one that looks whose time is over, three where it is.
async fn tick(rooms: &Rooms) -> Result<(), Error> {
    let (db, presences) = (&rooms.ctx().db, rooms.presence());
    flush(rooms, None).await?;
    let seen = presences.tick(now_ms(), rooms.ctx().config.presence.federation);
    for seen in seen.chunks(BATCH_MAX) {
        let mut conn = db.conn().await?;
        storage::presence::update_seen(&mut conn, seen).await?;
    }
    let now = now_ms();
    let limits = Limits {
        gone_ts: now - GONE_MS,
        // The row may lag.
        idle_ts: now - IDLE_MS - WRITE_EVERY_MS,
        silent_ts: now - SILENT_MS,
    };
    let turn = presences.turn().await;
    let mut tx = db.begin().await?;
    let limit = i64::try_from(BATCH_MAX).unwrap_or(i64::MAX);
    let over = storage::presence::list_over(&mut tx, limits, limit).await?;
    if over.is_empty() {
        return Ok(());
    }
    let positions = storage::presence::write(&mut tx, &over).await?;
    tx.commit().await?;
    presences.replaced(&over, &positions);
    drop(turn);
    Ok(())
}
