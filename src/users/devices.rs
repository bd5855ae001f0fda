//! Names of devices, which their owner and everybody who shares a room with it see.

use super::{Error, announce, tokens::Session};
use crate::{clock::now_ms, context::Context, storage};

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
