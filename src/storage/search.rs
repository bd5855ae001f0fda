//! Words of events, and who looks for them.

use sqlx::PgConnection;

use super::{
    Error, RoomNid, UserNid,
    append::flag,
    codec::decode_body,
    events::{Row, Stored},
};

/// An event that is to be entered.
#[derive(Debug)]
pub struct Text {
    /// Room.
    pub room: i64,
    /// Event.
    pub event: i64,
    /// Canonical federation JSON.
    pub json: String,
    seq: i64,
    ts: i64,
    sender: i64,
}

/// Where an event is searched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `content.body` of a message.
    Body = 0,
    /// `content.name` of a room.
    Name = 1,
    /// `content.topic` of a room.
    Topic = 2,
}

/// Notes taken up, oldest event first: (room, event). They are gone with the transaction.
pub async fn take_todo(conn: &mut PgConnection, limit: i64) -> Result<Vec<(i64, i64)>, Error> {
    let rows = sqlx::query!(
        "DELETE FROM search_todo WHERE event_nid IN (
           SELECT event_nid FROM search_todo ORDER BY event_nid LIMIT $1 FOR UPDATE)
         RETURNING room_nid, event_nid",
        limit
    )
    .fetch_all(conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.room_nid, row.event_nid)).collect())
}

/// Those of (room, event) that may be searched; they are not redacted before the transaction ends.
pub async fn list_texts(conn: &mut PgConnection, pairs: &[(i64, i64)]) -> Result<Vec<Text>, Error> {
    let (rooms, events): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"SELECT e.room_nid, e.event_nid, e.room_seq AS "room_seq!", e.sender_nid,
             least(e.origin_ts, e.recv_ts) AS "ts!", COALESCE(s.body, j.body) AS "body?"
           FROM unnest($1::bigint[], $2::bigint[]) AS w (room, event)
           JOIN event e ON e.room_nid = w.room AND e.event_nid = w.event
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid
           WHERE e.room_seq IS NOT NULL AND e.flags & $3 = 0
           ORDER BY e.room_nid, e.event_nid FOR SHARE OF e"#,
        &rooms,
        &events,
        flag::REDACTED
    )
    .fetch_all(conn)
    .await?;
    let texts = rows.into_iter().filter_map(|row| {
        let body = row.body?;
        Some(decode_body("event_json", &body).map(|json| Text {
            room: row.room_nid,
            event: row.event_nid,
            json,
            seq: row.room_seq,
            ts: row.ts,
            sender: row.sender_nid,
        }))
    });
    texts.collect()
}

/// Enters events with what they are found under. What was entered before stays.
pub async fn insert(conn: &mut PgConnection, docs: &[(Text, Kind, String)]) -> Result<(), Error> {
    let column = |of: fn(&Text) -> i64| docs.iter().map(|(text, ..)| of(text)).collect::<Vec<_>>();
    let kinds: Vec<i16> = docs.iter().map(|(_, kind, _)| *kind as i16).collect();
    let bodies: Vec<String> = docs.iter().map(|(.., body)| body.clone()).collect();
    sqlx::query!(
        "INSERT INTO search_doc (room_nid, event_nid, room_seq, ts, sender_nid, kind, words)
         SELECT w.room, w.event, w.seq, w.ts, w.sender, w.kind, search_words(w.body, w.room)
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
           $6::smallint[], $7::text[]) AS w (room, event, seq, ts, sender, kind, body)
         ON CONFLICT ON CONSTRAINT search_doc_pkey DO NOTHING",
        &column(|text| text.room),
        &column(|text| text.event),
        &column(|text| text.seq),
        &column(|text| text.ts),
        &column(|text| text.sender),
        &kinds,
        &bodies
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Words as they were typed, without NUL.
    pub term: String,
    /// The same as beginnings of words, in the language of `to_tsquery`; may be empty.
    pub beginnings: String,
    /// In which rooms.
    pub rooms: Vec<i64>,
    /// In what.
    pub kinds: Vec<i16>,
    /// From whom; `None`: anybody.
    pub senders: Option<Vec<i64>>,
    /// From whom not.
    pub not_senders: Vec<i64>,
    /// Best match first; else the newest first.
    pub by_rank: bool,
}

impl Query {
    /// Rooms up to which they are looked up in the index of words themselves.
    const ROOMS_MAX: usize = 200;

    /// The rooms as the index knows them; `None`: too many to be of use.
    fn rooms_in_index(&self) -> Option<String> {
        if self.rooms.len() > Self::ROOMS_MAX {
            return None;
        }
        let rooms = self.rooms.iter().map(|room| format!("'#{room}'"));
        Some(rooms.collect::<Vec<_>>().join(" | "))
    }
}

/// An event that was found; ordered by what comes after what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// How well it matches; 0 where that was not asked.
    pub rank: f32,
    /// Time of the event in milliseconds.
    pub ts: i64,
    /// Place in its room.
    pub seq: i64,
    /// Event.
    pub event: i64,
    /// Room.
    pub room: RoomNid,
    /// Sender.
    pub sender: UserNid,
}

