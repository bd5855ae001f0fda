//! Older history that we do not have, asked of peers when a client pages there.

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedEventId, api::federation::backfill::get_backfill};

use super::{
    Error, Rooms,
    persist::{Accepted, Plan},
    receive,
    remote::verify_all,
    resident::Room,
};
use crate::{
    event::pdu::Pdu,
    storage::{self, append::flag},
};

/// Events asked for at once.
const EVENTS_MAX: u32 = 100;
/// Peers asked for one page.
const SERVERS_MAX: usize = 3;
/// Holes looked at for one page.
const HOLES_MAX: i64 = 20;

/// Fetches older events of a room, if there is a hole at its beginning; whether any came.
pub(super) async fn more(rooms: &Rooms, room: &Arc<Room>) -> Result<bool, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let holes = storage::events::missing(&mut conn, room.nid, HOLES_MAX).await?;
    if holes.is_empty() {
        return Ok(false);
    }
    let servers = storage::memberships::list_servers(&mut conn, room.nid).await?;
    drop(conn);
    let own = rooms.ctx().server_name();
    let from: Vec<OwnedEventId> = holes
        .iter()
        .filter_map(|id| OwnedEventId::try_from(id.as_str()).ok())
        .collect();
    let mut asked = 0;
    for server in servers {
        let server = rooms.ctx().db.ids.server_name(server).await?;
        if server == own {
            continue;
        }
        asked += 1;
        if asked > SERVERS_MAX {
            break;
        }
        let request =
            get_backfill::v1::Request::new(room.id.clone(), from.clone(), EVENTS_MAX.into());
        match rooms.ctx().federation.request_large(&server, request).await {
            Ok(answer) => {
                let pdus = verify_all(rooms, &answer.pdus, &room.version).await;
                if store(rooms, room, &server, pdus).await? > 0 {
                    return Ok(true);
                }
            }
            Err(error) => tracing::info!(%error, %server, "a peer gave no history"),
        }
    }
    Ok(false)
}

/// Stores events below all that we have, newest first; how many.
#[expect(
    clippy::too_many_lines,
    reason = "one pass over the events, each leaning on the one before"
)]
async fn store(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ruma::ServerName,
    pdus: Vec<Pdu>,
) -> Result<usize, Error> {
    let mut pdus: Vec<Arc<Pdu>> = pdus
        .into_iter()
        .filter(|pdu| pdu.room_id == room.id)
        .map(Arc::new)
        .collect();
    pdus.truncate(usize::try_from(EVENTS_MAX).unwrap_or(0));
    pdus.sort_by(|a, b| (b.depth, &b.event_id).cmp(&(a.depth, &a.event_id)));
    let ids: Vec<OwnedEventId> = pdus.iter().map(|pdu| pdu.event_id.clone()).collect();
    let known: std::collections::HashMap<OwnedEventId, (i64, bool)> = rooms
        .events_by_id(room, &ids)
        .await?
        .into_iter()
        .map(|event| {
            (
                event.pdu.event_id.clone(),
                (event.stored.nid.0, event.stored.is_outlier()),
            )
        })
        .collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let oldest = storage::events::oldest(&mut conn, room.nid).await?;
    drop(conn);
    let mut seq = oldest.map_or(super::FIRST_SEQ, |(seq, _)| seq);
    let mut plan = Plan::outliers(room);
    let mut taken: Vec<Arc<Pdu>> = Vec::new();
    for pdu in pdus {
        let at = known.get(&pdu.event_id);
        if at.is_some_and(|(_, outlier)| !outlier) {
            continue;
        }
        receive::fetch_auth(rooms, room, server, &pdu).await?;
        if !receive::authorized_by_its_events(rooms, room, &pdu).await? {
            continue;
        }
        let nid = match at {
            Some((nid, _)) => *nid,
            None => rooms.take_nids(1).await?.start,
        };
        let auth = rooms.events_by_id(room, &pdu.auth_events).await?;
        seq -= 1;
        plan.add(
            rooms,
            Accepted {
                pdu: pdu.clone(),
                nid,
                known: at.is_some(),
                flags: flag::BACKFILLED,
                snap: None,
                prev: Vec::new(),
                auth: auth.iter().map(|event| event.stored.nid.0).collect(),
                out: None,
                seq: Some(seq),
            },
        )
        .await?;
        let prev = rooms.events_by_id(room, &pdu.prev_events).await?;
        let have: HashSet<OwnedEventId> = prev
            .into_iter()
            .filter(|event| !event.stored.is_outlier())
            .map(|event| event.pdu.event_id.clone())
            .chain(ids.iter().cloned())
            .collect();
        let lacking: Vec<OwnedEventId> = pdu
            .prev_events
            .iter()
            .filter(|id| !have.contains(*id))
            .cloned()
            .collect();
        plan.missing(nid, &lacking);
        taken.push(pdu);
    }
    if taken.is_empty() {
        return Ok(0);
    }
    plan.write_outliers(rooms).await?;
    let found: Vec<String> = taken.iter().map(|pdu| pdu.event_id.to_string()).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    storage::events::delete_missing(&mut conn, room.nid, &found).await?;
    Ok(taken.len())
}
