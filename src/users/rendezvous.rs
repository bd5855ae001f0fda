//! Rendezvous: two devices of a user leave each other messages while one logs the other in by a QR
//! code (MSC4108, MSC4388). What they say is encrypted between them.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, rendezvous},
};

pub use crate::storage::rendezvous::Held;

/// Bytes that one holds.
pub const BYTES_MAX: usize = 4_096;
/// How long one lives: people have their phone in the hand.
const LIFE_MS: i64 = 60_000;
/// Rendezvous at the same time, and those of one address: an office, or a proxy before us.
const MOST: (i64, i64) = (10_000, 100);
/// When to try again with too many.
pub const RETRY_MS: u64 = 10_000;

/// Why something about a rendezvous was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It never was, or is over.
    #[error("no such rendezvous")]
    NotFound,
    /// More than it holds.
    #[error("a rendezvous holds at most {BYTES_MAX} bytes")]
    TooLarge,
    /// There are too many.
    #[error("too many rendezvous at the same time")]
    TooMany,
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// What came of writing.
#[derive(Clone, Debug)]
pub enum Written {
    /// It is there.
    Yes(Held),
    /// Somebody else wrote meanwhile: this.
    Changed(Held),
}

fn check(data: &str) -> Result<(), Error> {
    if data.len() > BYTES_MAX {
        return Err(Error::TooLarge);
    }
    Ok(())
}

/// Makes one for whoever asks.
pub async fn create(ctx: &Context, address: Option<IpAddr>, data: &str) -> Result<Held, Error> {
    check(data)?;
    let address = address.map(|address| address.to_string());
    let made = (Uuid::new_v4(), address.as_deref().unwrap_or_default());
    let now = now_ms();
    let mut conn = ctx.db.conn().await?;
    let made = rendezvous::insert(&mut conn, made, data, (now, now + LIFE_MS), MOST).await?;
    made.ok_or(Error::TooMany)
}

/// What one holds.
pub async fn get(ctx: &Context, id: &str) -> Result<Held, Error> {
    let id = id.parse::<Uuid>().map_err(|_| Error::NotFound)?;
    let mut conn = ctx.db.conn().await?;
    let found = rendezvous::find(&mut conn, id, now_ms()).await?;
    found.ok_or(Error::NotFound)
}

/// Writes over what the asking device has read. `version`: what that was, as it says.
pub async fn put(ctx: &Context, id: &str, version: &str, data: &str) -> Result<Written, Error> {
    check(data)?;
    let before = get(ctx, id).await?;
    if let Ok(version) = version.parse::<i32>() {
        let mut conn = ctx.db.conn().await?;
        let place = (before.rendezvous_id, version);
        if let Some(held) = rendezvous::update(&mut conn, place, data, now_ms()).await? {
            return Ok(Written::Yes(held));
        }
    }
    Ok(Written::Changed(get(ctx, id).await?))
}

/// Ends one.
pub async fn delete(ctx: &Context, id: &str) -> Result<(), Error> {
    let id = id.parse::<Uuid>().map_err(|_| Error::NotFound)?;
    let mut conn = ctx.db.conn().await?;
    if rendezvous::delete(&mut conn, id, now_ms()).await? {
        Ok(())
    } else {
        Err(Error::NotFound)
    }
}
