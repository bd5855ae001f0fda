-- The ground: interned ids, rooms, events, state, positions. docs/adr/0003 and 0004 tell why it looks like this.
-- Ids ("nids") are small integers for long Matrix identifiers; 0 is never used. Times are milliseconds since 1970.
-- No foreign keys on hot tables: each would take a share lock on the parent row for every event.

CREATE TABLE server (
  server_nid int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL CONSTRAINT server_name_key UNIQUE
);
COMMENT ON TABLE server IS 'Every homeserver we have heard of';
COMMENT ON COLUMN server.server_nid IS 'Interned id';
COMMENT ON COLUMN server.name IS 'Server name, case as received (server names are case-sensitive)';

CREATE TABLE mx_user (
  user_nid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  server_nid int NOT NULL,
  mxid text COLLATE "C" NOT NULL CONSTRAINT mx_user_mxid_key UNIQUE
);
COMMENT ON TABLE mx_user IS 'Every user id we have heard of, local and remote; an account has a row in account as well';
COMMENT ON COLUMN mx_user.user_nid IS 'Interned id; -user_nid is the skey_nid of (m.room.member, mxid)';
COMMENT ON COLUMN mx_user.server_nid IS 'Server part of the id';
COMMENT ON COLUMN mx_user.mxid IS 'Full user id';

CREATE TABLE ev_type (
  type_nid int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL CONSTRAINT ev_type_name_key UNIQUE
);
COMMENT ON TABLE ev_type IS 'Event and account data types';
COMMENT ON COLUMN ev_type.type_nid IS 'Interned id';
COMMENT ON COLUMN ev_type.name IS 'The type';

CREATE TABLE state_key (
  skey_nid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  type_nid int NOT NULL,
  key text COLLATE "C" NOT NULL,
  CONSTRAINT state_key_key UNIQUE (type_nid, key)
);
COMMENT ON TABLE state_key IS 'Pairs (event type, state key) other than those of m.room.member, which need no row';
COMMENT ON COLUMN state_key.skey_nid IS 'Interned id, always positive; members use -user_nid';
COMMENT ON COLUMN state_key.type_nid IS 'Event type';
COMMENT ON COLUMN state_key.key IS 'State key';

CREATE TABLE room (
  room_nid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  room_id text COLLATE "C" NOT NULL CONSTRAINT room_room_id_key UNIQUE,
  version text COLLATE "C" NOT NULL,
  listed boolean NOT NULL DEFAULT false,
  created_ts bigint NOT NULL
);
COMMENT ON TABLE room IS 'Rooms we hold or have held events of';
COMMENT ON COLUMN room.room_nid IS 'Interned id';
COMMENT ON COLUMN room.room_id IS 'Room id';
COMMENT ON COLUMN room.version IS 'Room version identifier';
COMMENT ON COLUMN room.listed IS 'Published in our public room directory';
COMMENT ON COLUMN room.created_ts IS 'When we first heard of it';
CREATE INDEX room_listed_ix ON room (room_nid) WHERE listed;

CREATE TABLE room_head (
  room_nid bigint PRIMARY KEY,
  rev bigint NOT NULL,
  head_seq bigint NOT NULL,
  depth bigint NOT NULL,
  snap_nid bigint NOT NULL,
  extrem bytea NOT NULL,
  last_pos bigint NOT NULL,
  last_ts bigint NOT NULL,
  notif_all int NOT NULL DEFAULT 0
) WITH (fillfactor = 40);
COMMENT ON TABLE room_head IS 'The only row that each new event of a room updates; no index but the key, so that updates stay in the page';
COMMENT ON COLUMN room_head.room_nid IS 'Room';
COMMENT ON COLUMN room_head.rev IS 'Compare-and-set token, +1 for each accepted change; who holds a stale one loses and rebuilds';
COMMENT ON COLUMN room_head.head_seq IS 'room_seq of the newest timeline event';
COMMENT ON COLUMN room_head.depth IS 'Largest depth among the forward extremities';
COMMENT ON COLUMN room_head.snap_nid IS 'Current state (after all forward extremities are merged)';
COMMENT ON COLUMN room_head.extrem IS 'Forward extremities: varint list of event nids';
COMMENT ON COLUMN room_head.last_pos IS 'Stream position of the newest timeline event';
COMMENT ON COLUMN room_head.last_ts IS 'Its origin_server_ts';
COMMENT ON COLUMN room_head.notif_all IS 'Cumulative count of events that notify by the default push rules';

