//! Numbers of what clients name many of at once: one query, and nothing is made of names that nobody
//! has.

use ruma::{OwnedRoomId, OwnedUserId};
use sqlx::PgConnection;

use super::Error;

/// Rooms by id; unknown ones are left out.
pub async fn find_rooms(conn: &mut PgConnection, ids: &[OwnedRoomId]) -> Result<Vec<i64>, Error> {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let rooms = sqlx::query_scalar!("SELECT room_nid FROM room WHERE room_id = ANY ($1)", &ids);
    Ok(rooms.fetch_all(conn).await?)
}

/// Users by id; unknown ones are left out.
pub async fn find_users(conn: &mut PgConnection, ids: &[OwnedUserId]) -> Result<Vec<i64>, Error> {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let users = sqlx::query_scalar!("SELECT user_nid FROM mx_user WHERE mxid = ANY ($1)", &ids);
    Ok(users.fetch_all(conn).await?)
}

/// Types of events or relations by name; unknown ones are left out.
pub async fn find_types(conn: &mut PgConnection, names: &[String]) -> Result<Vec<i32>, Error> {
    let types = sqlx::query_scalar!("SELECT type_nid FROM ev_type WHERE name = ANY ($1)", names);
    Ok(types.fetch_all(conn).await?)
}
