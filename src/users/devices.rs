//! Names of devices, which their owner and everybody who shares a room with it see.

use super::{Error, announce, tokens::Session};
use crate::{context::Context, storage};

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

/// Renames a device of the asking user (`None`: the name stays).
pub async fn rename(
    ctx: &Context,
    session: &Session,
    device_id: &str,
    name: Option<&str>,
) -> Result<(), Error> {
    if name.is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        return Err(Error::Invalid("a display name has at most 255 bytes"));
    }
    let owner = (&*session.user_id, session.user_nid);
    let mut tx = ctx.db.begin().await?;
    let before = storage::devices::find(&mut tx, session.user_nid, device_id).await?;
    let before = before.ok_or(Error::NotFound("device"))?;
    if name.is_some() && name != before.display_name.as_deref() {
        storage::devices::update_name(&mut tx, session.user_nid, device_id, name).await?;
        announce::devices(ctx, &mut tx, owner, &[device_id]).await?;
    }
    tx.commit().await?;
    Ok(())
}
