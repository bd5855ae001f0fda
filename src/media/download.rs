//! Downloads: ours, and through us those of peers.

use std::time::Duration;

use ruma::ServerName;
use tokio::time::{Instant, timeout};

use super::{Error, Media, Served, remote};
use crate::{
    clock::now_ms,
    event::media::is_id,
    storage::{self, media::Media as Row},
};

/// The longest that anybody may wait for an upload.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// How often an upload is looked for that another node may have received.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How fresh the time of the last download is kept.
const ACCESS_EVERY_MS: i64 = 3_600_000;

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Server of the address.
    pub server: &'a ServerName,
    /// Id of the address.
    pub media_id: &'a str,
    /// How long to wait for an upload.
    pub wait: Duration,
    /// Whether peers may be asked.
    pub from_peers: bool,
}

/// The bytes of an address.
pub async fn open(media: &Media, wanted: Wanted<'_>) -> Result<Served, Error> {
    let row = find(media, wanted).await?;
    let blob = row.blob.ok_or(Error::NotFound)?;
    let names = (row.content_type, row.file_name);
    media.serve(blob, row.size, names).await
}

/// The row of an address whose bytes are here and may be seen.
pub(super) async fn find(media: &Media, wanted: Wanted<'_>) -> Result<Row, Error> {
    if !is_id(wanted.media_id) {
        return Err(Error::NotFound);
    }
    let row = if media.is_own(wanted.server) {
        own(media, wanted).await?
    } else {
        copy(media, wanted).await?
    };
    let now = now_ms();
    if now - row.last_access_ts > ACCESS_EVERY_MS {
        let mut conn = media.ctx().db.conn().await?;
        storage::media::update_access(&mut conn, row.nid, now).await?;
    }
    Ok(row)
}

async fn look(media: &Media, wanted: Wanted<'_>) -> Result<Option<Row>, Error> {
    let server = media.ctx().db.ids.server(wanted.server).await?;
    let mut conn = media.ctx().db.conn().await?;
    let row = storage::media::find(&mut conn, server, wanted.media_id).await?;
    match row {
        Some(row) if row.quarantined_by.is_some() => Err(Error::NotFound),
        row => Ok(row),
    }
}

async fn own(media: &Media, wanted: Wanted<'_>) -> Result<Row, Error> {
    let deadline = Instant::now() + wanted.wait.min(WAIT_MAX);
    let mut uploads = media.0.uploaded.subscribe();
    loop {
        uploads.mark_unchanged();
        let row = look(media, wanted).await?.ok_or(Error::NotFound)?;
        if row.blob.is_some() {
            return Ok(row);
        }
        if row.expires_ts.is_some_and(|end| end <= now_ms()) {
            return Err(Error::NotFound);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::NotYetUploaded);
        }
        // Whether it was this upload, another, or the clock: look again.
        let _ = timeout(left.min(LOOK_EVERY), uploads.changed()).await;
    }
}

async fn copy(media: &Media, wanted: Wanted<'_>) -> Result<Row, Error> {
    if let Some(row) = look(media, wanted).await? {
        return Ok(row);
    }
    if !wanted.from_peers {
        return Err(Error::NotFound);
    }
    remote::fetch(media, wanted.server, wanted.media_id).await?;
    look(media, wanted).await?.ok_or(Error::NotFound)
}
