-- Accounts, sessions and what belongs to a user.

CREATE TABLE account (
  user_nid bigint CONSTRAINT account_pkey PRIMARY KEY,
  localpart_folded text COLLATE "C" NOT NULL CONSTRAINT account_localpart_key UNIQUE,
  password_hash text,
  admin boolean NOT NULL DEFAULT false,
  deactivated boolean NOT NULL DEFAULT false,
  erased boolean NOT NULL DEFAULT false,
  user_type text,
  created_ts bigint NOT NULL
);
COMMENT ON TABLE account IS 'Local accounts';
COMMENT ON COLUMN account.user_nid IS 'The user';
COMMENT ON COLUMN account.localpart_folded IS 'Localpart in lower case: two accounts may not differ in case alone';
COMMENT ON COLUMN account.password_hash IS 'argon2id in PHC form; null: no password login';
COMMENT ON COLUMN account.admin IS 'Server administrator';
COMMENT ON COLUMN account.deactivated IS 'Closed for good; the name is never given again';
COMMENT ON COLUMN account.erased IS 'The user asked for erasure when closing';
COMMENT ON COLUMN account.user_type IS 'As in the admin API: null, bot, support, or configured';
COMMENT ON COLUMN account.created_ts IS 'When';

CREATE TABLE device (
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  device_id text COLLATE "C" NOT NULL,
  display_name text,
  last_seen_ts bigint,
  last_seen_ip text,
  created_ts bigint NOT NULL,
  CONSTRAINT device_pkey PRIMARY KEY (user_nid, device_no),
  CONSTRAINT device_id_key UNIQUE (user_nid, device_id)
);
COMMENT ON TABLE device IS 'Devices of local users';
COMMENT ON COLUMN device.user_nid IS 'Owner';
COMMENT ON COLUMN device.device_no IS 'Small number for the id, never given twice to one user';
COMMENT ON COLUMN device.device_id IS 'Device id';
COMMENT ON COLUMN device.display_name IS 'Name the user gave';
COMMENT ON COLUMN device.last_seen_ts IS 'Last request, written at most once a minute';
COMMENT ON COLUMN device.last_seen_ip IS 'Address of that request';
COMMENT ON COLUMN device.created_ts IS 'First login';

CREATE SEQUENCE device_no_seq AS int;
COMMENT ON SEQUENCE device_no_seq IS 'Source of device_no';

CREATE TABLE access_token (
  token_hash bytea CONSTRAINT access_token_pkey PRIMARY KEY,
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  expires_ts bigint,
  refresh_id bigint
);
COMMENT ON TABLE access_token IS 'Access tokens, as hashes only';
COMMENT ON COLUMN access_token.token_hash IS 'SHA-256 of the token';
COMMENT ON COLUMN access_token.user_nid IS 'Owner';
COMMENT ON COLUMN access_token.device_no IS 'Device of the session';
COMMENT ON COLUMN access_token.expires_ts IS 'End of life; null: none';
COMMENT ON COLUMN access_token.refresh_id IS 'Refresh token that came with it, if any';
CREATE INDEX access_token_device_ix ON access_token (user_nid, device_no);

