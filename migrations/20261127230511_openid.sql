-- Tokens with which users prove to others who they are (OpenID).

CREATE TABLE openid_token (
  hash bytea CONSTRAINT openid_token_pkey PRIMARY KEY,
  user_nid bigint NOT NULL,
  expires_ts bigint NOT NULL
);
COMMENT ON TABLE openid_token IS 'Tokens that tell others who a user of ours is, and open nothing here';
COMMENT ON COLUMN openid_token.hash IS 'SHA-256 of the token';
COMMENT ON COLUMN openid_token.user_nid IS 'User';
COMMENT ON COLUMN openid_token.expires_ts IS 'Worth nothing from then on, milliseconds since 1970';
CREATE INDEX openid_token_expires_ix ON openid_token (expires_ts);
