//! Who may read what: history visibility, the same for every path by which events leave us.
//!
//! Rules of the specification ("Room history visibility", server behaviour), at the state of the
//! event; the numbers are in the code again:
//! 1. history was `world_readable`: allow;
//! 2. the user was joined: allow;
//! 3. history was `shared` and the user joined at any point after the event: allow;
//! 4. history was `invited` and the user was invited: allow;
//! 5. else: deny.
//!
//! Events that change the visibility, or the user's own membership, may be seen when the state
//! before or after them allows it.

use std::sync::Arc;

use ruma::{
    OwnedUserId, RoomId, ServerName, UserId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};
use serde::Deserialize;

use super::{
    Error, Rooms, erasure,
    moments::Moments,
    open_history,
    pdus::Event,
    resident::Room,
    state::{Entries, State},
};
use crate::{
    event::pdu::Pdu,
    storage::{self, UserNid},
};

/// Memberships looked back at to find when a user was last joined.
const MEMBERSHIPS_MAX: usize = 16;

/// How a user stands to a room they may read.
#[derive(Clone, Debug)]
pub enum Access {
    /// They are in it.
    Joined,
    /// They were in it.
    Left(Left),
    /// They never were in it, but its history is world-readable now.
    Peek,
}

/// When and how somebody left.
#[derive(Clone, Debug)]
pub struct Left {
    /// `room_seq` of the event that ended the stay.
    pub seq: i64,
    /// State after it.
    pub entries: Entries,
}

/// A user who reads a room.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// Who.
    pub user_id: OwnedUserId,
    /// State key number of their membership; 0: they have none anywhere.
    pub skey: i64,
    /// How they stand to the room.
    pub access: Access,
}

impl Viewer {
    /// The state that the user may see as current: what it was when they left, else the head's.
    pub fn entries(&self, room: &Room) -> Entries {
        match &self.access {
            Access::Joined | Access::Peek => room.head().state.entries.clone(),
            Access::Left(left) => left.entries.clone(),
        }
    }

    fn joined_after(&self, seq: i64) -> bool {
        match &self.access {
            Access::Joined => true,
            Access::Left(left) => seq < left.seq,
            Access::Peek => false,
        }
    }
}

#[derive(Deserialize)]
struct Visibility {
    history_visibility: HistoryVisibility,
}

/// What a history visibility event sets; `shared` where it says nothing we know.
pub fn of(event: Option<&Arc<Pdu>>) -> HistoryVisibility {
    event
        .and_then(|pdu| pdu.content_as::<Visibility>())
        .map_or(HistoryVisibility::Shared, |content| {
            content.history_visibility
        })
}

/// Rules 1 to 5 at one state.
fn allows(
    visibility: &HistoryVisibility,
    membership: &MembershipState,
    joined_after: bool,
) -> bool {
    match (visibility, membership) {
        // 1 and 2
        (HistoryVisibility::WorldReadable, _) | (_, MembershipState::Join) => true,
        // 4
        (HistoryVisibility::Invited, membership) => *membership == MembershipState::Invite,
        // 5
        (HistoryVisibility::Joined, _) => false,
        // 3; values that we do not know count as `shared`
        _ => joined_after,
    }
}

/// The room and how a user stands to it, if they may read it. A room that we do not know looks
/// like one that they are not in.
pub async fn enter(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
) -> Result<(Arc<Room>, Viewer), Error> {
    let room = match rooms.by_id(room_id).await {
        Err(Error::RoomNotFound(room_id)) => return Err(not_joined(user, &room_id)),
        other => other?,
    };
    let viewer = viewer(rooms, &room, user).await?;
    Ok((room, viewer))
}

