//! Devices: their public keys, and messages to them.

pub mod cross_signing;
pub mod key_backup;
pub mod keys;
pub mod to_device;

use ruma::UserId;
use serde_json::json;

use crate::{
    context::Context,
    storage::{self, Tx, UserNid},
};

/// Bytes of a key with its signatures, and of a message to a device.
const BYTES_MAX: usize = 65_536;

/// Why something about devices was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the client sent is not what it has to be.
    #[error("{0}")]
    Invalid(String),
    /// Not for this user.
    #[error("{0}")]
    Forbidden(String),
    /// No such thing.
    #[error("{0}")]
    NotFound(&'static str),
    /// Keys go into the newest backup only, which is this one.
    #[error("the backup in use is version {0}")]
    WrongBackup(String),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// Tells everybody who shares a room with a user of ours, here and at peers, that its devices or
/// keys changed. The last thing before the commit.
pub(crate) async fn announce(
    ctx: &Context,
    tx: &mut Tx,
    user: (&UserId, UserNid),
    device: &str,
    deleted: bool,
) -> Result<(), Error> {
    let (user_id, nid) = user;
    let own = ctx.db.ids.server(ctx.server_name()).await?;
    let mut servers = storage::to_device::list_servers(tx, nid).await?;
    servers.retain(|server| *server != own.0);
    // A random id, so that peers see a gap and ask for the whole list: what they are told here
    // carries no keys.
    let edu = json!({
        "edu_type": "m.device_list_update",
        "content": {
            "user_id": user_id,
            "device_id": device,
            "stream_id": rand::random::<u32>() >> 1,
            "prev_id": [rand::random::<u32>() >> 1],
            "deleted": deleted,
        },
    })
    .to_string();
    let bodies = vec![edu; servers.len()];
    storage::to_device::insert_edus(tx, &servers, &bodies).await?;
    storage::to_device::insert_change(tx, nid).await?;
    Ok(())
}
