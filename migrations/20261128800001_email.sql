-- E-mail: addresses of accounts, proofs that somebody reads an address, and notices of what is unread.

CREATE TABLE threepid (
  medium text COLLATE "C" NOT NULL,
  address text COLLATE "C" NOT NULL,
  user_nid bigint NOT NULL,
  validated_ts bigint NOT NULL,
  added_ts bigint NOT NULL,
  CONSTRAINT threepid_pkey PRIMARY KEY (medium, address)
);
COMMENT ON TABLE threepid IS 'Addresses of local users outside of Matrix; each belongs to one account';
COMMENT ON COLUMN threepid.medium IS 'email';
COMMENT ON COLUMN threepid.address IS 'The address in its one form: lower case, without spaces';
COMMENT ON COLUMN threepid.user_nid IS 'Local user';
COMMENT ON COLUMN threepid.validated_ts IS 'When the user proved to read it';
COMMENT ON COLUMN threepid.added_ts IS 'When it came to the account';
CREATE INDEX threepid_user_ix ON threepid (user_nid);

CREATE TABLE validation (
  sid text COLLATE "C" CONSTRAINT validation_pkey PRIMARY KEY,
  purpose smallint NOT NULL,
  address text COLLATE "C" NOT NULL,
  secret_hash bytea NOT NULL,
  token_hash bytea NOT NULL,
  attempt bigint NOT NULL,
  sends int NOT NULL DEFAULT 1,
  tries int NOT NULL DEFAULT 0,
  next_link text,
  created_ts bigint NOT NULL,
  expires_ts bigint NOT NULL,
  validated_ts bigint,
  CONSTRAINT validation_request_key UNIQUE (address, purpose, secret_hash)
);
COMMENT ON TABLE validation IS 'Proofs under way that somebody reads an address; kept a day, so that mails to an address are counted';
COMMENT ON COLUMN validation.sid IS 'Session id';
COMMENT ON COLUMN validation.purpose IS '1 to add the address to an account, 2 to register, 3 to set a new password';
COMMENT ON COLUMN validation.address IS 'The address, as threepid.address';
COMMENT ON COLUMN validation.secret_hash IS 'SHA-256 of the client secret';
COMMENT ON COLUMN validation.token_hash IS 'SHA-256 of the token in the newest mail';
COMMENT ON COLUMN validation.attempt IS 'send_attempt of that mail: a mail goes out for a greater one only';
COMMENT ON COLUMN validation.sends IS 'Mails so far';
COMMENT ON COLUMN validation.tries IS 'Wrong tokens since the newest mail';
COMMENT ON COLUMN validation.next_link IS 'Where the browser is sent afterwards';
COMMENT ON COLUMN validation.created_ts IS 'When it was first asked for';
COMMENT ON COLUMN validation.expires_ts IS 'End of life of the token, and of the proof';
COMMENT ON COLUMN validation.validated_ts IS 'When the token came; null: it did not yet';
CREATE INDEX validation_created_ix ON validation (created_ts);

ALTER TABLE pusher ADD COLUMN unsubscribe text COLLATE "C" CONSTRAINT pusher_unsubscribe_key UNIQUE;
COMMENT ON COLUMN pusher.unsubscribe IS 'Token of the link by which the reader of a mail ends it; null: nothing is mailed';
COMMENT ON COLUMN pusher.kind IS 'http, or email: pushkey is the address';

CREATE TABLE mail_room (
  pusher_id bigint NOT NULL,
  room_nid bigint NOT NULL,
  due_ts bigint,
  claimed boolean NOT NULL DEFAULT false,
  sent_ts bigint,
  pause_ms bigint NOT NULL DEFAULT 0,
  CONSTRAINT mail_room_pkey PRIMARY KEY (pusher_id, room_nid)
);
COMMENT ON TABLE mail_room IS 'Rooms of which a mail is to tell, or has told: one row a room, however much is written in it';
COMMENT ON COLUMN mail_room.pusher_id IS 'Pusher of kind email';
COMMENT ON COLUMN mail_room.room_nid IS 'Room';
COMMENT ON COLUMN mail_room.due_ts IS 'When what is unread then is told; null: nothing new';
COMMENT ON COLUMN mail_room.claimed IS 'A mail that tells of it is under way, or failed and is tried again';
COMMENT ON COLUMN mail_room.sent_ts IS 'Last mail that told of it';
COMMENT ON COLUMN mail_room.pause_ms IS 'Time from that to the next: it grows from mail to mail';
CREATE INDEX mail_room_room_ix ON mail_room (room_nid);
CREATE INDEX mail_room_sent_ix ON mail_room (sent_ts) WHERE due_ts IS NULL AND NOT claimed;

CREATE OR REPLACE FUNCTION pusher_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM push_queue q USING gone g WHERE q.pusher_id = g.pusher_id;
  DELETE FROM mail_room m USING gone g WHERE m.pusher_id = g.pusher_id;
  RETURN NULL;
END $$;
