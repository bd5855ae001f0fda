-- Push rules, and unread counts for rooms, threads and users with rules of their own.

CREATE TABLE push_rule_set (
  user_nid bigint CONSTRAINT push_rule_set_pkey PRIMARY KEY,
  rev bigint NOT NULL,
  body text NOT NULL,
  class smallint NOT NULL,
  rooms jsonb NOT NULL,
  pos bigint NOT NULL
);
COMMENT ON TABLE push_rule_set IS 'Push rules of local users who have ever changed them, or ignore somebody';
COMMENT ON COLUMN push_rule_set.user_nid IS 'Local user';
COMMENT ON COLUMN push_rule_set.rev IS 'Compare-and-set token, +1 for each change';
COMMENT ON COLUMN push_rule_set.body IS 'JSON: own rules, and default rules as far as they were changed';
COMMENT ON COLUMN push_rule_set.class IS 'user_room.push_class of rooms that are not in rooms';
COMMENT ON COLUMN push_rule_set.rooms IS 'Object: room id to user_room.push_class';
COMMENT ON COLUMN push_rule_set.pos IS 'Stream position of the last change';

-- user_room.push_class as the rules of a user say.
CREATE FUNCTION push_class_of(usr bigint, room bigint) RETURNS smallint LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT coalesce((s.rooms ->> r.room_id)::smallint, s.class)
                   FROM push_rule_set s, room r WHERE s.user_nid = usr AND r.room_nid = room), 0::smallint)
$$;

ALTER TABLE room_head RENAME COLUMN notif_all TO notif_main;
ALTER TABLE room_head ADD COLUMN high_main int NOT NULL DEFAULT 0;
COMMENT ON COLUMN room_head.notif_main IS 'Cumulative count of events outside of threads that notify by the default push rules';
COMMENT ON COLUMN room_head.high_main IS 'Of those that highlight for everybody';

ALTER TABLE event RENAME COLUMN notif_all TO notif_main;
ALTER TABLE event ADD COLUMN high_main int NOT NULL DEFAULT 0, ADD COLUMN thread_key uuid,
  ADD COLUMN thread_notif int, ADD COLUMN thread_high int;
COMMENT ON COLUMN event.flags IS 'Bits: 1 outlier, 2 rejected, 4 soft-failed, 8 redacted, 32 sent by a local user, 128 backfilled, 256 notifies by default rules, 512 highlights by them for everybody';
COMMENT ON COLUMN event.notif_main IS 'room_head.notif_main after this event, where pos is set: unread counts are differences of two of these';
COMMENT ON COLUMN event.high_main IS 'room_head.high_main after this event';
COMMENT ON COLUMN event.thread_key IS 'event_key of the root of its thread; null: in none. Of events that relate to one of a thread, that thread';
COMMENT ON COLUMN event.thread_notif IS 'thread.notif after this event';
COMMENT ON COLUMN event.thread_high IS 'thread.high after this event';
CREATE INDEX event_thread_ix ON event (room_nid, thread_key, room_seq) WHERE thread_key IS NOT NULL AND pos IS NOT NULL;

CREATE TABLE thread (
  room_nid bigint NOT NULL,
  root_key uuid NOT NULL,
  root_id text COLLATE "C" NOT NULL,
  last_seq bigint NOT NULL,
  notif int NOT NULL,
  high int NOT NULL,
  CONSTRAINT thread_pkey PRIMARY KEY (room_nid, root_key)
);
COMMENT ON TABLE thread IS 'Threads and their counters; the root need not be known here';
COMMENT ON COLUMN thread.room_nid IS 'Room';
COMMENT ON COLUMN thread.root_key IS 'event_key of the root';
COMMENT ON COLUMN thread.root_id IS 'Event id of the root';
COMMENT ON COLUMN thread.last_seq IS 'room_seq of the newest event in it that counts; 0: none does';
COMMENT ON COLUMN thread.notif IS 'Cumulative count of its events that notify by the default push rules';
COMMENT ON COLUMN thread.high IS 'Of those that highlight for everybody';
CREATE INDEX thread_last_ix ON thread (room_nid, last_seq);

CREATE TABLE thread_read (
  user_nid bigint NOT NULL,
  room_nid bigint NOT NULL,
  root_key uuid NOT NULL,
  read_seq bigint NOT NULL,
  CONSTRAINT thread_read_pkey PRIMARY KEY (user_nid, room_nid, root_key)
);
COMMENT ON TABLE thread_read IS 'Up to where local users have read threads, where that is further than user_room.read_seq';
COMMENT ON COLUMN thread_read.user_nid IS 'Local user';
COMMENT ON COLUMN thread_read.room_nid IS 'Room';
COMMENT ON COLUMN thread_read.root_key IS 'Thread';
COMMENT ON COLUMN thread_read.read_seq IS 'room_seq up to which the user has read in it';
CREATE INDEX thread_read_room_ix ON thread_read (room_nid);

