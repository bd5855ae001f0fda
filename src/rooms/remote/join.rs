//! Joining a room through a peer: `make_join`, `send_join`, and the state it answers with.
//!
//! The peer is asked to leave the members out of the state (MSC3706). Where it does, the room is
//! used at once and its members follow in the background (`super::super::partial`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use ruma::{
    OwnedEventId, OwnedServerName, RoomId, ServerName, UserId,
    api::federation::membership::{create_join_event, prepare_join_event},
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::Value;

use super::{
    complete,
    stream::{self, List},
    verify_all, version_of,
};
use crate::{
    clock::now_ms,
    event::{
        auth,
        build::Draft,
        chain::{self, Events},
        pdu::Pdu,
        version::{self, RoomVersion},
    },
    rooms::{
        Error, Rooms, backfill, membership,
        missing::{self, lacking},
        outliers, partial,
        persist::{Accepted, Plan, Written},
        place::Verdict,
        receive,
        resident::{Head, Room},
        state::{Entries, State},
        user_directory,
    },
    storage::{self, RoomNid, append::flag},
};

/// Time for the state of a large room to come.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Servers that a peer may say are in a room.
const SERVERS_MAX: usize = 20_000;

/// Joins through the first of `via` that can and will help.
pub async fn join(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    via: &[OwnedServerName],
    draft: &Draft,
) -> Result<(), Error> {
    let mut last = Error::RoomNotFound(room_id.to_owned());
    for server in via {
        match attempt(rooms, room_id, user, server, draft).await {
            Ok(()) => return Ok(()),
            // Others would tell the same of the room.
            Err(error @ Error::RefusedServers(_)) => return Err(error),
            Err(error) => {
                tracing::info!(%error, %room_id, %server, "a peer did not help with a join");
                last = super::worse(last, error);
            }
        }
    }
    Err(last)
}

async fn attempt(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    server: &ServerName,
    draft: &Draft,
) -> Result<(), Error> {
    let federation = &rooms.ctx().federation;
    let mut request = prepare_join_event::v1::Request::new(room_id.to_owned(), user.to_owned());
    request.ver = version::supported();
    let template = federation
        .request(server, request)
        .await
        .map_err(super::refused)?;
    let version = version_of(template.room_version)?;
    let join = complete(
        rooms,
        &template.event,
        user,
        draft,
        &MembershipState::Join,
        &version,
    )?;
    if join.room_id != room_id {
        return Err(Error::Remote(
            "the peer answered for another room".to_owned(),
        ));
    }
    let mut request =
        create_join_event::v2::Request::new(room_id.to_owned(), join.event_id.clone(), join.raw());
    request.omit_members = true;
    let response = federation
        .open(server, request, TIMEOUT)
        .await
        .map_err(super::refused)?;
    let mut told = stream::read((rooms, server), response, &version).await?;
    // A restricted join comes back with the signature of who let us in.
    let join = match told.rest.get("event") {
        Some(event) => co_signed((rooms, server), join, event, &version).await?,
        None => join,
    };
    let servers = servers_in_room(&told.rest);
    let (chain, state) = (told.take(List::AuthChain), told.take(List::State));
    let (room, of, this) = (room_id.to_owned(), version.clone(), join.clone());
    // Seconds of work for a large room.
    let answer = tokio::task::spawn_blocking(move || {
        Answer::check(&room, &of, (chain, state, servers), &this)
    });
    let answer = answer
        .await
        .map_err(|error| Error::Remote(error.to_string()))??;
    super::stay_clear(rooms, (room_id, server), user, answer.inside.iter()).await?;
    answer.write(rooms, (room_id, server), &version, join).await
}

/// Servers that are in the room, where the peer left members out; `None`: it did not.
fn servers_in_room(rest: &serde_json::Map<String, Value>) -> Option<Vec<OwnedServerName>> {
    if rest.get("members_omitted").and_then(Value::as_bool) != Some(true) {
        return None;
    }
    let named = rest.get("servers_in_room").and_then(Value::as_array);
    let servers = named
        .into_iter()
        .flatten()
        .filter_map(|server| ServerName::parse(server.as_str()?).ok());
    Some(servers.take(SERVERS_MAX).collect())
}

async fn co_signed(
    (rooms, via): (&Rooms, &ServerName),
    join: Pdu,
    event: &Value,
    version: &RoomVersion,
) -> Result<Pdu, Error> {
    let raw = crate::rooms::raw(event)?;
    match verify_all(rooms, via, &[raw], version).await.pop() {
        Some(signed) if signed.event_id == join.event_id => Ok(signed),
        // Some servers return the event untouched or not at all where no signature was needed.
        _ => Ok(join),
    }
}

/// The state of a room as a peer tells, checked.
struct Answer {
    /// Auth chain and state, every event after those that authorize it.
    events: Vec<Arc<Pdu>>,
    /// Those in the state before our join.
    state: Vec<OwnedEventId>,
    /// Servers in the room, where the state lacks members.
    servers: Option<Vec<OwnedServerName>>,
    /// Servers in the room as far as the answer tells.
    inside: BTreeSet<OwnedServerName>,
}

