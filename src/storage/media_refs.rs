//! Which events name which uploads of our users, and which uploads nothing refers to.

use sqlx::PgConnection;

use super::{
    Error, RoomNid, ServerNid, UserNid,
    codec::decode_body,
    media::{Media, Row},
};

/// A room whose older events are to be read, and after which; nobody else reads them while the transaction lasts.
pub async fn lock_todo(conn: &mut PgConnection) -> Result<Option<(RoomNid, i64)>, Error> {
    let row = sqlx::query!(
        "SELECT room_nid, after_nid FROM media_ref_todo ORDER BY room_nid
         LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (RoomNid(row.room_nid), row.after_nid)))
}

/// How many rooms are still to be read. While there are any it is not known what is referred to.
pub async fn count_todo(conn: &mut PgConnection) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM media_ref_todo"#);
    Ok(count.fetch_one(conn).await?)
}

/// Events of a room in the order of their numbers, with what can be read of them: (event, JSON). Of redacted ones
/// those that are kept for moderators, as they were.
pub async fn list_events(
    conn: &mut PgConnection,
    room: RoomNid,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, String)>, Error> {
    let rows = sqlx::query!(
        r#"SELECT e.event_nid, COALESCE(u.body, s.body, j.body) AS "body!"
           FROM event e
           LEFT JOIN event_unredacted u ON u.event_nid = e.event_nid
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
           WHERE e.room_nid = $1 AND e.event_nid > $2
             AND COALESCE(u.body, s.body, j.body) IS NOT NULL
           ORDER BY e.event_nid LIMIT $3"#,
        room.0,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let json = decode_body("event_json", &row.body);
        let json = json.map_err(|error| Error::Inconsistent {
            table: "event",
            what: format!("event {}: {error}", row.event_nid),
        });
        Ok((row.event_nid, json?))
    });
    rows.collect()
}

/// Notes which uploads events of a room name: (event, id).
pub async fn insert(
    conn: &mut PgConnection,
    room: RoomNid,
    own: ServerNid,
    named: &[(i64, String)],
) -> Result<(), Error> {
    let (events, ids): (Vec<i64>, Vec<String>) = named.iter().cloned().unzip();
    sqlx::query!(
        "SELECT refer_media($1, $2, $3, $4)",
        &vec![room.0; named.len()],
        &events,
        &vec![own.0; named.len()],
        &ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how far a room is read; `None`: to its end.
pub async fn advance_todo(
    conn: &mut PgConnection,
    room: RoomNid,
    upto: Option<i64>,
) -> Result<(), Error> {
    match upto {
        Some(upto) => sqlx::query!(
            "UPDATE media_ref_todo SET after_nid = $2 WHERE room_nid = $1",
            room.0,
            upto
        ),
        None => sqlx::query!("DELETE FROM media_ref_todo WHERE room_nid = $1", room.0),
    }
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the search for uploads that can go, and where it is to go on; `None`: another node has it, or the last
/// round ended after `since` (milliseconds). The transaction holds it.
pub async fn lock_sweep(conn: &mut PgConnection, since: i64) -> Result<Option<i64>, Error> {
    let after = sqlx::query_scalar!(
        "SELECT after_nid FROM media_sweep WHERE after_nid > 0 OR done_ts <= $1
         FOR UPDATE SKIP LOCKED",
        since
    );
    Ok(after.fetch_optional(conn).await?)
}

/// Notes how far the search is; `None`: the round has ended.
pub async fn advance_sweep(
    conn: &mut PgConnection,
    upto: Option<i64>,
    now: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE media_sweep SET after_nid = COALESCE($1::bigint, 0),
           done_ts = CASE WHEN $1 IS NULL THEN $2 ELSE done_ts END",
        upto,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An upload, as the search meets it.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Number.
    pub nid: i64,
    /// Id of its address.
    pub media_id: String,
    /// Who made it.
    pub user: UserNid,
}

/// Uploads in the order of their numbers.
pub async fn list_uploads(
    conn: &mut PgConnection,
    after: i64,
    limit: i64,
) -> Result<Vec<Upload>, Error> {
    let rows = sqlx::query!(
        r#"SELECT media_nid, media_id, user_nid AS "user!" FROM media
           WHERE user_nid IS NOT NULL AND blob IS NOT NULL AND media_nid > $1
           ORDER BY media_nid LIMIT $2"#,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter().map(|row| Upload {
        nid: row.media_nid,
        media_id: row.media_id,
        user: UserNid(row.user),
    });
    Ok(rows.collect())
}

/// Which of some uploads were made and last looked at before a time (milliseconds), are neither withdrawn nor
/// protected, and have no event noted that counts.
pub async fn list_unnamed(
    conn: &mut PgConnection,
    nids: &[i64],
    before: i64,
) -> Result<Vec<i64>, Error> {
    // OFFSET 0: asked upload by upload, until the first that counts; not joined as a whole.
    Ok(sqlx::query_scalar!(
        "SELECT m.media_nid FROM media m
         WHERE m.media_nid = ANY($1) AND m.user_nid IS NOT NULL AND m.blob IS NOT NULL
           AND m.quarantined_by IS NULL AND NOT m.protected
           AND m.created_ts < $2 AND m.last_access_ts < $2
           AND NOT EXISTS (SELECT 1 FROM media_live_ref r WHERE r.media_nid = m.media_nid OFFSET 0)
         ORDER BY m.media_nid",
        nids,
        before
    )
    .fetch_all(conn)
    .await?)
}

/// Which of some uploads have no encrypted event that may name them.
pub async fn list_far(conn: &mut PgConnection, nids: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT w.nid AS "nid!" FROM unnest($1::bigint[]) AS w (nid)
           WHERE NOT EXISTS (SELECT 1 FROM media_near_cipher c WHERE c.media_nid = w.nid OFFSET 0)
           ORDER BY w.nid"#,
        nids
    )
    .fetch_all(conn)
    .await?)
}

