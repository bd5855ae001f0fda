//! Whom news notifies: pushers of users in the rooms where it happens, by the rules of the users.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{
    OwnedEventId, OwnedUserId,
    events::{TimelineEventType, room::member::MembershipState},
    push::Action,
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{Error, Heard, KEEP_MS, Mailed, Queued, Rooms};
use crate::{
    clock::now_ms,
    event::pdu::Pdu,
    rooms::{Event, notify, relations::subscriptions::Subscribed, resident::Room, state::Entries},
    storage::{
        self, LogKind, RoomNid, UserNid,
        memberships::{self, Invite},
        news::News,
        push_queue::Listener,
    },
};

/// Rooms that are looked at in one go: all who listen there are read.
const ROOMS_MAX: usize = 100;
/// Notices that may come of one go, but for a single event: in a large room each event is one for
/// everybody.
const NOTICES_MAX: usize = 20_000;

/// Who listens, for some news.
#[derive(Debug, Default)]
struct Listeners {
    by_room: HashMap<RoomNid, Vec<Listener>>,
    by_user: HashMap<UserNid, Vec<Listener>>,
}

/// What is to be told of some news to the pushers of some shares of the users, and of how much of the
/// news that is.
pub(super) async fn listen(
    rooms: &Rooms,
    news: &[News],
    shares: &[i16],
) -> Result<(Heard, usize), Error> {
    let news = in_few_rooms(news);
    let listeners = listeners(rooms, news, shares).await?;
    let news = listeners.few_notices(news);
    let mut heard = Heard::default();
    if listeners.by_room.is_empty() && listeners.by_user.is_empty() {
        return Ok((heard, news.len()));
    }
    for news in news {
        let row_user = Some(UserNid(news.row.user));
        let moved = match news.row.kind {
            LogKind::Event => [news.sender, news.target],
            _ => [row_user, None],
        };
        for user in moved.into_iter().flatten() {
            for its in listeners.by_user.get(&user).into_iter().flatten() {
                if its.mails {
                    heard.put_off.insert((its.pusher, news.row.room));
                } else {
                    heard.recount.insert(its.pusher);
                }
            }
        }
    }
    of_events(rooms, news, &listeners, &mut heard).await?;
    of_invites(rooms, news, &listeners, &mut heard).await?;
    heard.rows.sort_by_key(|row| row.pos);
    Ok((heard, news.len()))
}

/// The part of the news that is of a few rooms.
fn in_few_rooms(news: &[News]) -> &[News] {
    let mut seen = BTreeSet::new();
    let cut = news.iter().position(|news| {
        news.row.kind == LogKind::Event && seen.insert(news.row.room) && seen.len() > ROOMS_MAX
    });
    &news[..cut.unwrap_or(news.len())]
}

impl Listeners {
    /// All who listen in rooms.
    fn users(&self) -> Vec<UserNid> {
        let users: BTreeSet<UserNid> = self.by_room.values().flatten().map(|it| it.user).collect();
        users.into_iter().collect()
    }

    /// The part of the news of which not too many notices come.
    fn few_notices<'a>(&self, news: &'a [News]) -> &'a [News] {
        let mut notices = 0;
        let cut = news.iter().position(|news| {
            let its = self.by_room.get(&RoomNid(news.row.room));
            let its = its.filter(|_| news.row.kind == LogKind::Event);
            notices += its.map_or(0, Vec::len);
            notices > NOTICES_MAX
        });
        // One is always looked at.
        let cut = cut.map_or(news.len(), |cut| cut.max(1));
        &news[..cut.min(news.len())]
    }
}

async fn listeners(rooms: &Rooms, news: &[News], shares: &[i16]) -> Result<Listeners, Error> {
    let mut nids = BTreeSet::new();
    let mut users = BTreeSet::new();
    for news in news {
        if news.row.kind == LogKind::Event {
            nids.insert(news.row.room);
            users.extend(news.sender.map(|user| user.0));
            users.extend(news.target.map(|user| user.0));
        } else {
            users.insert(news.row.user);
        }
    }
    let mut listeners = Listeners::default();
    if users.is_empty() {
        return Ok(listeners);
    }
    let nids: Vec<i64> = nids.into_iter().collect();
    let users: Vec<i64> = users.into_iter().collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let kinds = super::kinds(rooms);
    let found =
        storage::push_queue::list_listeners(&mut conn, (&nids, &users), shares, &kinds).await?;
    for listener in found {
        if listener.room.0 == 0 {
            let of_user = listeners.by_user.entry(listener.user).or_default();
            of_user.push(listener);
        } else {
            let of_room = listeners.by_room.entry(listener.room).or_default();
            of_room.push(listener);
        }
    }
    Ok(listeners)
}

