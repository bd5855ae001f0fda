//! An event of one of our users: build, authorize, sign, persist.

use std::sync::Arc;

use ruma::{
    EventId, OwnedEventId, RoomId, UserId,
    events::{
        StateEventType, TimelineEventType,
        room::{member::MembershipState, policy::RoomPolicyEventContent},
    },
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    ATTEMPTS_MAX, Error, Rooms, encryption, guests, membership,
    pdus::{StateSlice, event_id},
    persist::{Accepted, Plan, Written, is_local},
    place::{self, Incoming, Verdict},
    policy_server::{self, Judged},
    presence, relations,
    resident::{Head, Room},
    succession, unredacted,
};
use crate::{
    clock::now_ms,
    event::{
        auth::{self, Power},
        build::{self, Draft, PREV_EVENTS_MAX, Place},
        pdu::Pdu,
    },
    storage::{self, append::flag},
};

/// A client's transaction: what makes a repeated request answer with the first event.
#[derive(Clone, Copy, Debug)]
pub struct Txn(Uuid);

impl Txn {
    /// From user, device, endpoint and transaction id. The scope is the device and the path
    /// (specification, "Transaction identifiers").
    pub fn new(user: &UserId, device: &str, path: &str, txn_id: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [user.as_str(), device, path, txn_id] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        Self(Uuid::from_slice(&digest[..16]).unwrap_or_default())
    }

    pub(super) fn id(self) -> Uuid {
        self.0
    }
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Event id.
    pub event_id: OwnedEventId,
    /// Stream position; `None` for a repeated transaction.
    pub pos: Option<i64>,
}

impl Sent {
    fn before(event_id: OwnedEventId) -> Self {
        Self {
            event_id,
            pos: None,
        }
    }
}

/// Whether an event is one that the user sent.
pub async fn is_own(
    rooms: &Rooms,
    user: &UserId,
    (room_id, event_id): (&RoomId, &EventId),
) -> Result<bool, Error> {
    let room = rooms.by_id(room_id).await?;
    let found = rooms.events_by_id(&room, &[event_id.to_owned()]).await?;
    Ok(found.first().is_some_and(|event| event.pdu.sender == user))
}

/// Sends an event into a room we are in. With `txn`, exactly once however often it is called.
pub async fn send(
    rooms: &Rooms,
    room_id: &RoomId,
    sender: &UserId,
    draft: &Draft,
    txn: Option<Txn>,
) -> Result<Sent, Error> {
    if draft.kind == TimelineEventType::RoomCreate {
        return Err(Error::Invalid("a room is created once".to_owned()));
    }
    encryption::check(&rooms.ctx().config.rooms, draft)?;
    membership::invite::check_draft(rooms, sender, draft).await?;
    presence::active(rooms, sender).await;
    let claim = match txn {
        Some(txn) => Some(rooms.0.underway.claim(txn.0).await),
        None => None,
    };
    let _annotates = relations::claim(rooms, sender, draft).await;
    let is_second = claim.as_ref().is_some_and(|claim| claim.is_second);
    for attempt in 0..ATTEMPTS_MAX {
        if (attempt > 0 || is_second)
            && let Some(txn) = txn
            && let Some(event_id) = find_repeated(rooms, txn).await?
        {
            return Ok(Sent::before(event_id));
        }
        let mut room = rooms.by_id(room_id).await?;
        if room.partial && is_of_others(sender, draft) {
            // What others are in the room has to be known for that.
            room = rooms.whole(room_id).await?;
        }
        encryption::check_message(rooms, &room, draft).await?;
        guests::check_draft(rooms, &room, (sender, draft)).await?;
        if let Some(event_id) = same_state(rooms, &room, sender, draft).await? {
            return Ok(Sent::before(event_id));
        }
        if let Err(error) = relations::check(rooms, &room, sender, draft).await {
            // What is repeated is no second one.
            let event_id = match txn {
                Some(txn) => find_repeated(rooms, txn).await?,
                None => None,
            };
            let event_id = event_id.ok_or(error)?;
            return Ok(Sent::before(event_id));
        }
        if !policy_server::is_exempt(&draft.kind, draft.state_key.as_deref())
            && let Some(policy) = policy_server::of(rooms, &room).await?
        {
            match judged(rooms, &room, (sender, draft), txn, &policy).await? {
                Some(sent) => return Ok(sent),
                None => continue,
            }
        }
        let mut tip = room.tip.lock().await;
        if room.is_dead() {
            continue;
        }
        let (plan, event_id) = plan(rooms, &room, &tip, sender, draft, txn).await?;
        let (head, pending) = plan.commit(rooms).await?;
        *tip = head;
        drop(tip);
        if let Written::Yes(pos) = pending.written(rooms).await? {
            if draft.kind == TimelineEventType::RoomTombstone {
                Box::pin(succession::replaced(rooms, sender, draft)).await;
            }
            return Ok(Sent { event_id, pos });
        }
    }
    Err(Error::Busy)
}

