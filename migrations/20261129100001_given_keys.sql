-- A one-time key that was given is remembered for a while: a client that repeats an upload, since it
-- did not hear of the first, must not make it be given again.

ALTER TABLE one_time_key ADD COLUMN given_ts bigint;
COMMENT ON COLUMN one_time_key.given_ts IS 'When it was handed out; null: it waits';

DROP INDEX one_time_key_seq_ix;
CREATE INDEX one_time_key_seq_ix ON one_time_key (user_nid, device_no, algorithm, seq)
  WHERE given_ts IS NULL;
CREATE INDEX one_time_key_given_ix ON one_time_key (given_ts) WHERE given_ts IS NOT NULL;