CREATE TABLE refresh_token (
  refresh_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT refresh_token_pkey PRIMARY KEY,
  token_hash bytea NOT NULL CONSTRAINT refresh_token_hash_key UNIQUE,
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  next_id bigint,
  used boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE refresh_token IS 'Refresh tokens, as hashes only';
COMMENT ON COLUMN refresh_token.refresh_id IS 'Number';
COMMENT ON COLUMN refresh_token.token_hash IS 'SHA-256 of the token';
COMMENT ON COLUMN refresh_token.user_nid IS 'Owner';
COMMENT ON COLUMN refresh_token.device_no IS 'Device';
COMMENT ON COLUMN refresh_token.next_id IS 'The token it was exchanged for; it may be used again until that one (or its access token) is used';
COMMENT ON COLUMN refresh_token.used IS 'Whether it, or its access token, has been used';
CREATE INDEX refresh_token_device_ix ON refresh_token (user_nid, device_no);

CREATE TABLE registration_token (
  token text COLLATE "C" CONSTRAINT registration_token_pkey PRIMARY KEY,
  uses_allowed int,
  completed int NOT NULL DEFAULT 0,
  expires_ts bigint
);
COMMENT ON TABLE registration_token IS 'Tokens that allow registration';
COMMENT ON COLUMN registration_token.token IS 'The token, 1 to 64 of [A-Za-z0-9._~-]';
COMMENT ON COLUMN registration_token.uses_allowed IS 'How often; null: unlimited';
COMMENT ON COLUMN registration_token.completed IS 'Registrations done with it';
COMMENT ON COLUMN registration_token.expires_ts IS 'End of life; null: none';

CREATE TABLE uia_session (
  session text COLLATE "C" CONSTRAINT uia_session_pkey PRIMARY KEY,
  path text NOT NULL,
  user_nid bigint NOT NULL DEFAULT 0,
  completed text[] NOT NULL DEFAULT '{}',
  params jsonb NOT NULL,
  ts bigint NOT NULL
);
COMMENT ON TABLE uia_session IS 'User-interactive authentication under way; kept an hour';
COMMENT ON COLUMN uia_session.session IS 'Session id';
COMMENT ON COLUMN uia_session.path IS 'Method and path it was opened for: a session is good for one operation only';
COMMENT ON COLUMN uia_session.user_nid IS 'Who asks, 0 in registration';
COMMENT ON COLUMN uia_session.completed IS 'Stages done';
COMMENT ON COLUMN uia_session.params IS 'First request body without secrets, and facts proved by stages';
COMMENT ON COLUMN uia_session.ts IS 'When it began';

CREATE TABLE profile (
  user_nid bigint CONSTRAINT profile_pkey PRIMARY KEY,
  body jsonb NOT NULL
);
COMMENT ON TABLE profile IS 'Profiles of local users';
COMMENT ON COLUMN profile.user_nid IS 'User';
COMMENT ON COLUMN profile.body IS 'Object: displayname, avatar_url and further fields (64 KiB at most)';

CREATE TABLE account_data (
  user_nid bigint NOT NULL,
  room_nid bigint NOT NULL,
  type text COLLATE "C" NOT NULL,
  content text NOT NULL,
  pos bigint NOT NULL,
  CONSTRAINT account_data_pkey PRIMARY KEY (user_nid, room_nid, type)
);
COMMENT ON TABLE account_data IS 'Account data, global and by room; tags are the room type m.tag';
COMMENT ON COLUMN account_data.user_nid IS 'User';
COMMENT ON COLUMN account_data.room_nid IS 'Room, or 0 for global data';
COMMENT ON COLUMN account_data.type IS 'Type';
COMMENT ON COLUMN account_data.content IS 'JSON object, as text: it is stored and returned untouched';
COMMENT ON COLUMN account_data.pos IS 'Stream position of the last change';

CREATE TABLE filter (
  user_nid bigint NOT NULL,
  filter_id int NOT NULL,
  body text NOT NULL,
  hash bytea NOT NULL,
  CONSTRAINT filter_pkey PRIMARY KEY (user_nid, filter_id),
  CONSTRAINT filter_hash_key UNIQUE (user_nid, hash)
);
COMMENT ON TABLE filter IS 'Sync filters that clients stored';
COMMENT ON COLUMN filter.user_nid IS 'User';
COMMENT ON COLUMN filter.filter_id IS 'Number, from 0 for each user';
COMMENT ON COLUMN filter.body IS 'The filter as JSON';
COMMENT ON COLUMN filter.hash IS 'SHA-256 of body: the same filter stored twice has one id';

CREATE TABLE receipt (
  room_nid bigint NOT NULL,
  user_nid bigint NOT NULL,
  kind smallint NOT NULL,
  thread_id text COLLATE "C" NOT NULL,
  event_id text COLLATE "C" NOT NULL,
  ts bigint NOT NULL,
  pos bigint NOT NULL,
  CONSTRAINT receipt_pkey PRIMARY KEY (room_nid, user_nid, kind, thread_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE receipt IS 'Latest receipt by user, kind and thread; no index on pos, so that updates stay in the page';
COMMENT ON COLUMN receipt.room_nid IS 'Room';
COMMENT ON COLUMN receipt.user_nid IS 'Reader';
COMMENT ON COLUMN receipt.kind IS '1 m.read, 2 m.read.private';
COMMENT ON COLUMN receipt.thread_id IS 'Empty: unthreaded; main, or the thread root';
COMMENT ON COLUMN receipt.event_id IS 'Event read up to';
COMMENT ON COLUMN receipt.ts IS 'When the reader says so';
COMMENT ON COLUMN receipt.pos IS 'Stream position of the change';

CREATE TABLE to_device (
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  pos bigint NOT NULL,
  body text NOT NULL,
  CONSTRAINT to_device_pkey PRIMARY KEY (user_nid, device_no, pos)
);
COMMENT ON TABLE to_device IS 'Messages that wait for a device; deleted when it acknowledges them by its sync token';
COMMENT ON COLUMN to_device.user_nid IS 'Receiver';
COMMENT ON COLUMN to_device.device_no IS 'Device';
COMMENT ON COLUMN to_device.pos IS 'Stream position';
COMMENT ON COLUMN to_device.body IS 'The event as JSON: type, sender, content';
