//! Many forward extremities made few: an event of ours that joins them.
//!
//! Every extremity is a state that the next event has to be resolved from. Rooms with many servers
//! that all speak at once grow them faster than talk joins them.

use ruma::events::TimelineEventType;
use serde_json::json;
use uuid::Uuid;

use super::{Error, Rooms, membership, raw, resident::Room, send::send};
use crate::event::build::Draft;

/// Extremities from which on they are joined.
const MANY: usize = 10;
/// Type of the event: what other servers use for it, and show to nobody.
pub(super) const DUMMY: &str = "org.matrix.dummy_event";

/// Joins the extremities of a room if they are many, in the background.
pub(super) fn join_if_many(rooms: &Rooms, room: &Room) {
    if room.head().extremities.len() < MANY {
        return;
    }
    let (rooms, room_id, nid) = (rooms.clone(), room.id.clone(), room.nid);
    tokio::spawn(async move {
        // One at a time for each room.
        let claim = Uuid::from_u64_pair(u64::MAX, nid.0.unsigned_abs());
        let claim = rooms.0.underway.claim(claim).await;
        if claim.is_second {
            return;
        }
        let done = async {
            let Some(user) = membership::local_inviter(&rooms, &room_id).await? else {
                return Ok::<_, Error>(());
            };
            let kind = TimelineEventType::from(DUMMY);
            let draft = Draft::message(kind, raw(&json!({}))?);
            send(&rooms, &room_id, &user, &draft, None).await?;
            Ok(())
        };
        if let Err(error) = done.await {
            tracing::info!(%error, %room_id, "extremities were not joined");
        }
    });
}
