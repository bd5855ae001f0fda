//! Which uploads older events name: events from before that was noted are read once, in the background.

use super::{Error, Media};
use crate::{event::media::named, storage::media_refs};

/// Events that are read in one transaction.
const EVENTS_AT_ONCE: i64 = 500;

/// Reads some older events; whether there may be more. Where one cannot be read the room stays to be read, and no
/// upload goes.
pub async fn read_old(media: &Media) -> Result<bool, Error> {
    let own = media.own_nid().await?;
    let mut tx = media.ctx().db.begin().await?;
    let Some((room, after)) = media_refs::lock_todo(&mut tx).await? else {
        return Ok(false);
    };
    let events = media_refs::list_events(&mut tx, room, after, EVENTS_AT_ONCE).await?;
    let mut found = Vec::new();
    for (event, json) in &events {
        let ids = named(media.ctx().server_name(), json);
        found.extend(ids.into_iter().map(|id| (*event, id.to_owned())));
    }
    if !found.is_empty() {
        media_refs::insert(&mut tx, room, own, &found).await?;
    }
    let full = i64::try_from(events.len()).unwrap_or(EVENTS_AT_ONCE) >= EVENTS_AT_ONCE;
    let last = events.last().map(|(event, _)| *event);
    media_refs::advance_todo(&mut tx, room, last.filter(|_| full)).await?;
    tx.commit().await?;
    Ok(true)
}
