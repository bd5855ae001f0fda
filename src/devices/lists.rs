//! Devices of users of peers: kept while the peer tells us of changes, else asked for each time.
//!
//! A user is tracked while one of ours is in a room with it. The first question fetches the list
//! with the count of its changes; updates that follow that count without a gap go into the copy,
//! any other makes it old, and it is fetched anew.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use ruma::{
    OwnedServerName, OwnedUserId, ServerName, UserId,
    api::federation::{
        device::get_devices,
        keys::get_keys,
        transactions::edu::{DeviceListUpdateContent, SigningKeyUpdateContent},
    },
};
use serde_json::{Value, json};

use super::{
    Error,
    keys::{Found, Question},
    peer_keys,
};
use crate::{
    clock::now_ms,
    context::Context,
    federation,
    storage::{self, Tx, UserNid, device_lists, device_lists::List},
};

/// Peers asked at the same time by one question.
const PEERS_AT_ONCE: usize = 20;
/// Peers asked at the same time by ourselves.
const RESYNCS_AT_ONCE: usize = 8;
/// Lists of one server that one question fetches one by one; more are fetched together, without
/// their count.
const LISTS_MAX: usize = 10;
/// The longest that peers may take for one question.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server is asked for one question.
#[derive(Debug, Default)]
struct Asked {
    /// Users whose lists are kept.
    tracked: Vec<OwnedUserId>,
    /// All users.
    question: Question,
}

/// What a server answered.
type Answer = Result<Vec<(OwnedUserId, List)>, federation::Error>;

/// Why a list was not fetched.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Peer(#[from] federation::Error),
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// Puts keys of users of peers into an answer: from the copies where they may be served, else from
/// the peers.
pub(super) async fn query(
    ctx: &Context,
    asked: BTreeMap<OwnedServerName, Question>,
    found: &mut Found,
) -> Result<(), Error> {
    let users = asked.values().flat_map(Question::keys);
    let nids = ctx.db.ids.find_users(users.map(|user| &**user)).await?;
    let all: Vec<i64> = nids.values().map(|nid| nid.0).collect();
    let mut conn = ctx.db.conn().await?;
    let tracked = device_lists::is_tracked(&mut conn, &all).await?;
    let fresh = device_lists::list_fresh(&mut conn, &tracked).await?;
    drop(conn);
    let mut copies = load(ctx, &fresh).await?;
    let mut jobs = Vec::new();
    for (server, question) in asked {
        let mut missing = Asked::default();
        for (user, wanted) in question {
            let nid = nids.get(&user).map_or(0, |nid| nid.0);
            if let Some(list) = copies.remove(&nid) {
                found.put(&user, &wanted, &list);
                continue;
            }
            if tracked.contains(&nid) {
                missing.tracked.push(user.clone());
            }
            missing.question.insert(user, wanted);
        }
        if !missing.question.is_empty() {
            jobs.push(ask(ctx, server, missing));
        }
    }
    let mut answers = stream::iter(jobs).buffer_unordered(PEERS_AT_ONCE);
    while let Some((server, question, answer)) = answers.next().await {
        let (lists, complete) = answer?;
        for (user, list) in lists {
            if let Some(wanted) = question.get(&user) {
                found.put(&user, wanted, &list);
            }
        }
        if !complete {
            found.fail(&server);
        }
    }
    drop(answers);
    Ok(())
}

/// Copies of lists by user.
async fn load(ctx: &Context, users: &[i64]) -> Result<BTreeMap<i64, List>, storage::Error> {
    let mut lists: BTreeMap<i64, List> =
        users.iter().map(|user| (*user, List::default())).collect();
    if users.is_empty() {
        return Ok(lists);
    }
    let mut conn = ctx.db.conn().await?;
    for (user, id, name, body) in device_lists::list_devices(&mut conn, users).await? {
        if let Some(list) = lists.get_mut(&user) {
            list.devices.push((id, name, body));
        }
    }
    for (user, kind, body) in device_lists::list_cross_keys(&mut conn, users).await? {
        if let Some(list) = lists.get_mut(&user) {
            let kind = match kind.as_str() {
                "master" => "master",
                _ => "self_signing",
            };
            list.cross.push((kind, body));
        }
    }
    Ok(lists)
}