impl Answer {
    /// Drops what is not of this room or not authorized by its own auth events, and makes sure
    /// that what is left lets us in.
    fn check(
        room_id: &RoomId,
        version: &RoomVersion,
        (chain, state, servers): (Vec<Pdu>, Vec<Pdu>, Option<Vec<OwnedServerName>>),
        join: &Pdu,
    ) -> Result<Self, Error> {
        let ours = |pdu: &Pdu| pdu.room_id == room_id && pdu.is_state();
        let state_ids: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.event_id.clone()).collect();
        let mut all = Events::new();
        for pdu in chain.into_iter().chain(state).filter(ours) {
            all.entry(pdu.event_id.clone()).or_insert(Arc::new(pdu));
        }
        let events = chain::authorized(version, &all, &Events::new());
        let good: HashMap<&OwnedEventId, &Arc<Pdu>> = events
            .iter()
            .filter(|pdu| !pdu.rejected)
            .map(|pdu| (&pdu.event_id, pdu))
            .collect();
        let mut map: HashMap<(String, String), &Arc<Pdu>> = HashMap::new();
        let mut kept = Vec::with_capacity(state_ids.len());
        for pdu in state_ids.iter().filter_map(|id| good.get(id)) {
            let key = pdu.state_key.clone().unwrap_or_default();
            if map.insert((pdu.kind.to_string(), key), pdu).is_none() {
                kept.push(pdu.event_id.clone());
            }
        }
        let create = map.get(&("m.room.create".to_owned(), String::new()));
        let create = create
            .ok_or_else(|| Error::Remote("the peer's state has no create event".to_owned()))?;
        check_create(create, version)?;
        // Members that were left out of the state are in its auth chain where the join needs them.
        let named: Vec<&Arc<Pdu>> = match &servers {
            Some(_) => join
                .auth_events
                .iter()
                .filter_map(|id| good.get(id).copied())
                .collect(),
            None => Vec::new(),
        };
        let lookup = |kind: &StateEventType, key: &str| {
            let kind = kind.to_string();
            let of_state = map.get(&(kind.clone(), key.to_owned())).copied();
            let is_wanted = |pdu: &&&Arc<Pdu>| {
                pdu.kind.to_string() == kind && pdu.state_key.as_deref() == Some(key)
            };
            of_state
                .or_else(|| named.iter().find(is_wanted).copied())
                .cloned()
        };
        auth::check(version, &Arc::new(join.clone()), lookup).map_err(|why| {
            Error::Forbidden(format!("the state of the room does not let you in: {why}"))
        })?;
        let joined = map
            .values()
            .filter(|pdu| pdu.membership() == Some(MembershipState::Join));
        let joined = joined.filter_map(|pdu| Some(pdu.target()?.server_name().to_owned()));
        let inside = joined.chain(servers.iter().flatten().cloned()).collect();
        Ok(Self {
            inside,
            events,
            state: kept,
            servers,
        })
    }

    /// Writes the state as outliers and then our join on top of it, in that order: until the join
    /// is there, nobody sees the room.
    async fn write(
        self,
        rooms: &Rooms,
        (room_id, server): (&RoomId, &ServerName),
        version: &RoomVersion,
        join: Pdu,
    ) -> Result<(), Error> {
        let mut conn = rooms.ctx().db.conn().await?;
        let nid = storage::rooms::intern(&mut conn, room_id, &version.id, now_ms()).await?;
        // Who invited may have named another one, or none.
        storage::rooms::update_version(&mut conn, nid, &version.id).await?;
        drop(conn);
        let held = rooms.find(nid).await?;
        if let Some(room) = &held
            && (membership::we_are_in(rooms, room_id).await?
                || lacking(rooms, room, &join.prev_events).await?.is_empty())
        {
            return receive_join(rooms, room, (server, self.events), join).await;
        }
        if let Some(servers) = &self.servers {
            begin_partial(rooms, nid, servers, server).await?;
            rooms.evict(nid).await;
        }
        let room = match rooms.find(nid).await? {
            Some(room) => room,
            None => Arc::new(Room::new(
                nid,
                room_id.to_owned(),
                version.clone(),
                self.servers.is_some(),
                Head::empty(),
                0,
            )),
        };
        let nids = outliers::store_judged(rooms, &room, &self.events).await?;
        let entries = entries(rooms, &room, &self.state, &nids).await?;
        write_join(rooms, &room, entries, &nids, Arc::new(join)).await?;
        if room.partial {
            partial::complete_later(rooms, nid);
            // Our user is found by those who may find members of the room.
            user_directory::rebuild_room(rooms, nid).await?;
        }
        Ok(())
    }
}

