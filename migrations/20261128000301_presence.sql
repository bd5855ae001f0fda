-- Presence: who is there, as others were told. What changes from minute to minute stays in memory.

CREATE TABLE presence (
  user_nid bigint CONSTRAINT presence_pkey PRIMARY KEY,
  local boolean NOT NULL,
  state smallint NOT NULL,
  status_msg text,
  currently_active boolean NOT NULL,
  last_active_ts bigint NOT NULL,
  seen_ts bigint NOT NULL,
  pos bigint NOT NULL
) WITH (fillfactor = 80);
COMMENT ON TABLE presence IS 'Presence of users of ours, and of users of peers as these tell it';
COMMENT ON COLUMN presence.user_nid IS 'User';
COMMENT ON COLUMN presence.local IS 'Whether it is a user of ours';
COMMENT ON COLUMN presence.state IS '0 offline, 1 unavailable, 2 online';
COMMENT ON COLUMN presence.status_msg IS 'What the user says about it';
COMMENT ON COLUMN presence.currently_active IS 'Whether the user was active when the state was told';
COMMENT ON COLUMN presence.last_active_ts IS 'When the user last did something, milliseconds since 1970; written once a minute at most. 0: not known';
COMMENT ON COLUMN presence.seen_ts IS 'When a client of the user last spoke to us, or its server told of it; written once a minute at most';
COMMENT ON COLUMN presence.pos IS 'Position of the last change';
CREATE INDEX presence_pos_ix ON presence (pos);
-- Not by time: that is written often, and a row of which no indexed column changes is written in place.
CREATE INDEX presence_there_ix ON presence (user_nid) WHERE state > 0;
