-- Device lists: those of users of peers, kept while they share a room with one of ours, and how far ours have got.

CREATE TABLE device_list (
  user_nid bigint CONSTRAINT device_list_pkey PRIMARY KEY,
  stream_id bigint,
  fresh boolean NOT NULL DEFAULT false,
  rev int NOT NULL DEFAULT (random() * 1000000000)::int,
  retry_ts bigint NOT NULL DEFAULT 0,
  pause_ms bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE device_list IS 'Users of peers whose devices somebody here asked for; the row goes when they share no room with us any more';
COMMENT ON COLUMN device_list.user_nid IS 'User of a peer';
COMMENT ON COLUMN device_list.stream_id IS 'How far the copy is by the count of the peer; null: not known, the next update shows a gap';
COMMENT ON COLUMN device_list.fresh IS 'Whether remote_device and remote_cross_key may be served';
COMMENT ON COLUMN device_list.rev IS '+1 for each change by an update: an answer that was asked for before it is not taken for fresh. Begins at random, so that a row made anew differs from the one before';
COMMENT ON COLUMN device_list.retry_ts IS 'Not asked for anew by ourselves before; the questions of users do not wait';
COMMENT ON COLUMN device_list.pause_ms IS 'Pause after the last failure; 0: none';
CREATE INDEX device_list_stale_ix ON device_list (retry_ts) WHERE NOT fresh;

CREATE TABLE remote_device (
  user_nid bigint NOT NULL CONSTRAINT remote_device_list_fkey REFERENCES device_list ON DELETE CASCADE,
  device_id text COLLATE "C" NOT NULL,
  display_name text,
  body text NOT NULL,
  CONSTRAINT remote_device_pkey PRIMARY KEY (user_nid, device_id)
);
COMMENT ON TABLE remote_device IS 'Identity keys of devices of users of peers';
COMMENT ON COLUMN remote_device.user_nid IS 'Owner';
COMMENT ON COLUMN remote_device.device_id IS 'Device';
COMMENT ON COLUMN remote_device.display_name IS 'Its name';
COMMENT ON COLUMN remote_device.body IS 'The keys as the peer sent them, JSON; user and device in it are those of the row';

CREATE TABLE remote_cross_key (
  user_nid bigint NOT NULL CONSTRAINT remote_cross_key_list_fkey REFERENCES device_list ON DELETE CASCADE,
  kind text COLLATE "C" NOT NULL,
  body text NOT NULL,
  CONSTRAINT remote_cross_key_pkey PRIMARY KEY (user_nid, kind)
);
COMMENT ON TABLE remote_cross_key IS 'Cross-signing keys of users of peers';
COMMENT ON COLUMN remote_cross_key.user_nid IS 'Owner';
COMMENT ON COLUMN remote_cross_key.kind IS 'master or self_signing';
COMMENT ON COLUMN remote_cross_key.body IS 'The key as the peer sent it, JSON';

CREATE TABLE device_stream (
  user_nid bigint CONSTRAINT device_stream_pkey PRIMARY KEY,
  stream_id bigint NOT NULL
);
COMMENT ON TABLE device_stream IS 'stream_id of the last m.device_list_update of a user of ours; each names the one before';
COMMENT ON COLUMN device_stream.user_nid IS 'User';
COMMENT ON COLUMN device_stream.stream_id IS 'Counts from 1 without gaps';

-- Of some users of peers those whose devices we are kept up to date about: the peer sends us changes while one of ours
-- is in a room with them.
CREATE FUNCTION tracked_users(users bigint[]) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
  SELECT u.nid FROM unnest(users) AS u (nid)
  WHERE EXISTS (
    SELECT 1 FROM member m
    JOIN user_room l ON l.room_nid = m.room_nid AND l.membership = 1
    WHERE m.user_nid = u.nid AND m.membership = 1)
$$;

-- A list that nobody keeps up to date must not be served when its user comes back, so it goes with the membership, in
-- the same transaction, however the membership ends. Rows are locked before the look: of two rooms left at once, the
-- second to come sees the first.
CREATE FUNCTION forget_device_lists(candidates bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  held bigint[];
BEGIN
  SELECT array_agg(user_nid) INTO held FROM
    (SELECT user_nid FROM device_list WHERE user_nid = ANY (candidates) ORDER BY user_nid FOR UPDATE) l;
  IF held IS NOT NULL THEN
    DELETE FROM device_list
    WHERE user_nid = ANY (held) AND user_nid NOT IN (SELECT * FROM tracked_users(held));
  END IF;
END $$;

CREATE FUNCTION member_left() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  gone bigint[];
BEGIN
  SELECT array_agg(DISTINCT n.user_nid) INTO gone
  FROM new_rows n JOIN old_rows o ON o.room_nid = n.room_nid AND o.user_nid = n.user_nid
  WHERE o.membership = 1 AND n.membership <> 1;
  IF gone IS NOT NULL THEN
    PERFORM forget_device_lists(gone);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER member_left AFTER UPDATE ON member
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION member_left();

CREATE FUNCTION local_member_left() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  others bigint[];
BEGIN
  IF NOT EXISTS (SELECT 1 FROM user_room WHERE room_nid = NEW.room_nid AND membership = 1) THEN
    SELECT array_agg(m.user_nid) INTO others FROM member m
    JOIN device_list d ON d.user_nid = m.user_nid
    WHERE m.room_nid = NEW.room_nid AND m.membership = 1;
    IF others IS NOT NULL THEN
      PERFORM forget_device_lists(others);
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER local_member_left AFTER UPDATE OF membership ON user_room
  FOR EACH ROW WHEN (OLD.membership = 1 AND NEW.membership <> 1)
  EXECUTE FUNCTION local_member_left();

-- Which members came and went after a position: sync asks that for device lists.
CREATE INDEX event_member_pos_ix ON event (room_nid, pos) WHERE type_nid = 1 AND pos IS NOT NULL;
