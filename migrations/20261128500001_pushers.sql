-- Pushers: where users are notified, and what waits to be told there.

CREATE TABLE pusher (
  pusher_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pusher_pkey PRIMARY KEY,
  user_nid bigint NOT NULL,
  device_no int NOT NULL,
  kind text COLLATE "C" NOT NULL,
  app_id text COLLATE "C" NOT NULL,
  pushkey text COLLATE "C" NOT NULL,
  app_display_name text NOT NULL,
  device_display_name text NOT NULL,
  profile_tag text NOT NULL,
  lang text NOT NULL,
  data text NOT NULL,
  gateway text COLLATE "C" NOT NULL,
  enabled boolean NOT NULL,
  set_ts bigint NOT NULL,
  share smallint NOT NULL GENERATED ALWAYS AS ((user_nid % 64)::smallint) STORED,
  rev bigint NOT NULL DEFAULT 0,
  due_ts bigint,
  recount boolean NOT NULL DEFAULT false,
  told int,
  failures int NOT NULL DEFAULT 0,
  failing_ts bigint,
  CONSTRAINT pusher_key UNIQUE (user_nid, app_id, pushkey)
);
COMMENT ON TABLE pusher IS 'Where local users are notified: push gateways';
COMMENT ON COLUMN pusher.pusher_id IS 'Number';
COMMENT ON COLUMN pusher.user_nid IS 'Local user';
COMMENT ON COLUMN pusher.device_no IS 'Device that made it, with which it goes; 0: none';
COMMENT ON COLUMN pusher.kind IS 'http';
COMMENT ON COLUMN pusher.app_id IS 'Application, as it says itself';
COMMENT ON COLUMN pusher.pushkey IS 'Address within the application';
COMMENT ON COLUMN pusher.app_display_name IS 'Name of the application for people';
COMMENT ON COLUMN pusher.device_display_name IS 'Name of the device for people';
COMMENT ON COLUMN pusher.profile_tag IS 'As the client gave it; may be empty';
COMMENT ON COLUMN pusher.lang IS 'Language of the user, as the client gave it';
COMMENT ON COLUMN pusher.data IS 'JSON object for the gateway; its url is where the gateway is';
COMMENT ON COLUMN pusher.gateway IS 'Host and port of the gateway: slow ones do not take the places of all';
COMMENT ON COLUMN pusher.enabled IS 'Off: nothing is sent, nothing waits';
COMMENT ON COLUMN pusher.set_ts IS 'When the client last set it';
COMMENT ON COLUMN pusher.share IS 'Which of the shares that nodes take has it';
COMMENT ON COLUMN pusher.rev IS '+1 whenever something new waits: who sent what was there before knows that it was not all';
COMMENT ON COLUMN pusher.due_ts IS 'When it is looked at next; null: nothing waits';
COMMENT ON COLUMN pusher.recount IS 'The count of unread rooms or messages may have changed';
COMMENT ON COLUMN pusher.told IS 'The last count that the gateway took; null: none yet';
COMMENT ON COLUMN pusher.failures IS 'Tries since the last success';
COMMENT ON COLUMN pusher.failing_ts IS 'First of them';
CREATE INDEX pusher_pushkey_ix ON pusher (app_id, pushkey);
CREATE INDEX pusher_due_ix ON pusher (share, due_ts) WHERE due_ts IS NOT NULL;

CREATE TABLE push_queue (
  pusher_id bigint NOT NULL,
  pos bigint NOT NULL,
  room_nid bigint NOT NULL,
  event_nid bigint NOT NULL,
  event_id text COLLATE "C",
  ts bigint NOT NULL,
  high boolean NOT NULL,
  tweaks text NOT NULL,
  CONSTRAINT push_queue_pkey PRIMARY KEY (pusher_id, pos)
);
COMMENT ON TABLE push_queue IS 'Events of which pushers are to tell and have not yet';
COMMENT ON COLUMN push_queue.pusher_id IS 'Pusher';
COMMENT ON COLUMN push_queue.pos IS 'As stream_log.pos';
COMMENT ON COLUMN push_queue.room_nid IS 'Room';
COMMENT ON COLUMN push_queue.event_nid IS 'Event; 0: an invitation into a room that we do not hold';
COMMENT ON COLUMN push_queue.event_id IS 'Its id; null: not known';
COMMENT ON COLUMN push_queue.ts IS 'When it was queued';
COMMENT ON COLUMN push_queue.high IS 'Priority';
COMMENT ON COLUMN push_queue.tweaks IS 'JSON object: what the rules of the user say of how to present it';
CREATE INDEX push_queue_room_ix ON push_queue (room_nid);

CREATE FUNCTION pusher_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM push_queue q USING gone g WHERE q.pusher_id = g.pusher_id;
  RETURN NULL;
END $$;
CREATE TRIGGER pusher_gone AFTER DELETE ON pusher
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION pusher_gone();

CREATE TABLE push_share (
  share smallint CONSTRAINT push_share_pkey PRIMARY KEY,
  pos bigint NOT NULL
);
COMMENT ON TABLE push_share IS 'How far the log was read for the pushers of each share of the users';
COMMENT ON COLUMN push_share.share IS 'As pusher.share';
COMMENT ON COLUMN push_share.pos IS 'What is up to this position was queued';
INSERT INTO push_share (share, pos)
SELECT s, (SELECT last_value FROM stream_pos_seq) FROM generate_series(0, 63) s;

ALTER TABLE user_room ADD COLUMN invite_id text COLLATE "C";
COMMENT ON COLUMN user_room.invite_id IS 'Event id of an invitation into a room that we do not hold';
