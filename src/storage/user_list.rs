//! The list of accounts that administrators see.

use sqlx::PgConnection;

use super::Error;

/// An account in the list.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "columns, each for itself")]
pub struct Listed {
    /// User id.
    pub user_id: String,
    /// What it is called.
    pub display_name: Option<String>,
    /// How it looks.
    pub avatar_url: Option<String>,
    /// Server administrator.
    pub admin: bool,
    /// Closed.
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
    /// When it was made, in milliseconds.
    pub created_ts: i64,
    /// When a device of it was used last, in milliseconds.
    pub last_seen_ts: Option<i64>,
}

/// Which accounts, and in which order.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "parameters, each for itself")]
pub struct Query<'a> {
    /// Our name.
    pub server_name: &'a str,
    /// Part of the user id, in any case of letters.
    pub user_id: Option<&'a str>,
    /// Part of the localpart or of what it is called, in any case of letters.
    pub name: Option<&'a str>,
    /// Also those of guests.
    pub guests: bool,
    /// Also closed ones.
    pub deactivated: bool,
    /// Also locked ones.
    pub locked: bool,
    /// Only those of administrators, or only others.
    pub admins: Option<bool>,
    /// What they are ordered by, as in the admin API: `name`, `is_guest`, `admin`, `user_type`,
    /// `deactivated`, `displayname`, `creation_ts` or `locked`.
    pub order_by: &'a str,
    /// Small to large.
    pub ascending: bool,
    /// Accounts left out at the beginning.
    pub offset: i64,
    /// Accounts at most.
    pub limit: i64,
}

/// Accounts of a page.
///
/// The page is made of numbers alone, and what is shown is read for its accounts only. Planned for its
/// values (`Db::planning`), the usual order is that of an index, and profiles are read only
/// where a name is asked for.
pub async fn list(conn: &mut PgConnection, query: &Query<'_>) -> Result<Vec<Listed>, Error> {
    Ok(sqlx::query_as!(
        Listed,
        r#"SELECT u.mxid AS user_id, p.body ->> 'displayname' AS "display_name?",
             p.body ->> 'avatar_url' AS "avatar_url?", a.admin, a.deactivated, a.erased, a.guest,
             a.locked_ts IS NOT NULL AS "locked!", a.suspended_ts IS NOT NULL AS "suspended!",
             a.user_type, a.created_ts,
             (SELECT max(d.last_seen_ts) FROM device d WHERE d.user_nid = a.user_nid)
               AS "last_seen_ts?"
           FROM unnest(ARRAY(
             SELECT user_nid FROM (
               SELECT a.user_nid, a.localpart_folded,
                 CASE $8::text WHEN 'name' THEN a.localpart_folded WHEN 'user_type' THEN a.user_type
                   WHEN 'displayname' THEN p.body ->> 'displayname' END COLLATE "C" AS by_text,
                 CASE $8 WHEN 'is_guest' THEN a.guest::int WHEN 'admin' THEN a.admin::int
                   WHEN 'deactivated' THEN a.deactivated::int
                   WHEN 'locked' THEN (a.locked_ts IS NOT NULL)::int
                   WHEN 'creation_ts' THEN a.created_ts END AS by_number
               FROM account a LEFT JOIN profile p ON p.user_nid = a.user_nid
               WHERE ($2::text IS NULL
                   OR position(lower($2) IN '@' || a.localpart_folded || ':' || $1::text) > 0)
                 AND ($3::text IS NULL OR position(lower($3) IN a.localpart_folded) > 0
                   OR position(lower($3) IN lower(p.body ->> 'displayname')) > 0)
                 AND ($4 OR NOT a.guest) AND ($5 OR NOT a.deactivated)
                 AND ($6 OR a.locked_ts IS NULL) AND ($7::bool IS NULL OR a.admin = $7)) fitting
             ORDER BY CASE WHEN $9 THEN by_text END, CASE WHEN $9 THEN by_number END,
               CASE WHEN NOT $9 THEN by_text END DESC, CASE WHEN NOT $9 THEN by_number END DESC,
               localpart_folded
             OFFSET $10 LIMIT $11)) WITH ORDINALITY AS page (user_nid, place)
           JOIN account a ON a.user_nid = page.user_nid
           JOIN mx_user u ON u.user_nid = page.user_nid
           LEFT JOIN profile p ON p.user_nid = page.user_nid
           ORDER BY page.place"#,
        query.server_name,
        query.user_id,
        query.name,
        query.guests,
        query.deactivated,
        query.locked,
        query.admins,
        query.order_by,
        query.ascending,
        query.offset,
        query.limit
    )
    .fetch_all(conn)
    .await?)
}

/// How many accounts there are on all pages.
pub async fn count(conn: &mut PgConnection, query: &Query<'_>) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "total!"
           FROM account a LEFT JOIN profile p ON p.user_nid = a.user_nid
           WHERE ($2::text IS NULL
               OR position(lower($2) IN '@' || a.localpart_folded || ':' || $1::text) > 0)
             AND ($3::text IS NULL OR position(lower($3) IN a.localpart_folded) > 0
               OR position(lower($3) IN lower(p.body ->> 'displayname')) > 0)
             AND ($4 OR NOT a.guest) AND ($5 OR NOT a.deactivated)
             AND ($6 OR a.locked_ts IS NULL) AND ($7::bool IS NULL OR a.admin = $7)"#,
        query.server_name,
        query.user_id,
        query.name,
        query.guests,
        query.deactivated,
        query.locked,
        query.admins
    )
    .fetch_one(conn)
    .await?)
}