async fn of_events(
    rooms: &Rooms,
    news: &[News],
    listeners: &Listeners,
    heard: &mut Heard,
) -> Result<(), Error> {
    let concerned = news.iter().filter(|news| {
        let target = news.target.as_ref();
        news.row.kind == LogKind::Event
            && (listeners.by_room.contains_key(&RoomNid(news.row.room))
                || target.is_some_and(|target| listeners.by_user.contains_key(target)))
    });
    let pairs: Vec<(i64, i64)> = concerned
        .map(|news| (news.row.room, news.row.reference))
        .collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let subscribed = Subscribed::read(rooms, &pairs, &listeners.users()).await?;
    let since = now_ms() - KEEP_MS;
    for (room, mut events) in rooms.events_of(&pairs).await? {
        events.retain(|event| event.stored.received_ts > since && !event.stored.is_redacted());
        // One look for all of them: they are asked for one by one.
        rooms.states_before(&room, &events).await?;
        for event in &events {
            let told = of_event(rooms, &room, event, listeners, &subscribed).await?;
            let pos = event.stored.pos.unwrap_or_default();
            for (listener, actions) in &told {
                if listener.mails {
                    heard.mailed.push(Mailed::of(listener, pos, room.nid));
                    continue;
                }
                heard
                    .rows
                    .push(queued(listener, &event.pdu, actions, |row| {
                        row.pos = pos;
                        row.room = room.nid;
                        row.event = event.stored.nid.0;
                    }));
            }
        }
    }
    Ok(())
}

/// Pushers that an event notifies, with what the rules of their users say.
async fn of_event(
    rooms: &Rooms,
    room: &Arc<Room>,
    event: &Event,
    listeners: &Listeners,
    subscribed: &Subscribed,
) -> Result<Vec<(Listener, Vec<Action>)>, Error> {
    let state = match event.stored.snap {
        Some(snap) => rooms.state_of(room.nid, snap).await?.entries,
        None => room.head().state.entries.clone(),
    };
    let inside = listeners.by_room.get(&room.nid);
    let mut told = were_inside(rooms, room, &state, inside.map_or(&[], Vec::as_slice)).await?;
    if event.pdu.membership() == Some(MembershipState::Invite)
        && let Some(target) = event.pdu.target()
        && let Some(target) = rooms.ctx().db.ids.find_user(target).await?
        && let Some(its) = listeners.by_user.get(&target)
    {
        told.retain(|it| it.user != target);
        told.extend(its);
    }
    let users: BTreeSet<UserNid> = told.iter().map(|it| it.user).collect();
    let users: Vec<UserNid> = users.into_iter().collect();
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let actions = notify::actions(rooms, room, event, &users, subscribed).await?;
    let actions: BTreeMap<UserNid, Vec<Action>> = actions.into_iter().collect();
    let told = told.into_iter();
    Ok(told
        .filter_map(|it| Some((it, actions.get(&it.user)?.clone())))
        .collect())
}

/// Those who were in a room at a state, of those who are in it now.
async fn were_inside(
    rooms: &Rooms,
    room: &Room,
    state: &Entries,
    now: &[Listener],
) -> Result<Vec<Listener>, Error> {
    let mut inside = Vec::with_capacity(now.len());
    let mut changed = Vec::new();
    for listener in now {
        match state.get(&-listener.user.0) {
            None => {}
            Some(nid) if Some(*nid) == listener.membership => inside.push(*listener),
            // Perhaps another name, perhaps another stay.
            Some(nid) => changed.push((*nid, *listener)),
        }
    }
    let nids: Vec<i64> = changed.iter().map(|(nid, _)| *nid).collect();
    let pdus = rooms.pdus(room, &nids).await?;
    let changed = changed.into_iter().zip(pdus);
    let joined = changed.filter(|(_, pdu)| pdu.membership() == Some(MembershipState::Join));
    inside.extend(joined.map(|((_, listener), _)| listener));
    Ok(inside)
}

/// Invitations into rooms that we do not hold.
async fn of_invites(
    rooms: &Rooms,
    news: &[News],
    listeners: &Listeners,
    heard: &mut Heard,
) -> Result<(), Error> {
    let rows = news.iter().map(|news| news.row);
    let rows = rows.filter(|row| {
        row.kind == LogKind::OutOfBand && listeners.by_user.contains_key(&UserNid(row.user))
    });
    let places: BTreeMap<(i64, i64), i64> =
        rows.map(|row| ((row.room, row.user), row.pos)).collect();
    if places.is_empty() {
        return Ok(());
    }
    let pairs: Vec<(i64, i64)> = places.keys().copied().collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let invites = memberships::list_invites(&mut conn, &pairs).await?;
    drop(conn);
    for invite in invites {
        let Some(pos) = places.get(&(invite.room.0, invite.user.0)) else {
            continue;
        };
        let Some(pdu) = shown(rooms, &invite).await? else {
            continue;
        };
        let Some(actions) = notify::actions_of_invite(rooms, &pdu, invite.user).await? else {
            continue;
        };
        for listener in listeners.by_user.get(&invite.user).into_iter().flatten() {
            if listener.mails {
                heard.mailed.push(Mailed::of(listener, *pos, invite.room));
                continue;
            }
            heard.rows.push(queued(listener, &pdu, &actions, |row| {
                row.pos = *pos;
                row.room = invite.room;
                row.event_id.clone_from(&invite.event_id);
            }));
        }
    }
    Ok(())
}

