-- Operators and rooms: what they block, what they delete, what they see in a list.

CREATE TABLE room_block (
  room_id text COLLATE "C" CONSTRAINT room_block_pkey PRIMARY KEY,
  user_nid bigint NOT NULL,
  since_ts bigint NOT NULL
);
COMMENT ON TABLE room_block IS 'Rooms that no local user may enter; also such that we have never heard of';
COMMENT ON COLUMN room_block.room_id IS 'Room id';
COMMENT ON COLUMN room_block.user_nid IS 'Administrator who blocked it';
COMMENT ON COLUMN room_block.since_ts IS 'When';

CREATE TABLE room_deletion (
  delete_id text COLLATE "C" CONSTRAINT room_deletion_pkey PRIMARY KEY,
  room_id text COLLATE "C" NOT NULL,
  user_nid bigint NOT NULL,
  order_json text NOT NULL,
  status text NOT NULL,
  result_json text NOT NULL,
  error text,
  created_ts bigint NOT NULL,
  done_ts bigint
);
COMMENT ON TABLE room_deletion IS 'Deletions of rooms that administrators ordered; kept for a day after their end';
COMMENT ON COLUMN room_deletion.delete_id IS 'Id that the administrator got';
COMMENT ON COLUMN room_deletion.room_id IS 'Room';
COMMENT ON COLUMN room_deletion.user_nid IS 'Administrator';
COMMENT ON COLUMN room_deletion.order_json IS 'What was ordered: block, purge, new room, as JSON';
COMMENT ON COLUMN room_deletion.status IS 'scheduled, active, complete or failed';
COMMENT ON COLUMN room_deletion.result_json IS 'Who was removed so far, and the new room, as JSON';
COMMENT ON COLUMN room_deletion.error IS 'Why it failed; null: it did not';
COMMENT ON COLUMN room_deletion.created_ts IS 'When it was ordered';
COMMENT ON COLUMN room_deletion.done_ts IS 'When it ended; null: it has not';
CREATE INDEX room_deletion_room_ix ON room_deletion (room_id, created_ts);

CREATE TABLE room_summary (
  room_nid bigint CONSTRAINT room_summary_pkey PRIMARY KEY,
  snap_nid bigint NOT NULL,
  name text,
  canonical_alias text,
  creator text NOT NULL,
  encryption text,
  federatable boolean NOT NULL,
  join_rules text,
  guest_access text,
  history_visibility text,
  room_type text,
  state_events bigint NOT NULL
);
COMMENT ON TABLE room_summary IS 'What the list of rooms of administrators shows and sorts by; made anew when it is asked for and the state has changed';
COMMENT ON COLUMN room_summary.room_nid IS 'Room';
COMMENT ON COLUMN room_summary.snap_nid IS 'State that it was made of';
COMMENT ON COLUMN room_summary.name IS 'm.room.name';
COMMENT ON COLUMN room_summary.canonical_alias IS 'm.room.canonical_alias';
COMMENT ON COLUMN room_summary.creator IS 'Who created the room';
COMMENT ON COLUMN room_summary.encryption IS 'Algorithm of m.room.encryption';
COMMENT ON COLUMN room_summary.federatable IS 'Whether users of other servers may join';
COMMENT ON COLUMN room_summary.join_rules IS 'm.room.join_rules';
COMMENT ON COLUMN room_summary.guest_access IS 'm.room.guest_access';
COMMENT ON COLUMN room_summary.history_visibility IS 'm.room.history_visibility';
COMMENT ON COLUMN room_summary.room_type IS 'Type in m.room.create';
COMMENT ON COLUMN room_summary.state_events IS 'Number of state events';
