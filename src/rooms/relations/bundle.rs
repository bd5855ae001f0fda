//! What is told beside an event of those that relate to it: its newest replacement, the summary of the
//! thread that it is the root of, references to it (specification, "Aggregations of child events").
//! Looked up for events of many rooms together: one query for what there is, one for those events.
//!
//! NOTSPEC: where the newest event of a thread is one that the user may not see, nothing is told of
//! the thread, rather than of an older event in it.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::{
    clock::now_ms,
    event::{
        client::{Shape, to_client},
        relation::{REFERENCE, REPLACE, Relation, THREAD},
    },
    rooms::{
        Error, Event, Rooms, notify,
        render::Extras,
        resident::Room,
        visibility::{self, Access, Viewer},
    },
    storage::{
        self,
        events::split_hash,
        relations::{Bundled, Looking, Parent, Part},
    },
    users::tokens::Session,
};

/// References that are told beside one event.
const REFERENCES_MAX: i64 = 100;

/// Events that are told beside others, as stored: whether the user may see them is yet to be judged.
#[derive(Debug, Default)]
pub struct Bundles {
    by_parent: HashMap<i64, Vec<Bundled>>,
    events: HashMap<i64, Event>,
}

impl Bundles {
    /// Looks up what is told beside events of some rooms.
    pub async fn load(
        rooms: &Rooms,
        session: &Session,
        groups: &[(&Room, &[Event])],
    ) -> Result<Self, Error> {
        let mut parents = Vec::new();
        for (room, events) in groups {
            for event in events.iter().filter(|event| may_have(event)) {
                parents.push(parent(rooms, room, event).await?);
            }
        }
        if parents.is_empty() {
            return Ok(Self::default());
        }
        let ids = &rooms.ctx().db.ids;
        let looking = Looking {
            viewer: session.user_nid,
            ignored: &notify::ignored_by(rooms, session.user_nid).await?,
            reference: ids.event_type(REFERENCE).await?.0,
            references_max: REFERENCES_MAX,
        };
        let mut conn = rooms.ctx().db.conn().await?;
        let found = storage::relations::bundled(&mut conn, &parents, looking).await?;
        if found.is_empty() {
            return Ok(Self::default());
        }
        let room_of: HashMap<i64, i64> = parents.iter().map(|row| (row.nid, row.room)).collect();
        let pairs: HashSet<(i64, i64)> = found
            .iter()
            .filter_map(|one| Some((*room_of.get(&one.parent)?, one.child)))
            .collect();
        let pairs: Vec<(i64, i64)> = pairs.into_iter().collect();
        let stored = storage::events::list_pairs(&mut conn, &pairs).await?;
        drop(conn);
        let mut events = HashMap::with_capacity(stored.len());
        let by_nid: HashMap<i64, &Room> =
            groups.iter().map(|(room, _)| (room.nid.0, *room)).collect();
        for stored in stored {
            if let Some(room) = by_nid.get(&stored.room.0) {
                for event in rooms.parse(room, vec![stored])? {
                    events.insert(event.stored.nid.0, event);
                }
            }
        }
        let mut by_parent: HashMap<i64, Vec<Bundled>> = HashMap::new();
        for one in found {
            by_parent.entry(one.parent).or_default().push(one);
        }
        Ok(Self { by_parent, events })
    }

    /// What is told beside some events of a room, as far as a user may see it: `m.relations` by event.
    pub async fn tell(
        &self,
        rooms: &Rooms,
        room: &Room,
        (session, viewer): (&Session, &Viewer),
        events: &[Event],
        shape: Shape,
    ) -> Result<HashMap<i64, Map<String, Value>>, Error> {
        let children: HashSet<i64> = events
            .iter()
            .filter_map(|event| self.by_parent.get(&event.stored.nid.0))
            .flatten()
            .map(|one| one.child)
            .collect();
        if children.is_empty() {
            return Ok(HashMap::new());
        }
        let children = children.iter().filter_map(|nid| self.events.get(nid));
        let mut children: Vec<Event> = children.cloned().collect();
        children.retain(|child| !child.stored.is_redacted());
        if let Access::Left(left) = &viewer.access {
            children.retain(|child| child.stored.seq < Some(left.seq));
        }
        let seen = visibility::filter_whole(rooms, room, viewer, children).await?;
        let telling = Telling {
            rooms,
            session,
            shape,
            seen: seen
                .into_iter()
                .map(|event| (event.stored.nid.0, event))
                .collect(),
        };
        let mut told = HashMap::new();
        for event in events {
            let nid = event.stored.nid.0;
            if let Some(parts) = self.by_parent.get(&nid) {
                let relations = telling.relations(event, parts);
                if !relations.is_empty() {
                    told.insert(nid, relations);
                }
            }
        }
        Ok(told)
    }
}

