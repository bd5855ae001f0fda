//! Rooms in order, and which of them a client looks at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ruma::{OwnedRoomId, RoomId};
use serde_json::{Map, Value, json};

use super::{
    super::Error,
    View,
    connection::Told,
    request::{Body, Filters, List, Wanted},
};
use crate::rooms::spaces;
use crate::storage::{self, RoomNid, memberships::UserRoom};

/// A room that the client looks at.
#[derive(Debug)]
pub(super) struct Seen {
    /// What is wanted of it by all that look at it.
    pub(super) wanted: Wanted,
    /// Lists in whose ranges it is.
    pub(super) lists: Vec<String>,
    /// Whether it is subscribed to.
    pub(super) subscribed: bool,
}

/// What the lists show.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The `lists` of the answer.
    pub(super) lists: Map<String, Value>,
    /// Rooms that the client looks at.
    pub(super) seen: HashMap<RoomNid, Seen>,
}

/// Facts about rooms that filters ask for.
#[derive(Debug, Default)]
struct Facts {
    kind: Option<String>,
    is_encrypted: bool,
}

/// Whether a room is there for lists: joined, invited, knocked; left only as long as the client does
/// not know it, or where somebody else put the user out.
fn is_listed(view: &View<'_>, told: &Told, room: &UserRoom) -> bool {
    match room.membership {
        1 | 2 | 5 => true,
        _ => {
            let is_news = told.rooms.contains_key(&room.room.0);
            let put_out = room.sender != Some(view.session.user_nid) && room.last > 0;
            is_news || put_out
        }
    }
}

/// Sorts the rooms, filters them for each list, and cuts out the ranges.
pub(super) async fn look(
    view: &View<'_>,
    told: &Told,
    rooms: &[&UserRoom],
    body: &Body,
) -> Result<Shown, Error> {
    let mut order: Vec<&UserRoom> = rooms
        .iter()
        .copied()
        .filter(|room| is_listed(view, told, room))
        .collect();
    order.sort_unstable_by_key(|room| std::cmp::Reverse((place(room), room.room.0)));
    let filters = body.lists.values().filter_map(|list| list.filters.as_ref());
    let known = Known::load(view, &order, filters).await?;
    let mut shown = Shown::default();
    for (name, list) in &body.lists {
        let rooms: Vec<&UserRoom> = match &list.filters {
            None => order.clone(),
            Some(filters) => order
                .iter()
                .copied()
                .filter(|room| known.passes(filters, room))
                .collect(),
        };
        let ops = windows(view, list, &rooms, &mut |room| {
            see(&mut shown.seen, room, &list.wanted)
                .lists
                .push(name.clone());
        })
        .await?;
        let part = json!({ "count": rooms.len(), "ops": ops });
        shown.lists.insert(name.clone(), part);
    }
    if !body.room_subscriptions.is_empty() {
        // Of ids that clients name only those of the user's rooms are looked up.
        for (nid, id) in room_ids(view, rooms).await? {
            if let Some(wanted) = body.room_subscriptions.get(&id) {
                see(&mut shown.seen, nid, wanted).subscribed = true;
            }
        }
    }
    Ok(shown)
}

async fn room_ids(
    view: &View<'_>,
    rooms: &[&UserRoom],
) -> Result<HashMap<RoomNid, OwnedRoomId>, Error> {
    let nids: Vec<RoomNid> = rooms.iter().map(|room| room.room).collect();
    let ids = view.rooms.ctx().db.ids.room_ids_of(&nids).await?;
    Ok(nids.into_iter().zip(ids).collect())
}

/// What puts a room into its place.
pub(super) fn place(room: &UserRoom) -> i64 {
    match room.membership {
        1 if room.bump > 0 => room.bump,
        _ => room.pos,
    }
}

fn see<'a>(seen: &'a mut HashMap<RoomNid, Seen>, room: RoomNid, wanted: &Wanted) -> &'a mut Seen {
    let seen = seen.entry(room).or_insert_with(|| Seen {
        wanted: Wanted::default(),
        lists: Vec::new(),
        subscribed: false,
    });
    seen.wanted.include(wanted);
    seen
}

