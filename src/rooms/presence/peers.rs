//! Presence between servers: only where it is switched on, and only of users who share a room.

use std::collections::BTreeMap;

use ruma::{
    OwnedUserId, ServerName,
    api::federation::transactions::edu::{Edu, PresenceContent, PresenceUpdate},
    presence::PresenceState,
    serde::Raw,
};
use serde_json::value::RawValue;

use super::{
    super::{Error, Rooms},
    WRITE_EVERY_MS, is_status,
};
use crate::{
    clock::{from_ms, now_ms},
    storage::{
        self, LogKind, LogRow, ServerNid, UserNid,
        presence::{Change, Presence, State},
    },
};

/// Users of whom peers are told in one go.
const USERS_AT_ONCE: usize = 500;
/// Pairs of a server and a user that are told of at once because somebody came.
const NEWCOMERS_MAX: i64 = 5_000;
/// A server counts as new from a position a little before its join: what others wrote meanwhile.
/// Who is told twice takes no harm.
const DRAWN_MEANWHILE: i64 = 1_000;
/// Users in one EDU, as Synapse sends them.
const USERS_IN_EDU: usize = 50;
/// Bytes of an EDU of a peer; more than as many users with long status messages take.
const EDU_BYTES_MAX: usize = 128 << 10;
/// Users taken from one transaction of a peer; the others are told of by the next.
const USERS_TAKEN_MAX: usize = 1_000;

/// An EDU for a peer: to whom, what it is about, itself.
pub type Outgoing = (ServerNid, String, Raw<Edu>);

/// Takes what has to go to peers, for whoever sends it: the newest state of each user, many users
/// in one EDU. Two statements, however many users and peers.
pub async fn edus(rooms: &Rooms) -> Result<Vec<Outgoing>, Error> {
    let users = rooms.presence().take_outgoing(USERS_AT_ONCE);
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let users: Vec<i64> = users.iter().map(|user| user.0).collect();
    let mut conn = rooms.ctx().db.conn().await?;
    let servers = storage::presence::list_servers(&mut conn, &users).await?;
    drop(conn);
    about(rooms, servers).await
}

/// What is to be told because somebody came into a room, by the rows of the log: a server that is
/// new hears who of ours is there, and all servers hear of a user of ours who is new. Two
/// statements.
pub async fn edus_for_newcomers(rooms: &Rooms, rows: &[LogRow]) -> Result<Vec<Outgoing>, Error> {
    let came = rows.iter().filter(|row| row.kind == LogKind::Event);
    let events: Vec<i64> = came.clone().map(|row| row.reference).collect();
    let mut nids: Vec<i64> = came.clone().map(|row| row.room).collect();
    let Some(first) = came.map(|row| row.pos).min() else {
        return Ok(Vec::new());
    };
    let from = first - DRAWN_MEANWHILE;
    nids.sort_unstable();
    nids.dedup();
    let mut conn = rooms.ctx().db.conn().await?;
    let servers =
        storage::presence::list_newcomers(&mut conn, &nids, (from, &events), NEWCOMERS_MAX).await?;
    drop(conn);
    about(rooms, servers).await
}

/// EDUs about users for servers.
async fn about(rooms: &Rooms, servers: Vec<(ServerNid, UserNid)>) -> Result<Vec<Outgoing>, Error> {
    if servers.is_empty() {
        return Ok(Vec::new());
    }
    let mut users: Vec<i64> = servers.iter().map(|(_, user)| user.0).collect();
    users.sort_unstable();
    users.dedup();
    let ids = &rooms.ctx().db.ids;
    let mut conn = rooms.ctx().db.conn().await?;
    let presences = storage::presence::list(&mut conn, &users).await?;
    drop(conn);
    let nids: Vec<UserNid> = presences.iter().map(|(user, _)| *user).collect();
    let user_ids = ids.user_ids_of(&nids).await?;
    let updates: BTreeMap<i64, PresenceUpdate> = presences
        .into_iter()
        .zip(user_ids)
        .map(|((user, presence), user_id)| (user.0, update(user_id, presence)))
        .collect();
    let own = ids.server(rooms.ctx().server_name()).await?;
    let mut by_server: BTreeMap<i32, Vec<PresenceUpdate>> = BTreeMap::new();
    for (server, user) in servers.into_iter().filter(|(server, _)| *server != own) {
        if let Some(update) = updates.get(&user.0) {
            by_server.entry(server.0).or_default().push(update.clone());
        }
    }
    let mut edus = Vec::new();
    for (server, updates) in by_server {
        for updates in updates.chunks(USERS_IN_EDU) {
            let content = PresenceContent::new(updates.to_vec());
            if let Ok(edu) = Raw::new(&Edu::Presence(content)) {
                // In order: where two wait, the newer goes last.
                let about = format!("presence {:020}", rooms.presence().next_serial());
                edus.push((ServerNid(server), about, edu));
            }
        }
    }
    Ok(edus)
}

