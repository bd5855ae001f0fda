-- Key backup: room keys that clients keep on the server, encrypted by them.

CREATE TABLE backup (
  user_nid bigint NOT NULL,
  version bigint NOT NULL,
  algorithm text NOT NULL,
  auth_data text NOT NULL,
  etag bigint NOT NULL DEFAULT 0,
  deleted boolean NOT NULL DEFAULT false,
  CONSTRAINT backup_pkey PRIMARY KEY (user_nid, version)
);
COMMENT ON TABLE backup IS 'Versions of the key backup of a user; the newest that is not deleted is in use';
COMMENT ON COLUMN backup.user_nid IS 'Owner';
COMMENT ON COLUMN backup.version IS 'From 1 on; a number is never given twice';
COMMENT ON COLUMN backup.algorithm IS 'Such as m.megolm_backup.v1.curve25519-aes-sha2';
COMMENT ON COLUMN backup.auth_data IS 'JSON of the client';
COMMENT ON COLUMN backup.etag IS 'Goes up with every change of its keys';
COMMENT ON COLUMN backup.deleted IS 'Deleted: its keys are gone';

CREATE TABLE backup_key (
  user_nid bigint NOT NULL,
  version bigint NOT NULL,
  room_id text COLLATE "C" NOT NULL,
  session_id text COLLATE "C" NOT NULL,
  first_index bigint NOT NULL,
  forwarded bigint NOT NULL,
  verified boolean NOT NULL,
  data text NOT NULL,
  CONSTRAINT backup_key_pkey PRIMARY KEY (user_nid, version, room_id, session_id)
);
COMMENT ON TABLE backup_key IS 'Room keys in a backup';
COMMENT ON COLUMN backup_key.user_nid IS 'Owner';
COMMENT ON COLUMN backup_key.version IS 'Backup';
COMMENT ON COLUMN backup_key.room_id IS 'Room';
COMMENT ON COLUMN backup_key.session_id IS 'Megolm session';
COMMENT ON COLUMN backup_key.first_index IS 'First message that it decrypts: the lower the better';
COMMENT ON COLUMN backup_key.forwarded IS 'How often it was forwarded: the less the better';
COMMENT ON COLUMN backup_key.verified IS 'Whether it came from a verified device: better than anything else';
COMMENT ON COLUMN backup_key.data IS 'session_data, encrypted by the client, JSON';
