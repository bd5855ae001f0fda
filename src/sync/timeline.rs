//! Timelines of rooms, the states that were told of them, and their members: read for many rooms at
//! once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use ruma::events::{TimelineEventType, room::member::MembershipState};

use super::{
    Error,
    memory::{Counts, Known, Memory},
};
use crate::{
    rooms::{
        Event, Rooms,
        ready::{self, Page},
        resident::Room,
        state::Entries,
    },
    storage::{self, Pos, RoomNid, UserNid, memberships::UserRoom, sync::Span},
    users::{invite_permission::Wishes, tokens::Session},
};

/// How often the rooms of a user are read that change meanwhile.
const TURNS_MAX: usize = 3;

/// The user whose sync it is.
pub(super) struct Mine {
    pub(super) known: Arc<Known>,
    /// What is told goes up to here.
    pub(super) upto: Pos,
}

impl Mine {
    /// Reads after the position is taken: what is below it is seen. What is above is waited for, so
    /// that no membership is beyond what is told.
    pub(super) async fn read(
        rooms: &Rooms,
        memory: &Memory,
        session: &Session,
    ) -> Result<Self, Error> {
        let (db, user) = (&rooms.ctx().db, session.user_nid);
        let mut turns = 0;
        loop {
            let upto = db.stream.horizon();
            if let Some(known) = memory.known(user, &db.stream.recent()) {
                return Ok(Self { known, upto });
            }
            let mut conn = db.conn().await?;
            let mine = storage::memberships::list_of_user(&mut conn, user).await?;
            let newest = mine.last().map_or(0, |row| row.pos);
            if newest > upto && turns < TURNS_MAX {
                drop(conn);
                turns += 1;
                let reached = db.stream.reached(newest);
                let _ = tokio::time::timeout(Duration::from_secs(1), reached).await;
                continue;
            }
            let wishes = Wishes::read(&mut conn, user).await?;
            drop(conn);
            let listed: Vec<RoomNid> = mine.iter().map(|row| row.room).collect();
            db.ids.room_ids_of(&listed).await?;
            let known = Arc::new(Known {
                rooms: wanted(rooms, mine, &wishes).await?,
                wishes,
                direct: OnceLock::new(),
                read_at: upto,
            });
            memory.keep_known(user, known.clone());
            return Ok(Self { known, upto });
        }
    }

    /// Rooms that the user is in.
    pub(super) fn joined(&self) -> impl Iterator<Item = RoomNid> {
        let joined = self.known.rooms.iter().filter(|row| row.membership == 1);
        joined.map(|row| row.room)
    }
}

/// Takes out invitations that the user is not told of.
async fn wanted(
    rooms: &Rooms,
    mut mine: Vec<UserRoom>,
    wishes: &Wishes,
) -> Result<Vec<UserRoom>, Error> {
    if wishes.want_all() {
        return Ok(mine);
    }
    let invitations = mine.iter().filter(|room| room.membership == 2);
    let senders: Vec<UserNid> = invitations.filter_map(|room| room.sender).collect();
    let ids = rooms.ctx().db.ids.user_ids_of(&senders).await?;
    let unwanted: HashSet<i64> = senders
        .into_iter()
        .zip(ids)
        .filter(|(_, id)| !wishes.want_invitation(id))
        .map(|(nid, _)| nid.0)
        .collect();
    let is_unwanted = |sender: Option<UserNid>| sender.is_some_and(|it| unwanted.contains(&it.0));
    mine.retain(|room| room.membership != 2 || !is_unwanted(room.sender));
    Ok(mine)
}

/// The newest events of a room that are new to a client.
pub(super) struct Timeline {
    pub(super) room: Arc<Room>,
    /// Newest first, one more than the limit where there are more.
    pub(super) events: Vec<Event>,
    /// Below them our copy of the timeline has a hole, or does not begin with the room.
    pub(super) cut: bool,
    /// State that was told; `None`: nothing was.
    pub(super) told: Option<Entries>,
}

