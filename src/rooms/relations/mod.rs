//! Relations of events (specification, "Forming relationships between events"): what relates to an
//! event, and what may.

pub mod bundle;
pub mod filter;
pub mod old;
pub mod redaction;
pub mod subscriptions;
pub mod threads;

use ruma::{EventId, UserId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Error, Event, Rooms, notify,
    once::Claim,
    pdus::hash_of,
    resident::Room,
    timeline::{self, Page, Paging},
    visibility,
};
use crate::{
    event::{
        build::Draft,
        pdu::Pdu,
        relation::{ANNOTATION, Relation, THREAD},
    },
    storage::{
        self, UserNid,
        events::split_hash,
        relations::{RelationRow, Wanted},
    },
    users::tokens::Session,
};

/// Events in one page of relations.
const PAGE_MAX: i64 = 100;
/// Events in a page where the client does not say.
const PAGE_DEFAULT: i64 = 20;
/// Steps that are followed where a client asks for what relates in a roundabout way: what the
/// specification recommends.
pub const DEPTH_MAX: i32 = 3;

/// First half of the hash in an event id; `None`: no event id.
fn key_of(id: &EventId) -> Option<Uuid> {
    hash_of(id).map(|hash| split_hash(&hash).0)
}

/// The row that an event makes, whoever may see what it relates to.
pub(super) async fn row(rooms: &Rooms, nid: i64, pdu: &Pdu) -> Result<Option<RelationRow>, Error> {
    match Relation::of(pdu) {
        Some(relation) => row_of(rooms, (nid, pdu.origin_server_ts), relation).await,
        None => Ok(None),
    }
}

async fn row_of(
    rooms: &Rooms,
    (child, ts): (i64, i64),
    relation: Relation,
) -> Result<Option<RelationRow>, Error> {
    let Some(parent) = key_of(&relation.event_id) else {
        return Ok(None);
    };
    let rel = rooms.ctx().db.ids.event_type(&relation.rel_type).await?.0;
    Ok(Some(RelationRow {
        child,
        parent,
        rel,
        root: (relation.rel_type == THREAD).then(|| relation.event_id.to_string()),
        key: relation.key.as_deref().map(hash_of_key),
        edit_ts: relation.is_edit.then_some(ts),
    }))
}

fn hash_of_key(key: &str) -> Uuid {
    let digest = Sha256::digest(key.as_bytes());
    Uuid::from_slice(&digest[..16]).unwrap_or_default()
}

/// What is asked for of the relations of an event.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// Only of this relation type.
    pub rel_type: Option<&'a str>,
    /// Only events of this type.
    pub event_type: Option<&'a str>,
    /// Also what relates to such events.
    pub recurse: bool,
}

/// The limit of a page, from what a client asks for.
pub fn limit(asked: Option<u64>) -> i64 {
    let asked = asked.map_or(PAGE_DEFAULT, |limit| limit.try_into().unwrap_or(PAGE_MAX));
    asked.clamp(1, PAGE_MAX)
}

