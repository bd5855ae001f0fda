//! Subscriptions to threads (MSC4306): where they are on, messages in a thread notify those who are
//! subscribed to it, and no others.

use std::collections::{HashMap, HashSet};

use ruma::{EventId, RoomId};

use super::key_of;
use crate::{
    event::{
        pdu::Pdu,
        relation::{Relation, THREAD},
    },
    rooms::{Error, Rooms, resident::Room, timeline},
    storage::{
        self, LogEntry, LogKind, RoomNid, Tx, UserNid,
        thread_subscriptions::{self, Key, Outcome},
    },
    users::tokens::Session,
};

/// A thread: its room and the event at its root.
pub type Thread<'a> = (&'a RoomId, &'a EventId);

/// Who of some users is subscribed to the threads of some events, by event; events that are in no
/// thread are left out.
#[derive(Debug, Default)]
pub struct Subscribed(HashMap<i64, HashSet<i64>>);

impl Subscribed {
    /// Looks at events, given as (room, event); at none where subscriptions are off.
    pub async fn read(
        rooms: &Rooms,
        events: &[(i64, i64)],
        users: &[UserNid],
    ) -> Result<Self, Error> {
        if !is_on(rooms) || events.is_empty() {
            return Ok(Self::default());
        }
        let users: Vec<i64> = users.iter().map(|user| user.0).collect();
        let mut conn = rooms.ctx().db.conn().await?;
        let found = thread_subscriptions::list_of_events(&mut conn, events, &users).await?;
        let found = found.into_iter();
        Ok(Self(
            found
                .map(|(event, users)| (event, users.into_iter().collect()))
                .collect(),
        ))
    }

    /// Who is subscribed to the thread of an event; `None`: it is in none.
    pub(in crate::rooms) fn to(&self, event: i64) -> Option<&HashSet<i64>> {
        self.0.get(&event)
    }
}

/// Whether subscriptions are on.
pub fn is_on(rooms: &Rooms) -> bool {
    rooms.ctx().config.unstable.thread_subscriptions
}

/// Who is subscribed to the thread of an event that is not written yet; `None`: it is in none, or
/// subscriptions are off.
pub(in crate::rooms) async fn subscribers(
    rooms: &Rooms,
    room: &Room,
    pdu: &Pdu,
) -> Result<Option<Vec<i64>>, Error> {
    if !is_on(rooms) {
        return Ok(None);
    }
    let Some(relation) = Relation::of(pdu) else {
        return Ok(None);
    };
    let parent = key_of(&relation.event_id);
    let thread = parent.filter(|_| relation.rel_type == THREAD);
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(thread_subscriptions::list_subscribers(&mut conn, room.nid, (thread, parent)).await?)
}

/// Whether a user is subscribed to a thread, and whether a client did that by itself.
pub async fn find(
    rooms: &Rooms,
    session: &Session,
    thread: Thread<'_>,
) -> Result<Option<bool>, Error> {
    let key = key(rooms, session, thread).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(thread_subscriptions::find(&mut conn, key).await?)
}

/// Subscribes a user. `cause`: the event in the thread for which a client does so by itself.
pub async fn subscribe(
    rooms: &Rooms,
    session: &Session,
    thread: Thread<'_>,
    cause: Option<&EventId>,
) -> Result<(), Error> {
    let key = key(rooms, session, thread).await?;
    let (room_id, root) = thread;
    let cause = match cause {
        None => None,
        Some(cause) => Some(place(rooms, session, (room_id, cause), root).await?),
    };
    let mut tx = rooms.ctx().db.begin().await?;
    match thread_subscriptions::subscribe(&mut tx, key, root.as_str(), cause).await? {
        Outcome::Changed => Ok(log(tx, key).await?),
        Outcome::Same => Ok(()),
        Outcome::Ended => Err(Error::Unsubscribed),
    }
}

/// Ends the subscription of a user; nothing happens where there is none.
pub async fn unsubscribe(
    rooms: &Rooms,
    session: &Session,
    thread: Thread<'_>,
) -> Result<(), Error> {
    let key = key(rooms, session, thread).await?;
    let mut tx = rooms.ctx().db.begin().await?;
    if thread_subscriptions::unsubscribe(&mut tx, key).await? {
        log(tx, key).await?;
    }
    Ok(())
}

/// Tells the user's devices.
async fn log(mut tx: Tx, key: Key) -> Result<(), storage::Error> {
    let (UserNid(user), RoomNid(room), _) = key;
    let entry = LogEntry {
        kind: LogKind::ThreadSubscription,
        room,
        user,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    thread_subscriptions::update_pos(&mut tx, key, pos).await?;
    tx.commit().await
}

/// A thread whose root the user may see.
async fn key(
    rooms: &Rooms,
    session: &Session,
    (room_id, event_id): Thread<'_>,
) -> Result<Key, Error> {
    if !is_on(rooms) {
        return Err(Error::SwitchedOff);
    }
    let found = timeline::event(rooms, room_id, &session.user_id, event_id).await;
    let room = match found {
        Ok((room, ..)) => room,
        // Who may not see it is not told whether it exists.
        Err(Error::NotJoined { .. }) => return Err(Error::EventNotFound),
        Err(error) => return Err(error),
    };
    let thread = key_of(event_id).ok_or(Error::EventNotFound)?;
    Ok((session.user_nid, room.nid, thread))
}

/// The place of an event of a thread that the user may see.
async fn place(
    rooms: &Rooms,
    session: &Session,
    (room_id, event_id): (&RoomId, &EventId),
    root: &EventId,
) -> Result<i64, Error> {
    let (_, _, event) = timeline::event(rooms, room_id, &session.user_id, event_id).await?;
    let relation = Relation::of(&event.pdu);
    let is_there = relation.is_some_and(|it| it.rel_type == THREAD && it.event_id == root);
    event
        .stored
        .seq
        .filter(|_| is_there)
        .ok_or(Error::NotInThread)
}