/// Notes for each of some uploads an encrypted event that may name it, if there is one: so that it is not looked for
/// again while that event counts. Returns those that have one.
pub async fn insert_near(conn: &mut PgConnection, nids: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO media_ref (media_nid, room_nid, event_nid)
         SELECT w.nid, c.room_nid, c.event_nid FROM unnest($1::bigint[]) AS w (nid)
         CROSS JOIN LATERAL (
           SELECT c.room_nid, c.event_nid FROM media_near_cipher c
           WHERE c.media_nid = w.nid LIMIT 1) c
         ON CONFLICT ON CONSTRAINT media_ref_pkey DO NOTHING
         RETURNING media_nid",
        nids
    )
    .fetch_all(conn)
    .await?)
}

/// Locks some uploads and returns them. Who has just noted a reference to one holds a lock on it until that is
/// committed: it is left out, and looked at another time.
pub async fn lock(conn: &mut PgConnection, nids: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "SELECT media_nid FROM media WHERE media_nid = ANY($1)
         ORDER BY media_nid FOR UPDATE SKIP LOCKED",
        nids
    )
    .fetch_all(conn)
    .await?)
}

/// Which of some uploads are named nowhere else: whatever stands between a slash and the end of a word may be an
/// id. Account data is text as clients wrote it, perhaps with `\/` for `/`. `EXCEPT` reads all of that once.
pub async fn list_unmentioned(conn: &mut PgConnection, nids: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        r#"WITH asked AS MATERIALIZED (
             SELECT media_nid, media_id FROM media WHERE media_nid = ANY($1)
           ), texts AS (
             SELECT avatar_url AS text FROM user_directory WHERE avatar_url LIKE '%mxc:%'
             UNION ALL SELECT avatar_url FROM room_summary WHERE avatar_url LIKE '%mxc:%'
             UNION ALL SELECT body::text FROM profile WHERE body::text LIKE '%mxc:%'
             UNION ALL SELECT content FROM account_data WHERE content LIKE '%mxc:%' AND NOT gone
             UNION ALL SELECT content FROM delayed_event
               WHERE content LIKE '%mxc:%' AND finalised_ts IS NULL
           ), unnamed AS MATERIALIZED (
             SELECT media_id FROM asked
             EXCEPT
             SELECT (regexp_matches(text, '/([0-9A-Za-z_-]+)', 'g'))[1] FROM texts
           )
           SELECT a.media_nid AS "nid!" FROM asked a JOIN unnamed u ON u.media_id = a.media_id
           ORDER BY a.media_nid"#,
        nids
    )
    .fetch_all(conn)
    .await?)
}

/// Media by number, in the order of the numbers.
pub async fn list(conn: &mut PgConnection, nids: &[i64]) -> Result<Vec<Media>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT media_nid, server_nid, media_id, user_nid, blob, size, sha256, content_type,
           file_name, created_ts, expires_ts, last_access_ts, quarantined_by, protected
         FROM media WHERE media_nid = ANY($1) ORDER BY media_nid",
        nids
    );
    let rows = rows.fetch_all(conn).await?.into_iter();
    Ok(rows.map(Media::from).collect())
}