/// Lists that a server gave, and whether it gave all.
type Given = (Vec<(OwnedUserId, List)>, bool);

/// Asks one server. Never longer than patience lasts.
async fn ask(
    ctx: &Context,
    server: OwnedServerName,
    mut asked: Asked,
) -> (OwnedServerName, Question, Result<Given, Error>) {
    let question = asked.question.clone();
    let work = async {
        let mut lists = Vec::new();
        if asked.tracked.len() <= LISTS_MAX {
            for user in std::mem::take(&mut asked.tracked) {
                match refresh(ctx, &server, &user).await {
                    Ok(Some(list)) => {
                        asked.question.remove(&user);
                        lists.push((user, list));
                    }
                    // Tracked no more, or a peer that does not know this question.
                    Ok(None)
                    | Err(Failure::Peer(
                        federation::Error::Remote { .. } | federation::Error::Nonsense { .. },
                    )) => {}
                    Err(Failure::Peer(_)) => return Ok((lists, false)),
                    Err(Failure::Storage(error)) => return Err(error.into()),
                }
            }
        }
        if asked.question.is_empty() {
            return Ok((lists, true));
        }
        let Ok(given) = together(ctx, &server, &asked).await? else {
            return Ok((lists, false));
        };
        lists.extend(given);
        Ok((lists, true))
    };
    let given = tokio::time::timeout(PATIENCE, work).await;
    (server, question, given.unwrap_or(Ok((Vec::new(), false))))
}

/// Asks one question about several users; lists of tracked users are kept if they are whole.
async fn together(
    ctx: &Context,
    server: &ServerName,
    asked: &Asked,
) -> Result<Answer, storage::Error> {
    let mut revs = BTreeMap::new();
    let mut conn = ctx.db.conn().await?;
    for user in &asked.tracked {
        let nid = ctx.db.ids.user(user).await?;
        if let Some(standing) = device_lists::find_or_insert(&mut conn, nid).await? {
            revs.insert(user, (nid, standing.rev));
        }
    }
    drop(conn);
    let mut question = asked.question.clone();
    for user in revs.keys() {
        question.insert((*user).clone(), Vec::new());
    }
    let request = get_keys::v1::Request::new(question);
    let answer = match ctx.federation.request(server, request).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(error)),
    };
    let mut lists = Vec::new();
    for user in asked.question.keys() {
        let Some(list) = of_user(&answer, user) else {
            continue;
        };
        if let Some((nid, rev)) = revs.get(user) {
            keep(ctx, *nid, *rev, &list).await?;
        }
        lists.push((user.clone(), list));
    }
    Ok(Ok(lists))
}

/// The part of an answer that is about one user.
fn of_user(answer: &get_keys::v1::Response, user: &OwnedUserId) -> Option<List> {
    let devices = answer.device_keys.get(user);
    let cross = peer_keys::cross_keys(
        user,
        answer.master_keys.get(user),
        answer.self_signing_keys.get(user),
    );
    if devices.is_none() && cross.is_empty() {
        return None;
    }
    let devices = devices.into_iter().flatten().take(peer_keys::DEVICES_MAX);
    let devices = devices.filter_map(|(id, raw)| {
        let key = peer_keys::device(user, id.as_str(), raw)?;
        let name = key["unsigned"]["device_display_name"].as_str();
        let name = peer_keys::name(name.map(ToOwned::to_owned));
        Some((id.to_string(), name, key.to_string()))
    });
    Some(List {
        stream_id: None,
        devices: devices.collect(),
        cross,
    })
}

/// The list of a tracked user: the copy if somebody fetched it meanwhile, else fetched and kept.
/// `None`: the user is not tracked.
async fn refresh(
    ctx: &Context,
    server: &ServerName,
    user: &UserId,
) -> Result<Option<List>, Failure> {
    let nid = ctx.db.ids.user(user).await?;
    let _turn = ctx.federation.turn(server).await;
    let mut conn = ctx.db.conn().await?;
    let standing = device_lists::find_or_insert(&mut conn, nid).await?;
    drop(conn);
    let Some(standing) = standing else {
        return Ok(None);
    };
    if standing.fresh {
        return Ok(load(ctx, &[nid.0]).await?.remove(&nid.0));
    }
    let request = get_devices::v1::Request::new(user.to_owned());
    let answer = ctx.federation.request(server, request).await?;
    let list = peer_keys::list(user, answer).ok_or_else(|| federation::Error::Nonsense {
        server: server.to_string(),
        reason: "the devices are of another user".to_owned(),
    })?;
    keep(ctx, nid, standing.rev, &list).await?;
    Ok(Some(list))
}

