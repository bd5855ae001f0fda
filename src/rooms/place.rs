//! Putting a checked event of any server into the graph: state before it, authorization against
//! that and against the current state, new extremities, new current state.

use std::sync::Arc;

use ruma::{OwnedEventId, events::TimelineEventType};

use super::{
    ATTEMPTS_MAX, Error, Rooms, backfill,
    before::{merge, state_after, state_before, widened},
    pdus::{Event, StateSlice},
    persist::{Accepted, Pending, Plan, Written, is_local},
    resident::{Head, Room},
    send::{has_redact_power, with_create},
    state::State,
    unredacted,
};
use crate::{
    event::{auth, pdu::Pdu, redact::redact},
    storage::{self, append::flag},
};

/// Forward extremities kept; more would make every state a large merge. They are joined long before
/// (see [`super::ends`]), where a user of ours can.
const EXTREMITIES_MAX: usize = 100;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In the timeline.
    Accepted,
    /// Fails authorization against its auth events or the state before it.
    Rejected,
    /// Fails it against the current state.
    SoftFailed,
}

impl Verdict {
    /// The flag of the event's row.
    fn flag(self) -> i32 {
        match self {
            Self::Accepted => 0,
            Self::Rejected => flag::REJECTED,
            Self::SoftFailed => flag::SOFT_FAILED,
        }
    }
}

/// An event whose form, signatures and auth events are checked, and whose predecessors are stored
/// or given up on.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The event.
    pub pdu: Arc<Pdu>,
    /// Its row, if it is stored already (as an outlier).
    pub known: Option<i64>,
    /// Fails against its auth events.
    pub rejected: bool,
    /// Not to be acted on as if it came just now: the room's policy server has not signed it, or we
    /// have nothing to do with the server of its sender.
    pub set_aside: bool,
    /// Predecessors that could not be had.
    pub missing: Vec<OwnedEventId>,
    /// States after those of its predecessors that are missing, as a peer tells.
    pub states: Vec<State>,
    /// Numbers of its auth events.
    pub auth: Vec<i64>,
    /// Redactions of it that came before it.
    pub redactions: Vec<i64>,
    /// Owed to peers: it is ours.
    pub out: Option<i32>,
    /// The client's transaction that it answers.
    pub txn: Option<uuid::Uuid>,
}

impl Incoming {
    /// An event with known predecessors and auth events that is not stored.
    pub(super) async fn new(rooms: &Rooms, room: &Room, pdu: Arc<Pdu>) -> Result<Self, Error> {
        let auth = known_nids(rooms, room, &pdu.auth_events).await?;
        let mut conn = rooms.ctx().db.conn().await?;
        let targets = [pdu.event_id.to_string()];
        let waiting = storage::events::redactions_of(&mut conn, room.nid, &targets).await?;
        Ok(Self {
            pdu,
            known: None,
            rejected: false,
            set_aside: false,
            missing: Vec::new(),
            states: Vec::new(),
            auth,
            redactions: waiting.into_iter().map(|(_, event, _)| event).collect(),
            out: None,
            txn: None,
        })
    }
}

/// A placed event that is being written.
pub(super) struct Placed {
    /// What became of it.
    pub(super) verdict: Verdict,
    /// Its number.
    pub(super) nid: i64,
    room: Arc<Room>,
    pending: Pending,
}

impl Placed {
    /// The copy of the room that it was placed on.
    pub(super) fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    /// Waits until it is on disk; `false`: it is not, since the room changed under our feet.
    pub(super) async fn written(self, rooms: &Rooms) -> Result<bool, Error> {
        let written = matches!(self.pending.written(rooms).await?, Written::Yes(_));
        if written {
            super::ends::join_if_many(rooms, &self.room);
        }
        Ok(written)
    }
}

/// Places an event, and writes it.
pub async fn place(
    rooms: &Rooms,
    room_nid: storage::RoomNid,
    event: Incoming,
) -> Result<Verdict, Error> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(placed) = begin(rooms, room_nid, &event, None).await? {
            let verdict = placed.verdict;
            if placed.written(rooms).await? {
                return Ok(verdict);
            }
        }
    }
    Err(Error::Busy)
}

/// Places an event and queues it for writing; what follows it may be placed at once. Where it
/// leans on what was queued before, `on` is the copy of the room that has it; `None`: that copy is
/// not in use any more, and what was queued on it may never be written.
pub(super) async fn begin(
    rooms: &Rooms,
    room_nid: storage::RoomNid,
    event: &Incoming,
    on: Option<&Arc<Room>>,
) -> Result<Option<Placed>, Error> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(room) = rooms.find(room_nid).await? else {
            return Err(Error::RoomNotFound(event.pdu.room_id.clone()));
        };
        if on.is_some_and(|on| !Arc::ptr_eq(on, &room)) {
            return Ok(None);
        }
        let mut tip = room.tip.lock().await;
        if room.is_dead() {
            continue;
        }
        let (plan, verdict, nid) = plan(rooms, &room, &tip, event).await?;
        let (head, pending) = plan.commit(rooms).await?;
        *tip = head;
        drop(tip);
        return Ok(Some(Placed {
            verdict,
            nid,
            room,
            pending,
        }));
    }
    Err(Error::Busy)
}