/// The rooms in the ranges of a list.
async fn windows(
    view: &View<'_>,
    list: &List,
    rooms: &[&UserRoom],
    see: &mut impl FnMut(RoomNid),
) -> Result<Vec<Value>, Error> {
    let mut ops = Vec::with_capacity(list.ranges.len());
    let mut seen = BTreeSet::new();
    for (from, to) in &list.ranges {
        let start = usize::try_from(*from).unwrap_or(usize::MAX);
        let count = usize::try_from((to - from).saturating_add(1)).unwrap_or(usize::MAX);
        let window: Vec<RoomNid> = rooms
            .iter()
            .skip(start)
            .take(count)
            .map(|room| room.room)
            .collect();
        for room in &window {
            // Ranges may overlap.
            if seen.insert(room.0) {
                see(*room);
            }
        }
        let ids = view.rooms.ctx().db.ids.room_ids_of(&window).await?;
        ops.push(json!({ "op": "SYNC", "range": [from, to], "room_ids": ids }));
    }
    Ok(ops)
}

/// What the filters of a request ask of rooms.
#[derive(Debug, Default)]
struct Known {
    facts: HashMap<RoomNid, Facts>,
    ids: HashMap<RoomNid, OwnedRoomId>,
    direct: HashSet<OwnedRoomId>,
    children: BTreeMap<OwnedRoomId, HashSet<OwnedRoomId>>,
    tags: HashMap<RoomNid, BTreeSet<String>>,
}

impl Known {
    /// Looks up for all rooms together what is asked, and no more.
    async fn load(
        view: &View<'_>,
        rooms: &[&UserRoom],
        filters: impl Iterator<Item = &Filters>,
    ) -> Result<Self, Error> {
        let (mut facts, mut direct, mut tags) = (false, false, false);
        let mut spaces = BTreeSet::new();
        for filter in filters {
            facts |= filter.is_encrypted.is_some()
                || filter.room_types.is_some()
                || filter.not_room_types.is_some();
            direct |= filter.is_dm.is_some();
            tags |= filter.tags.is_some() || filter.not_tags.is_some();
            spaces.extend(filter.spaces.iter().flatten().cloned());
        }
        let mut known = Self::default();
        if direct || !spaces.is_empty() {
            known.ids = room_ids(view, rooms).await?;
        }
        if facts {
            known.facts = load_facts(view, rooms).await?;
        }
        if direct {
            known.direct = view.direct().await?.clone();
        }
        if tags {
            known.tags = load_tags(view, rooms).await?;
        }
        for space in spaces {
            let children = children(view, rooms, &space).await?;
            known.children.insert(space, children);
        }
        Ok(known)
    }

    fn passes(&self, filter: &Filters, room: &UserRoom) -> bool {
        let nid = room.room;
        let is_in = |rooms: &HashSet<OwnedRoomId>| {
            let id = self.ids.get(&nid);
            id.is_some_and(|id| rooms.contains(id))
        };
        let is = |wanted: Option<bool>, fact: &dyn Fn() -> bool| {
            wanted.is_none_or(|wanted| wanted == fact())
        };
        let facts = self.facts.get(&nid);
        let kind = facts.and_then(|facts| facts.kind.clone());
        let tagged = |tags: &BTreeSet<String>| {
            let own = self.tags.get(&nid);
            own.is_some_and(|own| own.iter().any(|tag| tags.contains(tag)))
        };
        is(filter.is_dm, &|| is_in(&self.direct))
            && is(filter.is_invite, &|| room.membership == 2)
            && is(filter.is_encrypted, &|| {
                facts.is_some_and(|facts| facts.is_encrypted)
            })
            && filter
                .room_types
                .as_ref()
                .is_none_or(|kinds| kinds.contains(&kind))
            && !filter
                .not_room_types
                .as_ref()
                .is_some_and(|kinds| kinds.contains(&kind))
            && filter.tags.as_ref().is_none_or(tagged)
            && !filter.not_tags.as_ref().is_some_and(tagged)
            && filter.spaces.as_ref().is_none_or(|spaces| {
                let children = |space| self.children.get(space);
                spaces.iter().filter_map(children).any(is_in)
            })
    }
}

