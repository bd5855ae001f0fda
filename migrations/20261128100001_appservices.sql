-- Application services: how far each has heard, what it is still to hear, and what it shows in the room directory.

CREATE TABLE appservice (
  appservice_nid int GENERATED ALWAYS AS IDENTITY CONSTRAINT appservice_pkey PRIMARY KEY,
  id text COLLATE "C" NOT NULL CONSTRAINT appservice_id_key UNIQUE,
  pos bigint NOT NULL,
  failures int NOT NULL DEFAULT 0
);
COMMENT ON TABLE appservice IS 'Application services that are or were registered; the rest of them stands in their registration files';
COMMENT ON COLUMN appservice.appservice_nid IS 'Number';
COMMENT ON COLUMN appservice.id IS 'Id of its registration';
COMMENT ON COLUMN appservice.pos IS 'Stream position up to which what it is to hear was queued';
COMMENT ON COLUMN appservice.failures IS 'Tries since its last answer; while there are any, nothing is queued that is worth hearing only now';

CREATE TABLE appservice_queue (
  appservice_nid int NOT NULL,
  pos bigint NOT NULL,
  kind smallint NOT NULL,
  room_nid bigint NOT NULL,
  user_nid bigint NOT NULL,
  ref bigint NOT NULL,
  body bytea,
  CONSTRAINT appservice_queue_pkey PRIMARY KEY (appservice_nid, pos)
);
COMMENT ON TABLE appservice_queue IS 'Rows of the log that an application service is to hear of and that are in no transaction yet';
COMMENT ON COLUMN appservice_queue.appservice_nid IS 'Service';
COMMENT ON COLUMN appservice_queue.pos IS 'As stream_log.pos';
COMMENT ON COLUMN appservice_queue.kind IS 'As stream_log.kind';
COMMENT ON COLUMN appservice_queue.room_nid IS 'As stream_log.room_nid';
COMMENT ON COLUMN appservice_queue.user_nid IS 'As stream_log.user_nid';
COMMENT ON COLUMN appservice_queue.ref IS 'As stream_log.ref';
COMMENT ON COLUMN appservice_queue.body IS 'Membership in a room that we do not hold: the event for clients, coded as event_json.body';
CREATE INDEX appservice_queue_room_ix ON appservice_queue (room_nid) WHERE room_nid <> 0;

CREATE TABLE appservice_txn (
  appservice_nid int CONSTRAINT appservice_txn_pkey PRIMARY KEY,
  txn_id text COLLATE "C" NOT NULL,
  body bytea NOT NULL
);
ALTER TABLE appservice_txn ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE appservice_txn IS 'The transaction that is under way to each application service; once written it is never altered, and goes when the service has taken it';
COMMENT ON COLUMN appservice_txn.appservice_nid IS 'Service';
COMMENT ON COLUMN appservice_txn.txn_id IS 'Its id, never used twice';
COMMENT ON COLUMN appservice_txn.body IS 'Its body, coded as event_json.body';

CREATE TABLE appservice_invite (
  room_nid bigint NOT NULL,
  user_nid bigint NOT NULL,
  body bytea NOT NULL,
  CONSTRAINT appservice_invite_pkey PRIMARY KEY (room_nid, user_nid)
);
COMMENT ON TABLE appservice_invite IS 'Invitations of users of application services into rooms that we do not hold, as the services are shown them';
COMMENT ON COLUMN appservice_invite.room_nid IS 'Room';
COMMENT ON COLUMN appservice_invite.user_nid IS 'Who is invited';
COMMENT ON COLUMN appservice_invite.body IS 'The membership event for clients, coded as event_json.body';

CREATE TABLE appservice_room (
  appservice_id text COLLATE "C" NOT NULL,
  network_id text COLLATE "C" NOT NULL,
  room_nid bigint NOT NULL,
  CONSTRAINT appservice_room_pkey PRIMARY KEY (room_nid, appservice_id, network_id)
);
COMMENT ON TABLE appservice_room IS 'Rooms that application services show in the room directory, in lists of their networks';
COMMENT ON COLUMN appservice_room.appservice_id IS 'Id of the registration';
COMMENT ON COLUMN appservice_room.network_id IS 'Network, as the service calls it';
COMMENT ON COLUMN appservice_room.room_nid IS 'Room';
CREATE INDEX appservice_room_network_ix ON appservice_room (appservice_id, network_id);
