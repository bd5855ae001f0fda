-- Login through identity providers (OpenID Connect).

CREATE TABLE external_id (
  provider text COLLATE "C" NOT NULL,
  subject text COLLATE "C" NOT NULL,
  user_nid bigint NOT NULL,
  added_ts bigint NOT NULL,
  CONSTRAINT external_id_pkey PRIMARY KEY (provider, subject)
);
COMMENT ON TABLE external_id IS 'Who a local user is at an identity provider';
COMMENT ON COLUMN external_id.provider IS 'Id of the provider, as configured';
COMMENT ON COLUMN external_id.subject IS 'Id of the person there (sub), which never becomes another''s';
COMMENT ON COLUMN external_id.user_nid IS 'Local user';
COMMENT ON COLUMN external_id.added_ts IS 'When they were put together';
CREATE INDEX external_id_user_ix ON external_id (user_nid);

CREATE TABLE sso_login (
  state_hash bytea CONSTRAINT sso_login_pkey PRIMARY KEY,
  cookie_hash bytea NOT NULL,
  provider text COLLATE "C" NOT NULL,
  nonce text COLLATE "C" NOT NULL,
  verifier text COLLATE "C" NOT NULL,
  redirect_url text,
  uia_session text COLLATE "C",
  expires_ts bigint NOT NULL
);
COMMENT ON TABLE sso_login IS 'Logins under way at an identity provider; taken out when the browser comes back, to whatever node';
COMMENT ON COLUMN sso_login.state_hash IS 'SHA-256 of the state that the browser carries there and back';
COMMENT ON COLUMN sso_login.cookie_hash IS 'SHA-256 of the cookie by which it is the same browser';
COMMENT ON COLUMN sso_login.provider IS 'Id of the provider';
COMMENT ON COLUMN sso_login.nonce IS 'What the provider has to repeat in the id token';
COMMENT ON COLUMN sso_login.verifier IS 'What proves that who asks for the tokens is who began (PKCE)';
COMMENT ON COLUMN sso_login.redirect_url IS 'Where the client waits; null: for user-interactive authentication';
COMMENT ON COLUMN sso_login.uia_session IS 'Session of user-interactive authentication that it is for; null: for a login';
COMMENT ON COLUMN sso_login.expires_ts IS 'Until when the browser may come back';
CREATE INDEX sso_login_expires_ix ON sso_login (expires_ts);

CREATE TABLE sso_session (
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  provider text COLLATE "C" NOT NULL,
  subject text COLLATE "C" NOT NULL,
  sid text COLLATE "C",
  CONSTRAINT sso_session_pkey PRIMARY KEY (user_nid, device_no)
);
COMMENT ON TABLE sso_session IS 'Devices that were logged in through an identity provider, which may log them out';
COMMENT ON COLUMN sso_session.user_nid IS 'Owner of the device';
COMMENT ON COLUMN sso_session.device_no IS 'Device';
COMMENT ON COLUMN sso_session.provider IS 'Id of the provider';
COMMENT ON COLUMN sso_session.subject IS 'Id of the person there';
COMMENT ON COLUMN sso_session.sid IS 'Session there; null: the provider names none';
CREATE INDEX sso_session_subject_ix ON sso_session (provider, subject);
CREATE INDEX sso_session_sid_ix ON sso_session (provider, sid) WHERE sid IS NOT NULL;

CREATE TABLE sso_logout (
  provider text COLLATE "C" NOT NULL,
  jti_hash bytea NOT NULL,
  expires_ts bigint NOT NULL,
  CONSTRAINT sso_logout_pkey PRIMARY KEY (provider, jti_hash)
);
COMMENT ON TABLE sso_logout IS 'Logout tokens that were obeyed: none is a second time';
COMMENT ON COLUMN sso_logout.provider IS 'Id of the provider';
COMMENT ON COLUMN sso_logout.jti_hash IS 'SHA-256 of the id of the token';
COMMENT ON COLUMN sso_logout.expires_ts IS 'From when on it is not good anyway';
CREATE INDEX sso_logout_expires_ix ON sso_logout (expires_ts);

ALTER TABLE login_token ADD COLUMN sso_provider text COLLATE "C";
ALTER TABLE login_token ADD COLUMN sso_subject text COLLATE "C";
ALTER TABLE login_token ADD COLUMN sso_sid text COLLATE "C";
COMMENT ON COLUMN login_token.sso_provider IS 'Identity provider whose login it comes of, as in sso_session; null: of none';
COMMENT ON COLUMN login_token.sso_subject IS 'Id of the person there';
COMMENT ON COLUMN login_token.sso_sid IS 'Session there';
CREATE INDEX login_token_sso_ix ON login_token (sso_provider, sso_subject) WHERE sso_provider IS NOT NULL;
