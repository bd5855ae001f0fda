//! Filters of events by their relations: what they relate to others by (MSC3874), and what relates to
//! them (`related_by_rel_types` and `related_by_senders` of filters).

use std::collections::HashSet;

use ruma::OwnedUserId;
use serde::Deserialize;

use crate::{
    event::{pdu::Pdu, relation::Relation},
    rooms::{Error, Event, Rooms, resident::Room},
    storage::{self, events::split_hash, names},
};

/// Users and relation types that are looked at in one filter.
const NAMES_MAX: usize = 100;

/// The part of a filter of a room's events that is about relations.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Related {
    /// Only events that an event of one of these senders relates to.
    #[serde(rename = "related_by_senders")]
    by_senders: Option<Vec<OwnedUserId>>,
    /// Only events that an event relates to in one of these ways.
    #[serde(rename = "related_by_rel_types")]
    by_rel_types: Option<Vec<String>>,
    /// Only events that relate to others in one of these ways.
    #[serde(rename = "org.matrix.msc3874.rel_types")]
    rel_types: Option<Vec<String>>,
    /// No events that relate to others in one of these ways.
    #[serde(default, rename = "org.matrix.msc3874.not_rel_types")]
    not_rel_types: Vec<String>,
}

impl Related {
    /// Whether an event relates to others as is asked for.
    pub fn passes(&self, pdu: &Pdu) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        let own = Relation::of(pdu).map(|relation| relation.rel_type);
        let names = |list: &[String]| own.as_ref().is_some_and(|own| list.contains(own));
        self.rel_types.as_deref().is_none_or(names) && !names(&self.not_rel_types)
    }

    /// Of events of some rooms those (by number) that others relate to as is asked for; `None`:
    /// nothing is asked for, so that all are let through.
    pub async fn find(
        &self,
        rooms: &Rooms,
        groups: &[(&Room, &[Event])],
    ) -> Result<Option<HashSet<i64>>, Error> {
        if self.by_senders.is_none() && self.by_rel_types.is_none() {
            return Ok(None);
        }
        let mut conn = rooms.ctx().db.conn().await?;
        let senders = match &self.by_senders {
            Some(named) => Some(names::find_users(&mut conn, first(named)).await?),
            None => None,
        };
        let rels = match &self.by_rel_types {
            Some(named) => Some(names::find_types(&mut conn, first(named)).await?),
            None => None,
        };
        let parents: Vec<storage::relations::Related> = groups
            .iter()
            .flat_map(|(room, events)| events.iter().map(|event| (room.nid.0, event)))
            .map(|(room, event)| storage::relations::Related {
                room,
                nid: event.stored.nid.0,
                key: split_hash(&event.stored.hash).0,
            })
            .collect();
        let by = (senders.as_deref(), rels.as_deref());
        let found = storage::relations::related_by(&mut conn, &parents, by).await?;
        Ok(Some(found.into_iter().collect()))
    }

    /// Leaves out events of a room that the filter does not let through.
    pub async fn retain(
        &self,
        rooms: &Rooms,
        room: &Room,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        events.retain(|event| self.passes(&event.pdu));
        if let Some(found) = self.find(rooms, &[(room, events)]).await? {
            events.retain(|event| found.contains(&event.stored.nid.0));
        }
        Ok(())
    }
}

/// As many as are looked at.
fn first<T>(named: &[T]) -> &[T] {
    named.get(..NAMES_MAX).unwrap_or(named)
}
