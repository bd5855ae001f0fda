//! What a sync tells of who is there.

use serde_json::{Value, json};

use super::{Error, filter::passes_type, joined::Scope};
use crate::{
    rooms::presence::content,
    storage::{self, UserNid},
};

/// Users in one answer. Who shares rooms with more and was away for long is told of those who
/// changed last.
const USERS_MAX: i64 = 10_000;

/// Presence events: of who changed, and of users who are new to the one who syncs (`met`). One
/// statement, and none where nobody changed.
pub(super) async fn look(scope: Scope<'_>, met: &[i64]) -> Result<Vec<Value>, Error> {
    let ctx = scope.rooms.ctx();
    let filter = &scope.filter.presence;
    let is_news = scope.since == 0 || ctx.db.stream.has_presence_after(scope.since);
    if !ctx.config.presence.enabled
        || !passes_type(filter, "m.presence")
        || (!is_news && met.is_empty())
    {
        return Ok(Vec::new());
    }
    let joined = scope.mine.iter().filter(|row| row.membership == 1);
    let rooms: Vec<i64> = joined.map(|row| row.room.0).collect();
    let viewer = (scope.session.user_nid, rooms.as_slice());
    let span = (scope.since, scope.upto);
    let mut conn = ctx.db.conn().await?;
    let found = storage::presence::list_news(&mut conn, viewer, span, met, USERS_MAX).await?;
    drop(conn);
    let nids: Vec<UserNid> = found.iter().map(|(user, _)| *user).collect();
    let user_ids = ctx.db.ids.user_ids_of(&nids).await?;
    let limit = filter.limit.map_or(u64::MAX, u64::from);
    let wanted = user_ids.into_iter().zip(found).filter(|(user_id, _)| {
        let senders = filter.senders.as_ref();
        senders.is_none_or(|senders| senders.contains(user_id))
            && !filter.not_senders.contains(user_id)
    });
    let events = wanted
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|(user_id, (_, presence))| {
            json!({ "type": "m.presence", "sender": user_id, "content": content(&presence) })
        });
    Ok(events.collect())
}
