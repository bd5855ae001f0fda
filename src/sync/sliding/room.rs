//! What is new in rooms that a client looks at: few queries for all of them together.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    OwnedEventId, OwnedRoomId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{super::Error, View, list::place, request::Wanted, required::required};
use crate::{
    event::client::Shape,
    rooms::{self, Event, membership, render::Extras, resident::Room, state::Entries, visibility},
    storage::{
        self, Pos, RoomNid, UserNid,
        sliding::{Listed, Span},
    },
    sync::joined::cut_at_hole,
};

/// A room that may have to be told of.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) listed: &'a Listed,
    /// What is wanted, and was before.
    pub(super) wanted: Wanted,
    /// Up to where it was told; `None`: it was not.
    pub(super) since: Option<Pos>,
    /// What was wanted before, where that was less.
    pub(super) more: Option<Wanted>,
}

impl Wish<'_> {
    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        let mine = &self.listed.mine;
        match self.since {
            None => true,
            Some(since) => {
                let in_it = mine.membership == 1;
                mine.pos > since || (in_it && (self.listed.last > since || self.more.is_some()))
            }
        }
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
    pub(super) json: Value,
    /// Events of its timeline, where it is told for the first time.
    pub(super) events: Vec<OwnedEventId>,
}

/// A room that the user is or was in, with what was read of it.
struct Candidate<'a> {
    wish: Wish<'a>,
    room: Arc<Room>,
    /// Newest first, one more than the limit where there are more.
    events: Vec<Event>,
    cut: bool,
    /// State that was told; `None`: nothing was.
    told: Option<Entries>,
}

/// Tells of rooms.
pub(super) async fn answer(view: &View<'_>, wishes: Vec<Wish<'_>>) -> Result<Vec<Part>, Error> {
    let (held, outside): (Vec<_>, Vec<_>) = wishes
        .into_iter()
        .partition(|wish| !matches!(wish.listed.mine.membership, 2 | 5));
    let mut parts = Vec::with_capacity(held.len() + outside.len());
    for wish in &outside {
        parts.push(invitation(view, wish.listed).await?);
    }
    let candidates = candidates(view, held).await?;
    let needed: Vec<(&Room, Vec<i64>)> = candidates
        .iter()
        .map(|candidate| (candidate.room.as_ref(), needs(view, candidate)))
        .collect();
    view.rooms.prepare_pdus(&needed).await?;
    let facts = Facts::load(view, &candidates).await?;
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
async fn invitation(view: &View<'_>, listed: &Listed) -> Result<Part, Error> {
    let stripped = membership::invite::shown(view.rooms, &listed.mine).await?;
    let events: Vec<Value> = serde_json::from_str(stripped.get()).unwrap_or_default();
    let text = |kind: &str, key: &str| {
        let event = events.iter().find(|event| event["type"] == kind);
        event.and_then(|event| event["content"][key].as_str())
    };
    let nid = listed.mine.room;
    let mut json = json!({
        "initial": true,
        "invite_state": stripped,
        "bump_stamp": place(listed),
        "is_dm": view.direct().await?.contains(&nid),
        "notification_count": 0,
        "highlight_count": 0,
    });
    for (field, found) in [
        ("name", text("m.room.name", "name")),
        ("avatar", text("m.room.avatar", "url")),
    ] {
        if let Some(found) = found {
            json[field] = json!(found);
        }
    }
    let id = view.rooms.ctx().db.ids.room_id(nid).await?;
    Ok(Part {
        id,
        json,
        events: Vec::new(),
    })
}

/// Reads timelines and told states: five queries at most, but for old states.
async fn candidates<'a>(
    view: &View<'_>,
    mut wishes: Vec<Wish<'a>>,
) -> Result<Vec<Candidate<'a>>, Error> {
    let nids: Vec<RoomNid> = wishes.iter().map(|wish| wish.listed.mine.room).collect();
    let found = view.rooms.find_many(&nids).await?;
    wishes.retain(|wish| found.contains_key(&wish.listed.mine.room));
    let known: Vec<(RoomNid, Pos)> = wishes
        .iter()
        .filter_map(|wish| Some((wish.listed.mine.room, wish.since?)))
        .collect();
    let mut conn = view.rooms.ctx().db.conn().await?;
    let told = storage::sliding::last_told(&mut conn, &known).await?;
    drop(conn);
    let mut states = HashMap::new();
    for (nid, (snap, change)) in told {
        let mut entries = view.rooms.state_of(nid, snap).await?.entries;
        if let Some((skey, event)) = change {
            entries.insert(skey, event);
        }
        states.insert(nid, entries);
    }
    for wish in &mut wishes {
        // Who left and came back between two answers is told everything anew.
        let nid = wish.listed.mine.room;
        let was_in = match (states.get(&nid), found.get(&nid)) {
            (Some(told), Some(room)) => was_joined(view, room, told).await?,
            _ => false,
        };
        if wish.listed.mine.membership == 1 && !was_in {
            wish.since = None;
            states.remove(&nid);
        }
    }
    let spans: Vec<Span> = wishes.iter().map(|wish| span(view, wish)).collect();
    let mut conn = view.rooms.ctx().db.conn().await?;
    let stored = storage::sliding::newest(&mut conn, &spans).await?;
    drop(conn);
    let mut by_room: HashMap<RoomNid, Vec<storage::events::Stored>> = HashMap::new();
    for event in stored {
        by_room.entry(event.room).or_default().push(event);
    }
    let mut candidates = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let nid = wish.listed.mine.room;
        let Some(room) = found.get(&nid).cloned() else {
            continue;
        };
        let events = by_room.remove(&nid).unwrap_or_default();
        let mut events = view.rooms.parse(&room, events)?;
        let cut = cut_at_hole(&mut events);
        let told = states.remove(&nid);
        candidates.push(Candidate {
            wish,
            room,
            events,
            cut,
            told,
        });
    }
    Ok(candidates)
}

