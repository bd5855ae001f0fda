-- Uploads of our users go once nothing refers to them (docs/adr/0010): which event names which of them.

ALTER TABLE media ADD COLUMN uploaded_ts bigint;
COMMENT ON COLUMN media.uploaded_ts IS 'When the bytes came, where the id was reserved before that; null: at created_ts';
-- Of older uploads it is not known which of them had been reserved, at most a day before.
UPDATE media SET uploaded_ts = created_ts + 86400000 WHERE user_nid IS NOT NULL AND blob IS NOT NULL;
CREATE INDEX media_upload_ix ON media (media_nid) WHERE user_nid IS NOT NULL AND blob IS NOT NULL;

CREATE TABLE media_ref (
  media_nid bigint NOT NULL CONSTRAINT media_ref_media_fk REFERENCES media ON DELETE CASCADE,
  room_nid bigint NOT NULL,
  event_nid bigint NOT NULL,
  CONSTRAINT media_ref_pkey PRIMARY KEY (media_nid, event_nid)
);
COMMENT ON TABLE media_ref IS 'Events that name uploads of our users, or may name them because they are encrypted; a row counts while media_live_ref has it';
COMMENT ON COLUMN media_ref.media_nid IS 'Upload, or reserved id';
COMMENT ON COLUMN media_ref.room_nid IS 'Room of the event';
COMMENT ON COLUMN media_ref.event_nid IS 'Event, whatever became of it';
CREATE INDEX media_ref_room_ix ON media_ref (room_nid);

CREATE TABLE media_ref_todo (
  room_nid bigint CONSTRAINT media_ref_todo_pkey PRIMARY KEY,
  after_nid bigint NOT NULL
);
COMMENT ON TABLE media_ref_todo IS 'Rooms whose events from before references were noted are still read, in the background; while there are any, no upload goes by itself';
COMMENT ON COLUMN media_ref_todo.room_nid IS 'Room';
COMMENT ON COLUMN media_ref_todo.after_nid IS 'event_nid up to which that is done';
INSERT INTO media_ref_todo (room_nid, after_nid) SELECT room_nid, 0 FROM room;

CREATE TABLE media_sweep (
  only_one boolean CONSTRAINT media_sweep_pkey PRIMARY KEY DEFAULT true CONSTRAINT media_sweep_one_ck CHECK (only_one),
  after_nid bigint NOT NULL,
  done_ts bigint NOT NULL
);
COMMENT ON TABLE media_sweep IS 'How far the search for uploads that nothing refers to is; whoever searches holds the row';
COMMENT ON COLUMN media_sweep.only_one IS 'There is one row';
COMMENT ON COLUMN media_sweep.after_nid IS 'media_nid up to which uploads were looked at in this round; 0: no round is under way';
COMMENT ON COLUMN media_sweep.done_ts IS 'When the last round ended, in milliseconds';
INSERT INTO media_sweep (after_nid, done_ts) VALUES (0, 0);

-- What is redacted counts as long as moderators may see what it said.
CREATE VIEW media_live_ref AS
SELECT r.media_nid, r.room_nid, r.event_nid
FROM media_ref r
JOIN event e ON e.room_nid = r.room_nid AND e.event_nid = r.event_nid
WHERE e.flags & 8 = 0 OR EXISTS (SELECT 1 FROM event_unredacted u WHERE u.event_nid = r.event_nid);
COMMENT ON VIEW media_live_ref IS 'References whose event we hold, and not redacted, or redacted and kept for moderators';

-- By room, which has an index by time: an index by sender would be paid for by every event. OFFSET 0: room by room,
-- with that index; not joined as a whole.
CREATE VIEW media_near_cipher AS
SELECT m.media_nid, c.room_nid, c.event_nid
FROM media m
JOIN user_room u ON u.user_nid = m.user_nid
CROSS JOIN LATERAL (
  SELECT e.room_nid, e.event_nid FROM event e
  WHERE e.room_nid = u.room_nid AND e.sender_nid = m.user_nid AND e.type_nid = 7 AND e.room_seq IS NOT NULL
    AND e.origin_ts BETWEEN m.created_ts - 3600000 AND coalesce(m.uploaded_ts, m.created_ts) + 86400000
    AND (e.flags & 8 = 0 OR EXISTS (SELECT 1 FROM event_unredacted k WHERE k.event_nid = e.event_nid))
  OFFSET 0) c;