/// Where a timeline begins.
pub(super) struct Edge {
    /// There is more below.
    pub(super) limited: bool,
    /// Where paging back goes on.
    pub(super) prev_batch: String,
}

impl Timeline {
    /// Whether members have to be counted, and the room named after some of them.
    pub(super) fn changes_members(&self, limit: usize) -> bool {
        let is_member = |event: &Event| event.pdu.kind == TimelineEventType::RoomMember;
        self.is_limited(limit) || self.events.iter().any(is_member)
    }

    /// The events with their room.
    pub(super) fn page(&self) -> Page<'_> {
        (&self.room, &self.events)
    }

    /// Whether there is more below than what is told.
    pub(super) fn is_limited(&self, limit: usize) -> bool {
        self.cut || self.events.len() > limit
    }

    /// Takes out the events, the oldest first.
    pub(super) fn take(&mut self, limit: usize) -> (Vec<Event>, Edge) {
        let limited = self.is_limited(limit);
        let mut events = std::mem::take(&mut self.events);
        let newest = events.first().and_then(|event| event.stored.seq);
        events.truncate(limit);
        events.reverse();
        let oldest = events.first().and_then(|event| event.stored.seq);
        // Without a timeline paging begins at what is newest.
        let edge = oldest.or(newest.map(|seq| seq + 1));
        let edge = edge.unwrap_or_else(|| self.room.head().seq + 1);
        let prev_batch = format!("t{edge}");
        (
            events,
            Edge {
                limited,
                prev_batch,
            },
        )
    }
}

/// Reads timelines, in the order of `spans`; rooms that are not held are left out.
pub(super) async fn read(
    rooms: &Rooms,
    spans: &[Span],
    mut told: HashMap<RoomNid, Entries>,
) -> Result<Vec<Timeline>, Error> {
    if spans.is_empty() {
        return Ok(Vec::new());
    }
    let nids: Vec<RoomNid> = spans.iter().map(|span| span.room).collect();
    let found = rooms.find_many(&nids).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let stored = storage::sync::newest(&mut conn, spans).await?;
    drop(conn);
    let mut by_room: HashMap<RoomNid, Vec<storage::events::Stored>> = HashMap::new();
    for event in stored {
        by_room.entry(event.room).or_default().push(event);
    }
    let mut timelines = Vec::with_capacity(spans.len());
    for span in spans {
        let Some(room) = found.get(&span.room).cloned() else {
            continue;
        };
        let events = by_room.remove(&span.room).unwrap_or_default();
        let mut events = rooms.parse(&room, events)?;
        let cut = cut_at_hole(&mut events) || lacks_beginning(span, &events);
        let told = told.remove(&span.room);
        timelines.push(Timeline {
            room,
            events,
            cut,
            told,
        });
    }
    let pages: Vec<Page<'_>> = timelines.iter().map(Timeline::page).collect();
    ready::names(rooms, &pages).await?;
    Ok(timelines)
}

