//! Classic `/sync`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ruma::events::room::member::MembershipState;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Hub, TIMEOUT_MAX,
    encryption::{self, News},
    filter::{load, passes_room_type, passes_type},
    joined::{Scope, assemble_all, candidates},
    other, presence,
    token::Token,
};
use crate::{
    rooms::{self, Rooms, membership},
    storage::{self, RoomNid, memberships::UserRoom, presence::State, unread::Part},
    users::{push_rules, tokens::Session},
};

/// Account data that is not stored as such.
pub(super) const PUSH_RULES: &str = "m.push_rules";

/// A request for what changed.
#[derive(Debug, Default)]
pub struct Request {
    /// Where the client is; `None`: at the beginning.
    pub since: Option<String>,
    /// Filter, as JSON or id.
    pub filter: Option<String>,
    /// Whether all state is wanted anew.
    pub full_state: bool,
    /// How long to wait for news.
    pub timeout: Duration,
    /// How the client says that its user is.
    pub set_presence: State,
    /// Field for state as of the end of the timeline.
    pub state_after: Option<&'static str>,
}

/// What changed, as JSON. Waits for news up to the time-out, or until `stopping` fires.
pub async fn sync(
    rooms: &Rooms,
    hub: &Hub,
    session: &Arc<Session>,
    request: &Request,
    stopping: &CancellationToken,
) -> Result<String, Error> {
    let filter = load(rooms.ctx(), session, request.filter.as_deref()).await?;
    let since: Option<Token> = request.since.as_deref().map(str::parse).transpose()?;
    let stream = &rooms.ctx().db.stream;
    if let Some(since) = since {
        // A token of another node, which was a little ahead of us.
        let caught_up = stream.reached(since.pos);
        let _ = tokio::time::timeout(Duration::from_secs(1), caught_up).await;
    }
    let _syncing = rooms::presence::synced(rooms, session, request.set_presence).await;
    let deadline = tokio::time::Instant::now() + request.timeout.min(TIMEOUT_MAX);
    loop {
        // Register, then look, then wait: what comes in between is not missed.
        let mut waiter = hub.register(session.user_nid);
        let mut conn = rooms.ctx().db.conn().await?;
        let mine = storage::memberships::list_of_user(&mut conn, session.user_nid).await?;
        drop(conn);
        let ignored = other::ignored(rooms, session).await?;
        waiter.watch(
            mine.iter()
                .filter(|row| row.membership == 1)
                .map(|row| row.room),
        );
        let upto = stream.horizon();
        let scope = Scope {
            rooms,
            session,
            filter: &filter,
            ignored: &ignored,
            since: since.map_or(0, |since| since.pos.min(upto)),
            upto,
            full_state: request.full_state,
            state_after: request.state_after,
        };
        let typing = rooms.typing().serial();
        let told_typing = since.map_or(0, |since| since.typing);
        let answer = look(scope, &mine, told_typing).await?;
        let news = encryption::look(scope, since).await?;
        let presence = presence::look(scope, &mine, &news.met).await?;
        let is_quiet = news.is_empty() && answer.is_empty() && presence.is_empty();
        let wait = since.is_some() && is_quiet && !request.full_state;
        let now = tokio::time::Instant::now();
        if !wait || now >= deadline || stopping.is_cancelled() {
            let token = Token {
                pos: upto,
                typing,
                to_device: news.told,
            };
            return Ok(finish(&answer, &news, &presence, token));
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Parts of an answer; all empty where there is no news.
#[derive(Default)]
struct Answer {
    join: Map<String, Value>,
    invite: Map<String, Value>,
    knock: Map<String, Value>,
    leave: Map<String, Value>,
    account_data: Vec<Value>,
}

impl Answer {
    fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
            && self.account_data.is_empty()
    }
}

fn finish(answer: &Answer, news: &News, presence: &[Value], token: Token) -> String {
    json!({
        "next_batch": token.to_string(),
        "rooms": {
            "join": answer.join,
            "invite": answer.invite,
            "knock": answer.knock,
            "leave": answer.leave,
        },
        "account_data": { "events": answer.account_data },
        "presence": { "events": presence },
        "to_device": { "events": news.to_device },
        "device_lists": { "changed": news.changed, "left": news.left },
        "device_one_time_keys_count": news.key_counts,
        "device_unused_fallback_key_types": news.unused_fallback,
    })
    .to_string()
}

async fn look(scope: Scope<'_>, mine: &[UserRoom], told_typing: i64) -> Result<Answer, Error> {
    let ids = &scope.rooms.ctx().db.ids;
    let mut answer = Answer::default();
    let wanted: Vec<&UserRoom> = mine.iter().filter(|row| row.pos <= scope.upto).collect();
    let joined: Vec<&UserRoom> = wanted
        .iter()
        .copied()
        .filter(|row| row.membership == 1)
        // Who wants all members is told of a room once they are known.
        .filter(|row| scope.is_lazy() || !row.partial)
        .collect();
    let data = account_data(scope, &mut answer).await?;
    join(scope, &joined, (data, told_typing), &mut answer).await?;
    for row in wanted
        .iter()
        .filter(|row| row.pos > scope.since && row.membership != 1)
    {
        let room_id = ids.room_id(row.room).await?.to_string();
        match row.membership {
            2 if is_ignored(scope, row).await? => {}
            2 => {
                let state = json!({ "invite_state": { "events": membership::invite::shown(scope.rooms, row).await? } });
                answer.invite.insert(room_id, state);
            }
            5 => {
                let state = json!({ "knock_state": { "events": membership::invite::shown(scope.rooms, row).await? } });
                answer.knock.insert(room_id, state);
            }
            _ if !row.forgotten && (scope.since > 0 || scope.filter.room.include_leave) => {
                answer
                    .leave
                    .insert(room_id, Value::Object(other::left(scope, row).await?));
            }
            _ => {}
        }
    }
    Ok(answer)
}

/// Whether an invitation is of somebody whom the user ignores.
async fn is_ignored(scope: Scope<'_>, row: &UserRoom) -> Result<bool, Error> {
    match row.sender {
        Some(sender) if !scope.ignored.is_empty() => {
            let sender = scope.rooms.ctx().db.ids.user_id(sender).await?;
            Ok(scope.ignored.contains(&sender))
        }
        _ => Ok(false),
    }
}

/// Account data by room; global data goes into the answer.
async fn account_data(
    scope: Scope<'_>,
    answer: &mut Answer,
) -> Result<HashMap<i64, Vec<Value>>, Error> {
    let user = scope.session.user_nid;
    let mut conn = scope.rooms.ctx().db.conn().await?;
    let rows = storage::account_data::list_since(&mut conn, user, scope.since, scope.upto).await?;
    drop(conn);
    let mut by_room: HashMap<i64, Vec<Value>> = HashMap::new();
    let mut rules = None;
    for (room, kind, content) in rows {
        if room == 0 && kind == PUSH_RULES {
            rules = Some(content);
            continue;
        }
        let content: Value = serde_json::from_str(&content).unwrap_or_default();
        let event = json!({ "type": kind, "content": content });
        if room == 0 {
            if passes_type(&scope.filter.account_data, &kind) {
                answer.account_data.push(event);
            }
        } else if passes_room_type(&scope.filter.room.account_data, &kind) {
            by_room.entry(room).or_default().push(event);
        }
    }
    let is_news = scope.since == 0 || rules.is_some();
    if is_news && passes_type(&scope.filter.account_data, PUSH_RULES) {
        let content = push_rules::content(&scope.session.user_id, rules.as_deref());
        answer
            .account_data
            .push(json!({ "type": PUSH_RULES, "content": content }));
    }
    Ok(by_room)
}

#[expect(
    clippy::too_many_lines,
    reason = "one part of the answer after the other"
)]
async fn join(
    scope: Scope<'_>,
    joined: &[&UserRoom],
    (mut data, told_typing): (HashMap<i64, Vec<Value>>, i64),
    answer: &mut Answer,
) -> Result<(), Error> {
    let Scope {
        rooms,
        filter,
        since,
        ..
    } = scope;
    let ids = &rooms.ctx().db.ids;
    let nids: Vec<i64> = joined.iter().map(|row| row.room.0).collect();
    let room_nids: Vec<RoomNid> = joined.iter().map(|row| row.room).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let changed = storage::sync::changed(&mut conn, &nids, since).await?;
    drop(conn);
    let mut receipts = if passes_room_type(&filter.room.ephemeral, "m.receipt") {
        other::receipts(scope, &nids).await?
    } else {
        HashMap::new()
    };
    let typing: HashMap<RoomNid, Vec<ruma::OwnedUserId>> =
        if passes_room_type(&filter.room.ephemeral, "m.typing") {
            rooms
                .typing()
                .since(&room_nids, told_typing)
                .into_iter()
                .collect()
        } else {
            HashMap::new()
        };
    let wanted: Vec<(RoomNid, bool)> = joined
        .iter()
        .map(|row| {
            let now_whole = !scope.is_lazy() && row.whole_pos > since;
            (row.room, since == 0 || now_whole)
        })
        .filter(|(room, fresh)| *fresh || scope.full_state || changed.contains(room))
        .collect();
    let mut chosen = Vec::new();
    for mut candidate in candidates(scope, &wanted).await? {
        candidate.fresh = candidate.fresh || has_just_joined(scope, &candidate).await?;
        if candidate.fresh && since > 0 {
            let fresh = [(candidate.room.nid, true)];
            candidate = match candidates(scope, &fresh).await?.pop() {
                Some(candidate) => candidate,
                None => continue,
            };
        }
        chosen.push(candidate);
    }
    let mut parts: HashMap<RoomNid, Map<String, Value>> =
        assemble_all(scope, chosen).await?.into_iter().collect();
    for nid in &room_nids {
        let mut ephemeral: Vec<Value> = Vec::new();
        ephemeral.extend(
            receipts
                .remove(nid)
                .map(|content| json!({ "type": "m.receipt", "content": content })),
        );
        ephemeral.extend(
            typing
                .get(nid)
                .map(|users| json!({ "type": "m.typing", "content": { "user_ids": users } })),
        );
        let data = data.remove(&nid.0).unwrap_or_default();
        if ephemeral.is_empty() && data.is_empty() && !parts.contains_key(nid) {
            continue;
        }
        let part = parts.entry(*nid).or_default();
        part.insert("ephemeral".to_owned(), json!({ "events": ephemeral }));
        part.insert("account_data".to_owned(), json!({ "events": data }));
    }
    let told: Vec<i64> = parts.keys().map(|nid| nid.0).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let unread = storage::unread::list(&mut conn, scope.session.user_nid, &told).await?;
    drop(conn);
    let by_thread = filter.room.timeline.unread_thread_notifications;
    for (nid, part) in &mut parts {
        let unread = unread.iter().filter(|part| part.room == *nid);
        part.extend(counts(unread, by_thread));
    }
    for (nid, part) in parts {
        let room_id = ids.room_id(nid).await?;
        let by_id = filter
            .room
            .rooms
            .as_ref()
            .is_none_or(|rooms| rooms.contains(&room_id))
            && !filter.room.not_rooms.contains(&room_id);
        if by_id {
            answer.join.insert(room_id.to_string(), Value::Object(part));
        }
    }
    Ok(())
}