/// The event that has set a state to what it is to be set to, if the same user did: once is enough.
async fn same_state(
    rooms: &Rooms,
    room: &Room,
    sender: &UserId,
    draft: &Draft,
) -> Result<Option<OwnedEventId>, Error> {
    // What is to stick is sent again, so that it sticks for longer.
    let Some(key) = draft
        .state_key
        .as_ref()
        .filter(|_| draft.sticky_ms.is_none())
    else {
        return Ok(None);
    };
    let head = room.head();
    let kind = StateEventType::from(draft.kind.to_string());
    let now = rooms
        .state_event(room, &head.state.entries, &kind, key)
        .await?;
    let same = now.filter(|now| {
        let content = |raw: &str| serde_json::from_str::<serde_json::Value>(raw).ok();
        now.sender == sender && content(now.content.get()) == content(draft.content.get())
    });
    Ok(same.map(|same| same.event_id.clone()))
}

/// Sends an event into a room with a policy server: it is built on the tip, judged without holding
/// anybody up, and takes its place like an event of a peer. `None`: the room changed meanwhile.
async fn judged(
    rooms: &Rooms,
    room: &Arc<Room>,
    (sender, draft): (&UserId, &Draft),
    txn: Option<Txn>,
    policy: &RoomPolicyEventContent,
) -> Result<Option<Sent>, Error> {
    let tip = room.tip.lock().await.clone();
    let built = build_on(rooms, room, &tip, sender, draft).await?;
    authorize(rooms, room, &built).await?;
    room.committed(tip.rev).await;
    let pdu = match policy_server::judge(rooms, room, policy, &built.pdu).await? {
        Judged::Signed(pdu) => pdu,
        Judged::Refused(why) => return Err(why),
    };
    let mut incoming = Incoming::new(rooms, room, pdu.clone()).await?;
    incoming.out = Some(owed_to(rooms, &pdu).await?);
    incoming.txn = txn.map(|txn| txn.0);
    let placed = place::begin(rooms, room.nid, &incoming, None).await?;
    let placed = placed.ok_or(Error::Busy)?;
    let verdict = placed.verdict;
    if !placed.written(rooms).await? {
        return Ok(None);
    }
    if verdict != Verdict::Accepted {
        return Err(Error::Forbidden("the room changed meanwhile".to_owned()));
    }
    Ok(Some(Sent {
        event_id: pdu.event_id.clone(),
        pos: Some(room.seen_pos()),
    }))
}

/// Whether an event changes the membership of somebody else.
fn is_of_others(sender: &UserId, draft: &Draft) -> bool {
    draft.kind == TimelineEventType::RoomMember
        && draft.state_key.as_deref() != Some(sender.as_str())
}

/// The event that a transaction made before, if the write path refused it as a repetition.
async fn find_repeated(rooms: &Rooms, txn: Txn) -> Result<Option<OwnedEventId>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let Some((room, nid)) = storage::events::find_by_txn(&mut conn, txn.0).await? else {
        return Ok(None);
    };
    let Some(stored) = storage::events::list(&mut conn, room, &[nid.0])
        .await?
        .pop()
    else {
        return Ok(None);
    };
    drop(conn);
    let Some(room) = rooms.find(room).await? else {
        return Ok(None);
    };
    Ok(Some(event_id(&room.version, &stored)?))
}