CREATE TABLE room_gap (
  room_nid bigint NOT NULL,
  seq_hi bigint NOT NULL,
  CONSTRAINT room_gap_pkey PRIMARY KEY (room_nid, seq_hi)
);
COMMENT ON TABLE room_gap IS 'Where our copy of a timeline has a hole: events before seq_hi can be asked of peers';
COMMENT ON COLUMN room_gap.room_nid IS 'Room';
COMMENT ON COLUMN room_gap.seq_hi IS 'The lowest room_seq above the hole; backfilled events are numbered downwards from it';

CREATE TABLE event (
  room_nid bigint NOT NULL,
  event_nid bigint NOT NULL,
  room_seq bigint,
  pos bigint,
  depth bigint NOT NULL,
  origin_ts bigint NOT NULL,
  recv_ts bigint NOT NULL,
  sender_nid bigint NOT NULL,
  skey_nid bigint,
  snap_nid bigint,
  event_key uuid NOT NULL,
  event_tail uuid NOT NULL,
  type_nid int NOT NULL,
  flags int NOT NULL,
  notif_all int NOT NULL DEFAULT 0,
  prev bytea NOT NULL,
  CONSTRAINT event_pkey PRIMARY KEY (room_nid, event_nid),
  CONSTRAINT event_key_key UNIQUE (room_nid, event_key)
);
COMMENT ON TABLE event IS 'One narrow row for each event; its JSON is in event_json, or in state_json when it is a state event';
COMMENT ON COLUMN event.room_nid IS 'Room';
COMMENT ON COLUMN event.event_nid IS 'Interned id, from event_nid_seq in blocks; says nothing about order';
COMMENT ON COLUMN event.room_seq IS 'Place in the timeline of the room, without gaps for live events; null: outlier, rejected or soft-failed';
COMMENT ON COLUMN event.pos IS 'Stream position for live timeline events; null for backfilled ones and all without room_seq';
COMMENT ON COLUMN event.depth IS 'depth of the event';
COMMENT ON COLUMN event.origin_ts IS 'origin_server_ts as the sender claims it';
COMMENT ON COLUMN event.recv_ts IS 'When we stored it';
COMMENT ON COLUMN event.sender_nid IS 'Sender';
COMMENT ON COLUMN event.skey_nid IS 'State key; null for message events';
COMMENT ON COLUMN event.snap_nid IS 'State before the event; null where it is not known (outliers, backfill)';
COMMENT ON COLUMN event.event_key IS 'First 16 bytes of the reference hash, which is the event id from room version 3 on';
COMMENT ON COLUMN event.event_tail IS 'Last 16 bytes of the reference hash';
COMMENT ON COLUMN event.type_nid IS 'Event type';
COMMENT ON COLUMN event.flags IS 'Bits: 1 outlier, 2 rejected, 4 soft-failed, 8 redacted, 32 sent by a local user, 128 backfilled, 256 notifies by default rules';
COMMENT ON COLUMN event.notif_all IS 'room_head.notif_all after this event: unread counts are differences of two of these';
COMMENT ON COLUMN event.prev IS 'Known prev_events: varint list of event nids';
CREATE UNIQUE INDEX event_seq_ix ON event (room_nid, room_seq) WHERE room_seq IS NOT NULL;

CREATE SEQUENCE event_nid_seq INCREMENT 1024 START 1024;
COMMENT ON SEQUENCE event_nid_seq IS 'Blocks of 1024 numbers for event_nid and snap_nid; a node takes a block and counts in memory';

