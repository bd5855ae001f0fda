//! Rooms joined without their members: used at once, completed in the background (MSC3706,
//! MSC3902; docs/adr/0007).
//!
//! Events that come meanwhile are marked as partial. Completing a room gives them, oldest first,
//! the whole state before them: for what is before our join it is asked of servers in the room,
//! everything after follows from the graph. Events that were judged wrongly are judged anew. At
//! last the current state is what the extremities say, and the room is like any other. Each step is
//! on disk before the next, so that a restart goes on where it was.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedEventId, OwnedServerName, RoomId};
use tokio::sync::{Semaphore, watch};

use super::{
    Error, Rooms,
    before::{merge, state_after, with_event},
    catch_up,
    locks::Lock,
    membership, missing,
    pdus::Event,
    persist::{Accepted, Plan, Written},
    place::{known_nids, replace_state, slice_for},
    receive,
    resident::Room,
    state::State,
};
use crate::{
    event::auth,
    storage::{self, RoomNid, append::flag, partial::Restated},
};

/// Rooms that are completed at the same time.
const ROOMS_AT_ONCE: usize = 32;
/// Rooms taken up in one look.
const ROOMS_MAX: i64 = 1_000;
/// How often rooms are looked for that nobody completes.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Events that get their state at once.
const EVENTS_AT_ONCE: i64 = 100;
/// Events shown late at once; more wait for another turn.
const LATE_MAX: i64 = 1_000;
/// Servers asked for the state in one try.
const SERVERS_MAX: usize = 20;
/// Pause after the first try that failed, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_LONGEST: Duration = Duration::from_mins(10);
/// How long a request waits for the members of a room.
const WAIT: Duration = Duration::from_mins(1);

/// Rooms that this process completes.
#[derive(Debug)]
pub(super) struct Completing {
    underway: Mutex<HashSet<RoomNid>>,
    places: Semaphore,
    /// Counts rooms that became whole, for whoever waits for one.
    whole: watch::Sender<u64>,
}

impl Default for Completing {
    fn default() -> Self {
        Self {
            underway: Mutex::default(),
            places: Semaphore::new(ROOMS_AT_ONCE),
            whole: watch::Sender::new(0),
        }
    }
}

impl Rooms {
    /// The room, once its state is whole. Waits for that where it is not; a room that we have left
    /// and nobody tells us more of is given as it is.
    pub async fn whole(&self, room_id: &RoomId) -> Result<Arc<Room>, Error> {
        let mut whole = self.0.partial.whole.subscribe();
        let wait = async {
            loop {
                let room = self.by_id(room_id).await?;
                let is_hopeless = !self.0.partial.underway().contains(&room.nid);
                if !room.partial || is_hopeless && !membership::we_are_in(self, room_id).await? {
                    return Ok(room);
                }
                // The sender lives as long as self.
                let _ = whole.changed().await;
            }
        };
        match tokio::time::timeout(WAIT, wait).await {
            Ok(room) => room,
            Err(_) => Err(Error::Incomplete(room_id.to_owned())),
        }
    }

    /// The state of a room is whole now, by this or by another node.
    pub(super) async fn now_whole(&self, nid: RoomNid) {
        if let Some(room) = self.0.resident.get(&nid).await
            && room.partial
        {
            self.evict(nid).await;
        }
        self.0.partial.whole.send_modify(|count| *count += 1);
    }
}

