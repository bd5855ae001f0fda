//! What others are told when devices or keys of a user of ours change: syncs by the log, peers by
//! EDUs, which count for each user so that a peer sees when it missed one.

use ruma::UserId;
use serde_json::{Map, Value, json};

use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, RoomNid, Tx, UserNid, device_keys, device_lists},
};

/// Servers that are told of the devices of a user who comes into a room. In larger rooms the others
/// ask when they need to know, as they do anyway.
const NEW_SERVERS_MAX: i64 = 100;
/// Devices that they are told of, the newest; one is enough for them to ask for the list.
const NEW_DEVICES_MAX: usize = 20;

/// Updates about a user that wait for a peer, the last ones: who missed those before sees that by their
/// numbers, and asks for the list.
const UPDATES_MAX: usize = 50;

/// A user of ours whose devices changed.
pub type Owner<'a> = (&'a UserId, UserNid);

/// A device as an update shows it: id, name, keys with signatures.
type Shown = (String, Option<String>, Option<Value>);

/// Tells everybody who shares a room with a user of ours that devices of it changed. The last
/// thing before the commit.
pub async fn devices(
    ctx: &Context,
    tx: &mut Tx,
    owner: Owner<'_>,
    device_ids: &[&str],
) -> Result<(), storage::Error> {
    let mut shown = list(tx, owner).await?;
    shown.retain(|(id, ..)| device_ids.contains(&id.as_str()));
    let contents = shown.iter().map(content).collect();
    updates(ctx, tx, owner, contents).await
}

/// Tells everybody who shares a room with a user of ours that devices of it are gone. The last
/// thing before the commit.
pub async fn deleted(
    ctx: &Context,
    tx: &mut Tx,
    owner: Owner<'_>,
    device_ids: &[String],
) -> Result<(), storage::Error> {
    let contents = device_ids.iter();
    let contents = contents.map(|id| json!({ "device_id": id, "deleted": true }));
    updates(ctx, tx, owner, contents.collect()).await
}

/// Tells everybody who shares a room with a user of ours that its cross-signing keys changed. The
/// last thing before the commit.
pub async fn signing_keys(
    ctx: &Context,
    tx: &mut Tx,
    owner: Owner<'_>,
) -> Result<(), storage::Error> {
    let (user_id, nid) = owner;
    let signatures = device_keys::list_signatures(tx, &[nid.0], nid.0).await?;
    let mut content = json!({ "user_id": user_id });
    for (_, kind, body) in device_keys::list_cross_signing(tx, &[nid.0]).await? {
        // Whom the user has verified is nobody else's business.
        if kind != "user_signing" {
            let mut key: Value = serde_json::from_str(&body).unwrap_or_default();
            let target = key["keys"]
                .as_object()
                .and_then(|keys| keys.values().next());
            if let Some(target) = target.and_then(Value::as_str).map(ToOwned::to_owned) {
                sign(&mut key, user_id, &target, &signatures);
            }
            content[format!("{kind}_key")] = key;
        }
    }
    let edu = json!({ "edu_type": "m.signing_key_update", "content": content });
    queue(ctx, tx, nid, &[edu.to_string()]).await?;
    storage::to_device::insert_change(tx, nid).await?;
    Ok(())
}