/// Events that relate to an event that the user may see (`GET /relations`).
pub async fn page(
    rooms: &Rooms,
    session: &Session,
    (room_id, event_id): (&ruma::RoomId, &EventId),
    filter: Filter<'_>,
    paging: Paging<'_>,
) -> Result<Page, Error> {
    let found = timeline::event(rooms, room_id, &session.user_id, event_id).await;
    let (room, viewer, _) = match found {
        // Who may not read it is not told whether it exists (specification).
        Err(Error::NotJoined { .. }) => return Err(Error::EventNotFound),
        found => found?,
    };
    let range = timeline::range(rooms, &room, paging).await?;
    let mut page = Page {
        room,
        events: Vec::new(),
        start: paging.from.unwrap_or_default().to_owned(),
        end: None,
    };
    let Some(parent) = key_of(event_id) else {
        return Ok(page);
    };
    let ids = &rooms.ctx().db.ids;
    let mut wanted = Wanted {
        parent,
        rel: None,
        kind: None,
        ignored: &notify::ignored_by(rooms, session.user_nid).await?,
        range,
        backwards: paging.backwards,
        limit: paging.limit + 1,
    };
    for (name, number) in [
        (filter.rel_type, &mut wanted.rel),
        (filter.event_type, &mut wanted.kind),
    ] {
        if let Some(name) = name {
            match ids.find_event_type(name).await? {
                Some(nid) => *number = Some(nid.0),
                // Nothing of that name ever was.
                None => return Ok(page),
            }
        }
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let mut nids = if filter.recurse {
        storage::relations::list_recursive(&mut conn, page.room.nid, wanted, DEPTH_MAX).await?
    } else {
        storage::relations::list(&mut conn, page.room.nid, wanted).await?
    };
    drop(conn);
    let most = usize::try_from(paging.limit).unwrap_or(usize::MAX);
    let is_more = nids.len() > most;
    nids.truncate(most);
    let events = in_order(rooms, &page.room, &nids).await?;
    let last = events.last().and_then(|event| event.stored.seq);
    page.end = last
        .filter(|_| is_more)
        .map(|seq| timeline::token(if paging.backwards { seq } else { seq + 1 }));
    page.events = visibility::filter_for(rooms, &page.room, &viewer, events).await?;
    Ok(page)
}

/// Events by number, in the order asked.
async fn in_order(rooms: &Rooms, room: &Room, nids: &[i64]) -> Result<Vec<Event>, Error> {
    if nids.is_empty() {
        return Ok(Vec::new());
    }
    let mut events = rooms.events_by_nid(room, nids).await?;
    events.sort_by_key(|event| nids.iter().position(|nid| *nid == event.stored.nid.0));
    Ok(events)
}

/// The right to send an event that relates to another; of equal annotations at the same time the
/// second waits.
pub(super) async fn claim<'a>(
    rooms: &'a Rooms,
    sender: &UserId,
    draft: &Draft,
) -> Option<Claim<'a>> {
    let relation = of_draft(draft)?;
    let key = relation.key?;
    let mut hash = Sha256::new();
    let kind = draft.kind.to_string();
    for part in [sender.as_str(), &kind, relation.event_id.as_str(), &key] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let hash = Uuid::from_slice(&hash.finalize()[..16]).unwrap_or_default();
    Some(rooms.0.underway.claim(hash).await)
}

fn of_draft(draft: &Draft) -> Option<Relation> {
    if draft.state_key.is_some() {
        return None;
    }
    Relation::of_content(&draft.kind, &draft.content)
}

/// Whether one of our users may send an event that relates to another: what peers send is taken as it
/// is (specification, "Event annotations" and "Threading", validation by the server).
pub(super) async fn check(
    rooms: &Rooms,
    room: &Room,
    sender: &UserId,
    draft: &Draft,
) -> Result<(), Error> {
    let Some(relation) = of_draft(draft) else {
        return Ok(());
    };
    let Some(parent) = key_of(&relation.event_id) else {
        return Ok(());
    };
    let ids = &rooms.ctx().db.ids;
    match (&*relation.rel_type, &relation.key) {
        (ANNOTATION, Some(key)) => {
            let sender: UserNid = ids.user(sender).await?;
            let kind = ids.event_type(&draft.kind.to_string()).await?.0;
            let what = (parent, hash_of_key(key));
            let mut conn = rooms.ctx().db.conn().await?;
            if storage::relations::is_annotated(&mut conn, room.nid, what, (sender, kind)).await? {
                return Err(Error::DuplicateAnnotation);
            }
        }
        (THREAD, _) => {
            let mut conn = rooms.ctx().db.conn().await?;
            if storage::relations::is_child(&mut conn, room.nid, parent).await? {
                return Err(Error::NoThreadThere);
            }
        }
        _ => {}
    }
    Ok(())
}
