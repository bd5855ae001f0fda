-- What administrators do to accounts, what users report, and tokens that log somebody in.

ALTER TABLE account
  ADD COLUMN locked_ts bigint,
  ADD COLUMN suspended_ts bigint;
COMMENT ON COLUMN account.locked_ts IS 'Since when its sessions are refused; NULL: they are not';
COMMENT ON COLUMN account.suspended_ts IS 'Since when it may read and not act; NULL: it may act';

ALTER TABLE device ADD COLUMN last_seen_agent text;
COMMENT ON COLUMN device.last_seen_agent IS 'User agent of the last request, shortened';

CREATE TABLE report (
  report_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  kind smallint NOT NULL,
  reporter_nid bigint NOT NULL REFERENCES mx_user,
  room_id text,
  event_id text,
  user_id text,
  reason text NOT NULL,
  received_ts bigint NOT NULL
);
COMMENT ON TABLE report IS 'What users told administrators of. Ids and not numbers: a report outlives the room';
COMMENT ON COLUMN report.report_id IS 'Number, in the order of arrival';
COMMENT ON COLUMN report.reporter_nid IS 'Who reported';
COMMENT ON COLUMN report.room_id IS 'Room of the event, or the room that is reported; NULL: a user is reported';
COMMENT ON COLUMN report.event_id IS 'Event that is reported; NULL: a room or a user is';
COMMENT ON COLUMN report.reason IS 'Why, as the user wrote it; may be empty';
COMMENT ON COLUMN report.received_ts IS 'When, in milliseconds';
COMMENT ON COLUMN report.kind IS '1 event, 2 room, 3 user';
COMMENT ON COLUMN report.user_id IS 'Sender of the event, or the user who is reported';
CREATE INDEX report_reporter_ix ON report (reporter_nid);

CREATE TABLE login_token (
  token_hash bytea PRIMARY KEY,
  user_nid bigint NOT NULL REFERENCES account ON DELETE CASCADE,
  expires_ts bigint NOT NULL
);
COMMENT ON TABLE login_token IS 'Tokens of m.login.token; taken out when they are used';
COMMENT ON COLUMN login_token.token_hash IS 'SHA-256 of the token';
COMMENT ON COLUMN login_token.user_nid IS 'Whom it logs in';
COMMENT ON COLUMN login_token.expires_ts IS 'Until when it is good, in milliseconds';
CREATE INDEX login_token_expires_ix ON login_token (expires_ts);
