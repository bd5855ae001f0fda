-- Functions of the write path: one round trip for each batch of events (docs/adr/0004).

INSERT INTO ev_type (type_nid, name) OVERRIDING SYSTEM VALUE VALUES
  (1, 'm.room.member'), (2, 'm.room.create'), (3, 'm.room.power_levels'), (4, 'm.room.join_rules'),
  (5, 'm.room.history_visibility'), (6, 'm.room.message'), (7, 'm.room.encrypted'),
  (8, 'm.room.redaction'), (9, 'm.room.name'), (10, 'm.room.topic'), (11, 'm.room.canonical_alias'),
  (12, 'm.room.avatar'), (13, 'm.room.guest_access'), (14, 'm.room.third_party_invite'),
  (15, 'm.room.encryption'), (16, 'm.room.server_acl'), (17, 'm.room.tombstone'), (18, 'm.reaction');
ALTER TABLE ev_type ALTER COLUMN type_nid RESTART WITH 1000;

-- Log rows for everything but events. The transaction gets its id before it draws a position: a
-- gap in the positions can then be told from a transaction that is still running.
CREATE FUNCTION log_append(kinds smallint[], rooms bigint[], users bigint[], refs bigint[])
RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_current_xact_id();
  RETURN QUERY
    INSERT INTO stream_log (pos, kind, room_nid, user_nid, ref)
    SELECT nextval('stream_pos_seq'), w.kind, w.room, w.usr, w.ref
    FROM unnest(kinds, rooms, users, refs) WITH ORDINALITY AS w (kind, room, usr, ref, ord)
    ORDER BY w.ord
    RETURNING pos;
END $$;

-- Jumps over every position that a client may have seen before PostgreSQL was restarted, failed
-- over or restored. Under an advisory lock: of several nodes one jumps.
CREATE FUNCTION epoch_check(jump bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  now_running text;
  lo bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(7021993);
  SELECT s.system_identifier || ':' || c.timeline_id || ':' || pg_postmaster_start_time()
    INTO now_running
    FROM pg_control_system() s, pg_control_checkpoint() c;
  IF EXISTS (SELECT 1 FROM stream_epoch WHERE started = now_running) THEN
    RETURN;
  END IF;
  SELECT last_value INTO lo FROM stream_pos_seq;
  PERFORM setval('stream_pos_seq', lo + jump);
  INSERT INTO stream_epoch (started, lo, hi) VALUES (now_running, lo, lo + jump);
END $$;
