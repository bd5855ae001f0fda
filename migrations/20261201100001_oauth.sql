-- Login by OAuth 2.0: clients that registered, browsers that are logged in, and what is under way.

CREATE TABLE oauth_client (
  client_id text COLLATE "C" CONSTRAINT oauth_client_pkey PRIMARY KEY,
  metadata text NOT NULL,
  used_ts bigint NOT NULL
);
COMMENT ON TABLE oauth_client IS 'Clients that registered (RFC 7591); who says the same of itself is the same client';
COMMENT ON COLUMN oauth_client.client_id IS 'Id: a hash of what the client says of itself';
COMMENT ON COLUMN oauth_client.metadata IS 'What it says of itself, as far as it was taken, as JSON';
COMMENT ON COLUMN oauth_client.used_ts IS 'When it last registered or began a login, in milliseconds; deleted some time after, unless a session is its';
CREATE INDEX oauth_client_used_ix ON oauth_client (used_ts);

CREATE TABLE oauth_session (
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  client_id text COLLATE "C" NOT NULL,
  family_hash bytea NOT NULL,
  granted_ts bigint NOT NULL,
  CONSTRAINT oauth_session_pkey PRIMARY KEY (user_nid, device_no),
  CONSTRAINT oauth_session_family_key UNIQUE (family_hash)
);
COMMENT ON TABLE oauth_session IS 'Devices that were logged in by OAuth 2.0';
COMMENT ON COLUMN oauth_session.user_nid IS 'Owner of the device';
COMMENT ON COLUMN oauth_session.device_no IS 'Device';
COMMENT ON COLUMN oauth_session.client_id IS 'The client that may refresh its tokens';
COMMENT ON COLUMN oauth_session.family_hash IS 'SHA-256 of what all its refresh tokens begin with: who shows a dead one ends the session';
COMMENT ON COLUMN oauth_session.granted_ts IS 'When the user logged in, in milliseconds';
CREATE INDEX oauth_session_client_ix ON oauth_session (client_id);

CREATE TABLE browser_session (
  token_hash bytea CONSTRAINT browser_session_pkey PRIMARY KEY,
  user_nid bigint NOT NULL,
  expires_ts bigint NOT NULL,
  sso_provider text COLLATE "C",
  sso_subject text COLLATE "C",
  sso_sid text COLLATE "C"
);
COMMENT ON TABLE browser_session IS 'Browsers that are logged in to the pages of this server';
COMMENT ON COLUMN browser_session.token_hash IS 'SHA-256 of the cookie';
COMMENT ON COLUMN browser_session.user_nid IS 'Who is logged in';
COMMENT ON COLUMN browser_session.expires_ts IS 'Until when, in milliseconds';
COMMENT ON COLUMN browser_session.sso_provider IS 'Identity provider through which, as in sso_session; null: by password';
COMMENT ON COLUMN browser_session.sso_subject IS 'Id of the person there';
COMMENT ON COLUMN browser_session.sso_sid IS 'Session there';
CREATE INDEX browser_session_user_ix ON browser_session (user_nid);
CREATE INDEX browser_session_expires_ix ON browser_session (expires_ts);
CREATE INDEX browser_session_sso_ix ON browser_session (sso_provider, sso_subject) WHERE sso_provider IS NOT NULL;

CREATE TABLE oauth_code (
  code_hash bytea CONSTRAINT oauth_code_pkey PRIMARY KEY,
  client_id text COLLATE "C" NOT NULL,
  browser_hash bytea NOT NULL,
  user_nid bigint NOT NULL,
  device_id text COLLATE "C" NOT NULL,
  scope text NOT NULL,
  redirect_uri text NOT NULL,
  challenge text NOT NULL,
  expires_ts bigint NOT NULL,
  nonce text,
  used boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE oauth_code IS 'Authorization codes on their way from a browser to a client';
COMMENT ON COLUMN oauth_code.code_hash IS 'SHA-256 of the code';
COMMENT ON COLUMN oauth_code.client_id IS 'Client that it is for';
COMMENT ON COLUMN oauth_code.browser_hash IS 'Browser that gave it, which has to be logged in still';
COMMENT ON COLUMN oauth_code.user_nid IS 'Who is logged in by it';
COMMENT ON COLUMN oauth_code.device_id IS 'Device that is made';
COMMENT ON COLUMN oauth_code.scope IS 'Scope that was granted';
COMMENT ON COLUMN oauth_code.redirect_uri IS 'Where the browser took it, which the client has to repeat';
COMMENT ON COLUMN oauth_code.challenge IS 'What the client proves by that it began (PKCE)';
COMMENT ON COLUMN oauth_code.expires_ts IS 'Until when it is good, in milliseconds';
COMMENT ON COLUMN oauth_code.nonce IS 'What the client wants repeated in an id token; null: nothing';
COMMENT ON COLUMN oauth_code.used IS 'Whether it was used: who shows it again ends the session that came of it';
CREATE INDEX oauth_code_expires_ix ON oauth_code (expires_ts);

CREATE TABLE oauth_link (
  code_hash bytea CONSTRAINT oauth_link_pkey PRIMARY KEY,
  user_code text COLLATE "C" NOT NULL CONSTRAINT oauth_link_user_code_key UNIQUE,
  client_id text COLLATE "C" NOT NULL,
  device_id text COLLATE "C" NOT NULL,
  scope text NOT NULL,
  expires_ts bigint NOT NULL,
  polled_ts bigint NOT NULL DEFAULT 0,
  browser_hash bytea,
  user_nid bigint,
  denied boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE oauth_link IS 'Devices that wait for being logged in with a browser elsewhere (RFC 8628)';
COMMENT ON COLUMN oauth_link.code_hash IS 'SHA-256 of the code of the device';
COMMENT ON COLUMN oauth_link.user_code IS 'Code that the user types, without hyphens';
COMMENT ON COLUMN oauth_link.client_id IS 'Client that waits';
COMMENT ON COLUMN oauth_link.device_id IS 'Device that is made';
COMMENT ON COLUMN oauth_link.scope IS 'Scope that is asked for';
COMMENT ON COLUMN oauth_link.expires_ts IS 'Until when it waits, in milliseconds';
COMMENT ON COLUMN oauth_link.polled_ts IS 'When it last asked, in milliseconds';
COMMENT ON COLUMN oauth_link.browser_hash IS 'Browser in which it was allowed; null: it was not yet';
COMMENT ON COLUMN oauth_link.user_nid IS 'Who allowed it; null as browser_hash';
COMMENT ON COLUMN oauth_link.denied IS 'Whether somebody said no';
CREATE INDEX oauth_link_expires_ix ON oauth_link (expires_ts);

ALTER TABLE account ADD COLUMN cross_signing_until_ts bigint;
COMMENT ON COLUMN account.cross_signing_until_ts IS 'Until when a session of OAuth 2.0 may replace the cross-signing keys, once, as the user said in a browser; in milliseconds';

COMMENT ON COLUMN sso_login.redirect_url IS 'Where the client waits, or the page of this server (a path); null: for user-interactive authentication';
