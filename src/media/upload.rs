//! Uploads of our users, at once or to a reserved id.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use ruma::ServerName;

use super::{Error, Media};
use crate::{
    blobs::Blob,
    clock::now_ms,
    event::media::is_id,
    storage::{self, UserNid, media::Content},
};

/// Letters and digits of an id: it is an address only, but it should not be guessed either.
const ID_LENGTH: usize = 32;
/// How long a reserved id waits for its bytes.
const RESERVED_MS: i64 = 24 * 3_600_000;
/// Reserved ids of a user that wait at the same time.
const RESERVED_MAX: i64 = 20;
/// Characters of a file name or content type.
const NAME_MAX: usize = 255;

/// What the uploader says of the bytes.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Content type.
    pub content_type: Option<String>,
    /// File name.
    pub file_name: Option<String>,
}

impl Named {
    /// Keeps what can be a content type and a file name.
    pub fn new(content_type: Option<String>, file_name: Option<String>) -> Self {
        let is_type = |text: &String| {
            text.len() <= NAME_MAX
                && text.contains('/')
                && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
        };
        let file_name = file_name.map(|name| {
            let shown = name.chars().filter(|c| !c.is_control());
            shown.take(NAME_MAX).collect::<String>()
        });
        Self {
            content_type: content_type.filter(is_type),
            file_name: file_name.filter(|name| !name.is_empty()),
        }
    }

    /// These names for bytes on disk.
    pub(super) fn of<'a>(&'a self, blob: &'a Blob) -> Content<'a> {
        Content {
            blob: blob.id,
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            sha256: &blob.sha256,
            content_type: self.content_type.as_deref(),
            file_name: self.file_name.as_deref(),
            is_preview: false,
        }
    }
}

pub(super) fn fresh_id() -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..ID_LENGTH)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect()
}

/// Stores an upload; returns its media id.
pub async fn store<E>(
    media: &Media,
    user: UserNid,
    named: &Named,
    body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<String, Error> {
    let blob = receive(media, user, body).await?;
    let id = fresh_id();
    let server = media.own_nid().await?;
    let mut conn = media.ctx().db.conn().await?;
    let content = named.of(&blob);
    storage::media::insert(&mut conn, (server, &id), Some(user), &content, now_ms()).await?;
    media.make_thumbnails(&id, named);
    Ok(id)
}

/// Reserves an id; returns it and when it is over.
pub async fn reserve(media: &Media, user: UserNid) -> Result<(String, i64), Error> {
    let id = fresh_id();
    let now = now_ms();
    let times = (now, now + RESERVED_MS);
    let server = media.own_nid().await?;
    let mut conn = media.ctx().db.conn().await?;
    if storage::media::reserve(&mut conn, (server, &id), user, RESERVED_MAX, times).await? {
        Ok((id, times.1))
    } else {
        Err(Error::TooManyPending)
    }
}

/// Uploads to a reserved id.
pub async fn fill<E>(
    media: &Media,
    user: UserNid,
    (server, id): (&ServerName, &str),
    named: &Named,
    body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(), Error> {
    if !media.is_own(server) || !is_id(id) {
        return Err(Error::NotFound);
    }
    let server = media.own_nid().await?;
    let mut conn = media.ctx().db.conn().await?;
    let found = storage::media::find(&mut conn, server, id).await?;
    drop(conn);
    let reserved = found.ok_or(Error::NotFound)?;
    if reserved.user != Some(user) {
        return Err(Error::Forbidden);
    }
    if reserved.blob.is_some() {
        return Err(Error::CannotOverwrite);
    }
    if reserved.expires_ts.is_none_or(|end| end <= now_ms()) {
        return Err(Error::NotFound);
    }
    let blob = receive(media, user, body).await?;
    let mut conn = media.ctx().db.conn().await?;
    let content = named.of(&blob);
    if !storage::media::update_content(&mut conn, reserved.nid, &content, now_ms()).await? {
        return Err(Error::CannotOverwrite);
    }
    media.0.uploaded.send_modify(|count| *count += 1);
    media.make_thumbnails(id, named);
    Ok(())
}

/// Refuses what is said to be too large before a byte of it is read.
pub fn check_length(media: &Media, length: Option<u64>) -> Result<(), Error> {
    let max = media.bytes_max();
    if length.is_some_and(|length| length > max) {
        return Err(Error::TooLarge(max));
    }
    Ok(())
}

async fn receive<E>(
    media: &Media,
    user: UserNid,
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<Blob, Error> {
    let max = media.bytes_max();
    let quota = media.ctx().config.media.user_quota_bytes;
    let mut left = u64::MAX;
    if let Some(quota) = quota {
        let mut conn = media.ctx().db.conn().await?;
        let taken = storage::media::usage(&mut conn, user).await?;
        left = quota.saturating_sub(u64::try_from(taken).unwrap_or(0));
    }
    let mut draft = media.draft().await?;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Error::BrokenOff)?;
        let size = draft.size() + chunk.len() as u64;
        if size > max {
            return Err(Error::TooLarge(max));
        }
        if size > left {
            return Err(Error::OverQuota(quota.unwrap_or(0)));
        }
        draft.write(&chunk).await?;
    }
    Ok(draft.finish().await?)
}
