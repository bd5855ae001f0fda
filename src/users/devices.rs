//! Names of devices, which their owner and everybody who shares a room with it see, and their end.

use super::{Error, account_data, announce, tokens::Session};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, Tx, UserNid},
};

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

/// Bytes of an id that a service gives.
const ID_BYTES_MAX: usize = 255;

/// Renames a device of the asking user (`None`: the name stays). An application service makes one by
/// that where there is none (specification, v1.17); whether it did.
pub async fn rename(
    ctx: &Context,
    session: &Session,
    device_id: &str,
    name: Option<&str>,
) -> Result<bool, Error> {
    if name.is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        return Err(Error::Invalid("a display name has at most 255 bytes"));
    }
    let owner = (&*session.user_id, session.user_nid);
    let mut tx = ctx.db.begin().await?;
    let before = storage::devices::find(&mut tx, session.user_nid, device_id).await?;
    let Some(before) = before else {
        if session.appservice.is_none() {
            return Err(Error::NotFound("device"));
        }
        if device_id.len() > ID_BYTES_MAX {
            return Err(Error::Invalid("a device id has at most 255 bytes"));
        }
        storage::devices::upsert(&mut tx, session.user_nid, device_id, name, now_ms()).await?;
        announce::devices(ctx, &mut tx, owner, &[device_id]).await?;
        tx.commit().await?;
        return Ok(true);
    };
    if name.is_some() && name != before.display_name.as_deref() {
        storage::devices::update_name(&mut tx, session.user_nid, device_id, name).await?;
        announce::devices(ctx, &mut tx, owner, &[device_id]).await?;
    }
    tx.commit().await?;
    Ok(false)
}

/// Removes devices with their sessions, keys, queues and settings; ids of those that there were. Whoever shares
/// a room with their owner has to be told.
pub async fn remove(
    tx: &mut Tx,
    user: UserNid,
    devices: &[i32],
) -> Result<Vec<String>, storage::Error> {
    let known = storage::devices::list(tx, user).await?.into_iter();
    let removed = known.filter(|device| devices.contains(&device.device_no));
    let removed: Vec<String> = removed.map(|device| device.device_id).collect();
    storage::tokens::delete_of_devices(tx, user, devices).await?;
    storage::devices::delete(tx, user, devices).await?;
    storage::device_keys::delete(tx, user, devices).await?;
    storage::device_keys::delete_signatures(tx, user, &removed).await?;
    account_data::forget_devices(tx, user, &removed).await?;
    Ok(removed)
}
