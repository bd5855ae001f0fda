//! What is over goes: reserved ids, images of previews, and files that nobody owns.

use std::time::Duration;

use super::{Error, Media, quarantine};
use crate::{clock::now_ms, storage};

/// How often it is looked for when nothing is known to be over.
const EVERY: Duration = Duration::from_mins(1);
/// How long a file may be written until a row owns it: longer than any upload or fetch takes.
const LOOSE_MS: i64 = 24 * 3_600_000;
/// How long images of previews are kept: previews of them are good for an hour, and clients show
/// them a little longer.
const PREVIEW_IMAGES_MS: i64 = 24 * 3_600_000;
const DAY_MS: i64 = 24 * 3_600_000;
/// Rows at once.
const ROWS: i64 = 500;

/// Waits until there may be something to free.
pub async fn wait(media: &Media) {
    let _ = tokio::time::timeout(EVERY, media.0.freed.notified()).await;
}

/// Frees what it can.
pub async fn sweep(media: &Media) -> Result<(), Error> {
    let now = now_ms();
    let mut conn = media.ctx().db.conn().await?;
    while storage::media::delete_expired(&mut conn, now, ROWS).await? > 0 {}
    while storage::previews::delete_expired(&mut conn, now, ROWS).await? > 0 {}
    let old = now - PREVIEW_IMAGES_MS;
    while storage::media::delete_previews(&mut conn, old, ROWS).await? > 0 {}
    drop(conn);
    if let Some(days) = media.ctx().config.media.remote_lifetime_days {
        quarantine::delete_copies(media, now - i64::from(days) * DAY_MS).await?;
    }
    while delete_files(media, now - LOOSE_MS).await? {}
    Ok(())
}

/// Deletes files that have been loose since before then; whether there may be more. A file goes
/// before its row: what is interrupted is done again.
async fn delete_files(media: &Media, before: i64) -> Result<bool, Error> {
    let mut conn = media.ctx().db.conn().await?;
    let blobs = storage::media::list_loose(&mut conn, before, ROWS).await?;
    drop(conn);
    if blobs.is_empty() {
        return Ok(false);
    }
    media.0.blobs.delete(&blobs).await?;
    let mut conn = media.ctx().db.conn().await?;
    storage::media::delete_loose(&mut conn, &blobs).await?;
    Ok(true)
}
