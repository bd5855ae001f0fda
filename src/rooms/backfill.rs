//! Older history that we do not have, asked of peers when a client pages there.

use std::{sync::Arc, time::Duration};

use ruma::{
    EventId, OwnedEventId, OwnedServerName, ServerName, api::federation::backfill::get_backfill,
};
use uuid::Uuid;

use super::{
    Error, Rooms,
    missing::lacking,
    older::{Fresh, fresh, states},
    once::Claim,
    outliers,
    persist::{Accepted, Plan},
    remote::verify_all,
    resident::Room,
};
use crate::{
    event::pdu::Pdu,
    storage::{self, append::flag, holes::Hole},
};

/// Events asked for at once.
const EVENTS_MAX: u32 = 100;
/// Peers asked to fill one hole.
const SERVERS_MAX: usize = 3;
/// Missing predecessors of one event that are asked for.
const MISSING_MAX: i64 = 20;
/// Tries to store events that others store at the same time.
const TRIES: usize = 3;
/// How long peers are left in peace after none of them could fill a hole.
pub(super) const PAUSE: Duration = Duration::from_mins(2);
/// Numbers left free for what is missing, so that it can be put in its place later.
pub(super) const GAP: i64 = 1 << 24;

/// Fetches the newest events of a hole; whether any came.
pub(super) async fn fill(rooms: &Rooms, room: &Arc<Room>, hole: &Hole) -> Result<bool, Error> {
    if rooms.0.unfilled.contains_key(&hole.child) {
        return Ok(false);
    }
    let claim = claim(rooms, room).await;
    if claim.is_second {
        // Somebody has just fetched something: look again.
        return Ok(true);
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let missing =
        storage::holes::list_missing(&mut conn, room.nid, hole.child, MISSING_MAX).await?;
    drop(conn);
    let from: Vec<OwnedEventId> = missing
        .iter()
        .filter_map(|id| OwnedEventId::try_from(id.as_str()).ok())
        .collect();
    if from.is_empty() {
        return Ok(false);
    }
    for server in servers(rooms, room).await? {
        match fetch(rooms, room, &server, from.clone()).await {
            Ok(pdus) => {
                let place = Place::below(hole);
                if store(rooms, room, &server, pdus, (&from, place)).await? > 0 {
                    return Ok(true);
                }
            }
            Err(error) => tracing::info!(%error, %server, "a peer gave no history"),
        }
    }
    rooms.0.unfilled.insert(hole.child, ());
    Ok(false)
}

/// Fetches an event from somewhere in the holes of a room, with what is right before it. What lies
/// between it and the event above stays a hole.
pub(super) async fn jump(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    event_id: &EventId,
    holes: &[Hole],
) -> Result<(), Error> {
    let pdus = fetch(rooms, room, server, vec![event_id.to_owned()]).await?;
    let Some(depth) = pdus
        .iter()
        .find(|pdu| pdu.event_id == event_id)
        .map(|pdu| pdu.depth)
    else {
        return Err(Error::EventNotFound);
    };
    let fits =
        |hole: &&Hole| depth < hole.depth && hole.below.is_none_or(|below| below.depth < depth);
    let Some(hole) = holes.iter().find(fits).or(holes.last()) else {
        return Err(Error::EventNotFound);
    };
    let claim = claim(rooms, room).await;
    let place = (&[event_id.to_owned()][..], Place::within(hole));
    store(rooms, room, server, pdus, place).await?;
    drop(claim);
    Ok(())
}

/// One at a time for each room: places in a timeline are given once.
async fn claim<'a>(rooms: &'a Rooms, room: &Room) -> Claim<'a> {
    let claim = Uuid::from_u64_pair(u64::MAX - 1, room.nid.0.unsigned_abs());
    rooms.0.underway.claim(claim).await
}

/// Peers in the room, as many as are asked.
pub(super) async fn servers(rooms: &Rooms, room: &Room) -> Result<Vec<OwnedServerName>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let servers = storage::memberships::list_servers(&mut conn, room.nid).await?;
    drop(conn);
    let own = rooms.ctx().server_name();
    let mut names = Vec::new();
    for server in servers.into_iter().take(SERVERS_MAX + 1) {
        names.push(rooms.ctx().db.ids.server_name(server).await?);
    }
    names.retain(|name| name != own);
    names.truncate(SERVERS_MAX);
    Ok(names)
}

