//! What is new in rooms that a client looks at: few queries for all of them together.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedEventId, OwnedRoomId, events::StateEventType};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    super::{
        Error,
        fields::{Fields, raw},
        other,
        timeline::{self, Members, Timeline},
    },
    View,
    list::place,
    request::Wanted,
    required::required,
};
use crate::{
    event::client::Shape,
    rooms::{
        self, Event, membership, open_history,
        ready::{self, Page, Redactions},
        relations::bundle::Bundles,
        render::Extras,
        resident::Room,
        state::{self, Entries},
        visibility,
    },
    storage::{self, Pos, RoomNid, UserNid, memberships::UserRoom, sync::Span},
};

/// A room that may have to be told of.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) listed: &'a UserRoom,
    /// What is wanted, and was before.
    pub(super) wanted: Wanted,
    /// Up to where it was told; `None`: it was not.
    pub(super) since: Option<Pos>,
    /// What was wanted before, where that was less.
    pub(super) more: Option<Wanted>,
    /// Whether the user has read on in it, here or with another client: counts are told anew.
    pub(super) read: bool,
}

impl Wish<'_> {
    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        match self.since {
            None => true,
            Some(since) => {
                let in_it = self.listed.membership == 1;
                self.listed.pos > since
                    || (in_it && (self.listed.last > since || self.is_asked_in()))
            }
        }
    }

    /// Whether there is something to tell apart from events.
    fn is_asked(&self, view: &View<'_>) -> bool {
        let is_changed = |since| self.listed.pos > since && self.listed.pos <= view.upto;
        self.is_asked_in() || self.since.is_none_or(is_changed)
    }

    /// Whether there is something to tell of a room that the user is in.
    fn is_asked_in(&self) -> bool {
        self.more.is_some() || self.read
    }

    /// Whether the timeline is told anew because more of it is wanted.
    fn is_expanded(&self) -> bool {
        let before = self.more.as_ref().map(|before| before.timeline_limit);
        before.is_some_and(|before| before < self.wanted.timeline_limit)
    }

    /// Events of the timeline.
    fn limit(&self) -> usize {
        usize::try_from(self.wanted.timeline_limit).unwrap_or(usize::MAX)
    }
}

/// A room in the answer.
pub(super) struct Part {
    pub(super) id: OwnedRoomId,
    pub(super) fields: Fields,
    /// Events of its timeline.
    pub(super) shown: Vec<OwnedEventId>,
    /// Whether it is told for the first time.
    pub(super) is_first: bool,
}

/// A room that the user is or was in, with what was read of it.
struct Candidate<'a> {
    wish: Wish<'a>,
    timeline: Timeline,
}