async fn plan(
    rooms: &Rooms,
    room: &Arc<Room>,
    tip: &Head,
    sender: &UserId,
    draft: &Draft,
    txn: Option<Txn>,
) -> Result<(Plan, OwnedEventId), Error> {
    let built = build_on(rooms, room, tip, sender, draft).await?;
    authorize(rooms, room, &built).await?;
    let mut plan = Plan::new(room, tip);
    let event_id = built.pdu.event_id.clone();
    add_local(rooms, &mut plan, built, txn).await?;
    Ok((plan, event_id))
}

/// An event built on a head, with what authorizes it.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) pdu: Arc<Pdu>,
    pub(super) auth: StateSlice,
}

/// Keys of the state that authorize a draft.
pub(super) async fn auth_slice(
    rooms: &Rooms,
    room: &Room,
    head: &Head,
    sender: &UserId,
    draft: &Draft,
) -> Result<StateSlice, Error> {
    let keys = auth::types(
        &draft.kind,
        sender,
        draft.state_key.as_deref(),
        &draft.content,
        &room.version,
    )
    .map_err(Error::Invalid)?;
    rooms
        .state_events(room, &head.state.entries, &with_create(keys))
        .await
}

/// Authorization reads the create event in every room version, also where no event names it.
pub(super) fn with_create(
    mut keys: Vec<(StateEventType, String)>,
) -> Vec<(StateEventType, String)> {
    if !keys
        .iter()
        .any(|(kind, _)| *kind == StateEventType::RoomCreate)
    {
        keys.push((StateEventType::RoomCreate, String::new()));
    }
    keys
}

/// Where an event built now goes in the graph.
pub(super) fn position<'a>(room: &'a Room, head: &Head, auth: &StateSlice) -> Place<'a> {
    let newest = head.extremities.iter().rev().take(PREV_EVENTS_MAX);
    let create_is_implied = !room
        .version
        .rules
        .event_format
        .allow_room_create_in_auth_events;
    Place {
        room_id: Some(&room.id),
        prev_events: newest.map(|(_, id)| id.clone()).collect(),
        auth_events: auth
            .iter()
            .filter(|(_, pdu)| !(create_is_implied && pdu.kind == TimelineEventType::RoomCreate))
            .map(|(_, pdu)| pdu.event_id.clone())
            .collect(),
        depth: head.depth + 1,
    }
}

async fn build_on(
    rooms: &Rooms,
    room: &Arc<Room>,
    head: &Head,
    sender: &UserId,
    draft: &Draft,
) -> Result<Built, Error> {
    let auth = auth_slice(rooms, room, head, sender, draft).await?;
    let keys = &rooms.ctx().keys;
    let pdu = build::build(
        draft,
        &position(room, head, &auth),
        sender,
        now_ms(),
        &room.version,
        keys,
    )?;
    Ok(Built {
        pdu: Arc::new(pdu),
        auth,
    })
}

/// Checks an event of ours against the state it is built on.
pub(super) async fn authorize(rooms: &Rooms, room: &Room, built: &Built) -> Result<(), Error> {
    auth::check(&room.version, &built.pdu, |kind, key| {
        built.auth.get(kind, key)
    })
    .map_err(|why| {
        let create = built.auth.get(&StateEventType::RoomCreate, "");
        if auth::is_never_valid(&room.version, &built.pdu, create.as_ref()) {
            Error::Invalid(why)
        } else {
            Error::Forbidden(why)
        }
    })?;
    // Room versions 3 on let every redaction through and ignore those without power; ours are
    // refused where the sender can see it.
    if let Some(target) = &built.pdu.redacts
        && built.pdu.kind == TimelineEventType::RoomRedaction
        && !may_redact(rooms, room, &built.pdu, target, &built.auth).await?
    {
        return Err(Error::Forbidden("you may not redact this event".to_owned()));
    }
    Ok(())
}

