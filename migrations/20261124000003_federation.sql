-- What we know of peers, and what we owe them.

CREATE TABLE server_key (
  server_name text COLLATE "C" NOT NULL,
  key_id text COLLATE "C" NOT NULL,
  public_key bytea NOT NULL,
  valid_until_ts bigint NOT NULL,
  expired_ts bigint,
  fetched_ts bigint NOT NULL,
  CONSTRAINT server_key_pkey PRIMARY KEY (server_name, key_id)
);
COMMENT ON TABLE server_key IS 'Signing keys of peers, verified before they are stored';
COMMENT ON COLUMN server_key.server_name IS 'Whose';
COMMENT ON COLUMN server_key.key_id IS 'ed25519:version';
COMMENT ON COLUMN server_key.public_key IS 'The 32 bytes';
COMMENT ON COLUMN server_key.valid_until_ts IS 'Until when new signatures by it are good';
COMMENT ON COLUMN server_key.expired_ts IS 'For old keys: when it went out of use';
COMMENT ON COLUMN server_key.fetched_ts IS 'When we last saw it';

CREATE TABLE fed_dest (
  server_nid int CONSTRAINT fed_dest_pkey PRIMARY KEY,
  acked_pos bigint NOT NULL,
  failing_since_ts bigint,
  retry_at_ts bigint NOT NULL DEFAULT 0,
  backoff_ms bigint NOT NULL DEFAULT 0,
  last_ok_ts bigint
) WITH (fillfactor = 50);
COMMENT ON TABLE fed_dest IS 'How far each peer has what we owe it';
COMMENT ON COLUMN fed_dest.server_nid IS 'Peer';
COMMENT ON COLUMN fed_dest.acked_pos IS 'fed_outbox positions up to this are delivered, or not owed';
COMMENT ON COLUMN fed_dest.failing_since_ts IS 'First failure in a row; null: well';
COMMENT ON COLUMN fed_dest.retry_at_ts IS 'Not before';
COMMENT ON COLUMN fed_dest.backoff_ms IS 'Current pause between tries';
COMMENT ON COLUMN fed_dest.last_ok_ts IS 'Last success';

CREATE TABLE fed_outbox (
  pos bigint CONSTRAINT fed_outbox_pkey PRIMARY KEY,
  room_nid bigint NOT NULL,
  event_nid bigint NOT NULL,
  extra int[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE fed_outbox IS 'Events of local users that peers are owed: one row an event, however many peers; written with the event';
COMMENT ON COLUMN fed_outbox.pos IS 'Stream position of the event';
COMMENT ON COLUMN fed_outbox.room_nid IS 'Room: the peers are those in room_server';
COMMENT ON COLUMN fed_outbox.event_nid IS 'Event';
COMMENT ON COLUMN fed_outbox.extra IS 'Peers beyond those: the server of a user who was just kicked, banned or invited';
CREATE INDEX fed_outbox_room_ix ON fed_outbox (room_nid, pos);

CREATE TABLE fed_txn_in (
  origin text COLLATE "C" NOT NULL,
  txn_id text COLLATE "C" NOT NULL,
  ts bigint NOT NULL,
  response text NOT NULL,
  CONSTRAINT fed_txn_in_pkey PRIMARY KEY (origin, txn_id)
);
COMMENT ON TABLE fed_txn_in IS 'Transactions of peers of the last day: a repeated one gets the first answer';
COMMENT ON COLUMN fed_txn_in.origin IS 'Peer';
COMMENT ON COLUMN fed_txn_in.txn_id IS 'Its transaction id';
COMMENT ON COLUMN fed_txn_in.ts IS 'When';
COMMENT ON COLUMN fed_txn_in.response IS 'Our answer';
CREATE INDEX fed_txn_in_ts_ix ON fed_txn_in (ts);
