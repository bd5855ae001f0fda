//! Local accounts, their profiles, and user-interactive authentication under way.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// A local account.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "columns, each for itself")]
pub struct Account {
    /// Password hash in PHC form; `None`: no password login.
    pub password_hash: Option<String>,
    /// Server administrator.
    pub admin: bool,
    /// Closed; an administrator may open it again.
    pub deactivated: bool,
    /// Its sessions are refused.
    pub locked: bool,
    /// It may read and not act.
    pub suspended: bool,
    /// When it ends, in milliseconds; `None`: never, or not counted yet.
    pub valid_until_ts: Option<i64>,
}

/// An account.
pub async fn find(conn: &mut PgConnection, user: UserNid) -> Result<Option<Account>, Error> {
    Ok(sqlx::query_as!(
        Account,
        r#"SELECT password_hash, admin, deactivated, locked_ts IS NOT NULL AS "locked!",
             suspended_ts IS NOT NULL AS "suspended!", valid_until_ts
           FROM account WHERE user_nid = $1"#,
        user.0
    )
    .fetch_optional(conn)
    .await?)
}

/// What administrators are shown of an account.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "columns, each for itself")]
pub struct Shown {
    /// Server administrator.
    pub admin: bool,
    /// Closed; an administrator may open it again.
    pub deactivated: bool,
    /// Its user asked for erasure.
    pub erased: bool,
    /// One of a guest.
    pub guest: bool,
    /// Its sessions are refused.
    pub locked: bool,
    /// It may read and not act.
    pub suspended: bool,
    /// As in the admin API.
    pub user_type: Option<String>,
    /// When it was made.
    pub created_ts: i64,
    /// When a device of it was used last.
    pub last_seen_ts: Option<i64>,
}

/// An account for administrators.
pub async fn find_shown(conn: &mut PgConnection, user: UserNid) -> Result<Option<Shown>, Error> {
    Ok(sqlx::query_as!(
        Shown,
        r#"SELECT a.admin, a.deactivated, a.erased, a.guest, a.user_type, a.created_ts,
             a.locked_ts IS NOT NULL AS "locked!", a.suspended_ts IS NOT NULL AS "suspended!",
             (SELECT max(d.last_seen_ts) FROM device d WHERE d.user_nid = a.user_nid)
               AS "last_seen_ts?"
           FROM account a WHERE a.user_nid = $1"#,
        user.0
    )
    .fetch_optional(conn)
    .await?)
}

/// Makes a user an administrator, or makes one none.
pub async fn update_admin(
    conn: &mut PgConnection,
    user: UserNid,
    admin: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET admin = $2 WHERE user_nid = $1",
        user.0,
        admin
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says what an account is: nothing in particular, or one of the kinds of the admin API.
pub async fn update_user_type(
    conn: &mut PgConnection,
    user: UserNid,
    user_type: Option<&str>,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET user_type = $2 WHERE user_nid = $1",
        user.0,
        user_type
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether a name is taken, in any case of letters.
pub async fn is_taken(conn: &mut PgConnection, localpart: &str) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM account WHERE localpart_folded = $1) AS "found!""#,
        localpart.to_lowercase()
    );
    Ok(found.fetch_one(conn).await?)
}

/// Makes an account; violates `account_localpart_key` or `account_pkey` when the name is taken.
pub async fn insert(
    conn: &mut PgConnection,
    user: UserNid,
    localpart: &str,
    password_hash: Option<&str>,
    (admin, user_type): (bool, Option<&str>),
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO account
           (user_nid, localpart_folded, password_hash, admin, user_type, created_ts)
         VALUES ($1, $2, $3, $4, $5, $6)",
        user.0,
        localpart.to_lowercase(),
        password_hash,
        admin,
        user_type,
        now
    )
    .execute(&mut *conn)
    .await?;
    insert_profile(conn, user, localpart).await
}

