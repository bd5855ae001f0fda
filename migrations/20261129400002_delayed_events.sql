-- Delayed events (MSC4140): what users want sent later, unless they say otherwise before.

CREATE TABLE delayed_event (
  delay_no bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT delayed_event_pkey PRIMARY KEY,
  delay_id text COLLATE "C" NOT NULL CONSTRAINT delayed_event_id_key UNIQUE,
  user_nid bigint NOT NULL REFERENCES mx_user,
  room_nid bigint NOT NULL,
  txn uuid CONSTRAINT delayed_event_txn_key UNIQUE,
  kind text NOT NULL,
  state_key text,
  content text NOT NULL,
  claimed_ts bigint,
  sticky_ms bigint,
  seen_event text,
  delay_ms bigint NOT NULL,
  running_ts bigint NOT NULL,
  due_ts bigint,
  sending boolean NOT NULL DEFAULT false,
  finalised_ts bigint,
  event_id text,
  error text
);
COMMENT ON TABLE delayed_event IS 'Delayed events (MSC4140); those that are sent or cancelled stay for a day';
COMMENT ON COLUMN delayed_event.delay_no IS 'Order in which they were scheduled';
COMMENT ON COLUMN delayed_event.delay_id IS 'Random id: who knows it may send, cancel and restart it';
COMMENT ON COLUMN delayed_event.user_nid IS 'Who sends it';
COMMENT ON COLUMN delayed_event.room_nid IS 'Room';
COMMENT ON COLUMN delayed_event.txn IS 'Client transaction: a repeated request gets the same id';
COMMENT ON COLUMN delayed_event.kind IS 'Type of the event';
COMMENT ON COLUMN delayed_event.state_key IS 'State key; null: no state';
COMMENT ON COLUMN delayed_event.content IS 'Content, JSON';
COMMENT ON COLUMN delayed_event.claimed_ts IS 'Time that an application service says the event is of';
COMMENT ON COLUMN delayed_event.sticky_ms IS 'For how long it is sticky (MSC4354)';
COMMENT ON COLUMN delayed_event.seen_event IS 'State event that stood in its place when it was scheduled: if it is another one of somebody else when its time comes, it is not sent';
COMMENT ON COLUMN delayed_event.delay_ms IS 'How long it waits';
COMMENT ON COLUMN delayed_event.running_ts IS 'When it was scheduled or restarted';
COMMENT ON COLUMN delayed_event.due_ts IS 'When it is sent; while a node sends it: when another node may try; null: finalised';
COMMENT ON COLUMN delayed_event.sending IS 'A node has begun to send it, and it cannot be cancelled any more';
COMMENT ON COLUMN delayed_event.finalised_ts IS 'When it was sent or cancelled';
COMMENT ON COLUMN delayed_event.event_id IS 'Event, if it was sent';
COMMENT ON COLUMN delayed_event.error IS 'Why it could not be sent';
CREATE INDEX delayed_event_due_ix ON delayed_event (due_ts) WHERE due_ts IS NOT NULL;
CREATE INDEX delayed_event_user_ix ON delayed_event (user_nid, delay_no);
CREATE INDEX delayed_event_room_ix ON delayed_event (room_nid);
CREATE INDEX delayed_event_finalised_ix ON delayed_event (finalised_ts) WHERE finalised_ts IS NOT NULL;
