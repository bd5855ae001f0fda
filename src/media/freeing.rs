//! What is over goes: reserved ids, images of previews, and files that nobody owns.

use std::time::Duration;

use super::{Error, Media, quarantine, retention};
use crate::{
    clock::now_ms,
    storage::{self, media_use::Old},
};

/// How often it is looked for when nothing is known to be over.
const EVERY: Duration = Duration::from_mins(1);
/// How long a file may be written until a row owns it: longer than any upload or fetch takes.
const LOOSE_MS: i64 = 24 * 3_600_000;
/// How long images of previews are kept: previews of them are good for an hour, and clients show
/// them a little longer.
const PREVIEW_IMAGES_MS: i64 = 24 * 3_600_000;
pub(super) const DAY_MS: i64 = 24 * 3_600_000;
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
    if let Some(days) = media.ctx().config.media.local_lifetime_days {
        retention::sweep(media, days).await?;
    }
    while delete_files(media, now - LOOSE_MS).await? {}
    Ok(())
}

/// Uploads that one request deletes, at most.
const OLD_MAX: usize = 10_000;

/// Deletes uploads as an administrator wants, so many at most; returns their ids.
pub async fn delete_old(media: &Media, old: Old) -> Result<Vec<String>, Error> {
    let own = (media.own_nid().await?, media.ctx().server_name().as_str());
    let mut deleted = Vec::new();
    while deleted.len() < OLD_MAX {
        let mut conn = media.ctx().db.planning().await?;
        let rows = storage::media_use::list_old(&mut conn, own, old, ROWS).await?;
        drop(conn);
        if rows.is_empty() {
            break;
        }
        let (nids, ids): (Vec<i64>, Vec<String>) = rows.into_iter().unzip();
        let mut conn = media.ctx().db.conn().await?;
        storage::media::delete(&mut conn, &nids).await?;
        deleted.extend(ids);
        media.0.freed.notify_one();
    }
    Ok(deleted)
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
