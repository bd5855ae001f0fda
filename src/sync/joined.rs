//! The part of an answer for a room that the user is in, or was until just now.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedEventId, OwnedUserId,
    api::client::filter::{FilterDefinition, LazyLoadOptions},
    events::StateEventType,
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Error,
    fields::{self, Fields, raw},
    filter,
    memory::Memory,
    timeline::{self, Members, Timeline},
};
use crate::{
    event::{
        client::{Shape, to_client},
        pdu::Pdu,
    },
    rooms::{
        self, Event, Rooms, open_history,
        ready::{self, Page, Redactions},
        relations::{bundle::Bundles, filter::Related},
        render::Extras,
        resident::Room,
        state,
        state::Entries,
        visibility::{self, Leaving},
    },
    storage::{Pos, RoomNid, UserNid, memberships::UserRoom, sync::Span},
    users::tokens::Session,
};

/// What one sync is about.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) session: &'a Session,
    pub(super) memory: &'a Memory,
    /// Rooms of the user.
    pub(super) mine: &'a [UserRoom],
    pub(super) filter: &'a FilterDefinition,
    /// What the filter says of relations of events of timelines.
    pub(super) related: &'a Related,
    /// Whose messages and invitations the user does not want.
    pub(super) ignored: &'a HashSet<OwnedUserId>,
    pub(super) since: Pos,
    pub(super) upto: Pos,
    pub(super) full_state: bool,
    /// Field in which state goes that is meant as of the end of the timeline; `None`: state is as
    /// of its start, in `state`.
    pub(super) state_after: Option<&'static str>,
    /// Up to where sticky events were told, where that is less than all.
    pub(super) sticky: Option<Pos>,
}

impl Scope<'_> {
    /// Events of a room in the answer.
    fn limit(&self) -> usize {
        usize::try_from(filter::limit(&self.filter.room.timeline)).unwrap_or(usize::MAX)
    }

    /// Whether members are told of as they speak.
    pub(super) fn is_lazy(&self) -> bool {
        matches!(
            self.filter.room.state.lazy_load_options,
            LazyLoadOptions::Enabled { .. }
        )
    }
}

/// A room to tell about.
pub(super) struct Candidate {
    pub(super) timeline: Timeline,
    /// Nothing of it was told before: the user has just joined, or syncs for the first time.
    pub(super) fresh: bool,
    /// Whether the user, who left, forgot it; `None`: they are in it.
    pub(super) forgotten: Option<bool>,
}

/// What is told of a room.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) fields: Fields,
    /// Events of the timeline.
    pub(super) shown: Vec<OwnedEventId>,
}

/// Events that are brought into memory at once.
const EVENTS_AT_ONCE: usize = 4_000;