async fn may_redact(
    rooms: &Rooms,
    room: &Room,
    redaction: &Pdu,
    target: &EventId,
    state: &StateSlice,
) -> Result<bool, Error> {
    let target = rooms.event_by_id(room, target).await?;
    if target.is_some_and(|target| target.pdu.sender == redaction.sender) {
        return Ok(true);
    }
    Ok(has_redact_power(room, redaction, state))
}

/// Whether the sender of a redaction has the power to redact others' events.
pub(super) fn has_redact_power(room: &Room, redaction: &Pdu, state: &StateSlice) -> bool {
    let Some(create) = state.get(&StateEventType::RoomCreate, "") else {
        return false;
    };
    let levels = state.get(&StateEventType::RoomPowerLevels, "");
    let power = Power::new(&room.version, &create, levels.as_ref());
    power.of(&redaction.sender) >= power.needed("redact")
}

/// Adds an authorized event of ours on top of the plan's head.
pub(super) async fn add_local(
    rooms: &Rooms,
    plan: &mut Plan,
    built: Built,
    txn: Option<Txn>,
) -> Result<(), Error> {
    let Built { pdu, auth } = built;
    let mut nids = rooms.take_nids(2).await?;
    let (nid, snap) = (
        nids.next().unwrap_or_default(),
        nids.next().unwrap_or_default(),
    );
    let prev = plan
        .head
        .extremities
        .iter()
        .filter(|(_, id)| pdu.prev_events.contains(id))
        .map(|(nid, _)| *nid)
        .collect();
    let named = auth
        .iter()
        .filter(|(_, auth)| pdu.auth_events.contains(&auth.event_id));
    let auth_nids = named.map(|(nid, _)| nid).collect();
    let out = Some(owed_to(rooms, &pdu).await?);
    plan.add(
        rooms,
        Accepted {
            pdu: pdu.clone(),
            nid,
            known: false,
            flags: flag::LOCAL | if plan.is_partial() { flag::PARTIAL } else { 0 },
            snap: Some(plan.head.state.snap),
            prev,
            auth: auth_nids,
            out,
            seq: None,
            sticks: true,
        },
    )
    .await?;
    plan.extend(nid, &pdu);
    if let Some(key) = &pdu.state_key {
        let skey = rooms.ctx().db.ids.skey(&pdu.kind.to_string(), key).await?;
        plan.advance_state(rooms, snap, &[(skey.0, nid)]).await?;
    }
    if pdu.kind == TimelineEventType::RoomRedaction {
        apply_redaction(rooms, plan, nid, &pdu).await?;
    }
    if let Some(txn) = txn {
        plan.txn(txn.0, nid);
    }
    Ok(())
}

/// Prunes the target of an allowed redaction in the same transaction.
async fn apply_redaction(rooms: &Rooms, plan: &mut Plan, nid: i64, pdu: &Pdu) -> Result<(), Error> {
    let Some(target_id) = &pdu.redacts else {
        return Ok(());
    };
    let room = rooms.by_id(&pdu.room_id).await?;
    let target = rooms.event_by_id(&room, target_id).await?;
    let pruned = unredacted::prune(rooms, &room, target.as_ref()).await?;
    plan.redact(
        nid,
        target_id.as_str(),
        pruned.as_ref().map(|(nid, pdu)| (*nid, pdu)),
    );
    Ok(())
}

/// Which server beyond those in the room is owed an event: that of a user who is invited or put
/// out. 0: none.
async fn owed_to(rooms: &Rooms, pdu: &Pdu) -> Result<i32, Error> {
    // Of what its own users send a server is taken to know; what we send in their name (invitations
    // of third-party identifiers) it is told.
    if !is_local(rooms, &pdu.sender) {
        return Ok(rooms.ctx().db.ids.server(pdu.sender.server_name()).await?.0);
    }
    let (Some(target), Some(membership)) = (pdu.target(), pdu.membership()) else {
        return Ok(0);
    };
    if is_local(rooms, target) || membership == MembershipState::Join {
        return Ok(0);
    }
    Ok(rooms.ctx().db.ids.server(target.server_name()).await?.0)
}
