-- Simplified sliding sync (MSC4186): what a connection was told, and the order of rooms in a list.

CREATE TABLE sliding_connection (
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  name text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  used_ts bigint NOT NULL,
  body bytea NOT NULL,
  CONSTRAINT sliding_connection_pkey PRIMARY KEY (user_nid, device_no, name, version)
) WITH (fillfactor = 80);
COMMENT ON TABLE sliding_connection IS 'What connections of sliding sync were told: the version that the client has, and the one in the answer to it';
COMMENT ON COLUMN sliding_connection.user_nid IS 'Local user';
COMMENT ON COLUMN sliding_connection.device_no IS 'Device';
COMMENT ON COLUMN sliding_connection.name IS 'conn_id; empty where the client gives none';
COMMENT ON COLUMN sliding_connection.version IS 'Random; part of pos. A row never changes but for used_ts';
COMMENT ON COLUMN sliding_connection.used_ts IS 'When it was written or last read';
COMMENT ON COLUMN sliding_connection.body IS 'JSON, coded as event_json.body';
CREATE INDEX sliding_connection_used_ix ON sliding_connection (used_ts);

ALTER TABLE room_head ADD COLUMN bump_pos bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN room_head.bump_pos IS 'Position of the newest event that moves the room up in lists (messages and their like)';
UPDATE room_head h SET bump_pos = coalesce((
  SELECT e.pos FROM event e JOIN ev_type t USING (type_nid)
  WHERE e.room_nid = h.room_nid AND e.room_seq IS NOT NULL AND e.pos IS NOT NULL AND t.name IN ('m.room.create',
    'm.room.message', 'm.room.encrypted', 'm.sticker', 'm.call.invite', 'm.poll.start', 'org.matrix.msc3381.poll.start',
    'm.beacon_info', 'org.matrix.msc3672.beacon_info')
  ORDER BY e.room_seq DESC LIMIT 1), h.last_pos);
COMMENT ON COLUMN event.flags IS 'Bits: 1 outlier, 2 rejected, 4 soft-failed, 8 redacted, 16 state before lacks members, 32 sent by a local user, 64 accepted after all and not shown yet, 128 backfilled, 256 notifies by default rules, 512 moves the room up in lists';