/// Whether anything can be told beside an event: state events and redacted ones have nothing.
fn may_have(event: &Event) -> bool {
    !event.pdu.is_state() && !event.stored.is_redacted() && event.stored.seq.is_some()
}

async fn parent(rooms: &Rooms, room: &Room, event: &Event) -> Result<Parent, Error> {
    let ids = &rooms.ctx().db.ids;
    let is_edit = Relation::of(&event.pdu).is_some_and(|relation| relation.rel_type == REPLACE);
    Ok(Parent {
        room: room.nid.0,
        nid: event.stored.nid.0,
        key: split_hash(&event.stored.hash).0,
        sender: ids.user(&event.pdu.sender).await?.0,
        // A replacement cannot be replaced.
        kind: if is_edit {
            -1
        } else {
            ids.event_type(&event.pdu.kind.to_string()).await?.0
        },
    })
}

/// Looks up and adds what is told beside events of one room.
pub async fn add(
    rooms: &Rooms,
    room: &Room,
    session: &Session,
    (extras, events): (&mut Extras, &[Event]),
    shape: Shape,
) -> Result<(), Error> {
    let bundles = Bundles::load(rooms, session, &[(room, events)]).await?;
    if bundles.by_parent.is_empty() {
        return Ok(());
    }
    let viewer = visibility::viewer(rooms, room, &session.user_id).await?;
    extras.relations = bundles
        .tell(rooms, room, (session, &viewer), events, shape)
        .await?;
    Ok(())
}

/// For whom, in which form, and what of it they may see.
struct Telling<'a> {
    rooms: &'a Rooms,
    session: &'a Session,
    shape: Shape,
    seen: HashMap<i64, Event>,
}

impl Telling<'_> {
    fn relations(&self, event: &Event, parts: &[Bundled]) -> Map<String, Value> {
        let mut relations = Map::new();
        if let Some(edit) = self.edit(parts, Part::Edit) {
            relations.insert(REPLACE.to_owned(), self.show(edit, None));
        }
        if let Some(latest) = parts.iter().find(|one| one.part == Part::Latest)
            && let Some(newest) = self.seen.get(&latest.child)
        {
            let edit = self.edit(parts, Part::LatestEdit);
            let edit = edit.map(|edit| json!({ REPLACE: self.show(edit, None) }));
            let is_root = event.pdu.sender == self.session.user_id;
            let thread = json!({
                "latest_event": self.show(newest, edit),
                "count": latest.count,
                "current_user_participated": latest.participated || is_root,
            });
            relations.insert(THREAD.to_owned(), thread);
        }
        let references = parts.iter().filter(|one| one.part == Part::Reference);
        let references: Vec<Value> = references
            .filter_map(|one| self.seen.get(&one.child))
            .map(|event| json!({ "event_id": event.pdu.event_id }))
            .collect();
        if !references.is_empty() {
            relations.insert(REFERENCE.to_owned(), json!({ "chunk": references }));
        }
        relations
    }

    /// The newest replacement: by its time, then by its id (specification, "Event replacements").
    fn edit(&self, parts: &[Bundled], part: Part) -> Option<&Event> {
        let edits = parts.iter().filter(|one| one.part == part);
        let edits = edits.filter_map(|one| self.seen.get(&one.child));
        edits.max_by_key(|edit| (edit.pdu.origin_server_ts, edit.pdu.event_id.as_str()))
    }

    fn show(&self, event: &Event, relations: Option<Value>) -> Value {
        let pdu = &event.pdu;
        let (user, device) = (self.session.user_nid, self.session.device_no);
        let mut unsigned = Map::new();
        let age = (now_ms() - pdu.origin_server_ts).max(0);
        unsigned.insert("age".to_owned(), json!(age));
        if let Some(txn_id) = self.rooms.echo(&pdu.event_id, user, device) {
            unsigned.insert("transaction_id".to_owned(), json!(&*txn_id));
        }
        if let Some(relations) = relations {
            unsigned.insert("m.relations".to_owned(), relations);
        }
        json!(to_client(pdu, self.shape, unsigned))
    }
}