async fn plan(
    rooms: &Rooms,
    room: &Arc<Room>,
    tip: &Head,
    event: &Incoming,
) -> Result<(Plan, Verdict, i64), Error> {
    let mut plan = Plan::new(room, tip);
    let pdu = &event.pdu;
    let found = state_before(rooms, room, tip, event).await?;
    let (prev, partial) = (found.prev, found.partial);
    let before = kept(rooms, room, tip, found.state, &mut plan).await?;
    let slice = if partial {
        let widened = widened(rooms, room, &before, pdu).await?;
        slice_for(rooms, room, &widened, pdu).await?
    } else {
        slice_for(rooms, room, &before, pdu).await?
    };
    let rejected = event.rejected
        || auth::check(&room.version, pdu, |kind, key| slice.get(kind, key)).is_err();
    let verdict = if rejected {
        Verdict::Rejected
    } else if event.set_aside || is_late(rooms, room, tip, (pdu, &before)).await? {
        Verdict::SoftFailed
    } else {
        Verdict::Accepted
    };
    let pdu = as_stored(rooms, room, event, rejected).await?;
    let is_redacted = pdu.json != event.pdu.json;
    let nid = match event.known {
        Some(nid) => nid,
        None => one_nid(rooms).await?,
    };
    let is_above_gap = verdict == Verdict::Accepted && !event.missing.is_empty();
    if is_above_gap {
        // What is missing may come later, and has its place below.
        plan.head.seq += backfill::GAP;
    }
    let flags = [
        (is_local(rooms, &pdu.sender), flag::LOCAL),
        (partial, flag::PARTIAL),
        (is_redacted, flag::REDACTED),
        (is_above_gap, flag::GAP),
    ];
    let flags = flags.iter().filter(|(is_so, _)| *is_so);
    let flags = flags.fold(verdict.flag(), |flags, (_, flag)| flags | flag);
    plan.add(
        rooms,
        Accepted {
            pdu: pdu.clone(),
            nid,
            known: event.known.is_some(),
            flags,
            snap: Some(before.snap),
            prev,
            auth: event.auth.clone(),
            out: event.out.filter(|_| verdict == Verdict::Accepted),
            seq: None,
            sticks: !event.set_aside,
        },
    )
    .await?;
    plan.missing(nid, &event.missing);
    if let Some(txn) = event.txn {
        plan.txn(txn, nid);
    }
    if verdict == Verdict::Accepted {
        let placed = (nid, &pdu, &*event.auth);
        accept(rooms, room, &mut plan, tip, placed, &before).await?;
        redactions(rooms, room, &mut plan, (nid, &pdu), &slice).await?;
    }
    Ok((plan, verdict, nid))
}

/// The state before an event with a number, stored with it where it is new.
async fn kept(
    rooms: &Rooms,
    room: &Room,
    tip: &Head,
    mut before: State,
    plan: &mut Plan,
) -> Result<State, Error> {
    if before.snap == 0 && before.entries == tip.state.entries {
        before = tip.state.clone();
    }
    if before.snap == 0 && !before.entries.is_empty() {
        let snap = one_nid(rooms).await?;
        let entries = std::mem::take(&mut before.entries);
        let (stored, rows) = nearest(tip, &entries).replace(room.nid.0, snap, entries);
        plan.store_state(rows);
        before = stored;
    }
    Ok(before)
}

/// Check 6: whether the current state does not allow what the state before it does.
async fn is_late(
    rooms: &Rooms,
    room: &Room,
    tip: &Head,
    (pdu, before): (&Arc<Pdu>, &State),
) -> Result<bool, Error> {
    // Who is in a room is not known well enough to keep anything back while members lack.
    if before.snap == tip.state.snap || room.partial {
        return Ok(false);
    }
    Ok(!passes(rooms, room, &tip.state, pdu).await?)
}

/// A rejected event is remembered as such, so that what names it as auth event is rejected too.
async fn as_stored(
    rooms: &Rooms,
    room: &Room,
    event: &Incoming,
    rejected: bool,
) -> Result<Arc<Pdu>, Error> {
    let mut pdu = event.pdu.clone();
    if rejected && !pdu.rejected {
        Arc::make_mut(&mut pdu).rejected = true;
    }
    // Its redaction may have come before it.
    for redaction in rooms.pdus(room, &event.redactions).await? {
        let head = room.head();
        let slice = slice_for(rooms, room, &head.state, &redaction).await?;
        if redaction.sender == pdu.sender || has_redact_power(room, &redaction, &slice) {
            return Ok(Arc::new(redact(&pdu, &room.version)?));
        }
    }
    Ok(pdu)
}

async fn one_nid(rooms: &Rooms) -> Result<i64, Error> {
    Ok(rooms.take_nids(1).await?.start)
}

