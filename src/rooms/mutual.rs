//! Rooms that a user shares with another one (specification, "Mutual rooms").

use ruma::{OwnedRoomId, UserId};

use super::{Error, Rooms};
use crate::{
    storage::{self, RoomNid},
    users::tokens::Session,
};

/// Rooms of a page.
const PAGE: usize = 100;

/// A page of rooms.
#[derive(Debug, Default)]
pub struct Page {
    /// Rooms that both are joined to.
    pub rooms: Vec<OwnedRoomId>,
    /// How many there are on all pages.
    pub count: i64,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
}

/// A page of the rooms that the asking user shares with another one, of whatever server; none with who
/// does not exist.
pub async fn list(
    rooms: &Rooms,
    session: &Session,
    with: &UserId,
    from: Option<&str>,
) -> Result<Page, Error> {
    let bad = |why: &str| Error::InvalidParam(why.to_owned());
    if *with == *session.user_id {
        return Err(bad("user_id is your own"));
    }
    if with.is_historical() {
        return Err(bad("user_id is no proper user id"));
    }
    let after = match from {
        Some(from) => parse(from).ok_or_else(|| bad("from is no token of ours"))?,
        None => RoomNid(0),
    };
    let ids = &rooms.ctx().db.ids;
    let Some(other) = ids.find_user(with).await? else {
        return Ok(Page::default());
    };
    let both = (session.user_nid, other);
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let mut conn = rooms.ctx().db.conn().await?;
    let (mut found, count) =
        storage::memberships::list_mutual(&mut conn, both, after, limit + 1).await?;
    drop(conn);
    let is_more = found.len() > PAGE;
    found.truncate(PAGE);
    let last = found.last().filter(|_| is_more);
    Ok(Page {
        next: last.map(|room| format!("m{}", room.0)),
        rooms: ids.room_ids_of(&found).await?,
        count,
    })
}

fn parse(from: &str) -> Option<RoomNid> {
    let after = from.strip_prefix('m')?.parse().ok()?;
    (after > 0).then_some(RoomNid(after))
}
