//! Older history that we do not have, asked of peers when a client pages there.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedEventId, ServerName, api::federation::backfill::get_backfill};

use super::{
    Error, Rooms,
    missing::{self, lacking},
    outliers,
    persist::{Accepted, Plan},
    place::{merge, state_after},
    receive,
    remote::verify_all,
    resident::Room,
    state::State,
    visibility,
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
async fn store(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    pdus: Vec<Pdu>,
) -> Result<usize, Error> {
    let (taken, nids) = fresh(rooms, room, server, pdus).await?;
    if taken.is_empty() {
        return Ok(0);
    }
    let mut plan = Plan::outliers(room);
    let snaps = states(rooms, room, server, (&taken, &nids), &mut plan).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let oldest = storage::events::oldest(&mut conn, room.nid).await?;
    drop(conn);
    let mut seq = oldest.map_or(super::FIRST_SEQ, |(seq, _)| seq);
    let auth: Vec<OwnedEventId> = taken
        .iter()
        .flat_map(|pdu| pdu.auth_events.clone())
        .collect();
    let auth = outliers::known(rooms, room, &auth.iter().collect::<Vec<_>>()).await?;
    for pdu in &taken {
        let Fresh { nid, known } = nids[&pdu.event_id];
        seq -= 1;
        plan.add(
            rooms,
            Accepted {
                pdu: pdu.clone(),
                nid,
                known,
                flags: flag::BACKFILLED,
                snap: snaps.get(&nid).copied(),
                prev: Vec::new(),
                auth: pdu
                    .auth_events
                    .iter()
                    .filter_map(|id| auth.get(id).copied())
                    .collect(),
                out: None,
                seq: Some(seq),
            },
        )
        .await?;
        let lacking = lacking(rooms, room, &pdu.prev_events).await?;
        let lacking: Vec<OwnedEventId> = lacking
            .into_iter()
            .filter(|id| !nids.contains_key(id))
            .collect();
        plan.missing(nid, &lacking);
    }
    plan.write_outliers(rooms).await?;
    let found: Vec<String> = taken.iter().map(|pdu| pdu.event_id.to_string()).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    storage::events::delete_missing(&mut conn, room.nid, &found).await?;
    Ok(taken.len())
}

/// Number of an event that is taken, and whether it is stored already.
#[derive(Clone, Copy)]
struct Fresh {
    nid: i64,
    known: bool,
}

type Numbers = HashMap<OwnedEventId, Fresh>;

/// Those events that are new to the graph and authorized by their auth events, newest first.
async fn fresh(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    pdus: Vec<Pdu>,
) -> Result<(Vec<Arc<Pdu>>, Numbers), Error> {
    let mut pdus: Vec<Arc<Pdu>> = pdus
        .into_iter()
        .filter(|pdu| pdu.room_id == room.id)
        .map(Arc::new)
        .collect();
    pdus.truncate(usize::try_from(EVENTS_MAX).unwrap_or(0));
    pdus.sort_by(|a, b| (b.depth, &b.event_id).cmp(&(a.depth, &a.event_id)));
    pdus.dedup_by(|a, b| a.event_id == b.event_id);
    let ids: Vec<OwnedEventId> = pdus.iter().map(|pdu| pdu.event_id.clone()).collect();
    let stored: HashMap<OwnedEventId, (i64, bool)> = rooms
        .events_by_id(room, &ids)
        .await?
        .into_iter()
        .map(|event| {
            let at = (event.stored.nid.0, event.stored.is_outlier());
            (event.pdu.event_id.clone(), at)
        })
        .collect();
    let mut taken = Vec::with_capacity(pdus.len());
    let mut numbers = Numbers::new();
    for pdu in pdus {
        let at = stored.get(&pdu.event_id);
        if at.is_some_and(|(_, is_outlier)| !is_outlier) {
            continue;
        }
        missing::fetch_auth(rooms, room, server, &pdu).await?;
        if !receive::authorized_by_its_events(rooms, room, &pdu).await? {
            continue;
        }
        let nid = match at {
            Some((nid, _)) => *nid,
            None => rooms.take_nids(1).await?.start,
        };
        let known = at.is_some();
        numbers.insert(pdu.event_id.clone(), Fresh { nid, known });
        taken.push(pdu);
    }
    Ok((taken, numbers))
}

/// Snapshots of the states before events, by number. They are worked out only where not everybody
/// in the room may see all of its history: nothing else asks for them.
async fn states(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    (pdus, numbers): (&[Arc<Pdu>], &Numbers),
    plan: &mut Plan,
) -> Result<HashMap<i64, i64>, Error> {
    let mut snaps = HashMap::new();
    if visibility::is_open(rooms, room).await? {
        return Ok(snaps);
    }
    let mut after: HashMap<&OwnedEventId, State> = HashMap::new();
    let mut asked = false;
    let mut base = State::default();
    for pdu in pdus.iter().rev() {
        let (mut states, others): (Vec<State>, Vec<OwnedEventId>) = (
            pdu.prev_events
                .iter()
                .filter_map(|id| after.get(id).cloned())
                .collect(),
            pdu.prev_events
                .iter()
                .filter(|id| !after.contains_key(id))
                .cloned()
                .collect(),
        );
        for event in rooms.events_by_id(room, &others).await? {
            states.extend(state_after(rooms, room, &event).await?);
        }
        let lacking = lacking(rooms, room, &others).await?;
        if !lacking.is_empty() {
            // The end of a page is asked for; a second hole in it is judged by what is known.
            if std::mem::replace(&mut asked, true) {
                continue;
            }
            match missing::missing_states(rooms, room, server, (pdu, &lacking)).await {
                Ok(told) => states.extend(told),
                Err(error) => {
                    tracing::info!(%error, "the state before older events could not be had");
                    return Ok(snaps);
                }
            }
        }
        let mut before = merge(rooms, room, states, &[]).await?;
        if before.entries == base.entries {
            before = base.clone();
        } else if before.snap == 0 {
            let snap = rooms.take_nids(1).await?.start;
            let (stored, rows) = base.replace(room.nid.0, snap, before.entries);
            plan.store_state(rows);
            before = stored;
        }
        base = before.clone();
        let Fresh { nid, .. } = numbers[&pdu.event_id];
        if before.snap != 0 {
            snaps.insert(nid, before.snap);
        }
        if let Some(key) = &pdu.state_key {
            let kind = pdu.kind.to_string();
            let skey = rooms.ctx().db.ids.skey(&kind, key).await?;
            before.entries.insert(skey.0, nid);
            before.snap = 0;
        }
        after.insert(&pdu.event_id, before);
    }
    Ok(snaps)
}
