-- Relations of events: what is related to what, who wrote how much in which thread.

CREATE TABLE relation (
  room_nid bigint NOT NULL,
  child_nid bigint NOT NULL,
  parent_key uuid NOT NULL,
  rel_nid int NOT NULL,
  room_seq bigint NOT NULL,
  type_nid int NOT NULL,
  sender_nid bigint NOT NULL,
  key uuid,
  edit_ts bigint,
  CONSTRAINT relation_pkey PRIMARY KEY (room_nid, child_nid)
);
COMMENT ON TABLE relation IS 'Relations of message events of timelines (m.relates_to with a rel_type); the event that they relate to need not be here';
COMMENT ON COLUMN relation.room_nid IS 'Room';
COMMENT ON COLUMN relation.child_nid IS 'The event that relates to another; redacted ones relate to nothing';
COMMENT ON COLUMN relation.parent_key IS 'event_key of the event that it relates to';
COMMENT ON COLUMN relation.rel_nid IS 'Relation type, interned as event types are';
COMMENT ON COLUMN relation.room_seq IS 'event.room_seq of the child';
COMMENT ON COLUMN relation.type_nid IS 'Event type of the child';
COMMENT ON COLUMN relation.sender_nid IS 'Sender of the child';
COMMENT ON COLUMN relation.key IS 'First 16 bytes of the SHA-256 of the key of an annotation; null: it is none';
COMMENT ON COLUMN relation.edit_ts IS 'origin_server_ts of what has the form of a replacement; null: it has not';
CREATE INDEX relation_parent_ix ON relation (room_nid, parent_key, rel_nid, room_seq);
CREATE INDEX relation_edit_ix ON relation (room_nid, parent_key, sender_nid, type_nid, edit_ts) WHERE edit_ts IS NOT NULL;
CREATE INDEX relation_key_ix ON relation (room_nid, parent_key, sender_nid, key) WHERE key IS NOT NULL;

CREATE TABLE thread_part (
  room_nid bigint NOT NULL,
  root_key uuid NOT NULL,
  sender_nid bigint NOT NULL,
  n int NOT NULL,
  last_seq bigint NOT NULL,
  CONSTRAINT thread_part_pkey PRIMARY KEY (room_nid, root_key, sender_nid)
) WITH (fillfactor = 80);
COMMENT ON TABLE thread_part IS 'Who wrote in a thread: its summary for a user is the sum of those whom the user does not ignore';
COMMENT ON COLUMN thread_part.room_nid IS 'Room';
COMMENT ON COLUMN thread_part.root_key IS 'event_key of the root';
COMMENT ON COLUMN thread_part.sender_nid IS 'Who';
COMMENT ON COLUMN thread_part.n IS 'Events in the thread, without redacted ones';
COMMENT ON COLUMN thread_part.last_seq IS 'room_seq of the newest of them';

ALTER TABLE thread ADD COLUMN reply_seq bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN thread.reply_seq IS 'room_seq of the newest event in it that is not redacted; 0: there is none';
CREATE INDEX thread_reply_ix ON thread (room_nid, reply_seq) WHERE reply_seq > 0;

CREATE TABLE relation_todo (
  room_nid bigint CONSTRAINT relation_todo_pkey PRIMARY KEY,
  after_nid bigint NOT NULL
);
COMMENT ON TABLE relation_todo IS 'Rooms whose events from before relations were kept are still looked through, in the background';
COMMENT ON COLUMN relation_todo.room_nid IS 'Room';
COMMENT ON COLUMN relation_todo.after_nid IS 'event_nid up to which that is done';
INSERT INTO relation_todo (room_nid, after_nid) SELECT room_nid, 0 FROM room_head;

INSERT INTO ev_type (name) VALUES ('m.annotation'), ('m.reference'), ('m.replace'), ('m.thread') ON CONFLICT DO NOTHING;

