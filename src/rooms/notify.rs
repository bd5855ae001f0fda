//! Whom an event notifies: for all who have the default rules two bits, for the others (those with
//! rules of their own, those it mentions) an entry each. What is said here goes with the event into
//! the database, where it is counted (docs/ARCHITECTURE.md, "Unread counts").

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use moka::sync::Cache;
use ruma::{
    OwnedUserId,
    events::{StateEventType, room::member::MembershipState},
    push::Action,
};

use super::{
    Error, Rooms,
    pdus::Event,
    relations::subscriptions::{self, Subscribed},
    resident::Room,
    state::Entries,
};
use crate::{
    event::{
        auth::Power,
        pdu::Pdu,
        push::{
            Rules,
            defaults::{self, Added},
            subject::{Place, Reader, Subject},
        },
    },
    storage::{self, UserNid, append::flag},
    users::{invite_permission::Wishes, push_rules},
};

/// Mentions that are looked at in one event.
const MENTIONS_MAX: usize = 100;
/// Users whom one ignores that are looked at for what is told beside events.
const IGNORED_MAX: usize = 1_000;
/// Compiled rules in memory.
const RULES_MAX: u64 = 200_000;

/// By whether there are rules for subscriptions to threads, and by whether there are some that look for
/// names.
static FOR_EVERYBODY: LazyLock<[[Rules; 2]; 2]> = LazyLock::new(|| {
    let of = |threads, names| defaults::for_everybody(Added { threads, names });
    [false, true].map(|threads| [false, true].map(|names| of(threads, names)))
});

/// The rules of a user of ours.
#[derive(Debug)]
pub(super) struct Own {
    user_id: OwnedUserId,
    rules: Rules,
    ignored: HashSet<OwnedUserId>,
    /// Which of the stored rules these are.
    rev: i64,
    /// Changes of anybody's rules that this takes in.
    epoch: u64,
}

/// Rules of users who were asked for them, by number.
pub(super) type Known = Cache<i64, Arc<Own>>;

pub(super) fn known() -> Known {
    Cache::builder()
        .max_capacity(RULES_MAX)
        .weigher(|_, own: &Arc<Own>| {
            u32::try_from(own.rules.len() + own.ignored.len()).unwrap_or(u32::MAX)
        })
        .build()
}

/// Who in a room is counted by rules of their own.
#[derive(Debug)]
pub(super) struct Customs {
    users: Vec<i64>,
    members: u64,
    rev: i64,
    epoch: u64,
}

/// What an event does to unread counts.
#[derive(Debug, Default)]
pub(super) struct Notice {
    /// [`flag::NOTIFIES`], [`flag::HIGHLIGHTS`] and [`flag::NOTIFIES_THREAD`].
    pub(super) flags: i32,
    /// What it is for single users: (user, notifies, highlights).
    pub(super) users: Vec<(i64, bool, bool)>,
}

/// What an event that is put on top of a state does to unread counts.
pub(super) async fn look(
    rooms: &Rooms,
    room: &Room,
    state: &Entries,
    pdu: &Pdu,
) -> Result<Notice, Error> {
    let event = Subject::new(pdu);
    let customs = customs(rooms, room).await?;
    let subscribers = subscriptions::subscribers(rooms, room, pdu).await?;
    let mut users = customs.users.clone();
    users.extend(mentioned(rooms, &event, state).await?);
    let added = push_rules::added(rooms.ctx());
    let may_name = added.names && pdu.state_key.is_none() && !event.says_mentions();
    if may_name {
        users.extend(named(rooms, room, &event).await?);
    }
    users.extend(subscribers.iter().flatten());
    users.sort_unstable();
    users.dedup();
    let own = own_rules(rooms, &users).await?;
    let is_power_asked = event.mentions_room() || may_name || !own.is_empty();
    let mut place = Place {
        members: customs.members,
        in_thread: subscribers.is_some(),
        ..Place::default()
    };
    let subscribers: HashSet<i64> = subscribers.into_iter().flatten().collect();
    if is_power_asked {
        fill_power(rooms, room, (state, pdu), &mut place).await?;
    }
    let mut notice = Notice::default();
    // Who reads for everybody is never the sender.
    let nobody = Reader {
        user_id: ruma::user_id!("@nobody:invalid"),
        display_name: None,
        subscribed: false,
    };
    let Added { threads, names } = added;
    let rules = &FOR_EVERYBODY[usize::from(threads)][usize::from(names)];
    let everybody = rules.effect(&event, &place, nobody);
    if everybody.notify {
        notice.flags |= flag::NOTIFIES;
    }
    if everybody.highlight {
        notice.flags |= flag::HIGHLIGHTS;
    }
    let subscriber = Reader {
        subscribed: true,
        ..nobody
    };
    if place.in_thread && rules.effect(&event, &place, subscriber).notify {
        notice.flags |= flag::NOTIFIES_THREAD;
    }
    for (nid, own) in own {
        let name = display_name(rooms, room, state, (nid, &own)).await?;
        let reader = Reader {
            user_id: &own.user_id,
            display_name: name.as_deref(),
            subscribed: subscribers.contains(&nid),
        };
        let mut effect = own.rules.effect(&event, &place, reader);
        if own.ignored.contains(&pdu.sender) {
            effect = crate::event::push::Effect::default();
        }
        notice.users.push((nid, effect.notify, effect.highlight));
    }
    Ok(notice)
}

