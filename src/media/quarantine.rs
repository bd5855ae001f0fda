//! What administrators withdraw, protect and delete. A download looks at the row of its address each
//! time, so that what is withdrawn is served by no node from the next request on: thumbnails
//! neither, nor other uploads of the same bytes.

use ruma::{OwnedMxcUri, ServerName};

use super::{Error, Media};
use crate::{
    clock::now_ms,
    event::media::is_id,
    storage::{self, UserNid, media::Media as Row},
};

/// Rows that are deleted at once.
const ROWS: i64 = 500;

/// The row of an address, withdrawn or not.
pub async fn find(media: &Media, server: &ServerName, id: &str) -> Result<Row, Error> {
    let server = media.ctx().db.ids.server(server).await?;
    let mut conn = media.ctx().db.conn().await?;
    let row = storage::media::find(&mut conn, server, id).await?;
    row.ok_or(Error::NotFound)
}

/// Withdraws media by their addresses; returns how many were served until now.
pub async fn set(media: &Media, by: UserNid, addresses: &[OwnedMxcUri]) -> Result<i64, Error> {
    let mut servers = Vec::with_capacity(addresses.len());
    let mut ids = Vec::with_capacity(addresses.len());
    for address in addresses {
        let Ok((server, id)) = address.parts() else {
            continue;
        };
        if is_id(id) {
            servers.push(media.ctx().db.ids.server(server).await?.0);
            ids.push(id.to_owned());
        }
    }
    let own = media.own_nid().await?;
    let mut conn = media.ctx().db.conn().await?;
    let asked = (servers.as_slice(), ids.as_slice());
    Ok(storage::quarantine::insert(&mut conn, asked, own, by, now_ms()).await?)
}

/// Deletes our media of an address.
pub async fn delete(media: &Media, id: &str) -> Result<(), Error> {
    let row = find(media, media.ctx().server_name(), id).await?;
    let mut conn = media.ctx().db.conn().await?;
    storage::media::delete(&mut conn, &[row.nid]).await?;
    media.0.freed.notify_one();
    Ok(())
}

/// Deletes uploads of a user, so many at most; returns their ids.
pub async fn delete_of_user(
    media: &Media,
    user: UserNid,
    limit: i64,
) -> Result<Vec<String>, Error> {
    let mut conn = media.ctx().db.conn().await?;
    let (rows, _) = storage::quarantine::list_of_user(&mut conn, user, (0, limit)).await?;
    let nids: Vec<i64> = rows.iter().map(|row| row.nid).collect();
    storage::media::delete(&mut conn, &nids).await?;
    media.0.freed.notify_one();
    Ok(rows.into_iter().map(|row| row.media_id).collect())
}

/// Deletes copies of media of peers that nobody has looked at since before then; returns how many.
pub async fn delete_copies(media: &Media, before: i64) -> Result<u64, Error> {
    let own = media.own_nid().await?;
    let mut deleted = 0;
    loop {
        let mut conn = media.ctx().db.conn().await?;
        let nids = storage::quarantine::list_copies(&mut conn, own, before, ROWS).await?;
        if nids.is_empty() {
            return Ok(deleted);
        }
        deleted += storage::media::delete(&mut conn, &nids).await?;
        media.0.freed.notify_one();
    }
}