/// An invitation as an event, as far as we were told of it.
async fn shown(rooms: &Rooms, invite: &Invite) -> Result<Option<Pdu>, Error> {
    #[derive(Deserialize)]
    struct Stripped {
        sender: OwnedUserId,
        #[serde(rename = "type")]
        kind: TimelineEventType,
        state_key: String,
        content: Box<RawValue>,
    }
    let user_id = rooms.ctx().db.ids.user_id(invite.user).await?;
    let state: Vec<Box<RawValue>> = serde_json::from_str(&invite.stripped).unwrap_or_default();
    let state = state.iter().rev();
    let mut state = state.filter_map(|event| serde_json::from_str::<Stripped>(event.get()).ok());
    let own = state.find(|event| {
        event.kind == TimelineEventType::RoomMember && event.state_key == user_id.as_str()
    });
    let id = invite.event_id.as_deref().unwrap_or("$unknown");
    let Some((own, event_id)) = own.zip(OwnedEventId::try_from(id).ok()) else {
        return Ok(None);
    };
    Ok(Some(Pdu {
        event_id,
        room_id: rooms.ctx().db.ids.room_id(invite.room).await?,
        sender: own.sender,
        origin_server_ts: now_ms(),
        kind: own.kind,
        state_key: Some(own.state_key),
        content: own.content,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        redacts: None,
        depth: 0,
        rejected: false,
        json: String::new(),
    }))
}

fn queued(
    listener: &Listener,
    pdu: &Pdu,
    actions: &[Action],
    place: impl FnOnce(&mut Queued),
) -> Queued {
    let tweaks = tweaks(actions);
    let is_loud = tweaks.contains_key("sound") || tweaks.get("highlight") == Some(&json!(true));
    let mut row = Queued {
        pusher: listener.pusher,
        share: listener.share,
        pos: 0,
        room: RoomNid(0),
        event: 0,
        event_id: Some(pdu.event_id.to_string()),
        // What is in an encrypted event, the app alone can tell.
        high: is_loud || pdu.kind.to_string() == "m.room.encrypted",
        tweaks: Value::Object(tweaks).to_string(),
    };
    place(&mut row);
    row
}

/// What rules say of how to present something.
fn tweaks(actions: &[Action]) -> Map<String, Value> {
    let mut tweaks = Map::new();
    for action in actions {
        let Ok(Value::Object(mut action)) = serde_json::to_value(action) else {
            continue;
        };
        if let Some(Value::String(name)) = action.remove("set_tweak") {
            let value = action.remove("value").unwrap_or(Value::Bool(true));
            tweaks.insert(name, value);
        }
    }
    tweaks
}

#[cfg(test)]
mod tests {
    use ruma::push::Action;
    use serde_json::{Value, json};

    use super::{Listeners, NOTICES_MAX, ROOMS_MAX, in_few_rooms, tweaks};
    use crate::storage::{LogEntry, LogKind, RoomNid, UserNid, news::News, push_queue::Listener};

    /// An event in a room.
    fn event(room: i64) -> News {
        let entry = LogEntry {
            kind: LogKind::Event,
            room,
            user: 1,
            reference: 1,
        };
        News {
            row: entry.at(1),
            sender: None,
            target: None,
        }
    }

    #[test]
    fn what_is_much_is_looked_at_in_parts() {
        let many: Vec<News> = (1..=500).map(event).collect();
        assert_eq!(in_few_rooms(&many).len(), ROOMS_MAX);
        let one: Vec<News> = (1..=500).map(|_| event(7)).collect();
        assert_eq!(in_few_rooms(&one).len(), 500);

        let mut listeners = Listeners::default();
        assert_eq!(listeners.few_notices(&one).len(), 500);
        let listener = Listener {
            pusher: 1,
            user: UserNid(1),
            share: 1,
            room: RoomNid(7),
            membership: None,
            mails: false,
        };
        listeners
            .by_room
            .insert(RoomNid(7), vec![listener; NOTICES_MAX / 10]);
        assert_eq!(listeners.few_notices(&one).len(), 10);
        listeners
            .by_room
            .insert(RoomNid(7), vec![listener; NOTICES_MAX * 2]);
        assert_eq!(listeners.few_notices(&one).len(), 1);
        assert!(listeners.few_notices(&[]).is_empty());
    }

    #[test]
    fn tweaks_are_an_object_with_true_where_nothing_is_said() {
        let actions = json!([
            "notify",
            { "set_tweak": "sound", "value": "default" },
            { "set_tweak": "highlight" },
            { "set_tweak": "de.amt.colour", "value": "red" },
        ]);
        let actions: Vec<Action> = serde_json::from_value(actions).unwrap();
        let expected = json!({ "sound": "default", "highlight": true, "de.amt.colour": "red" });
        assert_eq!(Value::Object(tweaks(&actions)), expected);
        assert!(tweaks(&[Action::Notify]).is_empty());
    }
}