-- As before, and keeps bump_pos.
CREATE OR REPLACE FUNCTION append_events(
  now_ms bigint,
  r_room bigint[], r_rev bigint[], r_new_rev bigint[], r_seq bigint[], r_depth bigint[],
  r_snap bigint[], r_extrem bytea[], r_ts bigint[], r_notif int[],
  e_nid bigint[], e_room bigint[], e_seq bigint[], e_depth bigint[], e_ts bigint[],
  e_sender bigint[], e_user bigint[], e_skey bigint[], e_snap bigint[], e_key uuid[], e_tail uuid[],
  e_type int[], e_flags int[], e_notif int[], e_prev bytea[], e_auth bytea[], e_body bytea[],
  e_known boolean[], e_out int[],
  s_room bigint[], s_nid bigint[], s_parent bigint[], s_gen int[], s_since int[], s_delta bytea[],
  c_room bigint[], c_nid bigint[], c_n int[], c_body bytea[],
  m_room bigint[], m_user bigint[], m_server int[], m_membership smallint[], m_event bigint[],
  m_sender bigint[], m_local boolean[],
  t_hash uuid[], t_room bigint[], t_event bigint[],
  n_user bigint[], n_room bigint[], n_seq bigint[],
  x_room bigint[], x_id text[], x_child bigint[],
  d_room bigint[], d_target text[], d_event bigint[], d_applied boolean[],
  p_room bigint[], p_event bigint[], p_state boolean[], p_body bytea[]
) RETURNS TABLE (what smallint, a bigint, b bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  bad bigint[] := '{}';
  stale bigint[];
  dup record;
  before bigint;
  pos_of bigint[];
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
    SELECT * FROM unnest(r_room, r_rev, r_new_rev, r_seq, r_depth, r_snap, r_extrem, r_ts, r_notif)
      AS w (room, rev, new_rev, seq, depth, snap, extrem, ts, notif)
    WHERE NOT room = ANY (bad)
  ), fresh AS (
    INSERT INTO room_head (room_nid, rev, head_seq, depth, snap_nid, extrem, last_pos, last_ts, notif_all)
    SELECT room, new_rev, seq, depth, snap, extrem, 0, ts, notif FROM w WHERE rev = -1
    ON CONFLICT ON CONSTRAINT room_head_pkey DO NOTHING
    RETURNING room_nid
  ), moved AS (
    UPDATE room_head h SET rev = w.new_rev, head_seq = w.seq, depth = w.depth, snap_nid = w.snap,
      extrem = w.extrem, last_ts = w.ts, notif_all = w.notif
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
  IF cardinality(n_user) > 0 THEN
    INSERT INTO mention (user_nid, room_nid, room_seq)
    SELECT * FROM unnest(n_user, n_room, n_seq) AS w (usr, room, seq) WHERE NOT w.room = ANY (bad)
    ON CONFLICT DO NOTHING;
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
    UPDATE event e SET flags = e.flags | 8
    FROM unnest(p_room, p_event) AS w (room, event)
    WHERE e.room_nid = w.room AND e.event_nid = w.event AND NOT w.room = ANY (bad);
  END IF;
  IF cardinality(m_room) > 0 THEN
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

  -- Positions last: from here to the commit every sync waits for us.
  SELECT array_agg(CASE WHEN w.seq IS NULL OR w.room = ANY (bad) OR w.flags & 128 <> 0 THEN NULL
                   ELSE nextval('stream_pos_seq') END ORDER BY w.ord)
    INTO pos_of
    FROM unnest(e_room, e_seq, e_flags) WITH ORDINALITY AS w (room, seq, flags, ord);

  INSERT INTO event (room_nid, event_nid, room_seq, pos, depth, origin_ts, recv_ts, sender_nid,
    skey_nid, snap_nid, event_key, event_tail, type_nid, flags, notif_all, prev)
  SELECT w.room, w.nid, w.seq, w.pos, w.depth, w.ts, now_ms, w.sender, w.skey, w.snap, w.key, w.tail,
    w.typ, w.flags, w.notif, w.prev
  FROM unnest(e_room, e_nid, e_seq, pos_of, e_depth, e_ts, e_sender, e_skey, e_snap, e_key, e_tail,
    e_type, e_flags, e_notif, e_prev, e_known)
    AS w (room, nid, seq, pos, depth, ts, sender, skey, snap, key, tail, typ, flags, notif, prev, known)
  WHERE NOT w.known AND NOT w.room = ANY (bad);
  IF true = ANY (e_known) THEN
    UPDATE event e SET room_seq = w.seq, pos = w.pos, snap_nid = w.snap, flags = w.flags,
      notif_all = w.notif, prev = w.prev
    FROM unnest(e_room, e_nid, e_seq, pos_of, e_snap, e_flags, e_notif, e_prev, e_known)
      AS w (room, nid, seq, pos, snap, flags, notif, prev, known)
    WHERE w.known AND e.room_nid = w.room AND e.event_nid = w.nid AND NOT w.room = ANY (bad);
  END IF;

  INSERT INTO stream_log (pos, kind, room_nid, user_nid, ref)
  SELECT w.pos, 1, w.room, w.usr, w.nid
  FROM unnest(pos_of, e_room, e_user, e_nid) AS w (pos, room, usr, nid) WHERE w.pos IS NOT NULL;

  INSERT INTO fed_outbox (pos, room_nid, event_nid, extra)
  SELECT w.pos, w.room, w.nid, CASE WHEN w.extra > 0 THEN ARRAY[w.extra] ELSE '{}' END
  FROM unnest(pos_of, e_room, e_nid, e_out) AS w (pos, room, nid, extra)
  WHERE w.pos IS NOT NULL AND w.extra IS NOT NULL;

  -- A room whose head is new has not been anywhere in a list of rooms: its first event counts.
  UPDATE room_head h SET last_pos = w.pos,
    bump_pos = CASE WHEN w.bump IS NOT NULL THEN w.bump WHEN h.bump_pos = 0 THEN w.pos ELSE h.bump_pos END
  FROM (SELECT u.room, max(u.pos) AS pos, max(u.pos) FILTER (WHERE u.flags & 512 <> 0) AS bump
        FROM unnest(pos_of, e_room, e_flags) AS u (pos, room, flags)
        WHERE u.pos IS NOT NULL GROUP BY u.room) w
  WHERE h.room_nid = w.room;

  IF true = ANY (m_local) THEN
    INSERT INTO user_room AS ur (user_nid, room_nid, membership, event_nid, sender_nid, pos)
    SELECT w.usr, w.room, w.membership, w.event, w.sender, coalesce(p.pos, before)
    FROM unnest(m_user, m_room, m_membership, m_event, m_sender, m_local)
      AS w (usr, room, membership, event, sender, is_local)
    LEFT JOIN unnest(e_nid, pos_of) AS p (nid, pos) ON p.nid = w.event
    WHERE w.is_local AND NOT w.room = ANY (bad)
    ON CONFLICT ON CONSTRAINT user_room_pkey DO UPDATE SET membership = EXCLUDED.membership,
      event_nid = EXCLUDED.event_nid, sender_nid = EXCLUDED.sender_nid, pos = EXCLUDED.pos,
      forgotten = ur.forgotten AND EXCLUDED.membership IN (3, 4), stripped = NULL;
  END IF;
  -- What one sends oneself is read; who has just joined has read what was before.
  UPDATE user_room ur SET read_seq = w.seq, read_all = w.notif
  FROM (SELECT u.usr, u.room, max(u.seq) AS seq, max(u.notif) AS notif
        FROM unnest(e_sender, e_room, e_seq, e_notif, e_flags) AS u (usr, room, seq, notif, flags)
        WHERE u.seq IS NOT NULL AND u.flags & 32 <> 0 AND u.flags & 128 = 0 GROUP BY u.usr, u.room) w
  WHERE ur.user_nid = w.usr AND ur.room_nid = w.room AND NOT w.room = ANY (bad);

  RETURN QUERY SELECT 2::smallint, w.nid, w.pos FROM unnest(e_nid, pos_of) AS w (nid, pos) WHERE w.pos IS NOT NULL;
END $$;
