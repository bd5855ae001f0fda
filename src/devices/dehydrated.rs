//! Dehydrated devices (MSC3814): one device of a user that nobody is logged in with. It has keys and
//! a queue as others do; the next device that the user logs in with takes its messages over.

use ruma::OwnedDeviceId;
use serde_json::{Value, json, value::RawValue};

use super::{Error, upload};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, Pos, UserNid, dehydrated::Dehydrated},
    users::{self, announce, tokens::Session},
};

/// Bytes of what a client keeps about the device, encrypted: some thousand private keys.
const DATA_BYTES_MAX: usize = 262_144;
/// Bytes of the id, and of the name.
const NAME_BYTES_MAX: usize = 255;
/// Messages in one page.
const EVENTS_MAX: i64 = 100;

fn bad(what: &str) -> Error {
    Error::Invalid(what.to_owned())
}

/// Puts a dehydrated device in place of the one there was, with its keys, in one step.
pub async fn put(ctx: &Context, session: &Session, body: &Value) -> Result<OwnedDeviceId, Error> {
    let id = body["device_id"].as_str().filter(|id| !id.is_empty());
    let id = id.ok_or(Error::BadJson("device_id"))?;
    let data = body.get("device_data").filter(|data| data.is_object());
    let data = data.ok_or(Error::BadJson("device_data"))?.to_string();
    let name = body["initial_device_display_name"].as_str();
    let most = id.len().max(name.map_or(0, str::len));
    if most > NAME_BYTES_MAX || data.len() > DATA_BYTES_MAX {
        return Err(bad("the device is too large"));
    }
    let keys = upload::parse(&session.user_id, id, body)?;
    if !keys.has_identity() {
        return Err(Error::BadJson("device_keys"));
    }
    let owner = (&*session.user_id, session.user_nid);
    let mut tx = ctx.db.begin().await?;
    // In turn, so that there is one.
    storage::key_backup::lock(&mut tx, session.user_nid).await?;
    let mut gone = Vec::new();
    if let Some(old) = storage::dehydrated::find(&mut tx, session.user_nid).await? {
        gone = users::devices::remove(&mut tx, session.user_nid, &[old.device_no]).await?;
    }
    if storage::devices::find(&mut tx, session.user_nid, id)
        .await?
        .is_some()
    {
        return Err(bad("another device of yours has this id"));
    }
    let number = storage::devices::upsert(&mut tx, session.user_nid, id, name, now_ms()).await?;
    storage::dehydrated::insert(&mut tx, session.user_nid, (number, &data)).await?;
    upload::store(&mut tx, session.user_nid, (number, id), &keys).await?;
    gone.retain(|gone| gone != id);
    if !gone.is_empty() {
        announce::deleted(ctx, &mut tx, owner, &gone).await?;
    }
    announce::devices(ctx, &mut tx, owner, &[id]).await?;
    tx.commit().await?;
    Ok(id.into())
}

/// The dehydrated device of a user.
pub async fn get(ctx: &Context, user: UserNid) -> Result<Value, Error> {
    let device = find(ctx, user).await?;
    Ok(json!({
        "device_id": device.device_id,
        "device_data": serde_json::from_str::<Value>(&device.data).unwrap_or_default(),
    }))
}

async fn find(ctx: &Context, user: UserNid) -> Result<Dehydrated, Error> {
    let mut conn = ctx.db.conn().await?;
    let found = storage::dehydrated::find(&mut conn, user).await?;
    found.ok_or(Error::NotFound("no dehydrated device"))
}

/// Deletes the dehydrated device of a user with its keys and messages.
pub async fn delete(ctx: &Context, session: &Session) -> Result<OwnedDeviceId, Error> {
    let owner = (&*session.user_id, session.user_nid);
    let mut tx = ctx.db.begin().await?;
    storage::key_backup::lock(&mut tx, session.user_nid).await?;
    let device = storage::dehydrated::find(&mut tx, session.user_nid).await?;
    let device = device.ok_or(Error::NotFound("no dehydrated device"))?;
    let gone = users::devices::remove(&mut tx, session.user_nid, &[device.device_no]).await?;
    announce::deleted(ctx, &mut tx, owner, &gone).await?;
    tx.commit().await?;
    Ok(device.device_id.into())
}

/// A page of the messages that wait for a dehydrated device.
#[derive(Debug)]
pub struct Page {
    /// Events, oldest first.
    pub events: Vec<Box<RawValue>>,
    /// Where the next page begins.
    pub next_batch: String,
    /// Whether it is not empty.
    pub has_more: bool,
}

/// Messages that wait for the dehydrated device after a token. They stay until the device goes.
pub async fn events(
    ctx: &Context,
    user: UserNid,
    device_id: &str,
    (from, limit): (Option<&str>, Option<i64>),
) -> Result<Page, Error> {
    let after = match from.filter(|from| !from.is_empty()) {
        Some(from) => from.parse::<Pos>().map_err(|_| bad("no such token"))?,
        None => 0,
    };
    let device = find(ctx, user).await?;
    if device.device_id != device_id {
        let why = "this is not your dehydrated device".to_owned();
        return Err(Error::Forbidden(why));
    }
    let limit = limit.unwrap_or(EVENTS_MAX).clamp(1, EVENTS_MAX);
    let span = (after, ctx.db.stream.horizon());
    let mut conn = ctx.db.conn().await?;
    let rows = storage::to_device::list(&mut conn, (user, device.device_no), span, limit).await?;
    drop(conn);
    let has_more = i64::try_from(rows.len()).is_ok_and(|n| n == limit);
    let last = rows.last().map_or(after, |(pos, _)| *pos);
    let events = rows
        .into_iter()
        .filter_map(|(_, body)| RawValue::from_string(body).ok());
    Ok(Page {
        events: events.collect(),
        next_batch: last.to_string(),
        has_more,
    })
}