COMMENT ON VIEW media_near_cipher IS 'Encrypted events that may name an upload: of the same user, from an hour before it was made to a day after its bytes came';

-- Notes which events name which uploads. Names without an upload leave nothing behind. The lock orders this and a
-- deletion: who deletes has locked the rows before it looks for references.
CREATE FUNCTION refer_media(f_room bigint[], f_event bigint[], f_server int[], f_id text[])
RETURNS void LANGUAGE sql AS $$
  WITH named AS MATERIALIZED (
    SELECT media_nid, server_nid, media_id FROM media
    WHERE (server_nid, media_id) IN (SELECT * FROM unnest(f_server, f_id)) AND user_nid IS NOT NULL
    ORDER BY media_nid FOR KEY SHARE
  )
  INSERT INTO media_ref (media_nid, room_nid, event_nid)
  SELECT n.media_nid, w.room, w.event
  FROM unnest(f_room, f_event, f_server, f_id) AS w (room, event, server, id)
  JOIN named n ON n.server_nid = w.server AND n.media_id = w.id
  ON CONFLICT ON CONSTRAINT media_ref_pkey DO NOTHING
$$;

-- As before, but what an event names of our media is noted (f_room, f_event, f_server, f_id).
DROP FUNCTION append_events;
CREATE FUNCTION append_events(
  now_ms bigint,
  r_room bigint[], r_rev bigint[], r_new_rev bigint[], r_seq bigint[], r_depth bigint[],
  r_snap bigint[], r_extrem bytea[], r_ts bigint[],
  e_nid bigint[], e_room bigint[], e_seq bigint[], e_depth bigint[], e_ts bigint[],
  e_sender bigint[], e_user bigint[], e_skey bigint[], e_snap bigint[], e_key uuid[], e_tail uuid[],
  e_type int[], e_flags int[], e_thread uuid[], e_root text[], e_parent uuid[], e_prev bytea[], e_auth bytea[], e_body bytea[],
  e_known boolean[], e_out int[],
  s_room bigint[], s_nid bigint[], s_parent bigint[], s_gen int[], s_since int[], s_delta bytea[],
  c_room bigint[], c_nid bigint[], c_n int[], c_body bytea[],
  m_room bigint[], m_user bigint[], m_server int[], m_membership smallint[], m_event bigint[],
  m_sender bigint[], m_local boolean[],
  t_hash uuid[], t_room bigint[], t_event bigint[],
  n_user bigint[], n_room bigint[], n_seq bigint[], n_notify smallint[], n_high smallint[],
  x_room bigint[], x_id text[], x_child bigint[],
  d_room bigint[], d_target text[], d_event bigint[], d_applied boolean[],
  p_room bigint[], p_event bigint[], p_state boolean[], p_body bytea[],
  l_event bigint[], l_parent uuid[], l_rel int[], l_root text[], l_key uuid[], l_edit bigint[],
  k_room bigint[], k_event bigint[], k_ends bigint[],
  f_room bigint[], f_event bigint[], f_server int[], f_id text[]
) RETURNS TABLE (what smallint, a bigint, b bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  bad bigint[] := '{}';
  stale bigint[];
  dup record;
  before bigint;
  pos_of bigint[];
  rel record;
  inside uuid;
  thread_of uuid[] := e_thread;
  notif_of int[];
  high_of int[];
  thread_notif_of int[];
  thread_high_of int[];
BEGIN
  PERFORM pg_current_xact_id();
  PERFORM 1 FROM room_head WHERE room_nid = ANY (r_room) ORDER BY room_nid FOR UPDATE;

  -- A repeated client transaction: the whole room part is dropped, its other events are rebuilt.
  IF cardinality(t_hash) > 0 THEN
    FOR dup IN
      SELECT c.event_nid, w.room FROM unnest(t_hash, t_room) AS w (hash, room)
      JOIN client_txn c ON c.txn_hash = w.hash
    LOOP
      bad := bad || dup.room;
      what := 1; a := dup.event_nid; b := dup.room;
      RETURN NEXT;
    END LOOP;
  END IF;

  WITH w AS (
    SELECT * FROM unnest(r_room, r_rev, r_new_rev, r_seq, r_depth, r_snap, r_extrem, r_ts)
      AS w (room, rev, new_rev, seq, depth, snap, extrem, ts)
    WHERE NOT room = ANY (bad)
  ), fresh AS (
    INSERT INTO room_head (room_nid, rev, head_seq, depth, snap_nid, extrem, last_pos, last_ts)
    SELECT room, new_rev, seq, depth, snap, extrem, 0, ts FROM w WHERE rev = -1
    ON CONFLICT ON CONSTRAINT room_head_pkey DO NOTHING
    RETURNING room_nid
  ), moved AS (
    UPDATE room_head h SET rev = w.new_rev, head_seq = w.seq, depth = w.depth, snap_nid = w.snap,
      extrem = w.extrem, last_ts = w.ts
    FROM w WHERE h.room_nid = w.room AND h.rev = w.rev
    RETURNING h.room_nid
  )
  SELECT array_agg(room) INTO stale FROM w
  WHERE NOT EXISTS (SELECT 1 FROM fresh WHERE room_nid = room)
    AND NOT EXISTS (SELECT 1 FROM moved WHERE room_nid = room);
  IF stale IS NOT NULL THEN
    bad := bad || stale;
    RETURN QUERY SELECT 0::smallint, s.room, 0::bigint FROM unnest(stale) AS s (room);
  END IF;
  IF cardinality(r_room) > 0 AND r_room <@ bad THEN
    RETURN;
  END IF;

  INSERT INTO event_json (event_nid, body)
  SELECT w.nid, w.body FROM unnest(e_nid, e_room, e_skey, e_body, e_known) AS w (nid, room, skey, body, known)
  WHERE w.skey IS NULL AND NOT w.known AND NOT w.room = ANY (bad);

  INSERT INTO state_json (event_nid, body)
  SELECT w.nid, w.body FROM unnest(e_nid, e_room, e_skey, e_body, e_known) AS w (nid, room, skey, body, known)
  WHERE w.skey IS NOT NULL AND NOT w.known AND NOT w.room = ANY (bad);

  INSERT INTO auth_edge (room_nid, event_nid, auth)
  SELECT w.room, w.nid, w.auth FROM unnest(e_nid, e_room, e_skey, e_auth, e_known) AS w (nid, room, skey, auth, known)
  WHERE w.skey IS NOT NULL AND NOT w.known AND NOT w.room = ANY (bad);

  IF cardinality(s_room) > 0 THEN
    INSERT INTO state_snap (room_nid, snap_nid, parent, gen, since_ckpt, delta)
    SELECT * FROM unnest(s_room, s_nid, s_parent, s_gen, s_since, s_delta)
      AS w (room, nid, parent, gen, since, delta)
    WHERE NOT w.room = ANY (bad);
  END IF;
  IF cardinality(c_room) > 0 THEN
    INSERT INTO state_ckpt (room_nid, snap_nid, n, body)
    SELECT * FROM unnest(c_room, c_nid, c_n, c_body) AS w (room, nid, n, body)
    WHERE NOT w.room = ANY (bad);
  END IF;
  IF cardinality(t_hash) > 0 THEN
    INSERT INTO client_txn (txn_hash, event_nid, room_nid, ts)
    SELECT w.hash, w.event, w.room, now_ms FROM unnest(t_hash, t_event, t_room) AS w (hash, event, room)
    WHERE NOT w.room = ANY (bad);
  END IF;
  IF cardinality(x_room) > 0 THEN
    INSERT INTO missing_prev (room_nid, event_id, child_nid)
    SELECT * FROM unnest(x_room, x_id, x_child) AS w (room, id, child) WHERE NOT w.room = ANY (bad)
    ON CONFLICT DO NOTHING;
  END IF;
  IF cardinality(d_room) > 0 THEN
    INSERT INTO redaction (room_nid, target_id, redaction_nid, applied)
    SELECT * FROM unnest(d_room, d_target, d_event, d_applied) AS w (room, target, event, applied)
    WHERE NOT w.room = ANY (bad)
    ON CONFLICT ON CONSTRAINT redaction_pkey DO UPDATE SET applied = EXCLUDED.applied;
  END IF;
  IF cardinality(p_room) > 0 THEN
    UPDATE event_json j SET body = w.body
    FROM unnest(p_room, p_event, p_state, p_body) AS w (room, event, is_state, body)
    WHERE j.event_nid = w.event AND NOT w.is_state AND NOT w.room = ANY (bad);
    UPDATE state_json j SET body = w.body
    FROM unnest(p_room, p_event, p_state, p_body) AS w (room, event, is_state, body)
    WHERE j.event_nid = w.event AND w.is_state AND NOT w.room = ANY (bad);
    -- What is redacted counts no more: for those counted by the counters, and for the others.
    INSERT INTO unread_void (room_nid, room_seq, thread_key, notify, high)
    SELECT e.room_nid, e.room_seq, e.thread_key, (e.flags >> 8) & 1, (e.flags >> 9) & 1
    FROM unnest(p_room, p_event) AS w (room, event)
    JOIN event e ON e.room_nid = w.room AND e.event_nid = w.event
    WHERE e.flags & 8 = 0 AND e.flags & 768 <> 0 AND e.room_seq IS NOT NULL AND NOT w.room = ANY (bad)
    ON CONFLICT DO NOTHING;
    DELETE FROM mention m USING unnest(p_room, p_event) AS w (room, event), event e
    WHERE e.room_nid = w.room AND e.event_nid = w.event AND NOT w.room = ANY (bad)
      AND m.room_nid = e.room_nid AND m.room_seq = e.room_seq;
    UPDATE event e SET flags = e.flags | 8
    FROM unnest(p_room, p_event) AS w (room, event)
    WHERE e.room_nid = w.room AND e.event_nid = w.event AND NOT w.room = ANY (bad);
    DELETE FROM sticky_event s USING unnest(p_room, p_event) AS w (room, event)
    WHERE s.room_nid = w.room AND s.event_nid = w.event AND NOT w.room = ANY (bad);
    -- After that: who enters an event holds its row.
    DELETE FROM search_doc d USING unnest(p_room, p_event) AS w (room, event)
    WHERE d.room_nid = w.room AND d.event_nid = w.event AND NOT w.room = ANY (bad);
    PERFORM unrelate(array_agg(w.room), array_agg(w.event))
    FROM unnest(p_room, p_event) AS w (room, event) WHERE NOT w.room = ANY (bad);
  END IF;
  IF cardinality(m_room) > 0 THEN
    IF EXISTS (SELECT 1 FROM sticky_event s WHERE s.room_nid = ANY (m_room) AND s.own AND s.ends_ts > now_ms) THEN
      INSERT INTO sticky_todo (room_nid, server_nid, due_ts)
      SELECT DISTINCT w.room, w.server, now_ms + d.delay
      FROM unnest(m_room, m_server, m_membership, m_local) AS w (room, server, membership, is_local)
      CROSS JOIN (VALUES (3000), (60000)) AS d (delay)
      LEFT JOIN room_server rs ON rs.room_nid = w.room AND rs.server_nid = w.server
      WHERE w.membership = 1 AND NOT w.is_local AND coalesce(rs.joined, 0) = 0 AND NOT w.room = ANY (bad)
      ON CONFLICT DO NOTHING;
    END IF;
    SELECT last_value INTO before FROM stream_pos_seq;
    INSERT INTO room_server AS rs (room_nid, server_nid, joined, since_pos)
    SELECT w.room, w.server, sum((w.membership = 1)::int - (coalesce(o.membership, 0) = 1)::int), before
    FROM unnest(m_room, m_user, m_server, m_membership) AS w (room, usr, server, membership)
    LEFT JOIN member o ON o.room_nid = w.room AND o.user_nid = w.usr
    WHERE NOT w.room = ANY (bad)
    GROUP BY w.room, w.server
    HAVING sum((w.membership = 1)::int - (coalesce(o.membership, 0) = 1)::int) <> 0
    ON CONFLICT ON CONSTRAINT room_server_pkey DO UPDATE SET
      since_pos = CASE WHEN rs.joined = 0 AND NOT rs.told THEN EXCLUDED.since_pos ELSE rs.since_pos END,
      joined = rs.joined + EXCLUDED.joined;
    INSERT INTO member (room_nid, user_nid, membership, event_nid)
    SELECT * FROM unnest(m_room, m_user, m_membership, m_event) AS w (room, usr, membership, event)
    WHERE NOT w.room = ANY (bad)
    ON CONFLICT ON CONSTRAINT member_pkey
      DO UPDATE SET membership = EXCLUDED.membership, event_nid = EXCLUDED.event_nid;
  END IF;

  -- The thread of an event that relates to one of a thread; which thread an event is in that names
  -- one, it says itself.
  FOR rel IN
    SELECT w.ord, w.room, w.parent FROM unnest(e_room, e_parent) WITH ORDINALITY AS w (room, parent, ord)
    WHERE w.parent IS NOT NULL AND NOT w.room = ANY (bad) ORDER BY w.ord
  LOOP
    SELECT t.root_key INTO inside FROM event e
    JOIN thread t ON t.room_nid = e.room_nid AND t.root_key = e.thread_key
    WHERE e.room_nid = rel.room AND e.event_key = rel.parent;
    IF NOT FOUND THEN
      inside := thread_of[array_position(e_key, rel.parent)];
    END IF;
    thread_of[rel.ord] := inside;
  END LOOP;

  SELECT array_agg(w.main_notif ORDER BY w.ord), array_agg(w.main_high ORDER BY w.ord),
      array_agg(w.thread_notif ORDER BY w.ord), array_agg(w.thread_high ORDER BY w.ord)
    INTO notif_of, high_of, thread_notif_of, thread_high_of
    FROM (
      SELECT l.ord,
        coalesce(h.notif_main, 0) + sum(CASE WHEN l.thread IS NULL THEN l.notify ELSE 0 END) OVER (PARTITION BY l.room ORDER BY l.ord) AS main_notif,
        coalesce(h.high_main, 0) + sum(CASE WHEN l.thread IS NULL THEN l.high ELSE 0 END) OVER (PARTITION BY l.room ORDER BY l.ord) AS main_high,
        CASE WHEN l.thread IS NOT NULL THEN coalesce(t.notif, 0) + sum(l.notify) OVER (PARTITION BY l.room, l.thread ORDER BY l.ord) END AS thread_notif,
        CASE WHEN l.thread IS NOT NULL THEN coalesce(t.high, 0) + sum(l.high) OVER (PARTITION BY l.room, l.thread ORDER BY l.ord) END AS thread_high
      FROM (
        SELECT u.ord, u.room, u.thread,
          CASE WHEN u.seq IS NULL OR u.flags & 128 <> 0 THEN 0 ELSE (u.flags >> 8) & 1 END AS notify,
          CASE WHEN u.seq IS NULL OR u.flags & 128 <> 0 THEN 0 ELSE (u.flags >> 9) & 1 END AS high
        FROM unnest(e_room, e_seq, e_flags, thread_of) WITH ORDINALITY AS u (room, seq, flags, thread, ord)
      ) l
      LEFT JOIN room_head h ON h.room_nid = l.room
      LEFT JOIN thread t ON t.room_nid = l.room AND t.root_key = l.thread
    ) w;

  INSERT INTO thread AS t (room_nid, root_key, root_id, last_seq, notif, high)
  SELECT w.room, w.thread, coalesce(max(w.root), ''), coalesce(max(w.seq) FILTER (WHERE w.flags & 768 <> 0), 0), max(w.notif), max(w.high)
  FROM unnest(e_room, e_seq, e_flags, thread_of, e_root, thread_notif_of, thread_high_of)
    AS w (room, seq, flags, thread, root, notif, high)
  WHERE w.thread IS NOT NULL AND w.seq IS NOT NULL AND w.flags & 128 = 0 AND NOT w.room = ANY (bad)
  GROUP BY w.room, w.thread
  ON CONFLICT ON CONSTRAINT thread_pkey DO UPDATE
    SET last_seq = greatest(t.last_seq, EXCLUDED.last_seq), notif = EXCLUDED.notif, high = EXCLUDED.high;

  IF cardinality(l_event) > 0 THEN
    PERFORM relate(array_agg(w.room), array_agg(w.nid), array_agg(w.seq), array_agg(w.sender), array_agg(w.typ),
      array_agg(l.parent), array_agg(l.rel), array_agg(l.root), array_agg(l.key), array_agg(l.edit))
    FROM unnest(l_event, l_parent, l_rel, l_root, l_key, l_edit) AS l (event, parent, rel, root, key, edit)
    JOIN unnest(e_nid, e_room, e_seq, e_sender, e_type) AS w (nid, room, seq, sender, typ) ON w.nid = l.event
    WHERE w.seq IS NOT NULL AND NOT w.room = ANY (bad) AND NOT w.nid = ANY (p_event);
  END IF;

  IF cardinality(f_room) > 0 THEN
    PERFORM refer_media(array_agg(w.room), array_agg(w.event), array_agg(w.server), array_agg(w.id))
    FROM unnest(f_room, f_event, f_server, f_id) AS w (room, event, server, id)
    WHERE NOT w.room = ANY (bad);
  END IF;

  -- Positions last: from here to the commit every sync waits for us.
  SELECT array_agg(CASE WHEN w.seq IS NULL OR w.room = ANY (bad) OR w.flags & 128 <> 0 THEN NULL
                   ELSE nextval('stream_pos_seq') END ORDER BY w.ord)
    INTO pos_of
    FROM unnest(e_room, e_seq, e_flags) WITH ORDINALITY AS w (room, seq, flags, ord);

  INSERT INTO event (room_nid, event_nid, room_seq, pos, depth, origin_ts, recv_ts, sender_nid,
    skey_nid, snap_nid, event_key, event_tail, type_nid, flags, notif_main, high_main,
    thread_key, thread_notif, thread_high, prev)
  SELECT w.room, w.nid, w.seq, w.pos, w.depth, w.ts, now_ms, w.sender, w.skey, w.snap, w.key, w.tail,
    w.typ, w.flags, w.notif, w.high, w.thread, w.tnotif, w.thigh, w.prev
  FROM unnest(e_room, e_nid, e_seq, pos_of, e_depth, e_ts, e_sender, e_skey, e_snap, e_key, e_tail,
    e_type, e_flags, notif_of, high_of, thread_of, thread_notif_of, thread_high_of, e_prev, e_known)
    AS w (room, nid, seq, pos, depth, ts, sender, skey, snap, key, tail, typ, flags, notif, high, thread,
      tnotif, thigh, prev, known)
  WHERE NOT w.known AND NOT w.room = ANY (bad);
  IF true = ANY (e_known) THEN
    UPDATE event e SET room_seq = w.seq, pos = w.pos, snap_nid = w.snap, flags = w.flags,
      notif_main = w.notif, high_main = w.high, thread_key = w.thread, thread_notif = w.tnotif,
      thread_high = w.thigh, prev = w.prev
    FROM unnest(e_room, e_nid, e_seq, pos_of, e_snap, e_flags, notif_of, high_of, thread_of,
        thread_notif_of, thread_high_of, e_prev, e_known)
      AS w (room, nid, seq, pos, snap, flags, notif, high, thread, tnotif, thigh, prev, known)
    WHERE w.known AND e.room_nid = w.room AND e.event_nid = w.nid AND NOT w.room = ANY (bad);
  END IF;

  IF cardinality(k_room) > 0 THEN
    INSERT INTO sticky_event (room_nid, event_nid, sender_nid, own, pos, ends_ts)
    SELECT k.room, k.event, w.sender, w.flags & 32 <> 0, w.pos, k.ends
    FROM unnest(k_room, k_event, k_ends) AS k (room, event, ends)
    JOIN unnest(e_nid, e_sender, e_flags, pos_of) AS w (nid, sender, flags, pos) ON w.nid = k.event
    WHERE NOT k.room = ANY (bad) AND NOT k.event = ANY (p_event)
    ON CONFLICT ON CONSTRAINT sticky_event_pkey DO UPDATE SET pos = EXCLUDED.pos;
  END IF;

  INSERT INTO stream_log (pos, kind, room_nid, user_nid, ref)
  SELECT w.pos, 1, w.room, w.usr, w.nid
  FROM unnest(pos_of, e_room, e_user, e_nid) AS w (pos, room, usr, nid) WHERE w.pos IS NOT NULL;

  IF EXISTS (SELECT 1 FROM unnest(e_flags) AS w (flags) WHERE w.flags & 4096 <> 0) THEN
    INSERT INTO search_todo (event_nid, room_nid)
    SELECT w.nid, w.room FROM unnest(e_nid, e_room, e_seq, e_flags) AS w (nid, room, seq, flags)
    WHERE w.seq IS NOT NULL AND w.flags & 4096 <> 0 AND NOT w.room = ANY (bad)
    ON CONFLICT DO NOTHING;
  END IF;

  INSERT INTO fed_outbox (pos, room_nid, event_nid, extra)
  SELECT w.pos, w.room, w.nid, CASE WHEN w.extra > 0 THEN ARRAY[w.extra] ELSE '{}' END
  FROM unnest(pos_of, e_room, e_nid, e_out) AS w (pos, room, nid, extra)
  WHERE w.pos IS NOT NULL AND w.extra IS NOT NULL;

  -- A room whose head is new has not been anywhere in a list of rooms: its first event counts.
  UPDATE room_head h SET last_pos = w.pos, notif_main = w.notif, high_main = w.high,
    bump_pos = CASE WHEN w.bump IS NOT NULL THEN w.bump WHEN h.bump_pos = 0 THEN w.pos ELSE h.bump_pos END
  FROM (SELECT u.room, max(u.pos) AS pos, max(u.notif) AS notif, max(u.high) AS high,
          max(u.pos) FILTER (WHERE u.flags & 1024 <> 0) AS bump
        FROM unnest(pos_of, e_room, notif_of, high_of, e_flags) AS u (pos, room, notif, high, flags)
        WHERE u.pos IS NOT NULL GROUP BY u.room) w
  WHERE h.room_nid = w.room;

  IF true = ANY (m_local) THEN
    -- Who has just joined has read what was before.
    INSERT INTO user_room AS ur (user_nid, room_nid, membership, event_nid, sender_nid, pos, push_class,
      read_seq, main_seq, read_notif, read_high)
    SELECT w.usr, w.room, w.membership, w.event, w.sender, coalesce(p.pos, before),
      CASE WHEN w.membership = 1 THEN push_class_of(w.usr, w.room) ELSE 0 END,
      coalesce(p.seq, h.head_seq, 0), coalesce(p.seq, h.head_seq, 0), coalesce(p.notif, h.notif_main, 0),
      coalesce(p.high, h.high_main, 0)
    FROM unnest(m_user, m_room, m_membership, m_event, m_sender, m_local)
      AS w (usr, room, membership, event, sender, is_local)
    LEFT JOIN unnest(e_nid, e_seq, pos_of, notif_of, high_of) AS p (nid, seq, pos, notif, high)
      ON p.nid = w.event AND p.pos IS NOT NULL
    LEFT JOIN room_head h ON h.room_nid = w.room
    WHERE w.is_local AND NOT w.room = ANY (bad)
    ON CONFLICT ON CONSTRAINT user_room_pkey DO UPDATE SET membership = EXCLUDED.membership,
      event_nid = EXCLUDED.event_nid, sender_nid = EXCLUDED.sender_nid, pos = EXCLUDED.pos,
      forgotten = ur.forgotten AND EXCLUDED.membership IN (3, 4), stripped = NULL,
      push_class = CASE WHEN ur.membership = 1 THEN ur.push_class ELSE EXCLUDED.push_class END,
      read_seq = CASE WHEN ur.membership = 1 THEN ur.read_seq ELSE EXCLUDED.read_seq END,
      main_seq = CASE WHEN ur.membership = 1 THEN ur.main_seq ELSE EXCLUDED.main_seq END,
      read_notif = CASE WHEN ur.membership = 1 THEN ur.read_notif ELSE EXCLUDED.read_notif END,
      read_high = CASE WHEN ur.membership = 1 THEN ur.read_high ELSE EXCLUDED.read_high END;
  END IF;

  IF cardinality(n_user) > 0 OR EXISTS (SELECT 1 FROM unnest(e_flags) AS w (flags) WHERE w.flags & 768 <> 0) THEN
    -- What was found for single users, and what the default rules say for those whose own rules
    -- count and were not asked: they became theirs just now.
    WITH live AS MATERIALIZED (
      SELECT w.room, w.seq, w.sender, w.thread, (w.flags >> 8) & 1 AS notify, (w.flags >> 9) & 1 AS high
      FROM unnest(e_room, e_seq, e_sender, e_flags, thread_of) AS w (room, seq, sender, flags, thread)
      WHERE w.seq IS NOT NULL AND w.flags & 128 = 0 AND NOT w.room = ANY (bad)
    ), asked AS MATERIALIZED (
      SELECT * FROM unnest(n_user, n_room, n_seq, n_notify, n_high) AS w (usr, room, seq, notify, high)
    ), counted AS (
      SELECT a.usr, l.room, l.seq, l.thread, u.push_class,
        a.notify - CASE u.push_class WHEN 0 THEN l.notify WHEN 2 THEN l.high ELSE 0 END AS notify,
        a.high - CASE WHEN u.push_class IN (0, 2) THEN l.high ELSE 0 END AS high
      FROM asked a
      JOIN live l ON l.room = a.room AND l.seq = a.seq
      JOIN user_room u ON u.user_nid = a.usr AND u.room_nid = a.room AND u.membership = 1
      UNION ALL
      SELECT u.user_nid, l.room, l.seq, l.thread, u.push_class, l.notify, l.high
      FROM live l
      JOIN user_room u ON u.room_nid = l.room AND u.push_class = 9 AND u.membership = 1
      WHERE l.notify + l.high > 0 AND u.user_nid <> l.sender
        AND NOT EXISTS (SELECT 1 FROM asked a WHERE a.usr = u.user_nid AND a.room = l.room AND a.seq = l.seq)
    )
    INSERT INTO mention (user_nid, room_nid, room_seq, thread_key, notify, high)
    SELECT c.usr, c.room, c.seq, c.thread, c.notify, c.high FROM counted c
    WHERE (c.notify <> 0 OR c.high <> 0) AND c.push_class <> 1
    ON CONFLICT DO NOTHING;
  END IF;

  -- Who writes in a room or a thread has read what was there.
  UPDATE user_room ur SET main_seq = w.seq,
    read_notif = CASE WHEN w.seq > ur.base_seq THEN w.notif ELSE ur.read_notif END,
    read_high = CASE WHEN w.seq > ur.base_seq THEN w.high ELSE ur.read_high END
  FROM (SELECT u.usr, u.room, max(u.seq) AS seq, max(u.notif) AS notif, max(u.high) AS high
        FROM unnest(e_sender, e_room, e_seq, e_flags, thread_of, notif_of, high_of)
          AS u (usr, room, seq, flags, thread, notif, high)
        WHERE u.seq IS NOT NULL AND u.thread IS NULL AND u.flags & 32 <> 0 AND u.flags & 128 = 0
          AND u.flags & 17152 <> 0
        GROUP BY u.usr, u.room) w
  WHERE ur.user_nid = w.usr AND ur.room_nid = w.room AND ur.main_seq < w.seq AND NOT w.room = ANY (bad);
  INSERT INTO thread_read AS tr (user_nid, room_nid, root_key, read_seq)
  SELECT u.usr, u.room, u.thread, max(u.seq)
  FROM unnest(e_sender, e_room, e_seq, e_flags, thread_of) AS u (usr, room, seq, flags, thread)
  WHERE u.seq IS NOT NULL AND u.thread IS NOT NULL AND u.flags & 32 <> 0 AND u.flags & 128 = 0
    AND u.flags & 17152 <> 0 AND NOT u.room = ANY (bad)
  GROUP BY u.usr, u.room, u.thread
  ON CONFLICT ON CONSTRAINT thread_read_pkey DO UPDATE SET read_seq = greatest(tr.read_seq, EXCLUDED.read_seq);

  RETURN QUERY SELECT 2::smallint, w.nid, w.pos FROM unnest(e_nid, pos_of) AS w (nid, pos) WHERE w.pos IS NOT NULL;
END $$;
