//! Guests, and the rooms they are in.

use sqlx::PgConnection;

use super::{Error, TypeNid, UserNid};

/// Makes an account one of a guest, or (`false`) of a usual user.
pub async fn update(conn: &mut PgConnection, user: UserNid, is_guest: bool) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET guest = $2 WHERE user_nid = $1",
        user.0,
        is_guest
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether a user is a guest.
pub async fn is_guest(conn: &mut PgConnection, user: UserNid) -> Result<bool, Error> {
    let found = sqlx::query_scalar!("SELECT guest FROM account WHERE user_nid = $1", user.0);
    Ok(found.fetch_optional(conn).await?.unwrap_or(false))
}

/// Guests in rooms, of all rooms or of some, after a pair of them: (room, user).
pub async fn list_inside(
    conn: &mut PgConnection,
    rooms: Option<&[i64]>,
    after: (i64, i64),
    limit: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        "SELECT m.room_nid, m.user_nid FROM account a
         JOIN member m ON m.user_nid = a.user_nid AND m.membership = 1
         WHERE a.guest AND ($1::bigint[] IS NULL OR m.room_nid = ANY ($1))
           AND (m.room_nid, m.user_nid) > ($2, $3)
         ORDER BY m.room_nid, m.user_nid LIMIT $4",
        rooms,
        after.0,
        after.1,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.room_nid, row.user_nid)).collect())
}

/// Rooms of which one of the events is of a type.
pub async fn list_rooms_with(
    conn: &mut PgConnection,
    (rooms, events): (&[i64], &[i64]),
    kind: TypeNid,
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT DISTINCT e.room_nid FROM unnest($1::bigint[], $2::bigint[]) AS w (room, event)
         JOIN event e ON e.room_nid = w.room AND e.event_nid = w.event AND e.type_nid = $3",
        rooms,
        events,
        kind.0
    )
    .fetch_all(conn)
    .await?)
}
