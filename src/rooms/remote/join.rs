//! Joining a room through a peer: `make_join`, `send_join`, and the state it answers with.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    OwnedEventId, OwnedServerName, RoomId, ServerName, UserId,
    api::federation::membership::{create_join_event, prepare_join_event},
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};

use super::{complete, verify_all, version_of};
use crate::{
    clock::now_ms,
    event::{
        auth,
        build::Draft,
        pdu::Pdu,
        version::{RoomVersion, SUPPORTED},
    },
    rooms::{
        Error, Rooms,
        persist::{Accepted, Plan, Written},
        receive::lacking,
        resident::{Head, Room},
        state::{Entries, State},
    },
    storage::{self, append::flag},
};

/// Events in one answer to `send_join`; more is no room but an attack.
const EVENTS_MAX: usize = 500_000;

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
            Err(error) => {
                tracing::info!(%error, %room_id, %server, "a peer did not help with a join");
                last = worse(last, error);
            }
        }
    }
    Err(last)
}

/// Of two failures the one that tells the user more.
fn worse(one: Error, other: Error) -> Error {
    match (&one, &other) {
        (Error::Forbidden(_), _) => one,
        (_, Error::Storage(_) | Error::Forbidden(_) | Error::UnsupportedVersion(_))
        | (Error::RoomNotFound(_), _) => other,
        _ => one,
    }
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
    request.ver = SUPPORTED.to_vec();
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
    let request =
        create_join_event::v2::Request::new(room_id.to_owned(), join.event_id.clone(), join.raw());
    let answer = federation
        .request_large(server, request)
        .await
        .map_err(super::refused)?
        .room_state;
    if answer.auth_chain.len() + answer.state.len() > EVENTS_MAX {
        return Err(Error::Remote(
            "the peer answered with too many events".to_owned(),
        ));
    }
    // A restricted join comes back with the signature of who let us in.
    let join = match &answer.event {
        Some(raw) => co_signed(rooms, join, raw, &version).await?,
        None => join,
    };
    let auth_chain = verify_all(rooms, &answer.auth_chain, &version).await;
    let state = verify_all(rooms, &answer.state, &version).await;
    let answer = Answer::check(room_id, &version, auth_chain, state, &join)?;
    answer.write(rooms, room_id, &version, Arc::new(join)).await
}