CREATE TABLE event_json (
  event_nid bigint PRIMARY KEY,
  body bytea NOT NULL
);
ALTER TABLE event_json ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE event_json IS 'Canonical federation JSON of message events';
COMMENT ON COLUMN event_json.event_nid IS 'Event';
COMMENT ON COLUMN event_json.body IS 'One codec byte (0 plain, 1 zstd), then the JSON';

CREATE TABLE state_json (
  event_nid bigint PRIMARY KEY,
  body bytea NOT NULL
);
ALTER TABLE state_json ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE state_json IS 'Canonical federation JSON of state events, apart so that retention of messages never touches them';
COMMENT ON COLUMN state_json.event_nid IS 'Event';
COMMENT ON COLUMN state_json.body IS 'As event_json.body';

CREATE TABLE auth_edge (
  room_nid bigint NOT NULL,
  event_nid bigint NOT NULL,
  auth bytea NOT NULL,
  CONSTRAINT auth_edge_pkey PRIMARY KEY (room_nid, event_nid)
);
COMMENT ON TABLE auth_edge IS 'The auth graph of a room: state events only, since nothing else can stand in an auth chain';
COMMENT ON COLUMN auth_edge.room_nid IS 'Room';
COMMENT ON COLUMN auth_edge.event_nid IS 'Event';
COMMENT ON COLUMN auth_edge.auth IS 'Its auth_events: varint list of event nids';

CREATE TABLE state_snap (
  room_nid bigint NOT NULL,
  snap_nid bigint NOT NULL,
  parent bigint,
  gen int NOT NULL,
  since_ckpt int NOT NULL,
  delta bytea NOT NULL,
  CONSTRAINT state_snap_pkey PRIMARY KEY (room_nid, snap_nid)
);
COMMENT ON TABLE state_snap IS 'State snapshots as reversible deltas: the state after applying delta to parent';
COMMENT ON COLUMN state_snap.room_nid IS 'Room';
COMMENT ON COLUMN state_snap.snap_nid IS 'Snapshot, numbered from event_nid_seq';
COMMENT ON COLUMN state_snap.parent IS 'Snapshot that the delta applies to; null for a root, which has a checkpoint';
COMMENT ON COLUMN state_snap.gen IS 'Distance from the root';
COMMENT ON COLUMN state_snap.since_ckpt IS 'Deltas to walk until the nearest checkpoint below';
COMMENT ON COLUMN state_snap.delta IS 'Varint triples (skey zigzag, old event or 0, new event or 0)';

CREATE TABLE state_ckpt (
  room_nid bigint NOT NULL,
  snap_nid bigint NOT NULL,
  n int NOT NULL,
  body bytea NOT NULL,
  CONSTRAINT state_ckpt_pkey PRIMARY KEY (room_nid, snap_nid)
);
ALTER TABLE state_ckpt ALTER COLUMN body SET STORAGE EXTERNAL;
COMMENT ON TABLE state_ckpt IS 'Full state of some snapshots, so that any snapshot is one read and a bounded walk away';
COMMENT ON COLUMN state_ckpt.room_nid IS 'Room';
COMMENT ON COLUMN state_ckpt.snap_nid IS 'Snapshot';
COMMENT ON COLUMN state_ckpt.n IS 'Number of entries';
COMMENT ON COLUMN state_ckpt.body IS 'Varint pairs (skey zigzag difference, event zigzag difference) sorted by skey';

CREATE TABLE missing_prev (
  room_nid bigint NOT NULL,
  event_id text COLLATE "C" NOT NULL,
  child_nid bigint NOT NULL,
  CONSTRAINT missing_prev_pkey PRIMARY KEY (room_nid, event_id, child_nid)
);
COMMENT ON TABLE missing_prev IS 'prev_events that we do not have: the backward extremities of a room';
COMMENT ON COLUMN missing_prev.room_nid IS 'Room';
COMMENT ON COLUMN missing_prev.event_id IS 'The event we lack';
COMMENT ON COLUMN missing_prev.child_nid IS 'The event that names it';

