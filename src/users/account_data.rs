//! Account data, tags, stored filters.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Error, push_rules, tokens::Session};
use crate::{
    context::Context,
    storage::{self, LogEntry, LogKind, Tx, UserNid},
};

/// Types that go with a device, whose id follows a dot (MSC3890).
const OF_DEVICES: [&str; 2] = [
    "m.local_notification_settings",
    "org.matrix.msc3890.local_notification_settings",
];
/// Bytes of a tag's name (specification, "Room tagging").
const TAG_BYTES_MAX: usize = 255;

/// Account data; room 0 for global data.
pub async fn get(
    ctx: &Context,
    session: &Session,
    room: i64,
    kind: &str,
) -> Result<Map<String, Value>, Error> {
    let mut conn = ctx.db.conn().await?;
    let content = storage::account_data::find(&mut conn, session.user_nid, room, kind).await?;
    let content = content.ok_or(Error::NotFound("account data"))?;
    Ok(serde_json::from_str(&content).unwrap_or_default())
}

/// Sets account data, as a client does: types that have an endpoint of their own are refused.
pub async fn set(
    ctx: &Context,
    session: &Session,
    room: i64,
    kind: &str,
    content: &str,
) -> Result<(), Error> {
    if matches!(kind, "m.fully_read" | "m.push_rules") {
        return Err(Error::NotSettable(kind.to_owned()));
    }
    let is_empty =
        || serde_json::from_str(content).is_ok_and(|content: Map<_, Value>| content.is_empty());
    if ctx.config.unstable.account_data_deletion && is_empty() {
        return delete(ctx, session, room, kind).await;
    }
    put(ctx, session, room, kind, content).await?;
    follow(ctx, session, room, kind).await
}

/// Deletes account data, if there is some (MSC3391). Clients are told that its content is empty.
pub async fn delete(ctx: &Context, session: &Session, room: i64, kind: &str) -> Result<(), Error> {
    if matches!(kind, "m.fully_read" | "m.push_rules") {
        return Err(Error::NotSettable(kind.to_owned()));
    }
    let mut tx = ctx.db.begin().await?;
    forget(&mut tx, session.user_nid, room, &[kind.to_owned()]).await?;
    tx.commit().await?;
    follow(ctx, session, room, kind).await
}

/// Deletes what clients keep for devices of a user that are gone (MSC3890).
pub(super) async fn forget_devices(
    tx: &mut Tx,
    user: UserNid,
    devices: &[String],
) -> Result<(), storage::Error> {
    let kinds = devices
        .iter()
        .flat_map(|device| OF_DEVICES.map(|kind| format!("{kind}.{device}")));
    forget(tx, user, 0, &kinds.collect::<Vec<_>>()).await
}

async fn forget(
    tx: &mut Tx,
    user: UserNid,
    room: i64,
    kinds: &[String],
) -> Result<(), storage::Error> {
    let gone = storage::account_data::delete(tx, user, room, kinds).await?;
    if gone.is_empty() {
        return Ok(());
    }
    let entry = LogEntry {
        kind: LogKind::AccountData,
        room,
        user: user.0,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    storage::account_data::update_pos(tx, user, room, &gone, pos).await
}

/// Does what follows from a change.
async fn follow(ctx: &Context, session: &Session, room: i64, kind: &str) -> Result<(), Error> {
    if room == 0 && kind == push_rules::IGNORED {
        push_rules::follow_ignored(ctx, (&session.user_id, session.user_nid)).await?;
    }
    Ok(())
}

/// Sets account data of any type.
pub async fn put(
    ctx: &Context,
    session: &Session,
    room: i64,
    kind: &str,
    content: &str,
) -> Result<(), Error> {
    if serde_json::from_str::<Map<String, Value>>(content).is_err() {
        return Err(Error::Invalid("account data is an object"));
    }
    Ok(store(ctx, session.user_nid, room, (kind, content)).await?)
}

/// Sets account data that is an object, of any user.
pub async fn store(
    ctx: &Context,
    user: UserNid,
    room: i64,
    (kind, content): (&str, &str),
) -> Result<(), storage::Error> {
    let mut tx = ctx.db.begin().await?;
    storage::account_data::upsert(&mut tx, user, room, (kind, content)).await?;
    let entry = LogEntry {
        kind: LogKind::AccountData,
        room,
        user: user.0,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    storage::account_data::update_pos(&mut tx, user, room, &[kind.to_owned()], pos).await?;
    tx.commit().await?;
    Ok(())
}

/// Tags of a room.
pub async fn tags(
    ctx: &Context,
    session: &Session,
    room: i64,
) -> Result<Map<String, Value>, Error> {
    match get(ctx, session, room, "m.tag").await {
        Ok(content) => Ok(content
            .get("tags")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()),
        Err(Error::NotFound(_)) => Ok(Map::new()),
        Err(error) => Err(error),
    }
}

/// Sets a tag of a room, or removes it (`None`).
pub async fn set_tag(
    ctx: &Context,
    session: &Session,
    room: i64,
    tag: &str,
    info: Option<Value>,
) -> Result<(), Error> {
    if tag.len() > TAG_BYTES_MAX {
        return Err(Error::Invalid("a tag has at most 255 bytes"));
    }
    let mut tags = tags(ctx, session, room).await?;
    match info {
        Some(info) => tags.insert(tag.to_owned(), info),
        None => tags.remove(tag),
    };
    let content = serde_json::json!({ "tags": tags }).to_string();
    put(ctx, session, room, "m.tag", &content).await
}

/// Stores a filter; returns its id.
pub async fn store_filter(ctx: &Context, session: &Session, body: &str) -> Result<String, Error> {
    let hash = Sha256::digest(body.as_bytes());
    let mut conn = ctx.db.conn().await?;
    let id = storage::account_data::insert_filter(&mut conn, session.user_nid, body, &hash).await?;
    Ok(id.to_string())
}

/// A stored filter.
pub async fn filter(ctx: &Context, session: &Session, id: &str) -> Result<String, Error> {
    let missing = || Error::NotFound("filter");
    let id = id.parse().map_err(|_| missing())?;
    let mut conn = ctx.db.conn().await?;
    storage::account_data::find_filter(&mut conn, session.user_nid, id)
        .await?
        .ok_or_else(missing)
}
