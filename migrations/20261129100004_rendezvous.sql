-- Rendezvous of devices. Unlogged: what is lost with a crash is asked for again within a minute.

CREATE UNLOGGED TABLE rendezvous (
  rendezvous_id uuid CONSTRAINT rendezvous_pkey PRIMARY KEY,
  address text NOT NULL,
  version int NOT NULL DEFAULT 1,
  data text NOT NULL,
  modified_ts bigint NOT NULL,
  expires_ts bigint NOT NULL
);
COMMENT ON TABLE rendezvous IS 'Where two devices of a user leave each other messages while one logs the other in (MSC4108, MSC4388)';
COMMENT ON COLUMN rendezvous.rendezvous_id IS 'Id, random: who knows it may read and write';
COMMENT ON COLUMN rendezvous.address IS 'Address of who made it';
COMMENT ON COLUMN rendezvous.version IS 'Goes up with every change';
COMMENT ON COLUMN rendezvous.data IS 'What was written last, encrypted by the devices';
COMMENT ON COLUMN rendezvous.modified_ts IS 'When that was';
COMMENT ON COLUMN rendezvous.expires_ts IS 'When it ends';
CREATE INDEX rendezvous_expires_ix ON rendezvous (expires_ts);
CREATE INDEX rendezvous_address_ix ON rendezvous (address, expires_ts);