async fn was_joined(view: &View<'_>, room: &Room, told: &Entries) -> Result<bool, Error> {
    let Some(was) = told.get(&-view.session.user_nid.0).copied() else {
        return Ok(false);
    };
    let event = view.rooms.pdus(room, &[was]).await?.pop();
    Ok(event.and_then(|event| event.membership()) == Some(MembershipState::Join))
}

fn span(view: &View<'_>, wish: &Wish<'_>) -> Span {
    let mine = &wish.listed.mine;
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
fn needs(view: &View<'_>, candidate: &Candidate<'_>) -> Vec<i64> {
    let state = candidate.room.head().state.entries.clone();
    let own = state.get(&-view.session.user_nid.0).copied();
    if candidate.told.is_some() && candidate.wish.more.is_none() {
        return own.into_iter().collect();
    }
    let wanted = &candidate.wish.wanted.required_state;
    let all_members = wanted
        .iter()
        .any(|(kind, key)| key == "*" && is_member(kind));
    let entries = state.iter().filter(|(skey, _)| **skey > 0 || all_members);
    entries.map(|(_, nid)| *nid).chain(own).collect()
}

fn is_member(kind: &str) -> bool {
    kind == "m.room.member" || kind == "*"
}

/// What is known of rooms, looked up for many at once.
#[derive(Default)]
struct Facts {
    counts: HashMap<RoomNid, (i64, i64)>,
    heroes: HashMap<RoomNid, Vec<(UserNid, i64)>>,
    /// Notifications and highlights.
    unread: HashMap<RoomNid, (i64, i64)>,
}

impl Facts {
    async fn load(view: &View<'_>, candidates: &[Candidate<'_>]) -> Result<Self, Error> {
        let all: Vec<i64> = candidates.iter().map(|one| one.room.nid.0).collect();
        if all.is_empty() {
            return Ok(Self::default());
        }
        let (mut counted, mut unnamed) = (Vec::new(), Vec::new());
        let name = view.skey("m.room.name", "").await?;
        for candidate in candidates {
            let is_member = |event: &Event| event.pdu.kind == TimelineEventType::RoomMember;
            let is_gap = candidate.cut || candidate.events.len() > candidate.wish.limit();
            if candidate.told.is_none() || is_gap || candidate.events.iter().any(is_member) {
                counted.push(candidate.room.nid.0);
                let head = candidate.room.head();
                if name.and_then(|name| head.state.get(name)).is_none() {
                    unnamed.push(candidate.room.nid.0);
                }
            }
        }
        let user = view.session.user_nid;
        let mut conn = view.rooms.ctx().db.conn().await?;
        let mut facts = Self::default();
        for part in storage::unread::list(&mut conn, user, &all).await? {
            let (notify, high) = facts.unread.entry(part.room).or_default();
            *notify += part.notify;
            *high += part.high;
        }
        if !counted.is_empty() {
            facts.counts = storage::sync::member_counts(&mut conn, &counted).await?;
            facts.heroes = storage::sync::heroes(&mut conn, &unnamed, user).await?;
        }
        Ok(facts)
    }
}

