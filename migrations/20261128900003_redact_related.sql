-- What is redacted with an event that it relates to (MSC3912).

CREATE TABLE redact_todo (
  room_nid bigint NOT NULL,
  target_key uuid NOT NULL,
  user_nid bigint NOT NULL,
  rels text[] NOT NULL,
  reason text,
  after_seq bigint NOT NULL,
  upto_seq bigint NOT NULL,
  ts bigint NOT NULL,
  CONSTRAINT redact_todo_pkey PRIMARY KEY (room_nid, target_key, user_nid)
);
COMMENT ON TABLE redact_todo IS 'Events whose relations are redacted as well, in the background';
COMMENT ON COLUMN redact_todo.room_nid IS 'Room';
COMMENT ON COLUMN redact_todo.target_key IS 'event_key of the event';
COMMENT ON COLUMN redact_todo.user_nid IS 'Local user who wants it';
COMMENT ON COLUMN redact_todo.rels IS 'Relation types; * stands for all';
COMMENT ON COLUMN redact_todo.reason IS 'Why, as the user says';
COMMENT ON COLUMN redact_todo.after_seq IS 'room_seq up to which it is done';
COMMENT ON COLUMN redact_todo.upto_seq IS 'room_seq up to which it is to be done: what was there when it was asked for';
COMMENT ON COLUMN redact_todo.ts IS 'When it was asked for';