/// Unread counts of a room: all of it in one, or threads on their own.
fn counts<'a>(unread: impl Iterator<Item = &'a Part>, by_thread: bool) -> Map<String, Value> {
    let (mut all, mut threads) = ((0, 0), Map::new());
    let show = |notify: i64, high: i64| {
        let high = high.max(0);
        json!({ "notification_count": notify.max(high), "highlight_count": high })
    };
    for part in unread {
        match &part.thread {
            Some(root) if by_thread => {
                if part.notify > 0 || part.high > 0 {
                    threads.insert(root.clone(), show(part.notify, part.high));
                }
            }
            _ => all = (all.0 + part.notify, all.1 + part.high),
        }
    }
    let mut counts = Map::new();
    counts.insert("unread_notifications".to_owned(), show(all.0, all.1));
    if !threads.is_empty() {
        counts.insert("unread_thread_notifications".to_owned(), threads.into());
    }
    counts
}

/// Whether the user was not in the room at `since`: nothing of it was told then.
async fn has_just_joined(
    scope: Scope<'_>,
    candidate: &super::joined::Candidate,
) -> Result<bool, Error> {
    let skey = -scope.session.user_nid.0;
    let Some(was) = candidate
        .told
        .as_ref()
        .and_then(|state| state.get(&skey).copied())
    else {
        return Ok(true);
    };
    let event = scope.rooms.pdus(&candidate.room, &[was]).await?.pop();
    Ok(event.and_then(|event| event.membership()) != Some(MembershipState::Join))
}