CREATE TABLE redaction (
  room_nid bigint NOT NULL,
  target_id text COLLATE "C" NOT NULL,
  redaction_nid bigint NOT NULL,
  applied boolean NOT NULL,
  CONSTRAINT redaction_pkey PRIMARY KEY (room_nid, target_id, redaction_nid)
);
COMMENT ON TABLE redaction IS 'Redactions by target, so that they work whichever of the two events comes first';
COMMENT ON COLUMN redaction.room_nid IS 'Room';
COMMENT ON COLUMN redaction.target_id IS 'Event id to redact';
COMMENT ON COLUMN redaction.redaction_nid IS 'The redacting event';
COMMENT ON COLUMN redaction.applied IS 'Whether the target was found, the redaction allowed, and the target pruned';

CREATE TABLE member (
  room_nid bigint NOT NULL,
  user_nid bigint NOT NULL,
  membership smallint NOT NULL,
  event_nid bigint NOT NULL,
  CONSTRAINT member_pkey PRIMARY KEY (room_nid, user_nid)
);
COMMENT ON TABLE member IS 'Current membership of every user, local and remote';
COMMENT ON COLUMN member.room_nid IS 'Room';
COMMENT ON COLUMN member.user_nid IS 'User';
COMMENT ON COLUMN member.membership IS '1 join, 2 invite, 3 leave, 4 ban, 5 knock';
COMMENT ON COLUMN member.event_nid IS 'The m.room.member event';
CREATE INDEX member_user_ix ON member (user_nid) WHERE membership = 1;

CREATE TABLE room_server (
  room_nid bigint NOT NULL,
  server_nid int NOT NULL,
  joined int NOT NULL,
  since_pos bigint NOT NULL,
  CONSTRAINT room_server_pkey PRIMARY KEY (room_nid, server_nid)
);
COMMENT ON TABLE room_server IS 'How many joined users each server has in a room';
COMMENT ON COLUMN room_server.room_nid IS 'Room';
COMMENT ON COLUMN room_server.server_nid IS 'Server';
COMMENT ON COLUMN room_server.joined IS 'Joined users of that server, zero when it has left';
COMMENT ON COLUMN room_server.since_pos IS 'Position at which joined rose from zero: older events are not owed to it';
CREATE INDEX room_server_server_ix ON room_server (server_nid) WHERE joined > 0;

CREATE TABLE user_room (
  user_nid bigint NOT NULL,
  room_nid bigint NOT NULL,
  membership smallint NOT NULL,
  event_nid bigint,
  sender_nid bigint,
  pos bigint NOT NULL,
  forgotten boolean NOT NULL DEFAULT false,
  stripped bytea,
  read_seq bigint NOT NULL DEFAULT 0,
  read_all int NOT NULL DEFAULT 0,
  CONSTRAINT user_room_pkey PRIMARY KEY (user_nid, room_nid)
) WITH (fillfactor = 80);
COMMENT ON TABLE user_room IS 'Local users only: their rooms, invites and read positions';
COMMENT ON COLUMN user_room.user_nid IS 'Local user';
COMMENT ON COLUMN user_room.room_nid IS 'Room';
COMMENT ON COLUMN user_room.membership IS 'As member.membership; may be an invite or knock of a room whose events we do not have';
COMMENT ON COLUMN user_room.event_nid IS 'The m.room.member event where we hold the room; null for out-of-band invites and knocks';
COMMENT ON COLUMN user_room.sender_nid IS 'Who set the membership';
COMMENT ON COLUMN user_room.pos IS 'Stream position of the change';
COMMENT ON COLUMN user_room.forgotten IS 'The user forgot the room (only after leaving it)';
COMMENT ON COLUMN user_room.stripped IS 'Invites and knocks: JSON array of stripped state, coded as event_json.body';
COMMENT ON COLUMN user_room.read_seq IS 'room_seq up to which the user has read';
COMMENT ON COLUMN user_room.read_all IS 'event.notif_all there';
CREATE INDEX user_room_room_ix ON user_room (room_nid);