/// Completes rooms that nobody completes: after a restart, or when another node has ended.
pub async fn look_after(rooms: Rooms) {
    loop {
        let found = async {
            let mut conn = rooms.ctx().db.conn().await?;
            storage::partial::list(&mut conn, ROOMS_MAX).await
        };
        match found.await {
            Ok(found) => found
                .into_iter()
                .for_each(|nid| complete_later(&rooms, nid)),
            Err(error) => tracing::warn!(%error, "partial rooms could not be read"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Completes a room in the background, unless that is under way.
pub(super) fn complete_later(rooms: &Rooms, nid: RoomNid) {
    let is_new = rooms.0.partial.underway().insert(nid);
    if is_new {
        let rooms = rooms.clone();
        tokio::spawn(async move {
            complete_at_last(&rooms, nid).await;
            rooms.0.partial.underway().remove(&nid);
            rooms.0.partial.whole.send_modify(|count| *count += 1);
        });
    }
}

impl Completing {
    fn underway(&self) -> std::sync::MutexGuard<'_, HashSet<RoomNid>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries until the room is whole, or nobody of ours is in it any more.
async fn complete_at_last(rooms: &Rooms, nid: RoomNid) {
    let mut pause = PAUSE_FIRST;
    loop {
        let place = rooms.0.partial.places.acquire().await;
        match attempt(rooms, nid).await {
            Ok(Attempt::Whole | Attempt::NotOurs) => return,
            Ok(Attempt::Again) => {}
            Err(error) => tracing::info!(%error, room = nid.0, "a room could not be completed yet"),
        }
        drop(place);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}

/// How a try ended.
enum Attempt {
    /// The state is whole.
    Whole,
    /// Another node is at it, or nobody of ours is in the room: no server would tell us its state.
    NotOurs,
    /// To be tried again.
    Again,
}

async fn attempt(rooms: &Rooms, nid: RoomNid) -> Result<Attempt, Error> {
    let lock = Lock::Partial(nid);
    if !rooms.0.locks.try_lock(rooms, lock).await? {
        return Ok(Attempt::NotOurs);
    }
    let done = complete(rooms, nid).await;
    rooms.0.locks.unlock(lock).await;
    if done.is_err() {
        let mut conn = rooms.ctx().db.conn().await?;
        storage::partial::update_tries(&mut conn, nid).await?;
        drop(conn);
        // Who has left is told the state as a favour, or not at all.
        let room = rooms.find(nid).await?;
        if let Some(room) = room
            && !membership::we_are_in(rooms, &room.id).await?
        {
            return Ok(Attempt::NotOurs);
        }
    }
    done
}

async fn complete(rooms: &Rooms, nid: RoomNid) -> Result<Attempt, Error> {
    // Events that others name as predecessors: they are no extremities.
    let mut named: HashSet<OwnedEventId> = HashSet::new();
    loop {
        let Some(room) = rooms.find(nid).await?.filter(|room| room.partial) else {
            return Ok(Attempt::Whole);
        };
        let mut conn = rooms.ctx().db.conn().await?;
        let batch =
            storage::partial::list_events(&mut conn, nid, flag::PARTIAL, EVENTS_AT_ONCE).await?;
        drop(conn);
        let events = rooms.parse(&room, batch)?;
        if events.is_empty() {
            if finish(rooms, &room, &named).await? {
                return Ok(Attempt::Whole);
            }
            continue;
        }
        named.extend(
            events
                .iter()
                .flat_map(|event| event.pdu.prev_events.clone()),
        );
        if restate(rooms, &room, events).await? == 0 {
            return Ok(Attempt::Again);
        }
    }
}

/// What is known of events within a batch, before it is written.
#[derive(Default)]
struct Batch {
    /// State before an event, stored.
    before: HashMap<OwnedEventId, State>,
    /// State after an event.
    after: HashMap<OwnedEventId, State>,
    rows: Vec<Restated>,
}

/// Gives events the whole state before them; how many.
async fn restate(rooms: &Rooms, room: &Arc<Room>, events: Vec<Event>) -> Result<usize, Error> {
    let wanted: Vec<OwnedEventId> = events
        .iter()
        .flat_map(|event| event.pdu.prev_events.clone())
        .collect();
    let known: HashMap<OwnedEventId, Event> = rooms
        .events_by_id(room, &wanted)
        .await?
        .into_iter()
        .filter(|event| !event.stored.is_outlier())
        .map(|event| (event.pdu.event_id.clone(), event))
        .collect();
    let mut batch = Batch::default();
    let mut plan = Plan::outliers(room);
    for event in &events {
        let Some(mut before) = state_before(rooms, room, event, (&known, &batch)).await? else {
            // A predecessor waits itself; its turn comes first.
            continue;
        };
        if before.snap == 0 {
            let snap = rooms.take_nids(1).await?.start;
            let base = base_of(rooms, room, event, (&known, &batch)).await?;
            let (stored, rows) = base.replace(room.nid.0, snap, before.entries);
            plan.store_state(rows);
            before = stored;
        }
        let rejected = is_rejected(rooms, room, event, &before).await?;
        batch.rows.push(Restated {
            nid: event.stored.nid.0,
            snap: before.snap,
            rejected,
        });
        batch
            .before
            .insert(event.pdu.event_id.clone(), before.clone());
        let after = with_event(rooms, before, (event, rejected)).await?;
        batch.after.insert(event.pdu.event_id.clone(), after);
    }
    plan.write_outliers(rooms).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    storage::partial::update_events(&mut conn, room.nid, &batch.rows).await?;
    drop(conn);
    for row in &batch.rows {
        // It remembers whether it is rejected.
        rooms.forget_pdu(row.nid);
    }
    Ok(batch.rows.len())
}

/// The whole state before an event; `None`: a predecessor has none yet.
async fn state_before(
    rooms: &Rooms,
    room: &Arc<Room>,
    event: &Event,
    (known, batch): (&HashMap<OwnedEventId, Event>, &Batch),
) -> Result<Option<State>, Error> {
    let mut states = Vec::new();
    let mut missing = Vec::new();
    for id in &event.pdu.prev_events {
        if let Some(state) = batch.after.get(id) {
            states.push(state.clone());
        } else if let Some(prev) = known.get(id) {
            if prev.stored.is_partial() {
                return Ok(None);
            }
            states.extend(state_after(rooms, room, prev).await?);
        } else {
            missing.push(id.clone());
        }
    }
    if !missing.is_empty() {
        states.extend(ask(rooms, room, event, &missing).await?);
    }
    Ok(Some(merge(rooms, room, states, &[]).await?))
}

/// States after predecessors that we lack, of the first server that tells.
async fn ask(
    rooms: &Rooms,
    room: &Arc<Room>,
    event: &Event,
    missing: &[OwnedEventId],
) -> Result<Vec<State>, Error> {
    let mut last = Error::Remote("no server is left to ask for the state".to_owned());
    for server in servers(rooms, room, event).await? {
        match missing::missing_states(rooms, room, &server, (&event.pdu, missing)).await {
            Ok(states) => return Ok(states),
            Err(error @ (Error::Storage(_) | Error::NotWritten(_))) => return Err(error),
            Err(error) => {
                tracing::info!(%error, %server, room_id = %room.id, "a peer did not tell the state");
                last = error;
            }
        }
    }
    Err(last)
}

/// Servers to ask: the one that let us in, the sender's, then those with most members.
async fn servers(rooms: &Rooms, room: &Room, event: &Event) -> Result<Vec<OwnedServerName>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let through = storage::partial::joined_through(&mut conn, room.nid).await?;
    let nids = storage::memberships::list_servers(&mut conn, room.nid).await?;
    drop(conn);
    let mut servers = Vec::new();
    if let Some(nid) = through {
        servers.push(rooms.ctx().db.ids.server_name(nid).await?);
    }
    servers.push(event.pdu.sender.server_name().to_owned());
    for nid in nids.into_iter().take(SERVERS_MAX) {
        servers.push(rooms.ctx().db.ids.server_name(nid).await?);
    }
    let own = rooms.ctx().server_name();
    let mut seen = HashSet::new();
    servers.retain(|server| server != own && seen.insert(server.clone()));
    Ok(servers)
}

/// A stored state that the one before an event differs little from; the empty one, where nothing
/// before it is whole.
async fn base_of(
    rooms: &Rooms,
    room: &Room,
    event: &Event,
    (known, batch): (&HashMap<OwnedEventId, Event>, &Batch),
) -> Result<State, Error> {
    for id in &event.pdu.prev_events {
        if let Some(state) = batch.before.get(id) {
            return Ok(state.clone());
        }
        if let Some(snap) = known.get(id).and_then(|prev| prev.stored.snap) {
            return rooms.state_of(room.nid, snap).await;
        }
    }
    Ok(State::default())
}

/// Checks 4 and 5 once more.
async fn is_rejected(
    rooms: &Rooms,
    room: &Room,
    event: &Event,
    before: &State,
) -> Result<bool, Error> {
    // Who was not rejected passed check 4, which no state changes.
    if event.stored.is_rejected()
        && !receive::authorized_by_its_events(rooms, room, &event.pdu).await?
    {
        return Ok(true);
    }
    let slice = slice_for(rooms, room, before, &event.pdu).await?;
    Ok(auth::check(&room.version, &event.pdu, |kind, key| slice.get(kind, key)).is_err())
}

/// Makes the state of the extremities the current one, shows what was accepted late, and ends the
/// partial stay. `false`: there is more to do before.
async fn finish(
    rooms: &Rooms,
    room: &Arc<Room>,
    named: &HashSet<OwnedEventId>,
) -> Result<bool, Error> {
    let mut tip = room.tip.lock().await;
    if room.is_dead() {
        return Ok(false);
    }
    room.committed(tip.rev).await;
    let mut conn = rooms.ctx().db.conn().await?;
    if !storage::partial::list_events(&mut conn, room.nid, flag::PARTIAL, 1)
        .await?
        .is_empty()
    {
        return Ok(false);
    }
    let late = storage::partial::list_events(&mut conn, room.nid, flag::LATE, LATE_MAX).await?;
    drop(conn);
    let late = rooms.parse(room, late)?;
    let known = catch_up::Before::load(rooms, room).await?;
    let mut plan = Plan::new(room, &tip);
    let mut ends = extremities(rooms, room, &tip.extremities).await?;
    for event in late
        .iter()
        .filter(|event| !named.contains(&event.pdu.event_id))
    {
        ends.push(event.clone());
    }
    let mut states = Vec::new();
    for end in &ends {
        states.extend(state_after(rooms, room, end).await?);
    }
    let entries = merge(rooms, room, states, &[]).await?.entries;
    plan.head.extremities = ends
        .iter()
        .map(|end| (end.stored.nid.0, end.pdu.event_id.clone()))
        .collect();
    replace_state(rooms, room, &mut plan, entries).await?;
    for event in &late {
        plan.add(rooms, shown(rooms, room, event).await?).await?;
    }
    let (head, pending) = plan.commit(rooms).await?;
    *tip = head;
    if let Written::Stale = pending.written(rooms).await? {
        return Ok(false);
    }
    // Still under the lock: what is placed from here on finds the room whole.
    let mut tx = rooms.ctx().db.begin().await?;
    storage::partial::finish(&mut tx, room.nid).await?;
    tx.commit().await?;
    if let Err(error) = catch_up::catch_up(rooms, room, &known).await {
        tracing::warn!(%error, room_id = %room.id, "some were not told of changed devices");
    }
    rooms.now_whole(room.nid).await;
    tracing::info!(room_id = %room.id, "the members of a room are all known");
    Ok(true)
}

/// The extremities, without those that are rejected now: their predecessors take their place.
async fn extremities(
    rooms: &Rooms,
    room: &Room,
    known: &[(i64, OwnedEventId)],
) -> Result<Vec<Event>, Error> {
    let nids: Vec<i64> = known.iter().map(|(nid, _)| *nid).collect();
    let mut found: Vec<Event> = Vec::new();
    let mut look = rooms.events_by_nid(room, &nids).await?;
    // Each turn goes a generation back; a room has many accepted events behind few rejected ones.
    for _ in 0..EVENTS_AT_ONCE {
        let (bad, good): (Vec<_>, Vec<_>) = look
            .into_iter()
            .filter(|event| !event.stored.is_outlier())
            .partition(|event| event.stored.is_rejected() || event.stored.is_soft_failed());
        found.extend(good);
        let prev: Vec<OwnedEventId> = bad
            .iter()
            .flat_map(|event| event.pdu.prev_events.clone())
            .collect();
        if prev.is_empty() {
            break;
        }
        look = rooms.events_by_id(room, &prev).await?;
    }
    found.sort_by_key(|event| event.stored.nid.0);
    found.dedup_by_key(|event| event.stored.nid.0);
    Ok(found)
}

/// An event that is accepted after all, as it goes to the end of the timeline.
async fn shown(rooms: &Rooms, room: &Room, event: &Event) -> Result<Accepted, Error> {
    Ok(Accepted {
        pdu: event.pdu.clone(),
        nid: event.stored.nid.0,
        known: true,
        flags: event.stored.flags & !flag::LATE,
        snap: event.stored.snap,
        prev: known_nids(rooms, room, &event.pdu.prev_events).await?,
        auth: known_nids(rooms, room, &event.pdu.auth_events).await?,
        out: None,
        seq: None,
        sticks: true,
    })
}
