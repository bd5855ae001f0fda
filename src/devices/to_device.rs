//! Messages from device to device: each arrives once, in order.

use std::collections::BTreeMap;

use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{BYTES_MAX, Error};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, LogEntry, LogKind, ServerNid, Tx},
    users::tokens::Session,
};

/// Devices that one request may write to.
const RECEIVERS_MAX: usize = 10_000;

/// Bytes of the type of a message.
const KIND_BYTES_MAX: usize = 255;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// Messages dropped at once.
const DROPPED_AT_ONCE: i64 = 5_000;

/// Whether a content is one.
fn fits(content: &Value) -> bool {
    content.is_object() && content.to_string().len() <= BYTES_MAX
}

/// Contents by user and device id; `*` stands for all devices.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<String, Value>>;

/// What a message is known by, so that it is taken once.
fn hash(parts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    Uuid::from_slice(&digest[..16]).unwrap_or_default()
}

/// Sends messages (`PUT /sendToDevice`); a repeated transaction does nothing.
pub async fn send(
    ctx: &Context,
    session: &Session,
    (kind, txn): (&str, &str),
    messages: Messages,
) -> Result<(), Error> {
    let receivers: usize = messages.values().map(BTreeMap::len).sum();
    if receivers > RECEIVERS_MAX {
        return Err(Error::Invalid("too many receivers".to_owned()));
    }
    if kind.len() > KIND_BYTES_MAX || !messages.values().flat_map(BTreeMap::values).all(fits) {
        return Err(Error::Invalid(
            "a message is an object of at most 64 KiB".to_owned(),
        ));
    }
    let device = format!("{} {}", session.user_id, session.device_id);
    let known = hash(&["client", &device, kind, txn]);
    let mut tx = ctx.db.begin().await?;
    if !storage::to_device::insert_txn(&mut tx, known, now_ms()).await? {
        return Ok(());
    }
    let mut ours = Messages::new();
    let mut theirs: BTreeMap<OwnedServerName, Messages> = BTreeMap::new();
    for (user, contents) in messages {
        if user.server_name() == ctx.server_name() {
            ours.insert(user, contents);
        } else {
            let server = user.server_name().to_owned();
            theirs.entry(server).or_default().insert(user, contents);
        }
    }
    let is_remote = !theirs.is_empty();
    let (mut servers, mut bodies) = (Vec::new(), Vec::new());
    for (server, messages) in theirs {
        let edu = json!({
            "edu_type": "m.direct_to_device",
            "content": {
                "sender": session.user_id,
                "type": kind,
                "message_id": format!("{:032x}", rand::random::<u128>()),
                "messages": messages,
            },
        });
        servers.push(ctx.db.ids.server(&server).await?.0);
        bodies.push(edu.to_string());
    }
    storage::to_device::insert_edus(&mut tx, (&servers, &bodies), None, now_ms()).await?;
    deliver(ctx, &mut tx, &session.user_id, kind, &ours).await?;
    if is_remote {
        // Wakes the sender.
        let entry = LogEntry {
            kind: LogKind::ToDevice,
            room: 0,
            user: 0,
            reference: 0,
        };
        tx.log(entry).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Takes messages of a peer; a repeated message id does nothing.
pub async fn receive(
    ctx: &Context,
    origin: &ServerName,
    sender: &UserId,
    (kind, message_id): (&str, &str),
    messages: &Messages,
) -> Result<(), Error> {
    if sender.server_name() != origin {
        return Err(Error::Forbidden(
            "the sender is of another server".to_owned(),
        ));
    }
    let receivers: usize = messages.values().map(BTreeMap::len).sum();
    if receivers > RECEIVERS_MAX || kind.len() > KIND_BYTES_MAX {
        return Err(Error::Invalid("too many receivers".to_owned()));
    }
    let mut tx = ctx.db.begin().await?;
    let known = hash(&["peer", origin.as_str(), message_id]);
    if !storage::to_device::insert_txn(&mut tx, known, now_ms()).await? {
        return Ok(());
    }
    deliver(ctx, &mut tx, sender, kind, messages).await?;
    tx.commit().await?;
    Ok(())
}

/// Drops messages for peers that have been away for longer than the operator wants to wait, and the
/// oldest where more wait for one peer than may. Updates of device lists stay: few wait for each user,
/// and who missed others asks when it sees the newest.
pub async fn drop_old(ctx: &Context) -> Result<(), storage::Error> {
    let config = &ctx.config.federation;
    let mut conn = ctx.db.conn().await?;
    let mut dropped: BTreeMap<ServerNid, u64> = BTreeMap::new();
    let before = now_ms() - i64::from(config.keep_messages_days) * DAY_MS;
    loop {
        let of = storage::to_device::delete_edus_before(&mut conn, before, DROPPED_AT_ONCE).await?;
        for (server, count) in &of {
            *dropped.entry(*server).or_default() += count.unsigned_abs();
        }
        if of.is_empty() {
            break;
        }
    }
    let most = (i64::from(config.keep_messages_max), DROPPED_AT_ONCE);
    for server in storage::to_device::list_edu_servers(&mut conn).await? {
        loop {
            let count = storage::to_device::delete_edus_beyond(&mut conn, server, most).await?;
            if count == 0 {
                break;
            }
            *dropped.entry(server).or_default() += count;
        }
    }
    drop(conn);
    for (server, messages) in dropped {
        metrics::counter!("federation_messages_dropped_total").increment(messages);
        let server = ctx.db.ids.server_name(server).await?;
        tracing::warn!(
            %server,
            messages,
            "federation: messages to devices are dropped: the server has been away for too long"
        );
    }
    Ok(())
}

/// Puts messages into the queues of local devices. Unknown users and devices are left out, and what a
/// peer sends that none of our clients could.
async fn deliver(
    ctx: &Context,
    tx: &mut Tx,
    sender: &UserId,
    kind: &str,
    messages: &Messages,
) -> Result<(), Error> {
    let is_ours = |user: &&OwnedUserId| user.server_name() == ctx.server_name();
    let ours = messages.keys().filter(is_ours).map(|user| &**user);
    let known = ctx.db.ids.find_users(ours).await?;
    let users = messages.iter();
    let users = users.filter_map(|(user, contents)| Some((known.get(user)?.0, contents)));
    let users: BTreeMap<i64, _> = users.collect();
    let nids: Vec<i64> = users.keys().copied().collect();
    let devices = storage::to_device::list_devices(tx, &nids).await?;
    let mut queued = Vec::new();
    for (user, number, device) in devices {
        let contents = users[&user];
        let Some(content) = contents.get(&device).or_else(|| contents.get("*")) else {
            continue;
        };
        if !fits(content) {
            continue;
        }
        let mut event = Map::new();
        event.insert("type".to_owned(), json!(kind));
        event.insert("sender".to_owned(), json!(sender));
        event.insert("content".to_owned(), content.clone());
        queued.push((user, number, Value::Object(event).to_string()));
    }
    if !queued.is_empty() {
        storage::to_device::insert(tx, &queued).await?;
    }
    Ok(())
}