/// Types of rooms, and whether they are encrypted: by their current state, or what an invitation
/// shows of it.
async fn load_facts(
    view: &View<'_>,
    listed: &[&UserRoom],
) -> Result<HashMap<RoomNid, Facts>, Error> {
    let rooms = view.rooms;
    let nids: Vec<RoomNid> = listed.iter().map(|room| room.room).collect();
    let found = rooms.find_many(&nids).await?;
    let ids = &rooms.ctx().db.ids;
    let create = ids.find_skey("m.room.create", "").await?;
    let encryption = ids.find_skey("m.room.encryption", "").await?;
    let mut creates = Vec::with_capacity(found.len());
    for room in found.values() {
        let create = create.and_then(|create| room.head().state.get(create.0));
        creates.push((room.as_ref(), create.into_iter().collect::<Vec<i64>>()));
    }
    rooms.prepare_pdus(&creates).await?;
    let mut facts = HashMap::with_capacity(listed.len());
    for (room, create) in creates {
        let create = rooms.pdus(room, &create).await?.pop();
        let content: Map<String, Value> = create
            .and_then(|create| create.content_as())
            .unwrap_or_default();
        let encryption = encryption.and_then(|key| room.head().state.get(key.0));
        let fact = Facts {
            kind: content
                .get("type")
                .and_then(Value::as_str)
                .map(str::to_owned),
            is_encrypted: encryption.is_some(),
        };
        facts.insert(room.nid, fact);
    }
    for room in listed.iter().filter(|room| !found.contains_key(&room.room)) {
        facts.insert(room.room, shown_outside(room.stripped.as_deref()));
    }
    Ok(facts)
}

fn shown_outside(stripped: Option<&str>) -> Facts {
    let events: Vec<Value> = stripped
        .and_then(|events| serde_json::from_str(events).ok())
        .unwrap_or_default();
    let find = |kind: &str| events.iter().find(|event| event["type"] == kind);
    Facts {
        kind: find("m.room.create")
            .and_then(|event| event["content"]["type"].as_str())
            .map(str::to_owned),
        is_encrypted: find("m.room.encryption").is_some(),
    }
}

async fn load_tags(
    view: &View<'_>,
    listed: &[&UserRoom],
) -> Result<HashMap<RoomNid, BTreeSet<String>>, Error> {
    let rooms: Vec<(RoomNid, i64)> = listed.iter().map(|room| (room.room, 0)).collect();
    let mut conn = view.rooms.ctx().db.conn().await?;
    let user = view.session.user_nid;
    let rows = storage::sliding::account_data(&mut conn, user, &rooms, view.upto).await?;
    let tags = rows.into_iter().filter(|(_, kind, _)| kind == "m.tag");
    Ok(tags
        .map(|(room, _, content)| {
            let content: Value = serde_json::from_str(&content).unwrap_or_default();
            let tags = content["tags"].as_object();
            (
                room,
                tags.into_iter()
                    .flat_map(|tags| tags.keys().cloned())
                    .collect(),
            )
        })
        .collect())
}

/// The rooms that a space of the user names as its children.
async fn children(
    view: &View<'_>,
    listed: &[&UserRoom],
    space: &RoomId,
) -> Result<HashSet<OwnedRoomId>, Error> {
    let Some(nid) = view.rooms.ctx().db.ids.find_room(space).await? else {
        return Ok(HashSet::new());
    };
    if !listed
        .iter()
        .any(|room| room.room == nid && room.membership == 1)
    {
        return Ok(HashSet::new());
    }
    let Some(space) = view.rooms.find(nid).await? else {
        return Ok(HashSet::new());
    };
    let children = spaces::children(view.rooms, &space).await?;
    Ok(children.into_iter().collect())
}
