//! Sends delayed events when they are due. A node takes them for a time, and sends them in a
//! transaction that their id names: whoever tries again after a crash finds what was sent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{OwnedEventId, events::TimelineEventType};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::{Error, Rooms, state_kind};
use crate::{
    clock::now_ms,
    event::{build::Draft, pdu::Pdu},
    rooms::{
        resident::Room,
        send::{self, Txn},
    },
    storage::{self, RoomNid, UserNid, delayed_events, delayed_events::Delayed},
};

/// How long a node may take to send what it took, before another tries. Both at once send it once.
pub(super) const LEASE_MS: i64 = 15_000;
/// Pause after a failure that may pass.
const AGAIN_AFTER_MS: i64 = 5_000;
/// When nobody tries any more.
const GIVE_UP_AFTER_MS: i64 = 3_600_000;
/// Events that are taken at once.
const AT_ONCE: i64 = 200;
/// Rooms that are sent to at once.
const ROOMS_MAX: usize = 32;
/// How often it is looked what is due: another node may have ended with what it took.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sends, for ever.
pub async fn run(rooms: Rooms) {
    let mut turns: JoinSet<()> = JoinSet::new();
    loop {
        let wait = match start(&rooms, &mut turns).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "delayed events could not be read");
                LOOK_EVERY
            }
        };
        tokio::select! {
            Some(_) = turns.join_next(), if turns.len() >= ROOMS_MAX => {}
            () = rooms.0.delayed.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        while turns.try_join_next().is_some() {}
    }
}

/// Begins with what is due; how long to wait for more.
async fn start(rooms: &Rooms, turns: &mut JoinSet<()>) -> Result<Duration, Error> {
    if turns.len() >= ROOMS_MAX {
        return Ok(LOOK_EVERY);
    }
    let now = now_ms();
    let mut conn = rooms.ctx().db.conn().await?;
    let found = delayed_events::claim_due(&mut conn, (now, now + LEASE_MS), AT_ONCE).await?;
    let next = delayed_events::find_next_due(&mut conn).await?;
    drop(conn);
    let mut by_room: BTreeMap<i64, Vec<Delayed>> = BTreeMap::new();
    for delayed in found {
        by_room.entry(delayed.room_nid).or_default().push(delayed);
    }
    for (_, of_room) in by_room {
        let rooms = rooms.clone();
        // In a room one after the other, in the order in which they are due.
        turns.spawn(async move {
            for delayed in of_room {
                if let Err(error) = deliver(&rooms, &delayed).await {
                    tracing::debug!(%error, "a delayed event was not sent");
                }
            }
        });
    }
    let wait = next.map_or(LOOK_EVERY, |next| {
        let ms = u64::try_from(next - now_ms()).unwrap_or(0);
        Duration::from_millis(ms)
    });
    Ok(wait.min(LOOK_EVERY))
}

/// Sends one that the caller has taken, and notes how that ended.
pub(super) async fn deliver(rooms: &Rooms, delayed: &Delayed) -> Result<(), Error> {
    let sent = send(rooms, delayed).await;
    let mut conn = rooms.ctx().db.conn().await?;
    let now = now_ms();
    let is_late = now - delayed.running_ts - delayed.delay_ms > GIVE_UP_AFTER_MS;
    let error = match &sent {
        Err(Error::Storage(_) | Error::Busy | Error::NotWritten(_) | Error::Incomplete(_))
            if !is_late =>
        {
            let again = now + AGAIN_AFTER_MS;
            delayed_events::update_due(&mut conn, delayed.delay_no, again).await?;
            return sent.map(|_| ());
        }
        Err(error) => Some(error.to_string()),
        Ok(_) => None,
    };
    let event_id = sent.as_ref().ok().and_then(Option::as_deref);
    let event_id = event_id.map(ruma::EventId::as_str);
    let ended = (event_id, error.as_deref());
    delayed_events::update_finalised(&mut conn, delayed.delay_no, ended, now).await?;
    sent.map(|_| ())
}

/// The event; `None`: somebody else has set that state meanwhile, and it is cancelled.
async fn send(rooms: &Rooms, delayed: &Delayed) -> Result<Option<OwnedEventId>, Error> {
    let ctx = rooms.ctx();
    let user = UserNid(delayed.user_nid);
    let sender = ctx.db.ids.user_id(user).await?;
    let mut conn = ctx.db.conn().await?;
    let account = storage::users::find(&mut conn, user).await?;
    drop(conn);
    // Users of application services need no account.
    if account.is_some_and(|it| it.locked || it.suspended || it.deactivated) {
        return Err(Error::Forbidden("the account may not act now".to_owned()));
    }
    let room = rooms.find(RoomNid(delayed.room_nid)).await?;
    let room_id = ctx.db.ids.room_id(RoomNid(delayed.room_nid)).await?;
    let room = room.ok_or_else(|| Error::RoomNotFound(room_id.clone()))?;
    let draft = draft(delayed)?;
    // Once it may have been sent, what stands there may be it.
    if let Some(now) = standing(rooms, &room, &draft).await? {
        let is_new = delayed.seen_event.as_deref() != Some(now.event_id.as_str());
        if is_new && now.sender != sender {
            return Ok(None);
        }
    }
    let txn = Txn::new(&sender, "", "delayed_event", &delayed.delay_id);
    let sent = send::send(rooms, &room_id, &sender, &draft, Some(txn)).await?;
    Ok(Some(sent.event_id))
}

/// The state event that stands where a draft would stand.
pub(super) async fn standing(
    rooms: &Rooms,
    room: &Room,
    draft: &Draft,
) -> Result<Option<Arc<Pdu>>, Error> {
    let Some(key) = &draft.state_key else {
        return Ok(None);
    };
    let head = room.head();
    let kind = state_kind(&draft.kind.to_string());
    rooms
        .state_event(room, &head.state.entries, &kind, key)
        .await
}

fn draft(delayed: &Delayed) -> Result<Draft, Error> {
    #[derive(Deserialize)]
    struct Content {
        redacts: OwnedEventId,
    }
    let content = RawValue::from_string(delayed.content.clone());
    let content = content.map_err(|error| Error::Invalid(error.to_string()))?;
    let kind = TimelineEventType::from(delayed.kind.as_str());
    let mut draft = match &delayed.state_key {
        Some(key) => Draft::state(kind, key.clone(), content),
        None => Draft::message(kind, content),
    };
    if draft.kind == TimelineEventType::RoomRedaction && draft.state_key.is_none() {
        let named: Content = serde_json::from_str(draft.content.get())
            .map_err(|error| Error::Invalid(error.to_string()))?;
        draft.redacts = Some(named.redacts);
    }
    draft.ts = delayed.claimed_ts;
    draft.sticky_ms = delayed.sticky_ms;
    Ok(draft)
}
