-- End-to-end encryption: public keys of devices, messages to devices, and what peers are told of both.

CREATE TABLE device_key (
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  body text NOT NULL,
  CONSTRAINT device_key_pkey PRIMARY KEY (user_nid, device_no)
);
COMMENT ON TABLE device_key IS 'Identity keys of local devices';
COMMENT ON COLUMN device_key.user_nid IS 'Owner';
COMMENT ON COLUMN device_key.device_no IS 'Device';
COMMENT ON COLUMN device_key.body IS 'The signed JSON as uploaded';

CREATE TABLE one_time_key (
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  algorithm text COLLATE "C" NOT NULL,
  key_id text COLLATE "C" NOT NULL,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  body text NOT NULL,
  CONSTRAINT one_time_key_pkey PRIMARY KEY (user_nid, device_no, algorithm, key_id)
);
COMMENT ON TABLE one_time_key IS 'Keys that are handed out once, the oldest first';
COMMENT ON COLUMN one_time_key.user_nid IS 'Owner';
COMMENT ON COLUMN one_time_key.device_no IS 'Device';
COMMENT ON COLUMN one_time_key.algorithm IS 'Such as signed_curve25519';
COMMENT ON COLUMN one_time_key.key_id IS 'Id within the algorithm';
COMMENT ON COLUMN one_time_key.seq IS 'Order of upload';
COMMENT ON COLUMN one_time_key.body IS 'The key as uploaded, JSON';
CREATE INDEX one_time_key_seq_ix ON one_time_key (user_nid, device_no, algorithm, seq);

CREATE TABLE fallback_key (
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  algorithm text COLLATE "C" NOT NULL,
  key_id text COLLATE "C" NOT NULL,
  body text NOT NULL,
  used boolean NOT NULL DEFAULT false,
  CONSTRAINT fallback_key_pkey PRIMARY KEY (user_nid, device_no, algorithm)
);
COMMENT ON TABLE fallback_key IS 'Keys that are handed out when one-time keys have run out';
COMMENT ON COLUMN fallback_key.user_nid IS 'Owner';
COMMENT ON COLUMN fallback_key.device_no IS 'Device';
COMMENT ON COLUMN fallback_key.algorithm IS 'Such as signed_curve25519';
COMMENT ON COLUMN fallback_key.key_id IS 'Id within the algorithm';
COMMENT ON COLUMN fallback_key.body IS 'The key as uploaded, JSON';
COMMENT ON COLUMN fallback_key.used IS 'Whether it was handed out';

CREATE TABLE cross_signing_key (
  user_nid bigint NOT NULL,
  kind text COLLATE "C" NOT NULL,
  body text NOT NULL,
  CONSTRAINT cross_signing_key_pkey PRIMARY KEY (user_nid, kind)
);
COMMENT ON TABLE cross_signing_key IS 'Cross-signing keys of local users';
COMMENT ON COLUMN cross_signing_key.user_nid IS 'Owner';
COMMENT ON COLUMN cross_signing_key.kind IS 'master, self_signing or user_signing';
COMMENT ON COLUMN cross_signing_key.body IS 'The key as uploaded, JSON';

CREATE TABLE key_signature (
  user_nid bigint NOT NULL,
  target text COLLATE "C" NOT NULL,
  signer_nid bigint NOT NULL,
  key_id text COLLATE "C" NOT NULL,
  signature text NOT NULL,
  CONSTRAINT key_signature_pkey PRIMARY KEY (user_nid, target, signer_nid, key_id)
);
COMMENT ON TABLE key_signature IS 'Signatures that were added to keys after their upload';
COMMENT ON COLUMN key_signature.user_nid IS 'Owner of the key';
COMMENT ON COLUMN key_signature.target IS 'Device id, or public part of a cross-signing key';
COMMENT ON COLUMN key_signature.signer_nid IS 'Who signed';
COMMENT ON COLUMN key_signature.key_id IS 'Signing key, such as ed25519:ABC';
COMMENT ON COLUMN key_signature.signature IS 'Base64';

CREATE TABLE to_device_txn (
  hash uuid CONSTRAINT to_device_txn_pkey PRIMARY KEY,
  ts bigint NOT NULL
);
COMMENT ON TABLE to_device_txn IS 'Messages that were taken: of clients by device and transaction, of peers by origin and message id';
COMMENT ON COLUMN to_device_txn.hash IS 'Hash of both';
COMMENT ON COLUMN to_device_txn.ts IS 'When';
CREATE INDEX to_device_txn_ts_ix ON to_device_txn (ts);

CREATE TABLE device_change (
  user_nid bigint CONSTRAINT device_change_pkey PRIMARY KEY,
  pos bigint NOT NULL
);
COMMENT ON TABLE device_change IS 'When the devices or keys of a user, ours or not, changed last';
COMMENT ON COLUMN device_change.user_nid IS 'User';
COMMENT ON COLUMN device_change.pos IS 'Stream position of the change';
CREATE INDEX device_change_pos_ix ON device_change (pos);

CREATE TABLE fed_edu (
  edu_no bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT fed_edu_pkey PRIMARY KEY,
  server_nid int NOT NULL,
  body text NOT NULL
);
COMMENT ON TABLE fed_edu IS 'EDUs that a peer must not miss: messages to devices, changes of device lists';
COMMENT ON COLUMN fed_edu.edu_no IS 'Order';
COMMENT ON COLUMN fed_edu.server_nid IS 'Peer';
COMMENT ON COLUMN fed_edu.body IS 'The EDU, JSON';
CREATE INDEX fed_edu_server_ix ON fed_edu (server_nid, edu_no);
