//! Threads of a room (`GET /threads`).

use std::sync::Arc;

use ruma::RoomId;

use super::in_order;
use crate::{
    event::redact::redact,
    rooms::{
        Error, Rooms, notify,
        timeline::{self, Page},
        visibility::{self, Access},
    },
    storage,
    users::tokens::Session,
};

/// Which threads, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Only those that the user has written in or begun.
    pub participated: bool,
    /// Token to begin at; `None`: with the newest.
    pub from: Option<&'a str>,
    /// Threads in the page.
    pub limit: i64,
}

/// Roots of threads that the user may see, those first whose newest event is newest. The root of
/// somebody whom the user ignores is shown redacted (specification).
pub async fn page(
    rooms: &Rooms,
    session: &Session,
    room_id: &RoomId,
    wanted: Wanted<'_>,
) -> Result<Page, Error> {
    let (room, viewer) = visibility::enter(rooms, room_id, &session.user_id).await?;
    let from = match wanted.from {
        Some(from) => timeline::place(rooms, &room, from).await?,
        None => i64::MAX,
    };
    let before = match &viewer.access {
        Access::Left(left) => from.min(left.seq),
        Access::Joined | Access::Peek => from,
    };
    let by = wanted.participated.then_some(session.user_nid);
    let ignored = notify::ignored_by(rooms, session.user_nid).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let limit = wanted.limit + 1;
    let mut found = storage::relations::threads(&mut conn, room.nid, by, before, limit).await?;
    drop(conn);
    let most = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let is_more = found.len() > most;
    found.truncate(most);
    let end = found.last().filter(|_| is_more);
    let end = end.map(|(_, seq)| timeline::token(*seq));
    let nids: Vec<i64> = found.iter().map(|(nid, _)| *nid).collect();
    let events = in_order(rooms, &room, &nids).await?;
    let mut events = visibility::filter_for(rooms, &room, &viewer, events).await?;
    if !ignored.is_empty() {
        for event in &mut events {
            let sender = rooms.ctx().db.ids.user(&event.pdu.sender).await?;
            if ignored.contains(&sender.0) {
                event.pdu = Arc::new(redact(&event.pdu, &room.version)?);
            }
        }
    }
    Ok(Page {
        room,
        events,
        start: wanted.from.unwrap_or_default().to_owned(),
        end,
    })
}