/// Timelines and states of rooms; without those where there is no news. Events and members are
/// looked up for many rooms at once.
pub(super) async fn assemble_all(
    scope: Scope<'_>,
    candidates: Vec<Candidate>,
) -> Result<Vec<(RoomNid, Part)>, Error> {
    let mut parts = Vec::with_capacity(candidates.len());
    let mut waiting = candidates.into_iter().peekable();
    while waiting.peek().is_some() {
        let (mut chunk, mut needed, mut count) = (Vec::new(), Vec::new(), 0);
        while let Some(candidate) = waiting.next_if(|_| count < EVENTS_AT_ONCE) {
            let nids = needs(scope, &candidate).await?;
            count += nids.len();
            needed.push((candidate.timeline.room.clone(), nids));
            chunk.push(candidate);
        }
        let wanted: Vec<(&Room, Vec<i64>)> = needed
            .iter()
            .map(|(room, nids)| (room.as_ref(), nids.clone()))
            .collect();
        scope.rooms.prepare_pdus(&wanted).await?;
        let of: Vec<Arc<Room>> = needed.iter().map(|(room, _)| room.clone()).collect();
        open_history::prepare(scope.rooms, &of).await?;
        let pages: Vec<Page<'_>> = chunk.iter().map(|one| one.timeline.page()).collect();
        ready::prepare(scope.rooms, scope.session.user_nid, &pages).await?;
        let facts = Box::pin(Facts::load(scope, &chunk, &pages)).await?;
        for candidate in chunk {
            let nid = candidate.timeline.room.nid;
            match assemble(scope, candidate, &facts).await {
                Ok(part) if part.fields.is_empty() => {}
                Ok(part) => parts.push((nid, part)),
                // Who never was inside sees nothing; nor does who left and forgot the room since
                // it was looked up, and is told so next time.
                Err(Error::Rooms(rooms::Error::NotJoined { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(parts)
}

/// What is looked up for many rooms at once.
struct Facts {
    members: Members,
    bundles: Bundles,
    redactions: Redactions,
    /// Events that the filter lets through for what relates to them; `None`: all.
    related: Option<HashSet<i64>>,
}

impl Facts {
    async fn load(
        scope: Scope<'_>,
        candidates: &[Candidate],
        pages: &[Page<'_>],
    ) -> Result<Self, Error> {
        let redactions = async { Ok(Redactions::load(scope.rooms, pages).await?) };
        let (redactions, members, bundles, related) = tokio::try_join!(
            redactions,
            members(scope, candidates),
            bundles(scope, candidates),
            related(scope, candidates)
        )?;
        Ok(Self {
            members,
            bundles,
            redactions,
            related,
        })
    }
}

/// Events that the filter lets through for what relates to them.
async fn related(
    scope: Scope<'_>,
    candidates: &[Candidate],
) -> Result<Option<HashSet<i64>>, Error> {
    let groups: Vec<(&Room, &[Event])> = candidates
        .iter()
        .map(|one| (&*one.timeline.room, &*one.timeline.events))
        .collect();
    Ok(scope.related.find(scope.rooms, &groups).await?)
}

/// What is told beside events, of timelines that begin anew or leave something out: else a client has
/// seen, or sees, what relates to them (specification, "Aggregations of child events").
async fn bundles(scope: Scope<'_>, candidates: &[Candidate]) -> Result<Bundles, Error> {
    let limit = scope.limit();
    let groups: Vec<(&Room, &[Event])> = candidates
        .iter()
        .filter(|one| one.fresh || scope.full_state || one.timeline.is_limited(limit))
        .map(|one| (&*one.timeline.room, &*one.timeline.events))
        .collect();
    Ok(Bundles::load(scope.rooms, scope.session, &groups).await?)
}

/// Events of the current state that the answer for a room is made from.
async fn needs(scope: Scope<'_>, candidate: &Candidate) -> Result<Vec<i64>, Error> {
    let timeline = &candidate.timeline;
    let state = timeline.room.head().state.entries.clone();
    let ids = &scope.rooms.ctx().db.ids;
    let is_whole = candidate.fresh || scope.full_state;
    if is_whole && !scope.is_lazy() {
        return Ok(state.values().copied().collect());
    }
    let mut members = HashSet::from([-scope.session.user_nid.0]);
    for event in &timeline.events {
        members.insert(-ids.user(&event.pdu.sender).await?.0);
    }
    let mut nids: Vec<i64> = members
        .iter()
        .filter_map(|skey| state.get(skey).copied())
        .collect();
    if let Some(told) = &timeline.told {
        nids.extend(state::now_other(told, &state));
    }
    if timeline.changes_members(scope.limit()) {
        for kind in ["m.room.name", "m.room.canonical_alias"] {
            let skey = ids.find_skey(kind, "").await?;
            nids.extend(skey.and_then(|skey| state.get(&skey.0).copied()));
        }
    }
    if is_whole {
        let others = state.iter().filter(|(skey, _)| **skey > 0);
        nids.extend(others.map(|(_, nid)| *nid));
    }
    Ok(nids)
}

/// Members are counted, and heroes chosen, where the answer tells of them.
async fn members(scope: Scope<'_>, candidates: &[Candidate]) -> Result<Members, Error> {
    let limit = scope.limit();
    let (mut counted, mut unnamed) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let timeline = &candidate.timeline;
        if !candidate.fresh && !timeline.changes_members(limit) {
            continue;
        }
        let room = &timeline.room;
        counted.push(room.nid.0);
        if !is_named(scope.rooms, room, &room.head().state.entries).await? {
            unnamed.push(room.nid.0);
        }
    }
    let viewer = scope.session.user_nid;
    Members::read(scope.rooms, scope.memory, viewer, (&counted, &unnamed)).await
}

/// Timeline and state of a room; nothing where there is no news.
async fn assemble(scope: Scope<'_>, candidate: Candidate, facts: &Facts) -> Result<Part, Error> {
    let Candidate {
        mut timeline,
        fresh,
        forgotten,
    } = candidate;
    let Scope { rooms, session, .. } = scope;
    let (events, edge) = timeline.take(scope.limit());
    let Timeline { room, told, .. } = timeline;
    let before = events.first().and_then(|event| event.stored.snap);
    let mut answer = Part::default();
    if events.is_empty() && !edge.limited && !fresh && !scope.full_state {
        return Ok(answer);
    }
    let leaving = forgotten.map(|forgotten| Leaving {
        forgotten,
        events: &events,
    });
    let viewer = visibility::viewer_of(rooms, &room, &session.user_id, leaving).await?;
    let current = viewer.entries(&room);
    let start = match before {
        Some(snap) => rooms.state_of(room.nid, snap).await?.entries,
        None => current.clone(),
    };
    let mut shown = shown(scope, &room, &viewer, events).await?;
    if let Some(related) = &facts.related {
        shown.retain(|event| related.contains(&event.stored.nid.0));
    }
    let page = (&*room, &*shown);
    let mut extras = Extras::with(rooms, page, Some(session), &facts.redactions).await?;
    let to = (session, &viewer);
    extras.relations = facts
        .bundles
        .tell(rooms, &room, to, &shown, Shape::Sync)
        .await?;
    let timeline: Vec<Box<RawValue>> = shown
        .iter()
        .map(|event| extras.render(rooms, session, event, Shape::Sync))
        .collect();
    let timeline = BTreeMap::from([
        ("events", raw(&timeline)),
        ("limited", raw(&edge.limited)),
        ("prev_batch", raw(&edge.prev_batch)),
    ]);
    let fields = &mut answer.fields;
    fields.insert("timeline".to_owned(), raw(&timeline));
    let base = if scope.full_state || fresh {
        None
    } else {
        told.as_ref()
    };
    let target = if scope.state_after.is_some() {
        &current
    } else {
        &start
    };
    let state = state_section(scope, &room, (base, target), &shown, fresh).await?;
    let field = scope.state_after.unwrap_or("state");
    fields.insert(field.to_owned(), fields::events(&state));
    if let Some(counts) = facts.members.counts.get(&room.nid) {
        let summary = summary(scope, *counts, facts.members.heroes.get(&room.nid)).await?;
        fields.insert("summary".to_owned(), raw(&summary));
    }
    let shown = shown.into_iter();
    answer.shown = shown.map(|event| event.pdu.event_id.clone()).collect();
    Ok(answer)
}

/// Those of some events that the user may see, and wants to.
async fn shown(
    scope: Scope<'_>,
    room: &Room,
    viewer: &visibility::Viewer,
    events: Vec<Event>,
) -> Result<Vec<Event>, Error> {
    let mut shown = visibility::filter_for(scope.rooms, room, viewer, events).await?;
    shown.retain(|event| {
        let is_heard = event.pdu.is_state() || !scope.ignored.contains(&event.pdu.sender);
        is_heard
            && filter::passes(&scope.filter.room.timeline, &event.pdu)
            && scope.related.passes(&event.pdu)
    });
    Ok(shown)
}

/// State events from `base` (`None`: nothing) to `target`.
async fn state_section(
    scope: Scope<'_>,
    room: &Room,
    (base, target): (Option<&Entries>, &Entries),
    timeline: &[Event],
    fresh: bool,
) -> Result<Vec<Box<RawValue>>, Error> {
    let Scope {
        rooms,
        session,
        filter,
        ..
    } = scope;
    let mut nids: BTreeSet<i64> = match base {
        None => target.values().copied().collect(),
        Some(base) => state::now_other(base, target).collect(),
    };
    if let LazyLoadOptions::Enabled { .. } = filter.room.state.lazy_load_options {
        let mut wanted: HashSet<i64> = HashSet::new();
        for event in timeline {
            wanted.insert(rooms.ctx().db.ids.user(&event.pdu.sender).await?.0);
        }
        if fresh || scope.full_state {
            wanted.insert(session.user_nid.0);
        }
        let members: HashSet<i64> = target
            .iter()
            .filter(|(skey, _)| **skey < 0)
            .map(|(_, event)| *event)
            .collect();
        let in_timeline: HashSet<i64> = timeline.iter().map(|event| event.stored.nid.0).collect();
        // A client that is told the state after the timeline takes none from the timeline.
        let is_after = scope.state_after.is_some();
        let is_seen = |nid: &i64| in_timeline.contains(nid);
        nids.retain(|nid| !members.contains(nid) || (is_after && is_seen(nid)));
        nids.extend(
            wanted
                .iter()
                .filter_map(|user| target.get(&-user).copied())
                .filter(|nid| is_after || !is_seen(nid)),
        );
        if room.partial {
            wanted.retain(|user| !target.contains_key(&-user));
            nids.extend(named_members(rooms, room, timeline, &wanted).await?);
        }
    }
    let nids: Vec<i64> = nids.into_iter().collect();
    let pdus = rooms.pdus(room, &nids).await?;
    Ok(pdus
        .iter()
        .filter(|pdu| filter::passes(&filter.room.state, pdu))
        .map(|pdu| to_client(pdu, Shape::Sync, Map::new()))
        .collect())
}

/// Membership events of users that the state of a room lacks, where events of theirs name them.
async fn named_members(
    rooms: &Rooms,
    room: &Room,
    timeline: &[Event],
    users: &HashSet<i64>,
) -> Result<Vec<i64>, Error> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let named: Vec<_> = timeline
        .iter()
        .flat_map(|event| event.pdu.auth_events.clone())
        .collect();
    let mut found = Vec::new();
    for event in rooms.events_by_id(room, &named).await? {
        if let Some(target) = event.pdu.target()
            && users.contains(&rooms.ctx().db.ids.user(target).await?.0)
        {
            found.push(event.stored.nid.0);
        }
    }
    Ok(found)
}

/// Counts, and who the room can be named after.
async fn summary(
    scope: Scope<'_>,
    (joined, invited): (i64, i64),
    heroes: Option<&Vec<(UserNid, i64)>>,
) -> Result<Value, Error> {
    let mut summary = json!({
        "m.joined_member_count": joined,
        "m.invited_member_count": invited,
    });
    if let Some(heroes) = heroes {
        let heroes: Vec<UserNid> = heroes.iter().map(|(user, _)| *user).collect();
        summary["m.heroes"] = json!(scope.rooms.ctx().db.ids.user_ids_of(&heroes).await?);
    }
    Ok(summary)
}

/// Whether a room has a name or an alias.
pub(super) async fn is_named(rooms: &Rooms, room: &Room, state: &Entries) -> Result<bool, Error> {
    let named = [
        (StateEventType::RoomName, String::new()),
        (StateEventType::RoomCanonicalAlias, String::new()),
    ];
    let slice = rooms.state_events(room, state, &named).await?;
    let has = |pdu: &Arc<Pdu>| {
        let content: Map<String, Value> = pdu.content_as().unwrap_or_default();
        ["name", "alias"].iter().any(|key| {
            content
                .get(*key)
                .and_then(Value::as_str)
                .is_some_and(|text| !text.is_empty())
        })
    };
    Ok(slice.iter().any(|(_, pdu)| has(pdu)))
}

/// Candidates for rooms (room, whether nothing of it was told, up to where), with few queries for all of
/// them; `told`: the states that were told of those
/// that are not fresh.
pub(super) async fn candidates(
    scope: Scope<'_>,
    wanted: &[(RoomNid, bool, Pos)],
    told: HashMap<RoomNid, Entries>,
) -> Result<Vec<Candidate>, Error> {
    let span = |(room, fresh, upto): &(RoomNid, bool, Pos)| Span {
        room: *room,
        since: if *fresh { 0 } else { scope.since },
        upto: *upto,
        limit: filter::limit(&scope.filter.room.timeline) + 1,
    };
    let spans: Vec<Span> = wanted.iter().map(span).collect();
    let fresh = wanted.iter().filter(|(_, fresh, _)| *fresh);
    let fresh: HashSet<RoomNid> = fresh.map(|(room, ..)| *room).collect();
    let timelines = timeline::read(scope.rooms, &spans, told).await?;
    let candidates = timelines.into_iter().map(|timeline| Candidate {
        fresh: fresh.contains(&timeline.room.nid),
        timeline,
        forgotten: None,
    });
    Ok(candidates.collect())
}