/// What a committed event is to some users of ours, for those who bring it to their devices: their
/// actions, where it notifies. `subscribed`: who of them is subscribed to threads.
pub async fn actions(
    rooms: &Rooms,
    room: &Room,
    event: &Event,
    users: &[UserNid],
    subscribed: &Subscribed,
) -> Result<Vec<(UserNid, Vec<Action>)>, Error> {
    let state = match event.stored.snap {
        Some(snap) => rooms.state_of(room.nid, snap).await?.entries,
        None => room.head().state.entries.clone(),
    };
    let pdu = &event.pdu;
    let subject = Subject::new(pdu);
    let nids: Vec<i64> = users.iter().map(|user| user.0).collect();
    let subscribers = subscribed.to(event.stored.nid.0);
    let mut place = Place {
        members: customs(rooms, room).await?.members,
        in_thread: subscribers.is_some(),
        ..Place::default()
    };
    fill_power(rooms, room, (&state, pdu), &mut place).await?;
    let mut notified = Vec::new();
    for (nid, own) in own_rules(rooms, &nids).await? {
        let name = display_name(rooms, room, &state, (nid, &own)).await?;
        let reader = Reader {
            user_id: &own.user_id,
            display_name: name.as_deref(),
            subscribed: subscribers.is_some_and(|users| users.contains(&nid)),
        };
        let actions = own.rules.actions(&subject, &place, reader);
        let is_told = actions.iter().any(Action::should_notify);
        if !is_told || own.ignored.contains(&pdu.sender) {
            continue;
        }
        let is_invited =
            pdu.target() == Some(&own.user_id) && pdu.membership() == Some(MembershipState::Invite);
        if !is_invited || is_wanted(rooms, pdu, UserNid(nid)).await? {
            notified.push((UserNid(nid), actions.to_vec()));
        }
    }
    Ok(notified)
}

/// What an invitation into a room that we do not hold is to the user of ours whom it is for: actions,
/// where it notifies.
pub async fn actions_of_invite(
    rooms: &Rooms,
    invite: &Pdu,
    user: UserNid,
) -> Result<Option<Vec<Action>>, Error> {
    let Some((_, own)) = own_rules(rooms, &[user.0]).await?.pop() else {
        return Ok(None);
    };
    let reader = Reader {
        user_id: &own.user_id,
        display_name: None,
        subscribed: false,
    };
    let subject = Subject::new(invite);
    let actions = own.rules.actions(&subject, &Place::default(), reader);
    let notifies = actions.iter().any(Action::should_notify);
    if !notifies || !is_wanted(rooms, invite, user).await? {
        return Ok(None);
    }
    Ok(Some(actions.to_vec()))
}

/// Whether a user wants the invitation that is for them.
async fn is_wanted(rooms: &Rooms, invite: &Pdu, user: UserNid) -> Result<bool, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let wishes = Wishes::read(&mut conn, user).await?;
    Ok(wishes.want_invitation(&invite.sender))
}

/// Users of ours that an event mentions and who have something to do with the room.
async fn mentioned(rooms: &Rooms, event: &Subject<'_>, state: &Entries) -> Result<Vec<i64>, Error> {
    let own = rooms.ctx().server_name();
    let mut users = Vec::new();
    let named = event.mentioned().take(MENTIONS_MAX);
    for user in named.filter(|user| user.server_name() == own) {
        if let Some(nid) = rooms.ctx().db.ids.find_user(user).await?
            && state.get(&-nid.0).is_some()
        {
            users.push(nid.0);
        }
    }
    Ok(users)
}

/// Users of ours in a room whose names are in the text of an event. One query.
async fn named(rooms: &Rooms, room: &Room, event: &Subject<'_>) -> Result<Vec<i64>, Error> {
    let Some((_, body)) = event.body() else {
        return Ok(Vec::new());
    };
    let mut conn = rooms.ctx().db.conn().await?;
    let most = i64::try_from(MENTIONS_MAX).unwrap_or(i64::MAX);
    Ok(storage::push_rules::list_named(&mut conn, room.nid, body, most).await?)
}