/// The room, if the user is in it now.
pub async fn joined(rooms: &Rooms, room_id: &RoomId, user: &UserId) -> Result<Arc<Room>, Error> {
    let room = match rooms.by_id(room_id).await {
        Err(Error::RoomNotFound(room_id)) => return Err(not_joined(user, &room_id)),
        other => other?,
    };
    let head = room.head();
    let member = rooms.member_event(&room, &head.state.entries, user).await?;
    if is_join(member.as_ref()) {
        Ok(room)
    } else {
        Err(not_joined(user, room_id))
    }
}

/// The room, if the user may see what it is now: is in it, or anybody may look in.
pub async fn present(rooms: &Rooms, room_id: &RoomId, user: &UserId) -> Result<Arc<Room>, Error> {
    let (room, viewer) = enter(rooms, room_id, user).await?;
    match viewer.access {
        Access::Joined | Access::Peek => Ok(room),
        Access::Left(_) => Err(not_joined(user, room_id)),
    }
}

/// What is known of somebody who left, so that it need not be looked up.
#[derive(Clone, Copy, Debug)]
pub struct Leaving<'a> {
    /// Whether they forgot the room.
    pub forgotten: bool,
    /// Events among which the end of their stay may be.
    pub events: &'a [Event],
}

/// How a user stands to a room; [`Error::NotJoined`] when they may not read it at all.
pub async fn viewer(rooms: &Rooms, room: &Room, user: &UserId) -> Result<Viewer, Error> {
    viewer_of(rooms, room, user, None).await
}

/// The same, with what is known of who left.
pub async fn viewer_of(
    rooms: &Rooms,
    room: &Room,
    user: &UserId,
    known: Option<Leaving<'_>>,
) -> Result<Viewer, Error> {
    let head = room.head();
    let user_nid = rooms.ctx().db.ids.find_user(user).await?;
    let viewer = |access| Viewer {
        user_id: user.to_owned(),
        skey: user_nid.map_or(0, |nid| -nid.0),
        access,
    };
    if let Some(user_nid) = user_nid {
        let member = rooms.member_event(room, &head.state.entries, user).await?;
        if is_join(member.as_ref()) {
            return Ok(viewer(Access::Joined));
        }
        let events = known.map_or(&[][..], |known| known.events);
        if let Some(left) = last_left(rooms, room, user_nid, events).await? {
            let forgotten = match known {
                Some(known) => known.forgotten,
                None => has_forgotten(rooms, room, user_nid).await?,
            };
            if !forgotten {
                return Ok(viewer(Access::Left(left)));
            }
        }
    }
    if current(rooms, room).await? == HistoryVisibility::WorldReadable {
        return Ok(viewer(Access::Peek));
    }
    Err(not_joined(user, &room.id))
}

/// Whether a user may know anything of a room.
pub async fn may_see_room(rooms: &Rooms, room: &Room, user: &UserId) -> Result<bool, Error> {
    Ok(find_viewer(rooms, room, user).await?.is_some())
}