/// Events that match, after the given one.
pub async fn list(
    conn: &mut PgConnection,
    query: &Query,
    after: Option<&Hit>,
    limit: i64,
) -> Result<Vec<Hit>, Error> {
    let rows = sqlx::query!(
        r#"WITH found AS (
             SELECT d.room_nid, d.event_nid, d.room_seq, d.ts, d.sender_nid,
               CASE WHEN $7 THEN ts_rank(d.words, q.words) ELSE 0 END AS rank
             FROM search_query($1, $2, $8) q
             JOIN search_doc d ON d.words @@ q.wanted
             WHERE d.room_nid = ANY ($3) AND d.kind = ANY ($4)
               AND ($5::bigint[] IS NULL OR d.sender_nid = ANY ($5)) AND d.sender_nid <> ALL ($6)
           )
           SELECT room_nid, event_nid, room_seq, ts, sender_nid, rank AS "rank!" FROM found
           WHERE $9::real IS NULL OR (rank, ts, room_seq, event_nid) < ($9, $10, $11, $12)
           ORDER BY rank DESC, ts DESC, room_seq DESC, event_nid DESC LIMIT $13"#,
        query.term,
        query.beginnings,
        &query.rooms,
        &query.kinds,
        query.senders.as_deref(),
        &query.not_senders,
        query.by_rank,
        query.rooms_in_index(),
        after.map(|hit| hit.rank),
        after.map_or(0, |hit| hit.ts),
        after.map_or(0, |hit| hit.seq),
        after.map_or(0, |hit| hit.event),
        limit
    )
    .fetch_all(conn)
    .await?;
    let hits = rows.into_iter().map(|row| Hit {
        rank: row.rank,
        ts: row.ts,
        seq: row.room_seq,
        event: row.event_nid,
        room: RoomNid(row.room_nid),
        sender: UserNid(row.sender_nid),
    });
    Ok(hits.collect())
}

/// How many events match; not counted beyond `limit`.
pub async fn count(conn: &mut PgConnection, query: &Query, limit: i64) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM (
             SELECT 1 FROM search_query($1, $2, $7) q
             JOIN search_doc d ON d.words @@ q.wanted
             WHERE d.room_nid = ANY ($3) AND d.kind = ANY ($4)
               AND ($5::bigint[] IS NULL OR d.sender_nid = ANY ($5)) AND d.sender_nid <> ALL ($6)
             LIMIT $8) AS found"#,
        query.term,
        query.beginnings,
        &query.rooms,
        &query.kinds,
        query.senders.as_deref(),
        &query.not_senders,
        query.rooms_in_index(),
        limit
    );
    Ok(count.fetch_one(conn).await?)
}

/// Texts with what was found in them between `start` and `end`, twice: in German and in English.
pub async fn mark(
    conn: &mut PgConnection,
    query: &Query,
    texts: &[String],
    (start, end): (char, char),
) -> Result<Vec<String>, Error> {
    let marks = format!("StartSel={start}, StopSel={end}, HighlightAll=true");
    let marked = sqlx::query_scalar!(
        r#"SELECT ts_headline(l.config::regconfig, t.body, q.words, $4) AS "marked!"
           FROM search_query($1, $2, NULL) q
           CROSS JOIN unnest($3::text[]) AS t (body)
           CROSS JOIN (VALUES ('pg_catalog.german'), ('pg_catalog.english')) AS l (config)"#,
        query.term,
        query.beginnings,
        texts,
        marks
    );
    Ok(marked.fetch_all(conn).await?)
}

/// A place in the timeline of a room: (room, `room_seq`).
pub type Place = (RoomNid, i64);

/// What stands around places, in no order: (number of the place in the list, event).
pub async fn list_around(
    conn: &mut PgConnection,
    places: &[Place],
    (before, after): (i64, i64),
) -> Result<Vec<(usize, Stored)>, Error> {
    let (rooms, seqs): (Vec<i64>, Vec<i64>) =
        places.iter().map(|(room, seq)| (room.0, *seq)).unzip();
    let rows = sqlx::query!(
        r#"SELECT w.ord AS "ord!", e.room_nid AS "room_nid!", e.event_nid AS "event_nid!",
             e.room_seq, e.pos, e.snap_nid, e.event_key AS "event_key!",
             e.event_tail AS "event_tail!", e.flags AS "flags!", e.recv_ts AS "recv_ts!",
             COALESCE(s.body, j.body) AS "body?"
           FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS w (room, seq, ord)
           CROSS JOIN LATERAL (
             (SELECT * FROM event WHERE room_nid = w.room AND room_seq < w.seq
              ORDER BY room_seq DESC LIMIT $3)
             UNION ALL
             (SELECT * FROM event WHERE room_nid = w.room AND room_seq > w.seq
              ORDER BY room_seq LIMIT $4)) e
           LEFT JOIN state_json s ON e.skey_nid IS NOT NULL AND s.event_nid = e.event_nid
           LEFT JOIN event_json j ON e.skey_nid IS NULL AND j.event_nid = e.event_nid"#,
        &rooms,
        &seqs,
        before,
        after
    )
    .fetch_all(conn)
    .await?;
    let around = rows.into_iter().map(|row| {
        let stored = Stored::try_from(Row {
            room_nid: row.room_nid,
            event_nid: row.event_nid,
            room_seq: row.room_seq,
            pos: row.pos,
            snap_nid: row.snap_nid,
            event_key: row.event_key,
            event_tail: row.event_tail,
            flags: row.flags,
            recv_ts: row.recv_ts,
            body: row.body,
        })?;
        Ok((usize::try_from(row.ord - 1).unwrap_or(0), stored))
    });
    around.collect()
}