/// Tells the devices of a user to look anew at the keys of others that the user signed: nobody
/// else sees these signatures. The last thing before the commit.
pub async fn signatures(
    tx: &mut Tx,
    signer: UserNid,
    owners: &[i64],
) -> Result<(), storage::Error> {
    let entry = storage::LogEntry {
        kind: storage::LogKind::Signatures,
        room: 0,
        user: signer.0,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    device_keys::update_signature_positions(tx, signer, owners, pos).await
}

/// Tells servers that hear of a user of ours for the first time, since it came into a room with
/// them, of its devices (specification, "Device management").
pub async fn joined(ctx: &Context, owner: Owner<'_>, room: RoomNid) -> Result<(), storage::Error> {
    let own = ctx.db.ids.server(ctx.server_name()).await?;
    let mut conn = ctx.db.conn().await?;
    let new = device_lists::list_new_servers(&mut conn, owner.1, room, NEW_SERVERS_MAX).await?;
    drop(conn);
    let servers: Vec<i32> = new.into_iter().filter(|server| *server != own.0).collect();
    tell(ctx, owner, &servers).await
}

/// Tells some servers of the devices of a user of ours.
pub async fn tell(ctx: &Context, owner: Owner<'_>, servers: &[i32]) -> Result<(), storage::Error> {
    let (user_id, nid) = owner;
    if servers.is_empty() {
        return Ok(());
    }
    let mut tx = ctx.db.begin().await?;
    let shown = list(&mut tx, owner).await?;
    if shown.is_empty() {
        return Ok(());
    }
    let count = device_lists::find_own_stream(&mut tx, nid).await?;
    let newest = shown.iter().rev().take(NEW_DEVICES_MAX);
    let edus: Vec<String> = newest
        .map(|shown| update(user_id, count, content(shown)))
        .collect();
    send(&mut tx, nid, servers, &edus).await?;
    // Wakes the sender.
    let entry = storage::LogEntry {
        kind: storage::LogKind::ToDevice,
        room: 0,
        user: 0,
        reference: 0,
    };
    tx.log(entry).await?;
    tx.commit().await
}

/// Devices of a user, oldest first.
async fn list(tx: &mut Tx, (user_id, nid): Owner<'_>) -> Result<Vec<Shown>, storage::Error> {
    let signatures = device_keys::list_signatures(tx, &[nid.0], nid.0).await?;
    let mut keys: Map<String, Value> = Map::new();
    for (_, id, _, body) in device_keys::list(tx, &[nid.0]).await? {
        let mut key: Value = serde_json::from_str(&body).unwrap_or_default();
        sign(&mut key, user_id, &id, &signatures);
        keys.insert(id, key);
    }
    let devices = storage::devices::list(tx, nid).await?.into_iter();
    Ok(devices
        .map(|device| {
            let key = keys.remove(&device.device_id);
            (device.device_id, device.display_name, key)
        })
        .collect())
}

/// Puts signatures that the owner added into a key.
fn sign(
    key: &mut Value,
    user_id: &UserId,
    target: &str,
    signatures: &[(i64, String, i64, String, String)],
) {
    for (_, _, _, key_id, signature) in signatures.iter().filter(|(_, on, ..)| on == target) {
        key["signatures"][user_id.as_str()][key_id] = json!(signature);
    }
}

fn content((id, name, keys): &Shown) -> Value {
    let mut content = json!({ "device_id": id, "deleted": false });
    if let Some(name) = name {
        content["device_display_name"] = json!(name);
    }
    if let Some(keys) = keys {
        content["keys"] = keys.clone();
    }
    content
}

/// The EDU with that number.
fn update(user_id: &UserId, number: i64, mut content: Value) -> String {
    content["user_id"] = json!(user_id);
    content["stream_id"] = json!(number);
    if number > 1 {
        content["prev_id"] = json!([number - 1]);
    }
    json!({ "edu_type": "m.device_list_update", "content": content }).to_string()
}

/// Sends numbered updates, and logs the change.
async fn updates(
    ctx: &Context,
    tx: &mut Tx,
    (user_id, nid): Owner<'_>,
    contents: Vec<Value>,
) -> Result<(), storage::Error> {
    let count = i64::try_from(contents.len()).unwrap_or(i64::MAX);
    if count > 0 {
        let last = device_lists::advance_own_stream(tx, nid, count).await?;
        let numbers = (last - count + 1)..=last;
        let untold = contents.len().saturating_sub(UPDATES_MAX);
        let edus = numbers.zip(contents).skip(untold);
        let edus: Vec<String> = edus
            .map(|(number, content)| update(user_id, number, content))
            .collect();
        queue(ctx, tx, nid, &edus).await?;
    }
    storage::to_device::insert_change(tx, nid).await?;
    Ok(())
}

/// Queues EDUs for every peer that shares a room with a user.
async fn queue(
    ctx: &Context,
    tx: &mut Tx,
    user: UserNid,
    edus: &[String],
) -> Result<(), storage::Error> {
    let own = ctx.db.ids.server(ctx.server_name()).await?;
    let mut servers = storage::to_device::list_servers(tx, user).await?;
    servers.retain(|server| *server != own.0);
    send(tx, user, &servers, edus).await
}

async fn send(
    tx: &mut Tx,
    user: UserNid,
    servers: &[i32],
    edus: &[String],
) -> Result<(), storage::Error> {
    let mut receivers = Vec::with_capacity(servers.len() * edus.len());
    let mut bodies = Vec::with_capacity(servers.len() * edus.len());
    for server in servers {
        for edu in edus {
            receivers.push(*server);
            bodies.push(edu.clone());
        }
    }
    if !bodies.is_empty() {
        let most = i64::try_from(UPDATES_MAX).unwrap_or(i64::MAX);
        storage::to_device::insert_edus(tx, (&receivers, &bodies), Some(user), now_ms()).await?;
        storage::to_device::delete_older_edus(tx, servers, user, most).await?;
    }
    Ok(())
}
