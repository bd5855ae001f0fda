-- What users accepted, and when; and a secret that links are made by.

CREATE TABLE terms_accepted (
  user_nid bigint NOT NULL,
  policy text COLLATE "C" NOT NULL,
  version text COLLATE "C" NOT NULL,
  accepted_ts bigint NOT NULL,
  CONSTRAINT terms_accepted_pkey PRIMARY KEY (user_nid, policy, version)
);
COMMENT ON TABLE terms_accepted IS 'Versions of policies that local users accepted; older ones stay, as a proof';
COMMENT ON COLUMN terms_accepted.user_nid IS 'Local user';
COMMENT ON COLUMN terms_accepted.policy IS 'Id of the policy, as configured then';
COMMENT ON COLUMN terms_accepted.version IS 'Its version then';
COMMENT ON COLUMN terms_accepted.accepted_ts IS 'When it was first accepted, in milliseconds';

ALTER TABLE account ADD COLUMN terms_told text COLLATE "C";
COMMENT ON COLUMN account.terms_told IS 'Versions of policies that a notice told the user of; NULL: none did';

CREATE TABLE server_secret (
  purpose text COLLATE "C" CONSTRAINT server_secret_pkey PRIMARY KEY,
  secret bytea NOT NULL
);
COMMENT ON TABLE server_secret IS 'Secrets that all nodes share, drawn at random when they are first needed';
COMMENT ON COLUMN server_secret.purpose IS 'What it is for: terms';
COMMENT ON COLUMN server_secret.secret IS '32 bytes';