/// How a user stands to a room; `None`: they may not read it at all.
pub async fn find_viewer(
    rooms: &Rooms,
    room: &Room,
    user: &UserId,
) -> Result<Option<Viewer>, Error> {
    match viewer(rooms, room, user).await {
        Ok(viewer) => Ok(Some(viewer)),
        Err(Error::NotJoined { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The current history visibility of a room.
pub async fn current(rooms: &Rooms, room: &Room) -> Result<HistoryVisibility, Error> {
    let Some(skey) = visibility_skey(rooms).await? else {
        return Ok(HistoryVisibility::Shared);
    };
    let Some(nid) = room.head().state.get(skey) else {
        return Ok(HistoryVisibility::Shared);
    };
    Ok(of(rooms.pdus(room, &[nid]).await?.first()))
}

/// Those of the events that a user may see, in the same order.
pub async fn filter(
    rooms: &Rooms,
    room: &Room,
    user: &UserId,
    events: Vec<Event>,
) -> Result<Vec<Event>, Error> {
    match find_viewer(rooms, room, user).await? {
        Some(viewer) => filter_for(rooms, room, &viewer, events).await,
        None => Ok(Vec::new()),
    }
}

/// The same for a user whose standing is known. What erased users said is pruned for who was not
/// there.
pub async fn filter_for(
    rooms: &Rooms,
    room: &Room,
    viewer: &Viewer,
    events: Vec<Event>,
) -> Result<Vec<Event>, Error> {
    let events = visible(rooms, room, viewer, events).await?;
    erasure::prune(rooms, room, viewer, events).await
}

/// The same without what is pruned: for what is made of what events say, or found by it.
pub async fn filter_whole(
    rooms: &Rooms,
    room: &Room,
    viewer: &Viewer,
    events: Vec<Event>,
) -> Result<Vec<Event>, Error> {
    let events = visible(rooms, room, viewer, events).await?;
    erasure::leave_out(rooms, room, viewer, events).await
}

async fn visible(
    rooms: &Rooms,
    room: &Room,
    viewer: &Viewer,
    mut events: Vec<Event>,
) -> Result<Vec<Event>, Error> {
    // What is no part of the timeline (outliers, rejected, soft-failed) is nobody's to see.
    // Events that only join branches are nobody's either.
    events.retain(|event| {
        event.stored.seq.is_some() && event.pdu.kind.to_string() != super::ends::DUMMY
    });
    let visibility_skey = visibility_skey(rooms).await?.unwrap_or(0);
    if matches!(viewer.access, Access::Joined)
        && open_history::always(rooms, room, visibility_skey).await?
    {
        return Ok(events);
    }
    let keys = [visibility_skey, viewer.skey];
    let moments = Moments::load(rooms, room, &events, &keys).await?;
    events.retain(|event| {
        let own = viewer.skey != 0
            && event.pdu.target() == Some(&viewer.user_id)
            && event.pdu.state_key.is_some();
        let before = moments.before(event, visibility_skey, viewer.skey);
        let after = Moments::after(event, before.clone(), own);
        let joined_after = viewer.joined_after(event.stored.seq.unwrap_or(i64::MAX));
        allows(&before.0, &before.1, joined_after) || allows(&after.0, &after.1, joined_after)
    });
    Ok(events)
}

/// For each event, whether a server may see it: whether one of its users may. That the server is
/// in the room now is for the caller to check.
pub async fn server_may_see(
    rooms: &Rooms,
    room: &Room,
    server: &ServerName,
    events: &[Event],
) -> Result<Vec<bool>, Error> {
    let visibility_skey = visibility_skey(rooms).await?.unwrap_or(0);
    if open_history::always(rooms, room, visibility_skey).await? {
        return Ok(vec![true; events.len()]);
    }
    let mut keys = keys_of_server(rooms, room, server).await?;
    keys.push(visibility_skey);
    let moments = Moments::load(rooms, room, events, &keys).await?;
    let sees = |event: &Event| {
        keys.iter().any(|skey| {
            let before = moments.before(event, visibility_skey, *skey);
            let own = event
                .pdu
                .target()
                .is_some_and(|target| target.server_name() == server);
            let after = Moments::after(event, before.clone(), own);
            // A server in the room has users who joined after the event, or before it.
            allows(&before.0, &before.1, true) || allows(&after.0, &after.1, true)
        })
    };
    Ok(events.iter().map(sees).collect())
}

/// State keys of the members that a server has, or had, in a room.
pub(super) async fn keys_of_server(
    rooms: &Rooms,
    room: &Room,
    server: &ServerName,
) -> Result<Vec<i64>, Error> {
    let server = rooms.ctx().db.ids.server(server).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let users = storage::memberships::list_users_of_server(&mut conn, room.nid, server).await?;
    Ok(users.iter().map(|user| -user.0).collect())
}

pub(super) fn membership(event: Option<&Arc<Pdu>>) -> MembershipState {
    event
        .and_then(|pdu| pdu.membership())
        .unwrap_or(MembershipState::Leave)
}

pub(super) fn is_join(event: Option<&Arc<Pdu>>) -> bool {
    membership(event) == MembershipState::Join
}

fn not_joined(user: &UserId, room_id: &RoomId) -> Error {
    Error::NotJoined {
        user_id: user.to_owned(),
        room_id: room_id.to_owned(),
    }
}

pub(super) async fn visibility_skey(rooms: &Rooms) -> Result<Option<i64>, Error> {
    let ids = &rooms.ctx().db.ids;
    let skey = ids.find_skey("m.room.history_visibility", "").await?;
    Ok(skey.map(|skey| skey.0))
}

async fn has_forgotten(rooms: &Rooms, room: &Room, user: UserNid) -> Result<bool, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let relation = storage::memberships::find_of_user(&mut conn, user, room.nid).await?;
    Ok(relation.is_some_and(|relation| relation.forgotten))
}

/// The end of a user's last stay in a room that they are not in now; it may be among events at hand.
async fn last_left(
    rooms: &Rooms,
    room: &Room,
    user: UserNid,
    events: &[Event],
) -> Result<Option<Left>, Error> {
    let skey = -user.0;
    let mut at = room.head().state.get(skey);
    // A ban after a leave, or an invite after that: the leave is what counts.
    for _ in 0..MEMBERSHIPS_MAX {
        let Some(nid) = at else { return Ok(None) };
        let at_hand = events.iter().find(|event| event.stored.nid.0 == nid);
        let found = match at_hand {
            Some(event) => state_before(rooms, Some(&event.stored)).await?,
            None => before(rooms, room, nid).await?,
        };
        let Some((seq, before)) = found else {
            return Ok(None);
        };
        at = before.get(skey);
        let Some(earlier) = at else { return Ok(None) };
        if is_join(rooms.pdus(room, &[earlier]).await?.first()) {
            return Ok(Some(Left {
                seq,
                entries: before.entries.with(skey, nid),
            }));
        }
    }
    Ok(None)
}

/// Place of a timeline event and the state before it, where both are known.
pub(super) async fn before(
    rooms: &Rooms,
    room: &Room,
    nid: i64,
) -> Result<Option<(i64, State)>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let stored = storage::events::list(&mut conn, room.nid, &[nid]).await?;
    drop(conn);
    state_before(rooms, stored.first()).await
}

pub(super) async fn state_before(
    rooms: &Rooms,
    stored: Option<&storage::events::Stored>,
) -> Result<Option<(i64, State)>, Error> {
    let Some(stored) = stored else {
        return Ok(None);
    };
    let Some((seq, snap)) = stored.seq.zip(stored.snap) else {
        return Ok(None);
    };
    Ok(Some((seq, rooms.state_of(stored.room, snap).await?)))
}

#[cfg(test)]
mod tests {
    use ruma::events::room::{
        history_visibility::HistoryVisibility as V, member::MembershipState as M,
    };

    use super::allows;

    #[test]
    fn world_readable_history_is_for_everybody() {
        assert!(allows(&V::WorldReadable, &M::Leave, false));
        assert!(allows(&V::WorldReadable, &M::Ban, false));
    }

    #[test]
    fn shared_history_is_for_who_joined_later() {
        assert!(allows(&V::Shared, &M::Leave, true));
        assert!(!allows(&V::Shared, &M::Leave, false));
        assert!(!allows(&V::Shared, &M::Invite, false));
        assert!(allows(&V::Shared, &M::Join, false));
    }

    #[test]
    fn invited_history_begins_with_the_invite() {
        assert!(allows(&V::Invited, &M::Invite, true));
        assert!(!allows(&V::Invited, &M::Leave, true));
    }

    #[test]
    fn joined_history_begins_with_the_join() {
        assert!(!allows(&V::Joined, &M::Invite, true));
        assert!(allows(&V::Joined, &M::Join, true));
    }

    #[test]
    fn unknown_visibility_counts_as_shared() {
        assert!(allows(&V::from("x.secret"), &M::Leave, true));
    }
}