-- Writes relations; what is there already stays. r_root: the id of the root, for events of threads
-- only.
CREATE FUNCTION relate(
  r_room bigint[], r_child bigint[], r_seq bigint[], r_sender bigint[], r_type int[], r_parent uuid[],
  r_rel int[], r_root text[], r_key uuid[], r_edit bigint[]
) RETURNS void LANGUAGE sql AS $$
  WITH given AS (
    SELECT * FROM unnest(r_room, r_child, r_seq, r_sender, r_type, r_parent, r_rel, r_root, r_key, r_edit)
      AS w (room, child, seq, sender, typ, parent, rel, root, key, edit)
  ), fresh AS (
    INSERT INTO relation (room_nid, child_nid, parent_key, rel_nid, room_seq, type_nid, sender_nid, key, edit_ts)
    SELECT room, child, parent, rel, seq, typ, sender, key, edit FROM given
    ON CONFLICT ON CONSTRAINT relation_pkey DO NOTHING
    RETURNING room_nid, child_nid
  ), replies AS (
    SELECT g.* FROM given g JOIN fresh f ON f.room_nid = g.room AND f.child_nid = g.child
    WHERE g.root IS NOT NULL
  ), parts AS (
    INSERT INTO thread_part AS p (room_nid, root_key, sender_nid, n, last_seq)
    SELECT room, parent, sender, count(*), max(seq) FROM replies
    GROUP BY room, parent, sender ORDER BY room, parent, sender
    ON CONFLICT ON CONSTRAINT thread_part_pkey
      DO UPDATE SET n = p.n + EXCLUDED.n, last_seq = greatest(p.last_seq, EXCLUDED.last_seq)
  )
  INSERT INTO thread AS t (room_nid, root_key, root_id, last_seq, notif, high, reply_seq)
  SELECT room, parent, max(root), 0, 0, 0, max(seq) FROM replies GROUP BY room, parent ORDER BY room, parent
  ON CONFLICT ON CONSTRAINT thread_pkey DO UPDATE SET reply_seq = greatest(t.reply_seq, EXCLUDED.reply_seq)
$$;

-- Takes away the relations of events that are redacted. The lock on room_head is the caller's.
CREATE FUNCTION unrelate(u_room bigint[], u_child bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  gone record;
BEGIN
  FOR gone IN
    DELETE FROM relation r USING unnest(u_room, u_child) AS w (room, child), ev_type t
    WHERE r.room_nid = w.room AND r.child_nid = w.child AND t.type_nid = r.rel_nid
    RETURNING r.room_nid, r.parent_key, r.rel_nid, r.sender_nid, t.name
  LOOP
    CONTINUE WHEN gone.name <> 'm.thread';
    -- The same order as above: older events come without the lock on room_head.
    PERFORM 1 FROM thread t WHERE t.room_nid = gone.room_nid AND t.root_key = gone.parent_key FOR UPDATE;
    UPDATE thread_part p SET n = p.n - 1, last_seq = coalesce((
      SELECT r.room_seq FROM relation r
      WHERE r.room_nid = gone.room_nid AND r.parent_key = gone.parent_key AND r.rel_nid = gone.rel_nid
        AND r.sender_nid = gone.sender_nid
      ORDER BY r.room_seq DESC LIMIT 1), 0)
    WHERE p.room_nid = gone.room_nid AND p.root_key = gone.parent_key AND p.sender_nid = gone.sender_nid;
    DELETE FROM thread_part p
    WHERE p.room_nid = gone.room_nid AND p.root_key = gone.parent_key AND p.sender_nid = gone.sender_nid AND p.n <= 0;
    UPDATE thread t SET reply_seq = coalesce((
      SELECT max(p.last_seq) FROM thread_part p
      WHERE p.room_nid = gone.room_nid AND p.root_key = gone.parent_key), 0)
    WHERE t.room_nid = gone.room_nid AND t.root_key = gone.parent_key;
  END LOOP;
END $$;