CREATE TABLE mention (
  user_nid bigint NOT NULL,
  room_nid bigint NOT NULL,
  room_seq bigint NOT NULL,
  CONSTRAINT mention_pkey PRIMARY KEY (user_nid, room_nid, room_seq)
);
COMMENT ON TABLE mention IS 'Unread highlights of local users; rows go when a receipt passes them';
COMMENT ON COLUMN mention.user_nid IS 'Local user';
COMMENT ON COLUMN mention.room_nid IS 'Room';
COMMENT ON COLUMN mention.room_seq IS 'The event that highlights';

CREATE TABLE room_alias (
  alias text COLLATE "C" CONSTRAINT room_alias_pkey PRIMARY KEY,
  room_nid bigint NOT NULL,
  creator_nid bigint NOT NULL
);
COMMENT ON TABLE room_alias IS 'Local aliases';
COMMENT ON COLUMN room_alias.alias IS 'The alias';
COMMENT ON COLUMN room_alias.room_nid IS 'Room it names';
COMMENT ON COLUMN room_alias.creator_nid IS 'Who made it';
CREATE INDEX room_alias_room_ix ON room_alias (room_nid);

CREATE TABLE client_txn (
  txn_hash uuid CONSTRAINT client_txn_pkey PRIMARY KEY,
  event_nid bigint NOT NULL,
  room_nid bigint NOT NULL,
  ts bigint NOT NULL
);
COMMENT ON TABLE client_txn IS 'Client transactions of the last two days: a repeated request answers with the first event';
COMMENT ON COLUMN client_txn.txn_hash IS 'First 16 bytes of SHA-256 over user, device, path and transaction id';
COMMENT ON COLUMN client_txn.event_nid IS 'The event it made';
COMMENT ON COLUMN client_txn.room_nid IS 'Its room';
COMMENT ON COLUMN client_txn.ts IS 'When';
CREATE INDEX client_txn_ts_ix ON client_txn (ts);

CREATE SEQUENCE stream_pos_seq;
COMMENT ON SEQUENCE stream_pos_seq IS 'Positions of all streams; CACHE must stay 1 and it must never go back (docs/adr/0004)';

CREATE TABLE stream_log (
  pos bigint PRIMARY KEY,
  kind smallint NOT NULL,
  room_nid bigint NOT NULL DEFAULT 0,
  user_nid bigint NOT NULL DEFAULT 0,
  ref bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE stream_log IS 'What changed, in order: sync, federation and other nodes follow it. Kept two days';
COMMENT ON COLUMN stream_log.pos IS 'Position, drawn in the transaction that inserts the row';
COMMENT ON COLUMN stream_log.kind IS '1 event, 2 receipt, 3 account data, 4 to-device, 5 device list, 6 profile, 8 key counts, 10 cache invalidation, 11 out-of-band membership';
COMMENT ON COLUMN stream_log.room_nid IS 'Room, or 0';
COMMENT ON COLUMN stream_log.user_nid IS 'User concerned (for events: the target of a membership event, else the sender), or 0';
COMMENT ON COLUMN stream_log.ref IS 'What: event_nid for events, else by kind, or 0';

CREATE TABLE stream_epoch (
  epoch int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  started text NOT NULL CONSTRAINT stream_epoch_started_key UNIQUE,
  lo bigint NOT NULL,
  hi bigint NOT NULL
);
COMMENT ON TABLE stream_epoch IS 'One row for each start of PostgreSQL that we met: positions jump then, so that none is ever given twice';
COMMENT ON COLUMN stream_epoch.epoch IS 'Number';
COMMENT ON COLUMN stream_epoch.started IS 'System identifier, timeline and start time of the database server';
COMMENT ON COLUMN stream_epoch.lo IS 'Last position before the jump';
COMMENT ON COLUMN stream_epoch.hi IS 'First position after the jump is above this';