async fn tell(view: &View<'_>, candidate: Candidate<'_>, facts: &Facts) -> Result<Part, Error> {
    let Candidate {
        wish,
        room,
        mut events,
        cut,
        told,
    } = candidate;
    let limited = cut || events.len() > wish.limit();
    let newest = events.first().and_then(|event| event.stored.seq);
    events.truncate(wish.limit());
    events.reverse();
    let edge = events.first().and_then(|event| event.stored.seq);
    let edge = edge.or(newest.map(|seq| seq + 1));
    let viewer = visibility::viewer(view.rooms, &room, &view.session.user_id).await?;
    let current = viewer.entries(&room);
    let mut shown = visibility::filter_for(view.rooms, &room, &viewer, events).await?;
    shown.retain(|event| event.pdu.is_state() || !view.ignored.contains(&event.pdu.sender));
    let extras = Extras::load(view.rooms, &room, &shown, Some(view.session)).await?;
    let timeline: Vec<Box<RawValue>> = shown
        .iter()
        .map(|event| extras.render(view.rooms, view.session, event, Shape::Sync))
        .collect();
    let state = required(view, &room, (&wish, told.as_ref(), &current), &shown).await?;
    let is_new = |event: &&Event| view.since > 0 && event.stored.pos > Some(view.since);
    let edge = edge.unwrap_or_else(|| room.head().seq + 1);
    let (unread, loud) = facts.unread.get(&room.nid).copied().unwrap_or_default();
    let loud = loud.max(0);
    let unread = unread.max(loud);
    let mut json = json!({
        "timeline": timeline,
        "limited": limited,
        "prev_batch": format!("t{edge}"),
        "num_live": shown.iter().filter(is_new).count(),
        "required_state": state,
        "bump_stamp": place(wish.listed),
        "is_dm": view.direct().await?.contains(&room.nid),
        "notification_count": unread,
        "highlight_count": loud,
    });
    let is_first = told.is_none();
    if is_first {
        json["initial"] = json!(true);
    } else if wish.is_expanded() {
        json["unstable_expanded_timeline"] = json!(true);
    }
    naming(view, &room, (told.as_ref(), &current), &mut json).await?;
    if let Some((joined, invited)) = facts.counts.get(&room.nid) {
        json["joined_count"] = json!(joined);
        json["invited_count"] = json!(invited);
        if let Some(heroes) = facts.heroes.get(&room.nid) {
            json["heroes"] = self::heroes(view, &room, heroes).await?;
        }
    }
    let events = if is_first { shown } else { Vec::new() };
    Ok(Part {
        id: room.id.clone(),
        json,
        events: events
            .iter()
            .map(|event| event.pdu.event_id.clone())
            .collect(),
    })
}

/// Name and avatar, where they changed.
async fn naming(
    view: &View<'_>,
    room: &Room,
    (told, current): (Option<&Entries>, &Entries),
    json: &mut Value,
) -> Result<(), Error> {
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
            json[field] = text.clone();
        }
    }
    Ok(())
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
