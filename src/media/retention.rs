//! Uploads of our users that nobody has looked at for long, and that nothing refers to any more (docs/media.md,
//! docs/adr/0010).
//!
//! A file that somebody may still show must not go. So whatever is not known keeps it, and who deletes looks again
//! which events name it, after the rows are locked: an event that names an upload locks its row until it is
//! committed, so that one of the two sees the other. What else may refer to it is looked at just before, without
//! locks: they would hold up every event for as long as that takes. Who writes the address of a file into a profile
//! or account data in that very moment has not looked at it for all those days, since that would keep it; and an
//! encrypted message that comes now was sent within a day of the upload only if history is being fetched.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::{Error, Media, freeing::DAY_MS};
use crate::{
    clock::now_ms,
    event::media::named,
    storage::{
        self,
        media::Media as Row,
        media_refs::{self, Upload},
    },
};

/// How often all uploads are looked at.
const ROUND_MS: i64 = DAY_MS;
/// For how long they are, before other work has its turn.
const TURN_MS: i64 = 10_000;
/// Uploads that are looked at at once.
const ROWS: i64 = 500;
/// Uploads for which encrypted events are looked for in one statement: for somebody in a thousand rooms that are
/// as many looks at an index for each.
const NEAR_AT_ONCE: usize = 50;
/// Pages of uploads that are looked at for one answer.
const LOOKS_MAX: usize = 20;

/// Deletes what can go, for a while; the rest has its turn later.
pub(super) async fn sweep(media: &Media, days: u32) -> Result<(), Error> {
    let begun = now_ms();
    let mut count = 0;
    let done = loop {
        match advance(media, days).await {
            Ok(None) => break Ok(()),
            Ok(Some(deleted)) => count += deleted,
            Err(error) => break Err(error),
        }
        if now_ms() - begun > TURN_MS {
            break Ok(());
        }
    };
    if count > 0 {
        tracing::info!(count, "uploads that nothing refers to were deleted");
    }
    done
}

/// Looks at some uploads, unless another node does; how many went. `None`: there is nothing to do.
async fn advance(media: &Media, days: u32) -> Result<Option<u64>, Error> {
    let mut tx = media.ctx().db.begin().await?;
    let Some(after) = media_refs::lock_sweep(&mut tx, now_ms() - ROUND_MS).await? else {
        return Ok(None);
    };
    if media_refs::count_todo(&mut tx).await? > 0 {
        return Ok(None);
    }
    let before = now_ms() - i64::from(days) * DAY_MS;
    let page = media_refs::list_uploads(&mut tx, after, ROWS).await?;
    let mut left = unnamed(media, &mut tx, &page, before).await?;
    for nids in left.clone().chunks(NEAR_AT_ONCE) {
        let near = media_refs::insert_near(&mut tx, nids).await?;
        left.retain(|nid| !near.contains(nid));
    }
    let mut deleted = 0;
    if !left.is_empty() {
        let left = media_refs::list_unmentioned(&mut tx, &left).await?;
        let locked = media_refs::lock(&mut tx, &left).await?;
        // This sees what was committed until now.
        let nids = media_refs::list_unnamed(&mut tx, &locked, before).await?;
        deleted = storage::media::delete(&mut tx, &nids).await?;
    }
    media_refs::advance_sweep(&mut tx, next(&page), now_ms()).await?;
    tx.commit().await?;
    Ok(Some(deleted))
}

/// After which upload the next page begins; `None`: this was the last.
fn next(page: &[Upload]) -> Option<i64> {
    let full = i64::try_from(page.len()).unwrap_or(ROWS) >= ROWS;
    page.last().filter(|_| full).map(|upload| upload.nid)
}

/// Those of a page that are old, that the configuration does not name and no event is noted for. What users of
/// application services upload others of them may show: which, and when, nobody here knows, so it stays.
async fn unnamed(
    media: &Media,
    conn: &mut PgConnection,
    page: &[Upload],
    before: i64,
) -> Result<Vec<i64>, Error> {
    let nids: Vec<i64> = page.iter().map(|upload| upload.nid).collect();
    let unnamed = media_refs::list_unnamed(conn, &nids, before).await?;
    let unnamed: HashSet<i64> = unnamed.into_iter().collect();
    let ctx = media.ctx();
    let configured = configured(media);
    let mut left = Vec::new();
    for upload in page {
        if !unnamed.contains(&upload.nid) || configured.contains(&upload.media_id) {
            continue;
        }
        let user = ctx.db.ids.user_id(upload.user).await?;
        if !ctx.appservices.has_user(&user) {
            left.push(upload.nid);
        }
    }
    Ok(left)
}

/// Ids of pictures that the configuration names: of who speaks for the server, and of identity providers.
fn configured(media: &Media) -> Vec<String> {
    let config = &media.ctx().config;
    let notices = config.server_notices.iter();
    let notices = notices.flat_map(|it| [&it.avatar_url, &it.room_avatar_url]);
    let icons = config.oidc.iter().map(|it| &it.icon);
    let urls = notices.chain(icons).flatten();
    let ids = urls.flat_map(|url| named(&config.server_name, url));
    ids.map(str::to_owned).collect()
}

/// Uploads that could go.
#[derive(Debug)]
pub struct Page {
    /// They.
    pub rows: Vec<Row>,
    /// After which number there may be more.
    pub next: Option<i64>,
    /// Rooms whose older events are still to be read: while there are any, nothing goes, and nothing is told.
    pub unread_rooms: i64,
}

/// What would go of uploads that nobody looked at for so many days, after a number. Looks at so many uploads at most:
/// a page may be short, or empty, and not be the last.
pub async fn list(media: &Media, days: u32, after: i64, limit: usize) -> Result<Page, Error> {
    let mut conn = media.ctx().db.planning().await?;
    let unread_rooms = media_refs::count_todo(&mut conn).await?;
    let (mut nids, mut next_after) = (Vec::new(), Some(after));
    let before = now_ms() - i64::from(days) * DAY_MS;
    for _ in 0..LOOKS_MAX {
        let Some(after) = next_after.filter(|_| unread_rooms == 0 && nids.len() < limit) else {
            break;
        };
        let page = media_refs::list_uploads(&mut conn, after, ROWS).await?;
        let left = unnamed(media, &mut conn, &page, before).await?;
        let mut far = Vec::new();
        for some in left.chunks(NEAR_AT_ONCE) {
            far.extend(media_refs::list_far(&mut conn, some).await?);
        }
        if !far.is_empty() {
            nids.extend(media_refs::list_unmentioned(&mut conn, &far).await?);
        }
        next_after = next(&page);
    }
    if nids.len() > limit {
        nids.truncate(limit);
        next_after = nids.last().copied();
    }
    let rows = media_refs::list(&mut conn, &nids).await?;
    Ok(Page {
        rows,
        next: next_after.filter(|_| unread_rooms == 0),
        unread_rooms,
    })
}
