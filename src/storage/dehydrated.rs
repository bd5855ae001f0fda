//! Dehydrated devices of local users.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// A device that waits to be taken over.
#[derive(Clone, Debug)]
pub struct Dehydrated {
    /// Number.
    pub device_no: i32,
    /// Id.
    pub device_id: String,
    /// JSON of the client.
    pub data: String,
}

/// That of a user, if it has one.
pub async fn find(conn: &mut PgConnection, user: UserNid) -> Result<Option<Dehydrated>, Error> {
    Ok(sqlx::query_as!(
        Dehydrated,
        "SELECT d.device_no, d.device_id, h.data FROM dehydrated_device h
         JOIN device d ON d.user_nid = h.user_nid AND d.device_no = h.device_no
         WHERE h.user_nid = $1",
        user.0
    )
    .fetch_optional(conn)
    .await?)
}

/// Makes a device the dehydrated one of its owner, who has none.
pub async fn insert(
    conn: &mut PgConnection,
    user: UserNid,
    (device_no, data): (i32, &str),
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO dehydrated_device (user_nid, device_no, data) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT dehydrated_device_pkey DO UPDATE SET
           device_no = EXCLUDED.device_no, data = EXCLUDED.data",
        user.0,
        device_no,
        data
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether a device is one.
pub async fn exists(conn: &mut PgConnection, user: UserNid, device_no: i32) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM dehydrated_device
             WHERE user_nid = $1 AND device_no = $2) AS "found!""#,
        user.0,
        device_no
    )
    .fetch_one(conn)
    .await?)
}