async fn co_signed(
    rooms: &Rooms,
    join: Pdu,
    raw: &serde_json::value::RawValue,
    version: &RoomVersion,
) -> Result<Pdu, Error> {
    let signed = verify_all(rooms, &[raw.to_owned()], version).await.pop();
    match signed {
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
}

impl Answer {
    /// Drops what is not of this room or not authorized by its own auth events, and makes sure
    /// that what is left lets us in.
    fn check(
        room_id: &RoomId,
        version: &RoomVersion,
        auth_chain: Vec<Pdu>,
        state: Vec<Pdu>,
        join: &Pdu,
    ) -> Result<Self, Error> {
        let ours = |pdu: &Pdu| pdu.room_id == room_id;
        let state: Vec<Pdu> = state
            .into_iter()
            .filter(|pdu| ours(pdu) && pdu.is_state())
            .collect();
        let state_ids: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.event_id.clone()).collect();
        let mut all: HashMap<OwnedEventId, Pdu> = HashMap::new();
        for pdu in auth_chain.into_iter().filter(ours).chain(state) {
            all.entry(pdu.event_id.clone()).or_insert(pdu);
        }
        let events = authorized(version, &all);
        let good: HashMap<&OwnedEventId, &Arc<Pdu>> = events
            .iter()
            .filter(|pdu| !pdu.rejected)
            .map(|pdu| (&pdu.event_id, pdu))
            .collect();
        let mut map: HashMap<(String, String), Arc<Pdu>> = HashMap::new();
        let mut kept = Vec::new();
        for id in &state_ids {
            let Some(pdu) = good.get(id) else { continue };
            let key = (
                pdu.kind.to_string(),
                pdu.state_key.clone().unwrap_or_default(),
            );
            if map.insert(key, (*pdu).clone()).is_none() {
                kept.push(id.clone());
            }
        }
        let create = map.get(&("m.room.create".to_owned(), String::new()));
        let Some(create) = create else {
            return Err(Error::Remote(
                "the peer's state has no create event".to_owned(),
            ));
        };
        check_create(create, version)?;
        let lookup = |kind: &StateEventType, key: &str| {
            map.get(&(kind.to_string(), key.to_owned())).cloned()
        };
        auth::check(version, &Arc::new(join.clone()), lookup)
            .map_err(|why| Error::Remote(format!("the peer's state does not let us in: {why}")))?;
        Ok(Self {
            events,
            state: kept,
        })
    }

    /// Writes the state as outliers and then our join on top of it, in that order: until the join
    /// is there, nobody sees the room.
    async fn write(
        self,
        rooms: &Rooms,
        room_id: &RoomId,
        version: &RoomVersion,
        join: Arc<Pdu>,
    ) -> Result<(), Error> {
        let ids = &rooms.ctx().db.ids;
        let mut conn = rooms.ctx().db.conn().await?;
        let nid = storage::rooms::intern(&mut conn, room_id, &version.id, now_ms()).await?;
        let head = storage::rooms::find_head(&mut conn, nid).await?;
        drop(conn);
        let room = match rooms.find(nid).await? {
            Some(room) => room,
            None => Arc::new(Room::new(
                nid,
                room_id.to_owned(),
                version.clone(),
                Head::empty(),
                0,
            )),
        };
        drop(head);
        let nids = self.write_outliers(rooms, &room).await?;
        let mut entries = Entries::new();
        for pdu in &self.events {
            if self.state.contains(&pdu.event_id)
                && let (Some(key), Some(event)) = (&pdu.state_key, nids.get(&pdu.event_id))
            {
                entries.insert(ids.skey(&pdu.kind.to_string(), key).await?.0, *event);
            }
        }
        self.write_join(rooms, &room, entries, &nids, join).await
    }

    async fn write_outliers(
        &self,
        rooms: &Rooms,
        room: &Arc<Room>,
    ) -> Result<HashMap<OwnedEventId, i64>, Error> {
        let ids: Vec<OwnedEventId> = self.events.iter().map(|pdu| pdu.event_id.clone()).collect();
        let mut nids: HashMap<OwnedEventId, i64> = HashMap::new();
        for chunk in ids.chunks(OUTLIERS_AT_ONCE) {
            for event in rooms.events_by_id(room, chunk).await? {
                nids.insert(event.pdu.event_id.clone(), event.stored.nid.0);
            }
        }
        let fresh: Vec<&Arc<Pdu>> = self
            .events
            .iter()
            .filter(|pdu| !nids.contains_key(&pdu.event_id))
            .collect();
        intern_all(rooms, &fresh).await?;
        for chunk in fresh.chunks(OUTLIERS_AT_ONCE) {
            let count = i64::try_from(chunk.len()).unwrap_or(0);
            for (nid, pdu) in rooms.take_nids(count).await?.zip(chunk) {
                nids.insert(pdu.event_id.clone(), nid);
            }
            let mut plan = Plan::outliers(room);
            for pdu in chunk {
                let rejected = if pdu.rejected { flag::REJECTED } else { 0 };
                let accepted = Accepted {
                    pdu: (*pdu).clone(),
                    nid: nids.get(&pdu.event_id).copied().unwrap_or_default(),
                    known: false,
                    flags: flag::OUTLIER | rejected,
                    snap: None,
                    prev: Vec::new(),
                    auth: pdu
                        .auth_events
                        .iter()
                        .filter_map(|id| nids.get(id).copied())
                        .collect(),
                    out: None,
                    seq: None,
                };
                plan.add(rooms, accepted).await?;
            }
            plan.write_outliers(rooms).await?;
        }
        Ok(nids)
    }

    async fn write_join(
        &self,
        rooms: &Rooms,
        room: &Arc<Room>,
        entries: Entries,
        nids: &HashMap<OwnedEventId, i64>,
        join: Arc<Pdu>,
    ) -> Result<(), Error> {
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
            plan.head.seq += GAP_SEQ;
        }
        let skey = rooms
            .ctx()
            .db
            .ids
            .skey("m.room.member", join.sender.as_str())
            .await?
            .0;
        // Outliers have no place in the timeline: what is before them is a hole as well.
        let missing = lacking(rooms, room, &join.prev_events).await?;
        let accepted = Accepted {
            pdu: join.clone(),
            nid,
            known: false,
            flags: flag::LOCAL,
            snap: Some(before_snap),
            prev: join
                .prev_events
                .iter()
                .filter_map(|id| nids.get(id).copied())
                .collect(),
            auth: join
                .auth_events
                .iter()
                .filter_map(|id| nids.get(id).copied())
                .collect(),
            // The peer that we joined through tells the others.
            out: None,
            seq: None,
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
}

/// Outliers written in one statement.
const OUTLIERS_AT_ONCE: usize = 500;
/// Numbers left free for what we missed, so that it can be put in its place later.
const GAP_SEQ: i64 = 1 << 24;

/// Gives every user and server of a large answer its number in a few queries.
async fn intern_all(rooms: &Rooms, pdus: &[&Arc<Pdu>]) -> Result<(), Error> {
    let mut users: Vec<&UserId> = pdus
        .iter()
        .flat_map(|pdu| [Some(&*pdu.sender), pdu.target()])
        .flatten()
        .collect();
    users.sort_unstable();
    users.dedup();
    for chunk in users.chunks(5_000) {
        rooms.ctx().db.ids.users_of(chunk).await?;
    }
    Ok(())
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

/// Puts events after those that authorize them and marks those that fail authorization against
/// their auth events. Events in a circle, or that lean on unknown ones, are left out.
fn authorized(version: &RoomVersion, all: &HashMap<OwnedEventId, Pdu>) -> Vec<Arc<Pdu>> {
    let mut children: HashMap<&OwnedEventId, Vec<&OwnedEventId>> = HashMap::new();
    let mut waits: HashMap<&OwnedEventId, usize> = HashMap::new();
    let mut ready: Vec<&OwnedEventId> = Vec::new();
    for (id, pdu) in all {
        let known: Vec<&OwnedEventId> = pdu
            .auth_events
            .iter()
            .filter(|auth| all.contains_key(*auth))
            .collect();
        if known.len() < pdu.auth_events.len() {
            continue;
        }
        if known.is_empty() {
            ready.push(id);
        }
        waits.insert(id, known.len());
        for auth in known {
            children.entry(auth).or_default().push(id);
        }
    }
    let mut done: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::new();
    let mut order = Vec::with_capacity(all.len());
    let create = all
        .values()
        .find(|pdu| pdu.kind == TimelineEventType::RoomCreate)
        .cloned();
    let create = create.map(Arc::new);
    // From v12 on every event leans on the create event without naming it: it comes first.
    ready.sort_by_key(|id| all[*id].kind == TimelineEventType::RoomCreate);
    while let Some(id) = ready.pop() {
        let mut pdu = Arc::new(all[id].clone());
        let by_key: HashMap<(String, &str), &Arc<Pdu>> = pdu
            .auth_events
            .iter()
            .filter_map(|auth| done.get(auth))
            .filter_map(|auth| Some(((auth.kind.to_string(), auth.state_key.as_deref()?), auth)))
            .collect();
        let lookup = |kind: &StateEventType, key: &str| {
            if *kind == StateEventType::RoomCreate {
                return create.clone();
            }
            by_key
                .get(&(kind.to_string(), key))
                .map(|auth| (*auth).clone())
        };
        let fails = auth::check_independent(version, &pdu, |auth| done.get(auth).cloned())
            .and_then(|()| auth::check(version, &pdu, lookup));
        drop(by_key);
        if let Err(why) = fails {
            tracing::debug!(event_id = %pdu.event_id, why, "an event of a peer's state is rejected");
            Arc::make_mut(&mut pdu).rejected = true;
        }
        done.insert(pdu.event_id.clone(), pdu.clone());
        order.push(pdu);
        for child in children.remove(id).unwrap_or_default() {
            if let Some(count) = waits.get_mut(child) {
                *count -= 1;
                if *count == 0 {
                    ready.push(child);
                }
            }
        }
    }
    order
}