fn update(user_id: OwnedUserId, presence: Presence) -> PresenceUpdate {
    let state = match presence.state {
        State::Offline => PresenceState::Offline,
        State::Unavailable => PresenceState::Unavailable,
        State::Online => PresenceState::Online,
    };
    let ago = now_ms() - presence.last_active_ts;
    let mut update = PresenceUpdate::new(user_id, state, from_ms(ago.max(0)));
    update.status_msg = presence.status_msg;
    update.currently_active = presence.currently_active;
    update
}

/// A user as a peer tells of it. What else is there is ignored.
#[derive(Debug, serde::Deserialize)]
struct Told {
    user_id: OwnedUserId,
    presence: String,
    status_msg: Option<String>,
    last_active_ago: Option<i64>,
    #[serde(default)]
    currently_active: bool,
}

/// EDUs of one transaction of a peer. Of what a peer tells, only its own users count, and only those
/// who share a room with one of ours. One statement, and up to four where something is new.
pub async fn receive(rooms: &Rooms, origin: &ServerName, edus: &[&Raw<Edu>]) -> Result<(), Error> {
    let config = &rooms.ctx().config.presence;
    if !(config.enabled && config.federation) || edus.is_empty() {
        return Ok(());
    }
    let now = now_ms();
    let told = read(origin, edus, now);
    let names: Vec<String> = told.keys().map(ToString::to_string).collect();
    let db = &rooms.ctx().db;
    let mut conn = db.conn().await?;
    let met = storage::presence::list_met(&mut conn, &names).await?;
    let (mut changes, mut seen) = (Vec::new(), Vec::new());
    for (user_id, before) in met {
        let Some(presence) = <&ruma::UserId>::try_from(user_id.as_str())
            .ok()
            .and_then(|user_id| told.get(user_id))
        else {
            continue;
        };
        if !before.presence.looks_like(presence) {
            changes.push(Change {
                presence: presence.clone(),
                seen_ts: now,
                ..before
            });
        } else if now - before.seen_ts >= WRITE_EVERY_MS {
            seen.push((before.user, now, presence.last_active_ts));
        }
    }
    if !seen.is_empty() {
        storage::presence::update_seen(&mut conn, &seen).await?;
    }
    drop(conn);
    if !changes.is_empty() {
        let mut tx = db.begin().await?;
        storage::presence::write(&mut tx, &changes).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// What a peer tells of its own users, the last word of each.
fn read(origin: &ServerName, edus: &[&Raw<Edu>], now: i64) -> BTreeMap<OwnedUserId, Presence> {
    #[derive(serde::Deserialize)]
    struct Content {
        push: Vec<Box<RawValue>>,
    }
    let edus = edus
        .iter()
        .filter(|edu| edu.json().get().len() <= EDU_BYTES_MAX);
    let contents = edus.filter_map(|edu| edu.get_field::<Content>("content").ok()?);
    let mut told = BTreeMap::new();
    for one in contents.flat_map(|content| content.push) {
        // One that cannot be read does not spoil the others.
        let Ok(one) = serde_json::from_str::<Told>(one.get()) else {
            continue;
        };
        let Some(state) = State::of(&one.presence) else {
            continue;
        };
        let has_room = told.len() < USERS_TAKEN_MAX || told.contains_key(&one.user_id);
        if one.user_id.server_name() != origin || !has_room {
            continue;
        }
        let message = one.status_msg;
        let presence = Presence {
            state,
            status_msg: message.filter(|text| is_status(text)),
            currently_active: one.currently_active && state == State::Online,
            last_active_ts: one.last_active_ago.map_or(0, |ago| now - ago.clamp(0, now)),
        };
        told.insert(one.user_id, presence);
    }
    told
}