/// States that were told of rooms, each up to its own position.
pub(super) async fn told(
    rooms: &Rooms,
    known: &[(RoomNid, Pos)],
) -> Result<HashMap<RoomNid, Entries>, Error> {
    if known.is_empty() {
        return Ok(HashMap::new());
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let told = storage::sync::last_told(&mut conn, known).await?;
    drop(conn);
    let nids: Vec<RoomNid> = told.keys().copied().collect();
    let found = rooms.find_many(&nids).await?;
    let snaps = told.iter();
    let snaps =
        snaps.filter_map(|(nid, (snap, _))| Some((found.get(nid)?.as_ref(), [*snap].into())));
    rooms.prepare_states(&snaps.collect::<Vec<_>>()).await?;
    let mut states = HashMap::with_capacity(told.len());
    for (nid, (snap, change)) in told {
        let mut entries = rooms.state_of(nid, snap).await?.entries;
        if let Some((skey, event)) = change {
            entries.insert(skey, event);
        }
        states.insert(nid, entries);
    }
    Ok(states)
}

/// Of rooms whose states were told those in which the user was then. Who left and came back is told
/// everything anew.
pub(super) async fn was_joined(
    rooms: &Rooms,
    session: &Session,
    told: &HashMap<RoomNid, Entries>,
) -> Result<HashSet<RoomNid>, Error> {
    let nids: Vec<RoomNid> = told.keys().copied().collect();
    let found = rooms.find_many(&nids).await?;
    let own = |(nid, state): (&RoomNid, &Entries)| {
        let own = state.get(&-session.user_nid.0).copied()?;
        Some((found.get(nid)?.as_ref(), vec![own]))
    };
    let own: Vec<(&Room, Vec<i64>)> = told.iter().filter_map(own).collect();
    rooms.prepare_pdus(&own).await?;
    let mut joined = HashSet::new();
    for (room, own) in own {
        let event = rooms.pdus(room, &own).await?.pop();
        if event.and_then(|event| event.membership()) == Some(MembershipState::Join) {
            joined.insert(room.nid);
        }
    }
    Ok(joined)
}

/// Leaves out what lies below a hole: numbers are given one after the other, so that where some are
/// left free something is missing, or was for a time.
fn cut_at_hole(events: &mut Vec<Event>) -> bool {
    let hole = (0..events.len()).find(|at| {
        let seq = |at: usize| events.get(at).and_then(|event| event.stored.seq);
        let seqs = seq(*at).zip(seq(at + 1));
        events[*at].stored.is_above_gap() || seqs.is_some_and(|(upper, lower)| upper - lower > 1)
    });
    if let Some(at) = hole {
        events.truncate(at + 1);
    }
    hole.is_some()
}

/// Whether a timeline from the beginning on does not begin with the room: who joins by a peer is told
/// that there is more before, which comes when it is asked for.
fn lacks_beginning(span: &Span, events: &[Event]) -> bool {
    let oldest = events.last().map(|event| &event.pdu.kind);
    span.since == 0 && oldest.is_some_and(|kind| *kind != TimelineEventType::RoomCreate)
}

/// What is known of the members of rooms.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Joined and invited ones.
    pub(super) counts: HashMap<RoomNid, Counts>,
    /// Who rooms without a name are named after, with their membership events.
    pub(super) heroes: HashMap<RoomNid, Vec<(UserNid, i64)>>,
}

impl Members {
    /// Counts members of rooms, and chooses heroes of those without a name.
    pub(super) async fn read(
        rooms: &Rooms,
        memory: &Memory,
        viewer: UserNid,
        (counted, unnamed): (&[i64], &[i64]),
    ) -> Result<Self, Error> {
        let db = &rooms.ctx().db;
        let mut members = Self::default();
        let read_at = db.stream.horizon();
        let mut counted = counted.to_vec();
        {
            let recent = db.stream.recent();
            counted.retain(|room| match memory.counts(*room, &recent) {
                Some(counts) => members.counts.insert(RoomNid(*room), counts).is_some(),
                None => true,
            });
        }
        if !counted.is_empty() {
            let mut conn = db.conn().await?;
            let counts = storage::sync::member_counts(&mut conn, &counted).await?;
            for (room, counts) in &counts {
                memory.keep_counts(room.0, *counts, read_at);
            }
            members.counts.extend(counts);
        }
        if !unnamed.is_empty() {
            let mut conn = db.conn().await?;
            members.heroes = storage::sync::heroes(&mut conn, unnamed, viewer).await?;
        }
        let names = members.heroes.values().flatten().map(|(user, _)| *user);
        let names: Vec<UserNid> = names.collect();
        db.ids.user_ids_of(&names).await?;
        Ok(members)
    }
}
