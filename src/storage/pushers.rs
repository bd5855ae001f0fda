//! Pushers: where users are notified.

use sqlx::PgConnection;

use super::{Error, UserNid};

/// A pusher, as its client made it.
#[derive(Clone, Debug)]
pub struct Pusher {
    /// `http` or `email`.
    pub kind: String,
    /// Application.
    pub app_id: String,
    /// Address within the application.
    pub pushkey: String,
    /// Name of the application.
    pub app_display_name: String,
    /// Name of the device.
    pub device_display_name: String,
    /// As the client gave it; may be empty.
    pub profile_tag: String,
    /// Language.
    pub lang: String,
    /// JSON object, with the address of the gateway.
    pub data: String,
    /// Host and port of the gateway.
    pub gateway: String,
    /// Whether it is sent anything.
    pub enabled: bool,
    /// When it was set.
    pub set_ts: i64,
    /// Device that made it.
    pub device_id: Option<String>,
    /// Token of the link that ends mails.
    pub unsubscribe: Option<String>,
}

/// Makes or changes a pusher; one of another device stays with that where `keeps_device`.
pub async fn upsert(
    conn: &mut PgConnection,
    (user, device_no): (UserNid, i32),
    pusher: &Pusher,
    keeps_device: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO pusher AS p (user_nid, device_no, kind, app_id, pushkey, app_display_name,
           device_display_name, profile_tag, lang, data, gateway, enabled, set_ts,
           unsubscribe)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $15)
         ON CONFLICT ON CONSTRAINT pusher_key DO UPDATE SET
           device_no = CASE WHEN $14 THEN p.device_no ELSE EXCLUDED.device_no END,
           kind = EXCLUDED.kind, app_display_name = EXCLUDED.app_display_name,
           device_display_name = EXCLUDED.device_display_name,
           profile_tag = EXCLUDED.profile_tag, lang = EXCLUDED.lang, data = EXCLUDED.data,
           gateway = EXCLUDED.gateway, enabled = EXCLUDED.enabled, set_ts = EXCLUDED.set_ts,
           unsubscribe = CASE WHEN EXCLUDED.unsubscribe IS NOT NULL
             THEN coalesce(p.unsubscribe, EXCLUDED.unsubscribe) END,
           failures = 0, failing_ts = NULL, due_ts = least(p.due_ts, EXCLUDED.set_ts)",
        user.0,
        device_no,
        pusher.kind,
        pusher.app_id,
        pusher.pushkey,
        pusher.app_display_name,
        pusher.device_display_name,
        pusher.profile_tag,
        pusher.lang,
        pusher.data,
        pusher.gateway,
        pusher.enabled,
        pusher.set_ts,
        keeps_device,
        pusher.unsubscribe
    )
    .execute(&mut *conn)
    .await?;
    if !pusher.enabled {
        sqlx::query!(
            "WITH off AS (
               UPDATE pusher SET due_ts = NULL, recount = false, rev = rev + 1
               WHERE user_nid = $1 AND app_id = $2 AND pushkey = $3
               RETURNING pusher_id
             ), unmailed AS (DELETE FROM mail_room m USING off WHERE m.pusher_id = off.pusher_id)
             DELETE FROM push_queue q USING off WHERE q.pusher_id = off.pusher_id",
            user.0,
            pusher.app_id,
            pusher.pushkey
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Pushers of a user, oldest first.
pub async fn list(conn: &mut PgConnection, user: UserNid) -> Result<Vec<Pusher>, Error> {
    Ok(sqlx::query_as!(
        Pusher,
        r#"SELECT p.kind, p.app_id, p.pushkey, p.app_display_name, p.device_display_name,
             p.profile_tag, p.lang, p.data, p.gateway, p.enabled, p.set_ts, p.unsubscribe,
             d.device_id AS "device_id?"
           FROM pusher p
           LEFT JOIN device d ON d.user_nid = p.user_nid AND d.device_no = p.device_no
           WHERE p.user_nid = $1 ORDER BY p.pusher_id"#,
        user.0
    )
    .fetch_all(conn)
    .await?)
}

/// How many pushers a user has beside that one.
pub async fn count_others(
    conn: &mut PgConnection,
    user: UserNid,
    (app_id, pushkey): (&str, &str),
) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM pusher
           WHERE user_nid = $1 AND (app_id, pushkey) <> ($2, $3)"#,
        user.0,
        app_id,
        pushkey
    );
    Ok(count.fetch_one(conn).await?)
}

/// Deletes a pusher of a user.
pub async fn delete(
    conn: &mut PgConnection,
    user: UserNid,
    (app_id, pushkey): (&str, &str),
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM pusher WHERE user_nid = $1 AND app_id = $2 AND pushkey = $3",
        user.0,
        app_id,
        pushkey
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the same pusher of all others: whoever has the device now is not who they are.
pub async fn delete_of_others(
    conn: &mut PgConnection,
    user: UserNid,
    (app_id, pushkey): (&str, &str),
) -> Result<(), Error> {
    sqlx::query!(
        "DELETE FROM pusher WHERE user_nid <> $1 AND app_id = $2 AND pushkey = $3",
        user.0,
        app_id,
        pushkey
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes all pushers of a user.
pub async fn delete_of_user(conn: &mut PgConnection, user: UserNid) -> Result<(), Error> {
    sqlx::query!("DELETE FROM pusher WHERE user_nid = $1", user.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes the pusher that has a token of a link.
pub async fn delete_unsubscribed(conn: &mut PgConnection, token: &str) -> Result<(), Error> {
    sqlx::query!("DELETE FROM pusher WHERE unsubscribe = $1", token)
        .execute(conn)
        .await?;
    Ok(())
}