/// A join of a room that we hold and whose history we have: an event like any other.
async fn receive_join(
    rooms: &Rooms,
    room: &Arc<Room>,
    (server, events): (&ServerName, Vec<Arc<Pdu>>),
    join: Pdu,
) -> Result<(), Error> {
    outliers::store_judged(rooms, room, &events).await?;
    let join = Arc::new(join);
    if !lacking(rooms, room, &join.prev_events).await?.is_empty()
        && let Err(error) = missing::fill_hole(rooms, room, server, &join).await
    {
        tracing::info!(%error, room_id = %room.id, "what came before a join could not be had");
    }
    match receive::settle(rooms, room, server, join).await? {
        Verdict::Accepted => {
            if room.partial {
                partial::complete_later(rooms, room.nid);
            }
            rooms.ctx().db.stream.reached(room.seen_pos()).await;
            Ok(())
        }
        Verdict::Rejected | Verdict::SoftFailed => Err(Error::Forbidden(
            "the room as we know it does not let you in".to_owned(),
        )),
    }
}

async fn begin_partial(
    rooms: &Rooms,
    nid: RoomNid,
    servers: &[OwnedServerName],
    through: &ServerName,
) -> Result<(), Error> {
    let own = rooms.ctx().server_name();
    let through = rooms.ctx().db.ids.server(through).await?;
    let mut nids = vec![through.0];
    for server in servers {
        if server != own {
            nids.push(rooms.ctx().db.ids.server(server).await?.0);
        }
    }
    nids.sort_unstable();
    nids.dedup();
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::partial::insert(&mut conn, nid, through, &nids, now_ms()).await?)
}

/// The state map of those events that were stored and not rejected.
async fn entries(
    rooms: &Rooms,
    room: &Room,
    state: &[OwnedEventId],
    nids: &outliers::Nids,
) -> Result<Entries, Error> {
    let wanted: Vec<i64> = state
        .iter()
        .filter_map(|id| nids.get(id).copied())
        .collect();
    state_map(rooms, room, &wanted).await
}

/// State key to event for stored events; rejected ones are left out.
pub(in super::super) async fn state_map(
    rooms: &Rooms,
    room: &Room,
    nids: &[i64],
) -> Result<Entries, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let keys = storage::events::list_state_keys(&mut conn, room.nid, nids).await?;
    Ok(keys.into_iter().collect())
}

async fn write_join(
    rooms: &Rooms,
    room: &Arc<Room>,
    entries: Entries,
    nids: &outliers::Nids,
    join: Arc<Pdu>,
) -> Result<(), Error> {
    // A peer may send us our own join before its answer is read to the end.
    let _claims = receive::claims(rooms, std::slice::from_ref(&join)).await;
    if receive::known_verdict(rooms, room, &join).await?.is_some() {
        return Ok(());
    }
    let mut tip = room.tip.lock().await;
    let mut fresh = rooms.take_nids(3).await?;
    let mut next = || fresh.next().unwrap_or_default();
    let (nid, before_snap, after_snap) = (next(), next(), next());
    let mut plan = Plan::new(room, &tip);
    let (before, rows) = State::default().replace(room.nid.0, before_snap, entries);
    plan.store_state(rows);
    // A room we were in before: what came since we left is a hole.
    let gap = tip.rev >= 0;
    plan.set_state(rooms, before).await?;
    plan.head.extremities.clear();
    if gap {
        plan.head.seq += backfill::GAP;
    }
    let ids = &rooms.ctx().db.ids;
    let skey = ids.skey("m.room.member", join.sender.as_str()).await?.0;
    // Outliers have no place in the timeline: what is before them is a hole as well.
    let missing = lacking(rooms, room, &join.prev_events).await?;
    let numbers = |ids: &[OwnedEventId]| -> Vec<i64> {
        ids.iter().filter_map(|id| nids.get(id).copied()).collect()
    };
    let accepted = Accepted {
        pdu: join.clone(),
        nid,
        known: false,
        flags: flag::LOCAL | if room.partial { flag::PARTIAL } else { 0 },
        snap: Some(before_snap),
        prev: numbers(&join.prev_events),
        auth: numbers(&join.auth_events),
        // The peer that we joined through tells the others.
        out: None,
        seq: None,
        sticks: true,
    };
    plan.add(rooms, accepted).await?;
    plan.missing(nid, &missing);
    plan.extend(nid, &join);
    plan.advance_state(rooms, after_snap, &[(skey, nid)])
        .await?;
    let first_seq = plan.head.seq;
    let (head, pending) = plan.commit(rooms).await?;
    *tip = head;
    drop(tip);
    match pending.written(rooms).await? {
        Written::Yes(pos) => {
            rooms.adopt(room).await;
            let mut conn = rooms.ctx().db.conn().await?;
            storage::rooms::insert_gap(&mut conn, room.nid, first_seq).await?;
            drop(conn);
            rooms.ctx().db.stream.reached(pos.unwrap_or_default()).await;
            Ok(())
        }
        Written::Stale => Err(Error::Busy),
    }
}

/// The create event must be of the version that the peer named.
fn check_create(create: &Pdu, version: &RoomVersion) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    struct Content {
        room_version: Option<String>,
    }
    let named = create
        .content_as::<Content>()
        .and_then(|content| content.room_version);
    if named.as_deref().unwrap_or("1") != version.id.as_str() {
        return Err(Error::Remote(
            "the create event is of another room version".to_owned(),
        ));
    }
    Ok(())
}