async fn fetch(
    rooms: &Rooms,
    room: &Room,
    server: &ServerName,
    from: Vec<OwnedEventId>,
) -> Result<Vec<Pdu>, Error> {
    let request = get_backfill::v1::Request::new(room.id.clone(), from, EVENTS_MAX.into());
    let answer = rooms.ctx().federation.request_large(server, request).await;
    let answer = answer.map_err(|error| Error::Remote(error.to_string()))?;
    let wanted = usize::try_from(EVENTS_MAX)
        .unwrap_or(0)
        .min(answer.pdus.len());
    let mut pdus = verify_all(rooms, server, &answer.pdus[..wanted], &room.version).await;
    pdus.retain(|pdu| pdu.room_id == room.id);
    Ok(pdus)
}

/// Where events go in the timeline: numbers from `above` (not with it) downwards.
#[derive(Clone, Copy, Debug)]
struct Place {
    above: i64,
    /// How many are free there.
    free: i64,
}

impl Place {
    /// Right below the event above the hole.
    fn below(hole: &Hole) -> Self {
        let free = hole
            .below
            .map_or(i64::MAX, |below| hole.seq - below.seq - 1);
        Self {
            above: hole.seq,
            free,
        }
    }

    /// With numbers left for what is between.
    fn within(hole: &Hole) -> Self {
        match hole.below {
            None => Self {
                above: hole.seq - GAP,
                free: i64::MAX,
            },
            Some(below) => {
                let above = below.seq + (hole.seq - below.seq) / 2;
                Self {
                    above,
                    free: above - below.seq - 1,
                }
            }
        }
    }
}

/// Stores what leads to some events, newest first, at a place, or below all that we have where too
/// few numbers are free there; how many.
async fn store(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    pdus: Vec<Pdu>,
    (from, place): (&[OwnedEventId], Place),
) -> Result<usize, Error> {
    let pdus: Vec<Arc<Pdu>> = pdus.into_iter().map(Arc::new).collect();
    for _ in 0..TRIES {
        if let Some(count) = try_store(rooms, room, server, (from, &pdus), place).await? {
            return Ok(count);
        }
    }
    Err(Error::Busy)
}

/// `None`: somebody else stored some of them meanwhile.
async fn try_store(
    rooms: &Rooms,
    room: &Arc<Room>,
    server: &ServerName,
    leading: (&[OwnedEventId], &[Arc<Pdu>]),
    place: Place,
) -> Result<Option<usize>, Error> {
    let (taken, numbers) = fresh(rooms, room, server, leading).await?;
    if taken.is_empty() {
        return Ok(Some(0));
    }
    let mut plan = Plan::outliers(room);
    let snaps = states(rooms, room, server, (&taken, &numbers), &mut plan).await?;
    let ids = || taken.iter().map(|pdu| &pdu.event_id);
    let _claims = rooms.0.underway.claim_events(ids()).await;
    let stored = outliers::known(rooms, room, &ids().collect::<Vec<_>>()).await?;
    if let Some(id) = stored.keys().find(|id| !numbers[*id].known) {
        tracing::info!(event_id = %id, "an older event was stored meanwhile");
        return Ok(None);
    }
    let mut seq = place.above;
    if place.free < i64::try_from(taken.len()).unwrap_or(i64::MAX) {
        let mut conn = rooms.ctx().db.conn().await?;
        let oldest = storage::events::oldest(&mut conn, room.nid).await?;
        seq = oldest.map_or(super::FIRST_SEQ, |(seq, _)| seq);
    }
    let auth: Vec<&OwnedEventId> = taken.iter().flat_map(|pdu| &pdu.auth_events).collect();
    let auth = outliers::known(rooms, room, &auth).await?;
    for pdu in &taken {
        let Fresh { nid, known } = numbers[&pdu.event_id];
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
                sticks: false,
            },
        )
        .await?;
        let mut lacking = lacking(rooms, room, &pdu.prev_events).await?;
        lacking.retain(|id| !numbers.contains_key(id));
        plan.missing(nid, &lacking);
    }
    plan.write_outliers(rooms).await?;
    let found: Vec<String> = taken.iter().map(|pdu| pdu.event_id.to_string()).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    storage::events::delete_missing(&mut conn, room.nid, &found).await?;
    Ok(Some(taken.len()))
}