/// Keeps a list that was fetched. Clients whose question failed before are told to ask again.
async fn keep(ctx: &Context, user: UserNid, rev: i32, list: &List) -> Result<(), storage::Error> {
    let mut tx = ctx.db.begin().await?;
    if device_lists::replace(&mut tx, user, rev, list).await? == Some(true) {
        storage::to_device::insert_change(&mut tx, user).await?;
    }
    tx.commit().await
}

/// Fetches lists that are old; one question to a server at a time. Who could not be reached is
/// asked again after a pause. Returns how many were tried.
pub async fn resync(ctx: &Context) -> Result<usize, storage::Error> {
    let mut conn = ctx.db.conn().await?;
    let stale = device_lists::list_stale(&mut conn, now_ms()).await?;
    drop(conn);
    let ids = ctx.db.ids.user_ids_of(&stale).await?;
    let mut servers: BTreeMap<OwnedServerName, Vec<(OwnedUserId, UserNid)>> = BTreeMap::new();
    for (id, nid) in ids.into_iter().zip(&stale) {
        let of_server = servers.entry(id.server_name().to_owned()).or_default();
        of_server.push((id, *nid));
    }
    let jobs: Vec<_> = servers
        .into_iter()
        .map(|(server, users)| resync_server(ctx, server, users))
        .collect();
    let mut done = stream::iter(jobs).buffer_unordered(RESYNCS_AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    drop(done);
    Ok(stale.len())
}

async fn resync_server(
    ctx: &Context,
    server: OwnedServerName,
    users: Vec<(OwnedUserId, UserNid)>,
) -> Result<(), storage::Error> {
    let mut failed = Vec::new();
    let mut reached = true;
    for (user, nid) in users {
        if reached {
            match refresh(ctx, &server, &user).await {
                Ok(_) => continue,
                Err(Failure::Storage(error)) => return Err(error),
                Err(Failure::Peer(error)) => {
                    tracing::debug!(%error, %user, "devices could not be fetched");
                    reached = matches!(error, federation::Error::Remote { .. });
                }
            }
        }
        failed.push(nid.0);
    }
    if !failed.is_empty() {
        let mut conn = ctx.db.conn().await?;
        device_lists::update_failed(&mut conn, &failed, now_ms()).await?;
    }
    Ok(())
}

/// The user of a peer's update, if it is the peer's and we have heard of it.
async fn owner(
    ctx: &Context,
    origin: &ServerName,
    user: &UserId,
) -> Result<Option<UserNid>, Error> {
    if user.server_name() != origin {
        return Err(Error::Forbidden("a user of another server".to_owned()));
    }
    if let Some(nid) = ctx.db.ids.find_user(user).await? {
        return Ok(Some(nid));
    }
    // A member of a room whose members are not known yet.
    let server = ctx.db.ids.server(origin).await?;
    let mut conn = ctx.db.conn().await?;
    if storage::partial::is_told(&mut conn, server).await? {
        drop(conn);
        return Ok(Some(ctx.db.ids.user(user).await?));
    }
    Ok(None)
}

/// Takes an `m.device_list_update`: into the copy where it follows what we have, else the copy is
/// old. Users of ours who share a room are told.
pub async fn device_changed(
    ctx: &Context,
    origin: &ServerName,
    update: DeviceListUpdateContent,
) -> Result<(), Error> {
    let Some(nid) = owner(ctx, origin, &update.user_id).await? else {
        return Ok(());
    };
    let number = |n: ruma::UInt| i64::try_from(u64::from(n)).unwrap_or(i64::MAX);
    let stream_id = number(update.stream_id);
    let before = update.prev_id.iter().copied().map(number).max();
    let mut tx = ctx.db.begin().await?;
    let Some(standing) = device_lists::lock(&mut tx, nid).await? else {
        storage::to_device::insert_change(&mut tx, nid).await?;
        tx.commit().await?;
        return Ok(());
    };
    let known = standing.stream_id.filter(|_| standing.fresh);
    let says_nothing = is_known(&mut tx, nid, &update).await?;
    if known == Some(stream_id) && says_nothing {
        // Part of the list as it was fetched.
        return Ok(());
    }
    let follows = known.is_some() && known == before && known < Some(stream_id);
    let taken = follows && (says_nothing || apply(&mut tx, nid, update).await?);
    if taken {
        device_lists::update_stream(&mut tx, nid, Some(stream_id)).await?;
    } else {
        device_lists::update_stale(&mut tx, nid).await?;
    }
    if !(taken && says_nothing) {
        storage::to_device::insert_change(&mut tx, nid).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Whether the copy holds what an update says.
async fn is_known(
    tx: &mut Tx,
    user: UserNid,
    update: &DeviceListUpdateContent,
) -> Result<bool, storage::Error> {
    let devices = device_lists::list_devices(tx, &[user.0]).await?;
    let id = update.device_id.as_str();
    let copy = devices.into_iter().find(|(_, device, ..)| device == id);
    let says = update.keys.as_ref();
    let says = says.and_then(|raw| peer_keys::device(&update.user_id, id, raw));
    Ok(match (copy, says) {
        (None, None) => true,
        (Some((.., name, body)), Some(key)) => {
            update.deleted != Some(true)
                && name == peer_keys::name(update.device_display_name.clone())
                && serde_json::from_str::<Value>(&body).is_ok_and(|body| body == key)
        }
        _ => false,
    })
}

/// Puts an update into the copy; `false`: it does not say enough, or too much.
async fn apply(
    tx: &mut Tx,
    user: UserNid,
    update: DeviceListUpdateContent,
) -> Result<bool, storage::Error> {
    let id = update.device_id.as_str();
    if update.deleted == Some(true) {
        device_lists::delete_device(tx, user, id).await?;
        return Ok(true);
    }
    let key = update.keys.as_ref();
    let Some(key) = key.and_then(|raw| peer_keys::device(&update.user_id, id, raw)) else {
        return Ok(false);
    };
    let name = peer_keys::name(update.device_display_name);
    let most = i64::try_from(peer_keys::DEVICES_MAX).unwrap_or(i64::MAX);
    let device = (id, name.as_deref(), &*key.to_string());
    device_lists::upsert_device(tx, user, device, most).await
}

/// Takes an `m.signing_key_update`: into the copy if there is one. Users of ours who share a room
/// are told.
pub async fn signing_keys_changed(
    ctx: &Context,
    origin: &ServerName,
    update: SigningKeyUpdateContent,
) -> Result<(), Error> {
    let Some(nid) = owner(ctx, origin, &update.user_id).await? else {
        return Ok(());
    };
    let keys = peer_keys::cross_keys(
        &update.user_id,
        update.master_key.as_ref(),
        update.self_signing_key.as_ref(),
    );
    let mut tx = ctx.db.begin().await?;
    if device_lists::lock(&mut tx, nid).await?.is_some() {
        device_lists::upsert_cross_keys(&mut tx, nid, &keys).await?;
        device_lists::update_stream(&mut tx, nid, None).await?;
    }
    storage::to_device::insert_change(&mut tx, nid).await?;
    tx.commit().await?;
    Ok(())
}

impl Found {
    /// Puts what is wanted of a list into the answer.
    fn put(&mut self, user: &UserId, wanted: &[ruma::OwnedDeviceId], list: &List) {
        let mut devices = serde_json::Map::new();
        for (id, name, body) in &list.devices {
            if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted.as_str() == id) {
                continue;
            }
            let mut key: Value = serde_json::from_str(body).unwrap_or_default();
            if let Some(name) = name {
                key["unsigned"] = json!({ "device_display_name": name });
            }
            devices.insert(id.clone(), key);
        }
        self.device_keys
            .insert(user.to_string(), Value::Object(devices));
        for (kind, body) in &list.cross {
            let map = match *kind {
                "master" => &mut self.master_keys,
                _ => &mut self.self_signing_keys,
            };
            map.insert(
                user.to_string(),
                serde_json::from_str(body).unwrap_or_default(),
            );
        }
    }

    fn fail(&mut self, server: &ServerName) {
        let why = json!({ "errcode": "M_UNREACHABLE", "error": "the server was not reached" });
        self.failures.insert(server.to_string(), why);
    }
}