/// The state to store a merged state as a delta on.
fn nearest(tip: &Head, entries: &super::state::Entries) -> State {
    // The current state is nearly always a few keys away; for a state from elsewhere (most of the
    // room differs) a root of its own is smaller.
    if entries.len() * 2 > tip.state.entries.len() && !tip.state.entries.is_empty() {
        tip.state.clone()
    } else {
        State::default()
    }
}

pub(super) async fn slice_for(
    rooms: &Rooms,
    room: &Room,
    state: &State,
    pdu: &Pdu,
) -> Result<StateSlice, Error> {
    let keys = auth::types(
        &pdu.kind,
        &pdu.sender,
        pdu.state_key.as_deref(),
        &pdu.content,
        &room.version,
    )
    // An event whose content authorization cannot read fails the check that follows.
    .unwrap_or_default();
    rooms
        .state_events(room, &state.entries, &with_create(keys))
        .await
}

pub(super) async fn passes(
    rooms: &Rooms,
    room: &Room,
    state: &State,
    pdu: &Arc<Pdu>,
) -> Result<bool, Error> {
    let slice = slice_for(rooms, room, state, pdu).await?;
    Ok(auth::check(&room.version, pdu, |kind, key| slice.get(kind, key)).is_ok())
}

pub(super) async fn known_nids(
    rooms: &Rooms,
    room: &Room,
    ids: &[OwnedEventId],
) -> Result<Vec<i64>, Error> {
    Ok(rooms
        .events_by_id(room, ids)
        .await?
        .iter()
        .map(|event| event.stored.nid.0)
        .collect())
}

/// New extremities and new current state after an accepted event.
async fn accept(
    rooms: &Rooms,
    room: &Arc<Room>,
    plan: &mut Plan,
    tip: &Head,
    (nid, pdu, auth): (i64, &Arc<Pdu>, &[i64]),
    before: &State,
) -> Result<(), Error> {
    plan.extend(nid, pdu);
    let change = match &pdu.state_key {
        Some(key) => Some((
            rooms.ctx().db.ids.skey(&pdu.kind.to_string(), key).await?.0,
            nid,
        )),
        None => None,
    };
    if before.snap == tip.state.snap && plan.head.extremities.len() == 1 {
        if let Some(change) = change {
            let snap = one_nid(rooms).await?;
            plan.advance_state(rooms, snap, &[change]).await?;
        }
        return Ok(());
    }
    if plan.head.extremities.len() == 1 {
        // It joins all branches: the state after it is the current one.
        let mut entries = before.entries.clone();
        if let Some((skey, event)) = change {
            entries.insert(skey, event);
        }
        return replace_state(rooms, room, plan, entries).await;
    }
    if plan.head.extremities.len() > EXTREMITIES_MAX {
        let surplus = plan.head.extremities.len() - EXTREMITIES_MAX;
        plan.head.extremities.drain(..surplus);
    }
    if change.is_none() && before.snap == tip.state.snap {
        return Ok(());
    }
    let mut states = Vec::new();
    let others: Vec<i64> = plan.head.extremities.iter().map(|(nid, _)| *nid).collect();
    for other in rooms.events_by_nid(room, &others).await? {
        states.extend(state_after(rooms, room, &other).await?);
    }
    let mut after = before.clone();
    if let Some((skey, event)) = change {
        after.entries.insert(skey, event);
        after.snap = 0;
    }
    states.push(after);
    let entries = merge(rooms, room, states, &[(nid, auth.to_vec())])
        .await?
        .entries;
    replace_state(rooms, room, plan, entries).await
}

pub(super) async fn replace_state(
    rooms: &Rooms,
    room: &Room,
    plan: &mut Plan,
    entries: super::state::Entries,
) -> Result<(), Error> {
    if entries == plan.head.state.entries {
        return Ok(());
    }
    let snap = one_nid(rooms).await?;
    let (state, rows) = plan.head.state.replace(room.nid.0, snap, entries);
    plan.store_state(rows);
    plan.set_state(rooms, state).await
}

/// Applies the event as a redaction, or notes it for a target that has not come.
async fn redactions(
    rooms: &Rooms,
    room: &Room,
    plan: &mut Plan,
    (nid, pdu): (i64, &Arc<Pdu>),
    slice: &StateSlice,
) -> Result<(), Error> {
    let (TimelineEventType::RoomRedaction, Some(target_id)) = (&pdu.kind, &pdu.redacts) else {
        return Ok(());
    };
    let target = rooms.event_by_id(room, target_id).await?;
    let allowed =
        |target: &Event| target.pdu.sender == pdu.sender || has_redact_power(room, pdu, slice);
    let pruned = unredacted::prune(rooms, room, target.filter(allowed).as_ref()).await?;
    plan.redact(
        nid,
        target_id.as_str(),
        pruned.as_ref().map(|(nid, pdu)| (*nid, pdu)),
    );
    Ok(())
}
