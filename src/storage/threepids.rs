//! E-mail addresses of local accounts.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// An address of an account.
#[derive(Clone, Debug)]
pub struct Threepid {
    /// The address.
    pub address: String,
    /// When its reader proved to read it.
    pub validated_ts: i64,
    /// When it came to the account.
    pub added_ts: i64,
}

/// Addresses of a user, oldest first.
pub async fn list(
    conn: &mut PgConnection,
    user: UserNid,
    limit: i64,
) -> Result<Vec<Threepid>, Error> {
    Ok(sqlx::query_as!(
        Threepid,
        "SELECT address, validated_ts, added_ts FROM threepid
         WHERE user_nid = $1 AND medium = 'email' ORDER BY added_ts, address LIMIT $2",
        user.0,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Whose address it is.
pub async fn find_owner(conn: &mut PgConnection, address: &str) -> Result<Option<UserNid>, Error> {
    let user = sqlx::query_scalar!(
        "SELECT user_nid FROM threepid WHERE medium = 'email' AND address = $1",
        address
    );
    Ok(user.fetch_optional(conn).await?.map(UserNid))
}

/// How many addresses a user has.
pub async fn count(conn: &mut PgConnection, user: UserNid) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM threepid WHERE user_nid = $1"#,
        user.0
    );
    Ok(count.fetch_one(conn).await?)
}

/// Gives an address to an account; violates `threepid_pkey` when another has it.
pub async fn insert(
    conn: &mut PgConnection,
    user: UserNid,
    address: &str,
    (validated_ts, now): (i64, i64),
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO threepid (medium, address, user_nid, validated_ts, added_ts)
         VALUES ('email', $1, $2, $3, $4)",
        address,
        user.0,
        validated_ts,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes an address from a user, and what mails there.
pub async fn delete(conn: &mut PgConnection, user: UserNid, address: &str) -> Result<(), Error> {
    sqlx::query!(
        "WITH gone AS (
           DELETE FROM threepid WHERE medium = 'email' AND address = $2 AND user_nid = $1)
         DELETE FROM pusher WHERE user_nid = $1 AND kind = 'email' AND pushkey = $2",
        user.0,
        address
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes all addresses from a user.
pub async fn delete_of_user(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!("DELETE FROM threepid WHERE user_nid = $1", user.0)
        .execute(conn)
        .await?;
    Ok(())
}