async fn insert_profile(
    conn: &mut PgConnection,
    user: UserNid,
    localpart: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO profile (user_nid, body) VALUES ($1, jsonb_build_object('displayname', $2::text))",
        user.0,
        localpart
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets the password.
pub async fn update_password(
    conn: &mut PgConnection,
    user: UserNid,
    hash: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET password_hash = $2 WHERE user_nid = $1",
        user.0,
        hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Events a second and at once that an account may send, where that is not as for everybody.
pub async fn find_limit(
    conn: &mut PgConnection,
    user: UserNid,
) -> Result<Option<(i32, i32)>, Error> {
    let row = sqlx::query!(
        "SELECT limit_per_second, limit_burst FROM account WHERE user_nid = $1",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.and_then(|row| row.limit_per_second.zip(row.limit_burst)))
}

/// Sets them; `None`: as for everybody.
pub async fn update_limit(
    conn: &mut PgConnection,
    user: UserNid,
    limit: Option<(i32, i32)>,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET limit_per_second = $2, limit_burst = $3 WHERE user_nid = $1",
        user.0,
        limit.map(|(per_second, _)| per_second),
        limit.map(|(_, burst)| burst)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Closes an account: its password, profile, presence and subscriptions go.
pub async fn deactivate(conn: &mut PgConnection, user: UserNid, erase: bool) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE account SET deactivated = true, erased = erased OR $2, password_hash = NULL
         WHERE user_nid = $1",
        user.0,
        erase
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM profile WHERE user_nid = $1", user.0)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("DELETE FROM profile_change WHERE user_nid = $1", user.0)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("DELETE FROM thread_sub WHERE user_nid = $1", user.0)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("DELETE FROM presence WHERE user_nid = $1", user.0)
        .execute(&mut *conn)
        .await?;
    if erase {
        super::terms::delete(conn, user).await?;
    }
    Ok(())
}

/// Users who were erased, by number, after one of them.
pub async fn list_erased(
    conn: &mut PgConnection,
    after: UserNid,
    limit: i64,
) -> Result<Vec<(UserNid, String)>, Error> {
    let rows = sqlx::query!(
        "SELECT user_nid, u.mxid FROM account a JOIN mx_user u USING (user_nid)
         WHERE a.erased AND user_nid > $1 ORDER BY user_nid LIMIT $2",
        after.0,
        limit
    );
    let rows = rows.fetch_all(conn).await?.into_iter();
    Ok(rows.map(|row| (UserNid(row.user_nid), row.mxid)).collect())
}

/// Opens a closed account again, with the profile of a new one; `false`: it is open.
pub async fn reopen(
    conn: &mut PgConnection,
    (user, localpart): (UserNid, &str),
    password_hash: &str,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "UPDATE account SET deactivated = false, erased = false, password_hash = $2
         WHERE user_nid = $1 AND deactivated",
        user.0,
        password_hash
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    insert_profile(conn, user, localpart).await?;
    Ok(true)
}

/// A local user's profile; `None`: no such account.
pub async fn find_profile(
    conn: &mut PgConnection,
    user: UserNid,
) -> Result<Option<serde_json::Value>, Error> {
    Ok(
        sqlx::query_scalar!("SELECT body FROM profile WHERE user_nid = $1", user.0)
            .fetch_optional(conn)
            .await?,
    )
}

/// Sets one field of a profile, or removes it (`None`).
pub async fn update_profile(
    conn: &mut PgConnection,
    user: UserNid,
    field: &str,
    value: Option<&serde_json::Value>,
) -> Result<(), Error> {
    match value {
        Some(value) => {
            sqlx::query!(
                "UPDATE profile SET body = body || jsonb_build_object($2::text, $3::jsonb)
                 WHERE user_nid = $1",
                user.0,
                field,
                value
            )
            .execute(conn)
            .await?
        }
        None => {
            sqlx::query!(
                "UPDATE profile SET body = body - $2::text WHERE user_nid = $1",
                user.0,
                field
            )
            .execute(conn)
            .await?
        }
    };
    Ok(())
}

/// A session of user-interactive authentication.
#[derive(Clone, Debug)]
pub struct UiaSession {
    /// Operation that it is good for.
    pub path: String,
    /// Who asks; 0 in registration.
    pub user_nid: i64,
    /// Stages done.
    pub completed: Vec<String>,
    /// Facts that stages proved.
    pub params: serde_json::Value,
}

/// Opens a session.
pub async fn insert_uia(
    conn: &mut PgConnection,
    session: &str,
    path: &str,
    user: i64,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO uia_session (session, path, user_nid, params, ts) VALUES ($1, $2, $3, '{}', $4)",
        session,
        path,
        user,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A session that began after `since`.
pub async fn find_uia(
    conn: &mut PgConnection,
    session: &str,
    since: i64,
) -> Result<Option<UiaSession>, Error> {
    Ok(sqlx::query_as!(
        UiaSession,
        "SELECT path, user_nid, completed, params FROM uia_session WHERE session = $1 AND ts > $2",
        session,
        since
    )
    .fetch_optional(conn)
    .await?)
}

/// Notes a stage as done, with what it proved.
pub async fn update_uia(
    conn: &mut PgConnection,
    session: &str,
    stage: &str,
    fact: &serde_json::Value,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE uia_session SET completed = completed || $2::text, params = params || $3
         WHERE session = $1 AND NOT $2::text = ANY (completed)",
        session,
        stage,
        fact
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a session; `false`: somebody else did.
pub async fn delete_uia(conn: &mut PgConnection, session: &str) -> Result<bool, Error> {
    let done = sqlx::query!("DELETE FROM uia_session WHERE session = $1", session)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Sweeps sessions that began before `ts`.
pub async fn delete_old_uia(conn: &mut PgConnection, ts: i64) -> Result<(), Error> {
    sqlx::query!("DELETE FROM uia_session WHERE ts < $1", ts)
        .execute(conn)
        .await?;
    Ok(())
}
