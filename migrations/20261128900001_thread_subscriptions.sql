-- Which threads users want to be told of (MSC4306).

CREATE TABLE thread_sub (
  user_nid bigint NOT NULL,
  room_nid bigint NOT NULL,
  root_key uuid NOT NULL,
  root_id text COLLATE "C" NOT NULL,
  subscribed boolean NOT NULL,
  automatic boolean NOT NULL,
  ended_seq bigint,
  pos bigint NOT NULL,
  CONSTRAINT thread_sub_pkey PRIMARY KEY (user_nid, room_nid, root_key)
);
COMMENT ON TABLE thread_sub IS 'Subscriptions to threads, and what has become of them';
COMMENT ON COLUMN thread_sub.user_nid IS 'Local user';
COMMENT ON COLUMN thread_sub.room_nid IS 'Room';
COMMENT ON COLUMN thread_sub.root_key IS 'event_key of the root of the thread';
COMMENT ON COLUMN thread_sub.root_id IS 'Event id of the root';
COMMENT ON COLUMN thread_sub.subscribed IS 'Whether the user is subscribed';
COMMENT ON COLUMN thread_sub.automatic IS 'A client made the subscription by itself';
COMMENT ON COLUMN thread_sub.ended_seq IS 'room_head.head_seq when the user ended the subscription: what was there then is no reason to subscribe again by itself';
COMMENT ON COLUMN thread_sub.pos IS 'Stream position of the last change';
CREATE INDEX thread_sub_pos_ix ON thread_sub (user_nid, pos);
CREATE INDEX thread_sub_root_ix ON thread_sub (room_nid, root_key);

COMMENT ON COLUMN stream_log.kind IS '1 event, 2 receipt, 3 account data, 4 to-device, 5 device list, 6 profile, 7 push rules, 8 key counts, 9 signatures, 10 cache invalidation, 11 out-of-band membership, 12 partial room whole, 13 thread subscription, 21 server rule, 22 presence, 23 peer alive';