/// Who is counted by rules of their own; in memory while neither members nor rules change.
async fn customs(rooms: &Rooms, room: &Room) -> Result<Arc<Customs>, Error> {
    let epoch = rooms.ctx().db.stream.rules_epoch();
    let rev = room.head().rev;
    if let Some(known) = room.customs.load_full()
        && known.epoch == epoch
        && known.rev >= room.members_rev()
    {
        return Ok(known);
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let (users, members) = storage::push_rules::list_custom(&mut conn, room.nid).await?;
    let customs = Arc::new(Customs {
        users,
        members: u64::try_from(members).unwrap_or_default(),
        rev,
        epoch,
    });
    room.customs.store(Some(customs.clone()));
    Ok(customs)
}

/// The rules of some users; one query for those who are not in memory, or may have changed.
async fn own_rules(rooms: &Rooms, users: &[i64]) -> Result<Vec<(i64, Arc<Own>)>, Error> {
    let epoch = rooms.ctx().db.stream.rules_epoch();
    let mut found = Vec::with_capacity(users.len());
    let mut missing = Vec::new();
    for user in users {
        match rooms.0.rules.get(user) {
            Some(own) if own.epoch == epoch => found.push((*user, own)),
            _ => missing.push(*user),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let stored = storage::push_rules::list(&mut conn, &missing).await?;
    let ignored = storage::push_rules::list_ignored(&mut conn, &missing).await?;
    drop(conn);
    for user in missing {
        let user_id = rooms.ctx().db.ids.user_id(UserNid(user)).await?;
        let stored = stored.iter().find(|stored| stored.user.0 == user);
        let rev = stored.map_or(0, |stored| stored.rev);
        let known = rooms.0.rules.get(&user).filter(|own| own.rev == rev);
        let rules = if let Some(own) = known {
            own.rules.clone()
        } else {
            let body = stored.map(|stored| &*stored.body);
            Rules::new(&push_rules::ruleset(rooms.ctx(), &user_id, body))
        };
        let list = ignored.iter().find(|(of, _)| of.0 == user);
        let ignored = list.map_or_else(Vec::new, |(_, list)| push_rules::ignored(list));
        let own = Arc::new(Own {
            user_id,
            rules,
            ignored: ignored.into_iter().collect(),
            rev,
            epoch,
        });
        rooms.0.rules.insert(user, own.clone());
        found.push((user, own));
    }
    Ok(found)
}

/// Numbers of those whom a user of ours ignores.
pub(super) async fn ignored_by(rooms: &Rooms, user: UserNid) -> Result<Vec<i64>, Error> {
    let own = own_rules(rooms, &[user.0]).await?;
    let ignored = own.iter().flat_map(|(_, own)| &own.ignored);
    let ignored: Vec<&ruma::UserId> = ignored.take(IGNORED_MAX).map(|user| &**user).collect();
    let nids = rooms.ctx().db.ids.users_of(&ignored).await?;
    Ok(nids.into_iter().map(|nid| nid.0).collect())
}

/// The power of the sender, and what it takes to notify the room.
async fn fill_power(
    rooms: &Rooms,
    room: &Room,
    (state, pdu): (&Entries, &Pdu),
    place: &mut Place,
) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    struct Levels {
        #[serde(default)]
        notifications: std::collections::BTreeMap<String, serde_json::Value>,
    }
    let keys = [StateEventType::RoomCreate, StateEventType::RoomPowerLevels];
    let keys = keys.map(|kind| (kind, String::new()));
    let slice = rooms.state_events(room, state, &keys).await?;
    let Some(create) = slice.get(&StateEventType::RoomCreate, "") else {
        return Ok(());
    };
    let levels = slice.get(&StateEventType::RoomPowerLevels, "");
    let power = Power::new(&room.version, &create, levels.as_ref());
    place.sender_power = power.of(&pdu.sender);
    let named = levels.and_then(|levels| levels.content_as::<Levels>());
    let named = named.into_iter().flat_map(|levels| levels.notifications);
    place.notifications = named
        .filter_map(|(kind, level)| {
            // Old rooms may say it in a string.
            let level = level
                .as_i64()
                .or_else(|| level.as_str()?.trim().parse().ok())?;
            Some((kind, level))
        })
        .collect();
    Ok(())
}

/// A user's name in the room, where the rules ask for it.
async fn display_name(
    rooms: &Rooms,
    room: &Room,
    state: &Entries,
    (user, own): (i64, &Own),
) -> Result<Option<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Member {
        displayname: Option<String>,
    }
    let Some(nid) = state.get(&-user).filter(|_| own.rules.ask_for_name()) else {
        return Ok(None);
    };
    let event = rooms.pdus(room, &[*nid]).await?.pop();
    let member = event.and_then(|event| event.content_as::<Member>());
    Ok(member.and_then(|member| member.displayname))
}