/// Tells of rooms.
pub(super) async fn answer(view: &View<'_>, wishes: Vec<Wish<'_>>) -> Result<Vec<Part>, Error> {
    let (held, outside): (Vec<_>, Vec<_>) = wishes
        .into_iter()
        .partition(|wish| !matches!(wish.listed.membership, 2 | 5));
    let mut parts = Vec::with_capacity(held.len() + outside.len());
    let asked: Vec<&UserRoom> = outside.iter().map(|wish| wish.listed).collect();
    membership::invite::prepare(view.rooms, &asked).await?;
    for wish in &outside {
        parts.push(invitation(view, wish.listed).await?);
    }
    let candidates = candidates(view, held).await?;
    let mut needed: Vec<(&Room, Vec<i64>)> = Vec::with_capacity(candidates.len());
    for candidate in &candidates {
        let nids = needs(view, candidate).await?;
        needed.push((&candidate.timeline.room, nids));
    }
    view.rooms.prepare_pdus(&needed).await?;
    let of = candidates
        .iter()
        .map(|candidate| candidate.timeline.room.clone());
    open_history::prepare(view.rooms, &of.collect::<Vec<_>>()).await?;
    let pages: Vec<Page<'_>> = candidates.iter().map(|one| one.timeline.page()).collect();
    ready::prepare(view.rooms, view.session.user_nid, &pages).await?;
    let facts = Box::pin(Facts::load(view, &candidates)).await?;
    for candidate in candidates {
        match tell(view, candidate, &facts).await {
            Ok(part) => parts.push(part),
            // Who never was inside sees nothing.
            Err(Error::Rooms(rooms::Error::NotJoined { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(parts)
}

/// A room that the user is invited to, or knocked at.
async fn invitation(view: &View<'_>, listed: &UserRoom) -> Result<Part, Error> {
    let stripped = membership::invite::shown(view.rooms, listed).await?;
    let events: Vec<Value> = serde_json::from_str(stripped.get()).unwrap_or_default();
    let text = |kind: &str, key: &str| {
        let event = events.iter().find(|event| event["type"] == kind);
        event.and_then(|event| event["content"][key].as_str())
    };
    let id = view.rooms.ctx().db.ids.room_id(listed.room).await?;
    let is_direct = view.direct().await?.contains(&id);
    let mut fields = Fields::from(
        [
            ("initial", raw(&true)),
            ("bump_stamp", raw(&place(listed))),
            ("is_dm", raw(&is_direct)),
            ("notification_count", raw(&0)),
            ("highlight_count", raw(&0)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    for (field, found) in [
        ("name", text("m.room.name", "name")),
        ("avatar", text("m.room.avatar", "url")),
    ] {
        if let Some(found) = found {
            fields.insert(field.to_owned(), raw(found));
        }
    }
    fields.insert("invite_state".to_owned(), stripped);
    Ok(Part {
        id,
        fields,
        shown: Vec::new(),
        is_first: false,
    })
}

/// Reads timelines and told states.
async fn candidates<'a>(
    view: &View<'_>,
    mut wishes: Vec<Wish<'a>>,
) -> Result<Vec<Candidate<'a>>, Error> {
    let known: Vec<(RoomNid, Pos)> = wishes
        .iter()
        .filter_map(|wish| Some((wish.listed.room, wish.since?)))
        .collect();
    let mut told = timeline::told(view.rooms, &known).await?;
    let was_joined = timeline::was_joined(view.rooms, view.session, &told).await?;
    for wish in &mut wishes {
        let room = wish.listed.room;
        if wish.listed.membership == 1 && !was_joined.contains(&room) {
            wish.since = None;
            told.remove(&room);
        }
    }
    let spans: Vec<Span> = wishes.iter().map(|wish| span(view, wish)).collect();
    let mut wishes: HashMap<RoomNid, Wish<'a>> = wishes
        .into_iter()
        .map(|wish| (wish.listed.room, wish))
        .collect();
    let timelines = timeline::read(view.rooms, &spans, told).await?;
    let candidates = timelines.into_iter().filter_map(|timeline| {
        let wish = wishes.remove(&timeline.room.nid)?;
        Some(Candidate { wish, timeline })
    });
    // What came after the position that is told up to is for the next answer.
    let has_news = |one: &Candidate<'_>| !one.timeline.events.is_empty() || one.wish.is_asked(view);
    Ok(candidates.filter(has_news).collect())
}

fn span(view: &View<'_>, wish: &Wish<'_>) -> Span {
    let mine = wish.listed;
    let upto = match mine.membership {
        1 => view.upto,
        _ => mine.pos.min(view.upto),
    };
    Span {
        room: mine.room,
        since: match wish.since {
            Some(since) if !wish.is_expanded() => since,
            _ => 0,
        },
        upto,
        limit: i64::from(wish.wanted.timeline_limit) + 1,
    }
}

/// Events of the current state that may be told, or that decide what is.
async fn needs(view: &View<'_>, candidate: &Candidate<'_>) -> Result<Vec<i64>, Error> {
    let timeline = &candidate.timeline;
    let state = timeline.room.head().state.entries.clone();
    let mut members = HashSet::from([-view.session.user_nid.0]);
    for event in &timeline.events {
        members.insert(-view.rooms.ctx().db.ids.user(&event.pdu.sender).await?.0);
    }
    let members = members.into_iter();
    let members = members.filter_map(|skey| state.get(&skey).copied());
    if let Some(told) = &timeline.told
        && candidate.wish.more.is_none()
    {
        return Ok(members.chain(state::now_other(told, &state)).collect());
    }
    let wanted = &candidate.wish.wanted.required_state;
    let mut nids: Vec<i64> = members.collect();
    if wanted.iter().any(|(kind, key)| kind == "*" || key == "*") {
        let all_members = wanted
            .iter()
            .any(|(kind, key)| key == "*" && is_member(kind));
        let entries = state.iter().filter(|(skey, _)| **skey > 0 || all_members);
        nids.extend(entries.map(|(_, nid)| *nid));
        return Ok(nids);
    }
    let shown = [("m.room.name", ""), ("m.room.avatar", "")];
    let wanted = wanted.iter();
    let wanted = wanted.map(|(kind, key)| (kind.as_str(), key.as_str()));
    // `$ME` and `$LAZY` are members that are there already.
    for (kind, key) in wanted.chain(shown).filter(|(_, key)| !key.starts_with('$')) {
        let skey = view.skey(kind, key).await?;
        nids.extend(skey.and_then(|skey| state.get(&skey)));
    }
    Ok(nids)
}

fn is_member(kind: &str) -> bool {
    kind == "m.room.member" || kind == "*"
}

/// What is known of rooms, looked up for many at once.
#[derive(Default)]
struct Facts {
    members: Members,
    /// What is told beside events.
    bundles: Bundles,
    /// What took events back.
    redactions: Redactions,
    /// Notifications and highlights.
    unread: HashMap<RoomNid, (i64, i64)>,
}

impl Facts {
    async fn load(view: &View<'_>, candidates: &[Candidate<'_>]) -> Result<Self, Error> {
        let all: Vec<i64> = candidates
            .iter()
            .map(|one| one.timeline.room.nid.0)
            .collect();
        if all.is_empty() {
            return Ok(Self::default());
        }
        let (mut counted, mut unnamed) = (Vec::new(), Vec::new());
        let name = view.skey("m.room.name", "").await?;
        for candidate in candidates {
            let timeline = &candidate.timeline;
            if timeline.told.is_some() && !timeline.changes_members(candidate.wish.limit()) {
                continue;
            }
            counted.push(timeline.room.nid.0);
            let head = timeline.room.head();
            if name.and_then(|name| head.state.get(name)).is_none() {
                unnamed.push(timeline.room.nid.0);
            }
        }
        let user = view.session.user_nid;
        let pages: Vec<Page<'_>> = candidates.iter().map(|one| one.timeline.page()).collect();
        let redactions = async { Ok(Redactions::load(view.rooms, &pages).await?) };
        let of = (&*counted, &*unnamed);
        let (members, bundles, redactions, unread) = tokio::try_join!(
            Members::read(view.rooms, view.memory, user, of),
            bundles(view, candidates),
            redactions,
            unread(view, &all),
        )?;
        let heroes = candidates.iter().filter_map(|one| {
            let room = &*one.timeline.room;
            let heroes = members.heroes.get(&room.nid)?;
            Some((room, heroes.iter().map(|(_, event)| *event).collect()))
        });
        view.rooms.prepare_pdus(&heroes.collect::<Vec<_>>()).await?;
        Ok(Self {
            members,
            bundles,
            redactions,
            unread,
        })
    }
}

/// Notifications and highlights in rooms.
async fn unread(view: &View<'_>, rooms: &[i64]) -> Result<HashMap<RoomNid, (i64, i64)>, Error> {
    let mut unread: HashMap<RoomNid, (i64, i64)> = HashMap::new();
    let mut conn = view.rooms.ctx().db.conn().await?;
    for part in storage::unread::list(&mut conn, view.session.user_nid, rooms).await? {
        let (notify, high) = unread.entry(part.room).or_default();
        *notify += part.notify;
        *high += part.high;
    }
    Ok(unread)
}

/// What is told beside events, of timelines that begin anew or leave something out.
async fn bundles(view: &View<'_>, candidates: &[Candidate<'_>]) -> Result<Bundles, Error> {
    let groups: Vec<(&Room, &[Event])> = candidates
        .iter()
        .filter(|one| {
            let is_anew = one.timeline.told.is_none() || one.wish.is_expanded();
            is_anew || one.timeline.is_limited(one.wish.limit())
        })
        .map(|one| (&*one.timeline.room, &*one.timeline.events))
        .collect();
    Ok(Bundles::load(view.rooms, view.session, &groups).await?)
}

async fn tell(view: &View<'_>, candidate: Candidate<'_>, facts: &Facts) -> Result<Part, Error> {
    let Candidate { wish, mut timeline } = candidate;
    let (events, edge) = timeline.take(wish.limit());
    let Timeline { room, told, .. } = timeline;
    let viewer = visibility::viewer(view.rooms, &room, &view.session.user_id).await?;
    let current = viewer.entries(&room);
    let mut shown = visibility::filter_for(view.rooms, &room, &viewer, events).await?;
    shown.retain(|event| event.pdu.is_state() || !view.ignored.contains(&event.pdu.sender));
    let page = (&*room, &*shown);
    let mut extras = Extras::with(view.rooms, page, Some(view.session), &facts.redactions).await?;
    let to = (view.session, &viewer);
    extras.relations = facts
        .bundles
        .tell(view.rooms, &room, to, &shown, Shape::Sync)
        .await?;
    let timeline: Vec<Box<RawValue>> = shown
        .iter()
        .map(|event| extras.render(view.rooms, view.session, event, Shape::Sync))
        .collect();
    let state = required(view, &room, (&wish, told.as_ref(), &current), &shown).await?;
    let is_new = |event: &&Event| view.since > 0 && event.stored.pos > Some(view.since);
    let (notify, high) = facts.unread.get(&room.nid).copied().unwrap_or_default();
    let (unread, loud) = other::unread(notify, high);
    let is_first = told.is_none();
    let mut fields = Fields::from(
        [
            ("timeline", raw(&timeline)),
            ("limited", raw(&edge.limited)),
            ("prev_batch", raw(&edge.prev_batch)),
            ("num_live", raw(&shown.iter().filter(is_new).count())),
            ("required_state", raw(&state)),
            ("bump_stamp", raw(&place(wish.listed))),
            ("is_dm", raw(&view.direct().await?.contains(&room.id))),
            ("notification_count", raw(&unread)),
            ("highlight_count", raw(&loud)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let mut add = |name: &str, value: &Value| fields.insert(name.to_owned(), raw(value));
    if is_first {
        add("initial", &json!(true));
    } else if wish.is_expanded() {
        add("unstable_expanded_timeline", &json!(true));
    }
    for (name, value) in naming(view, &room, (told.as_ref(), &current)).await? {
        add(name, &value);
    }
    if let Some((joined, invited)) = facts.members.counts.get(&room.nid) {
        add("joined_count", &json!(joined));
        add("invited_count", &json!(invited));
        if let Some(heroes) = facts.members.heroes.get(&room.nid) {
            add("heroes", &self::heroes(view, &room, heroes).await?);
        }
    }
    let shown = shown.into_iter();
    Ok(Part {
        id: room.id.clone(),
        fields,
        shown: shown.map(|event| event.pdu.event_id.clone()).collect(),
        is_first,
    })
}

/// Name and avatar, where they changed.
async fn naming(
    view: &View<'_>,
    room: &Room,
    (told, current): (Option<&Entries>, &Entries),
) -> Result<Vec<(&'static str, Value)>, Error> {
    let mut names = Vec::new();
    let kinds = [
        (StateEventType::RoomName, "name", "name"),
        (StateEventType::RoomAvatar, "url", "avatar"),
    ];
    for (kind, key, field) in kinds {
        let Some(skey) = view.skey(&kind.to_string(), "").await? else {
            continue;
        };
        let now = current.get(&skey);
        if told.is_some_and(|told| told.get(&skey) == now) {
            continue;
        }
        let Some(now) = now else { continue };
        let event = view.rooms.pdus(room, &[*now]).await?.pop();
        let content: Map<String, Value> = event
            .and_then(|event| event.content_as())
            .unwrap_or_default();
        if let Some(text) = content.get(key).filter(|text| text.is_string()) {
            names.push((field, text.clone()));
        }
    }
    Ok(names)
}

/// Who a room without a name is named after, with their names in it.
async fn heroes(view: &View<'_>, room: &Room, heroes: &[(UserNid, i64)]) -> Result<Value, Error> {
    let nids: Vec<i64> = heroes.iter().map(|(_, event)| *event).collect();
    let events = view.rooms.pdus(room, &nids).await?;
    let heroes = events.iter().filter_map(|event| {
        let content: Map<String, Value> = event.content_as().unwrap_or_default();
        let mut hero = json!({ "user_id": event.state_key.as_deref()? });
        for (from, to) in [("displayname", "displayname"), ("avatar_url", "avatar_url")] {
            if let Some(text) = content.get(from).filter(|text| text.is_string()) {
                hero[to] = text.clone();
            }
        }
        Some(hero)
    });
    Ok(json!(heroes.collect::<Vec<Value>>()))
}