CREATE TABLE unread_void (
  room_nid bigint NOT NULL,
  room_seq bigint NOT NULL,
  thread_key uuid,
  notify smallint NOT NULL,
  high smallint NOT NULL,
  CONSTRAINT unread_void_pkey PRIMARY KEY (room_nid, room_seq)
);
COMMENT ON TABLE unread_void IS 'Events that the counters counted and that are redacted';
COMMENT ON COLUMN unread_void.room_nid IS 'Room';
COMMENT ON COLUMN unread_void.room_seq IS 'Event';
COMMENT ON COLUMN unread_void.thread_key IS 'Its thread';
COMMENT ON COLUMN unread_void.notify IS '1: it was counted as notification';
COMMENT ON COLUMN unread_void.high IS '1: it was counted as highlight';

ALTER TABLE user_room RENAME COLUMN read_all TO read_notif;
ALTER TABLE user_room ADD COLUMN read_high int NOT NULL DEFAULT 0, ADD COLUMN main_seq bigint NOT NULL DEFAULT 0,
  ADD COLUMN base_seq bigint NOT NULL DEFAULT 0, ADD COLUMN push_class smallint NOT NULL DEFAULT 0;
UPDATE user_room SET main_seq = read_seq;
COMMENT ON COLUMN user_room.read_seq IS 'room_seq up to which the user has read everything, threads too';
COMMENT ON COLUMN user_room.main_seq IS 'room_seq up to which the user has read outside of threads; never less than read_seq';
COMMENT ON COLUMN user_room.base_seq IS 'The counters count above this; what is unread below is in mention. Set when push_class changes';
COMMENT ON COLUMN user_room.read_notif IS 'event.notif_main at the greater of main_seq and base_seq';
COMMENT ON COLUMN user_room.read_high IS 'event.high_main there';
COMMENT ON COLUMN user_room.push_class IS '0 counted by the counters, 1 nothing counts, 2 highlights are counted by the counters, 9 each event by the rules of the user';
CREATE INDEX user_room_custom_ix ON user_room (room_nid) WHERE push_class = 9;

ALTER TABLE mention ADD COLUMN thread_key uuid, ADD COLUMN notify smallint NOT NULL DEFAULT 0,
  ADD COLUMN high smallint NOT NULL DEFAULT 1;
ALTER TABLE mention ALTER COLUMN notify DROP DEFAULT, ALTER COLUMN high DROP DEFAULT;
CREATE INDEX mention_room_ix ON mention (room_nid, room_seq);
COMMENT ON TABLE mention IS 'What unread events count for a local user beyond the counters of the room; rows go when a receipt passes them';
COMMENT ON COLUMN mention.room_seq IS 'The event';
COMMENT ON COLUMN mention.thread_key IS 'Its thread';
COMMENT ON COLUMN mention.notify IS 'Added to the notifications';
COMMENT ON COLUMN mention.high IS 'Added to the highlights';

-- Sets user_room.push_class after the rules of a user changed. What is unread stays so, as rows: rules
-- count for what comes after them. At most a thousand events a room are looked at.
CREATE FUNCTION push_reclass(usr bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  r record;
BEGIN
  FOR r IN
    SELECT u.room_nid, u.push_class AS old, push_class_of(usr, u.room_nid) AS new
    FROM user_room u WHERE u.user_nid = usr AND u.membership = 1 ORDER BY u.room_nid
  LOOP
    CONTINUE WHEN r.old = r.new;
    -- No event may be added meanwhile. The same order as append_events: heads, then user_room.
    PERFORM 1 FROM room_head WHERE room_nid = r.room_nid FOR SHARE;
    IF r.old IN (0, 2) THEN
      INSERT INTO mention AS m (user_nid, room_nid, room_seq, thread_key, notify, high)
      SELECT usr, r.room_nid, e.room_seq, e.thread_key,
        CASE r.old WHEN 0 THEN (e.flags >> 8) & 1 ELSE (e.flags >> 9) & 1 END, (e.flags >> 9) & 1
      FROM user_room u
      CROSS JOIN LATERAL (
        SELECT v.room_seq, v.thread_key, v.flags FROM event v
        WHERE v.room_nid = u.room_nid AND v.room_seq > greatest(u.base_seq, u.read_seq)
        ORDER BY v.room_seq DESC LIMIT 1000) e
      LEFT JOIN thread_read tr ON tr.user_nid = usr AND tr.room_nid = u.room_nid AND tr.root_key = e.thread_key
      WHERE u.user_nid = usr AND u.room_nid = r.room_nid
        AND e.flags & 136 = 0 AND e.flags & CASE r.old WHEN 0 THEN 768 ELSE 512 END <> 0
        AND e.room_seq > CASE WHEN e.thread_key IS NULL THEN u.main_seq ELSE coalesce(tr.read_seq, 0) END
      ON CONFLICT ON CONSTRAINT mention_pkey
        DO UPDATE SET notify = m.notify + EXCLUDED.notify, high = m.high + EXCLUDED.high;
    END IF;
    UPDATE user_room u SET push_class = r.new, base_seq = h.head_seq, read_notif = h.notif_main, read_high = h.high_main
    FROM room_head h
    WHERE u.user_nid = usr AND u.room_nid = r.room_nid AND h.room_nid = u.room_nid;
  END LOOP;
END $$;

-- append_events, which counts, is made anew in the migration of sliding sync.
