//! The list of accounts that administrators see (Synapse's `/_synapse/admin/v2/users`).

use serde_json::{Value, json};

use super::Error;
use crate::{
    context::Context,
    storage::user_list::{self, Listed, Query},
};

/// Accounts of a page, and how many there are in all.
pub async fn page(ctx: &Context, query: &Query<'_>) -> Result<(Vec<Value>, i64), Error> {
    let is_text = |text: Option<&str>| !text.is_some_and(|text| text.contains('\0'));
    if !is_text(query.user_id) || !is_text(query.name) {
        // What no database can hold is nobody's.
        return Ok((Vec::new(), 0));
    }
    let mut conn = ctx.db.planning().await?;
    let found = user_list::list(&mut conn, query).await?;
    let total = user_list::count(&mut conn, query).await?;
    drop(conn);
    Ok((found.iter().map(body).collect(), total))
}

/// An account in the list; unlike elsewhere in that API, `creation_ts` is in milliseconds.
fn body(it: &Listed) -> Value {
    json!({
        "name": it.user_id,
        "displayname": it.display_name,
        "avatar_url": it.avatar_url,
        "is_guest": it.guest,
        "admin": it.admin,
        "user_type": it.user_type,
        "deactivated": it.deactivated,
        "erased": it.erased,
        "locked": it.locked,
        "suspended": it.suspended,
        "shadow_banned": false,
        "creation_ts": it.created_ts,
        "last_seen_ts": it.last_seen_ts,
    })
}
