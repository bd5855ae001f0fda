-- What redacted events said, for a while, where the operator wants it (MSC2815).

CREATE TABLE event_unredacted (
  event_nid bigint CONSTRAINT event_unredacted_pkey PRIMARY KEY,
  room_nid bigint NOT NULL,
  body bytea NOT NULL,
  kept_ts bigint NOT NULL
);
COMMENT ON TABLE event_unredacted IS 'Events as they were before they were redacted, for those who may redact; deleted after some days';
COMMENT ON COLUMN event_unredacted.event_nid IS 'Event';
COMMENT ON COLUMN event_unredacted.room_nid IS 'Its room';
COMMENT ON COLUMN event_unredacted.body IS 'The event as JSON, packed as in event_json';
COMMENT ON COLUMN event_unredacted.kept_ts IS 'When it was redacted, in milliseconds';
CREATE INDEX event_unredacted_room_ix ON event_unredacted (room_nid);
CREATE INDEX event_unredacted_kept_ix ON event_unredacted (kept_ts);
