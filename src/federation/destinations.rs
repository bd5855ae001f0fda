//! Peers as administrators see them: who is reached, and since when not.

use serde_json::{Value, json};

use super::sender::Sender;
use crate::storage::{
    self, Db, ServerNid,
    destinations::{self as rows, Destination, Query},
};

/// A page of peers, and how many there are in all.
pub async fn page(
    db: &Db,
    sender: &Sender,
    query: Query<'_>,
) -> Result<(Vec<Value>, i64), storage::Error> {
    let mut conn = db.planning().await?;
    let (found, total) = rows::list(&mut conn, query).await?;
    let found = found.iter().map(|found| shown(sender, found));
    Ok((found.collect(), total))
}

/// One peer; `None`: nothing was ever sent to a server of that name.
pub async fn details(
    db: &Db,
    sender: &Sender,
    name: &str,
) -> Result<Option<Value>, storage::Error> {
    let mut conn = db.conn().await?;
    let found = rows::find(&mut conn, name).await?;
    Ok(found.map(|found| shown(sender, &found)))
}

/// Rooms that are shared with a peer, and how many there are in all; `None` as above.
pub async fn rooms(
    db: &Db,
    name: &str,
    descending: bool,
    page: (i64, i64),
) -> Result<Option<(Vec<Value>, i64)>, storage::Error> {
    let mut conn = db.planning().await?;
    let Some(found) = rows::find(&mut conn, name).await? else {
        return Ok(None);
    };
    let server = ServerNid(found.server);
    let (rooms, total) = rows::list_rooms(&mut conn, server, descending, page).await?;
    let rooms = rooms
        .into_iter()
        .map(|(room, pos)| json!({ "room_id": room, "stream_ordering": pos }));
    Ok(Some((rooms.collect(), total)))
}

/// Tries a peer that fails at once. `None` as above; `false`: it is well.
pub async fn reset(db: &Db, sender: &Sender, name: &str) -> Result<Option<bool>, storage::Error> {
    let mut conn = db.conn().await?;
    let Some(found) = rows::find(&mut conn, name).await? else {
        return Ok(None);
    };
    drop(conn);
    let is_failing = found.failing_since_ts.is_some();
    if is_failing {
        let name = db.ids.server_name(ServerNid(found.server)).await?;
        sender.reset(ServerNid(found.server), &name).await?;
    }
    Ok(Some(is_failing))
}

/// As Synapse's admin API shows it, with the time of the last success and why the last try failed.
fn shown(sender: &Sender, destination: &Destination) -> Value {
    let last_try = match destination.failing_since_ts {
        Some(_) => destination.retry_at_ts - destination.backoff_ms,
        None => 0,
    };
    json!({
        "destination": destination.name,
        "retry_last_ts": last_try,
        "retry_interval": destination.backoff_ms,
        "failure_ts": destination.failing_since_ts,
        "last_successful_stream_ordering": destination.acked_pos,
        "last_success_ts": destination.last_ok_ts,
        "last_error": sender.reason(ServerNid(destination.server)).as_deref(),
    })
}
